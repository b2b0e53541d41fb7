"""The last mean of a run of MoDeST, which two aggregators may have made of different models."""

from __future__ import annotations

import math
from dataclasses import replace
from hashlib import md5

import pytest
import torch

from algorithms.modest import Modest
from algorithms.protocol import Arrival, Cancel, Done, Message, Send, Start, Tick, Timer
from node.draws import Draws

NAMES = ["a", "b", "c"]
FIRST, SECOND, THIRD = sorted(NAMES, key=lambda name: md5(f"{name}-2".encode()).digest())


@pytest.fixture
def make(make_world):
    """A peer of a run of one round."""
    make_world.size = 1

    def build(name: str) -> Modest:
        place = make_world.place(name, [("a", "b"), ("b", "c")], Draws(0, name))
        return Modest(replace(place, options={**Modest.options, "samples": 3}, rounds=1))

    return build


@pytest.fixture
def aggregate(make):
    """An aggregator of the round that has just made its mean, 1.0, of one model; and what it did then."""

    def build(name: str) -> tuple[Modest, list]:
        peer = make(name)
        peer.step(Start(), 0.0)
        return peer, hear(peer, THIRD, "trained", 1.0)

    return build


def hear(peer: Modest, sender: str, kind: str, value: float) -> list:
    message = Message(kind, 2, {"x": torch.tensor([value], dtype=torch.float64)}, {"expected": 1})
    return list(peer.step(Arrival(sender, message), 0.0))


def sent(effects: list) -> dict[str, float]:
    return {e.to: e.message.vectors["x"].item() for e in effects if isinstance(e, Send) and e.message.vectors}


def end(peer: Modest) -> float:
    (effect,) = peer.step(Tick("linger"), 0.0)
    assert isinstance(effect, Done)
    return effect.vector.item()


def test_the_first_aggregator_sends_its_mean_to_all_and_keeps_it(aggregate):
    peer, effects = aggregate(FIRST)
    assert sent(effects) == {SECOND: 1.0, THIRD: 1.0}
    hear(peer, SECOND, "aggregated", 5.0)
    assert end(peer) == 1.0


def test_the_second_takes_that_of_the_first_instead_of_its_own(aggregate):
    peer, effects = aggregate(SECOND)
    assert sent(effects) == {}
    (wait,) = (effect for effect in effects if isinstance(effect, Timer) and effect.name == "spread")
    assert wait.delay > 0
    effects = hear(peer, FIRST, "aggregated", 5.0)
    assert Cancel("spread") in effects
    assert sent(effects) == {}
    assert end(peer) == 5.0


def test_the_second_sends_its_own_when_the_first_is_silent(aggregate):
    peer, _ = aggregate(SECOND)
    assert sent(list(peer.step(Tick("spread"), 0.0))) == {FIRST: 1.0, THIRD: 1.0}
    assert end(peer) == 1.0


def test_who_comes_back_after_the_last_round_looks_for_no_other(make, aggregate):
    peer, _ = aggregate(FIRST)
    again = make(FIRST)
    again.restore(peer.snapshot())
    effects = list(again.step(Start(recovered=True), 0.0))
    assert [effect.name for effect in effects if isinstance(effect, Timer)][-1] == "linger"
    assert Cancel("look") in effects
    assert end(again) == 1.0


@pytest.mark.parametrize(("rounds", "ends"), [(100, True), (math.inf, False)])
def test_whom_nobody_answers_ends_a_run_of_rounds_and_never_trains_it_alone(make_world, rounds, ends):
    place = make_world.place("n0", [("n0", name) for name in ("n1", "n2", "n3")], Draws(0, "n0"))
    peer = Modest(replace(place, rounds=rounds, options={"samples": 2}))
    effects = list(peer.step(Start(recovered=True), 0.0))
    for look in range(30):
        effects += peer.step(Tick("look"), 100.0 * look)
    assert any(isinstance(effect, Done) for effect in effects) is ends
    assert (peer.counters()["revivals"] == 0) is ends
