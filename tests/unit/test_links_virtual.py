"""Links of a plan in virtual time: when messages arrive, to the digit."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trio
import trio.testing
from typer.testing import CliRunner

from algorithms.gossip import Gossip
from algorithms.protocol import Arrival, Message, Reason, Send
from node.cli import app
from node.testbed.simulate import natures
from node.testbed.simulated import Physics
from node.wire.memory import WAIT_MIN, Faults, MemoryNetwork, Nature, Partition, Weather
from topology.plan import save_plan
from topology.planning import build_plan

PAIR = frozenset(("a", "b"))


def weather(nature: Nature, **faults: object) -> Weather:
    return Weather(Faults(links={PAIR: nature}, **faults), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("nature", "size", "arrives"),
    [
        (Nature(0.5, 1000.0), 3000, 3.5),
        (Nature(0.5), 3000, 0.5),
        (Nature(None, 1000.0), 3000, 3.0),
        (Nature(0.0, 1e9), 0, 0.0),
    ],
)
def test_a_message_arrives_after_the_delay_and_its_transmission(nature, size, arrives) -> None:
    for sender, to in (("a", "b"), ("b", "a")):
        passage = weather(nature).passage(sender, to, size, 7.0)
        assert passage.arrivals == [pytest.approx(arrives)]
        assert passage.reason is None
        assert passage.heard_after == pytest.approx(arrives + (nature.delay or 0.0))


def test_messages_of_one_direction_wait_for_each_other() -> None:
    sky = weather(Nature(0.5, 1000.0))
    assert [sky.passage("a", "b", 2000, 0.0).arrivals[0] for _ in range(3)] == pytest.approx([2.5, 4.5, 6.5])
    assert sky.passage("b", "a", 2000, 0.0).arrivals[0] == pytest.approx(2.5)
    assert sky.passage("a", "b", 0, 1.0).arrivals[0] == pytest.approx(0.5)  # a ping fits in between
    assert sky.passage("a", "b", 1000, 5.0).arrivals[0] == pytest.approx(1.0 + 1.0 + 0.5)
    assert sky.passage("a", "b", 1000, 50.0).arrivals[0] == pytest.approx(1.5)


def test_who_waits_for_its_turn_is_not_given_up() -> None:
    sky = weather(Nature(0.5, 1000.0))
    passages = [sky.passage("a", "b", 10_000, 0.0) for _ in range(4)]
    assert [passage.reason for passage in passages] == [None] * 4
    assert passages[3].deadline == pytest.approx(40.0 + 4 * 0.5 + WAIT_MIN)


def test_what_a_plan_does_not_say_is_as_everywhere() -> None:
    sky = weather(Nature(bandwidth=1000.0), delay=2.0)
    assert 2.0 <= sky.passage("a", "b", 1000, 0.0).arrivals[0] <= 4.0
    sky = weather(Nature(delay=0.25), bandwidth=10.0)
    assert [sky.passage("a", "b", 100, 0.0).arrivals[0] for _ in range(2)] == pytest.approx([10.25, 10.25])
    assert weather(Nature(0.0), delay=2.0).passage("a", "b", 1, 0.0).arrivals == [0.0]
    assert 1.0 <= weather(Nature(0.0), delay=2.0).passage("a", "c", 1, 0.0).arrivals[0] <= 3.0


def test_other_links_draw_what_they_drew_before() -> None:
    rough = {"loss": 0.2, "duplicate": 0.3, "delay": 1.0, "reorder": 0.3, "bandwidth": 100.0}
    plain = Weather(Faults(**rough), np.random.default_rng(0))
    sky = weather(Nature(3.0, 5.0), **rough)
    assert [sky.passage("a", "c", 10, t) for t in range(50)] == [plain.passage("a", "c", 10, t) for t in range(50)]


def test_a_cut_link_transmits_nothing() -> None:
    sky = weather(Nature(0.5, 1000.0), partitions=(Partition(0.0, 10.0, frozenset("a")),))
    assert sky.passage("a", "b", 5000, 9.0).reason is Reason.UNREACHABLE
    assert sky.passage("a", "b", 1000, 10.0).arrivals == [pytest.approx(1.5)]


def test_a_network_in_memory_keeps_to_it() -> None:
    async def test() -> None:
        network = MemoryNetwork(weather(Nature(0.5, 1000.0)))
        message = Message("offer", 1, {"model": torch.zeros(250)})
        async with network.join("a") as a, network.join("b") as b, trio.open_nursery() as nursery:
            nursery.start_soon(a.send, "b", message)
            assert (await b.receive().__anext__())[0] == "a"
            assert trio.current_time() == pytest.approx(1.5)

    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))


def test_exchanges_in_the_simulator_take_as_long_as_links_say(make_world) -> None:
    seen: list[tuple[float, str, object]] = []

    class Watched(Gossip):
        def step(self, event, now):
            if isinstance(event, Arrival):
                seen.append((now, "arrival", event.message.kind))
            effects = list(super().step(event, now))
            seen.extend((now, "send", each.message.kind) for each in effects if isinstance(each, Send))
            return effects

    nature = {frozenset(("n0", "n1")): Nature(0.25, 80.0)}  # five numbers of 8 bytes take half a unit
    world = make_world([("n0", "n1")], algorithm=Watched, physics=Physics(Faults(links=nature)))
    world.start()
    world.run(30.0)
    for kind in {kind for _, _, kind in seen}:
        sent = [now for now, what, of in seen if (what, of) == ("send", kind)]
        arrived = [now for now, what, of in seen if (what, of) == ("arrival", kind)]
        assert len(arrived) > 3
        assert arrived == pytest.approx([now + 0.75 for now in sent[: len(arrived)]])


def test_plans_are_in_seconds_and_the_world_in_units() -> None:
    ring = build_plan("ring", 3)
    first, second, third = ring.edges
    edges = (replace(first, delay=0.1, bandwidth=1e6), replace(second, delay=0.0), third)
    assert natures(replace(ring, edges=edges), 0.05) == {
        frozenset((first.a, first.b)): Nature(pytest.approx(2.0), pytest.approx(5e4)),
        frozenset((second.a, second.b)): Nature(0.0, None),
    }


def test_a_plan_with_slow_links_is_simulated_so(tmp_path) -> None:
    line = build_plan("line", 2)
    slow = replace(line, edges=tuple(replace(edge, delay=0.5, bandwidth=1e5) for edge in line.edges))
    summaries = {}
    for name, plan in (("calm", line), ("slow", slow), ("again", slow)):
        save_plan(plan, tmp_path / f"{name}.json")
        where = ["--plan", str(tmp_path / f"{name}.json"), "--out", str(tmp_path / name), "--json"]
        result = CliRunner().invoke(app, ["simulate", *where, "--duration", "20s", "--set", "hidden=4"])
        assert result.exit_code == 0, result.output
        summaries[name] = json.loads(result.stdout)
    assert summaries["slow"]["exchanges"] < summaries["calm"]["exchanges"]
    assert 0 < summaries["slow"]["exchanges"] <= 20.0 / 1.0 + 1
    assert summaries["slow"]["digest"] == summaries["again"]["digest"] != summaries["calm"]["digest"]
    assert math.isclose(summaries["slow"]["ledger_error"], 0.0, abs_tol=1e-5)
