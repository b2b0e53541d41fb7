"""What a daemon says of its peer, in its status and in the lines of the record."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch
import trio

from algorithms.final_merge import FinalMerge
from algorithms.protocol import Edge
from node.account import Account, waiting_status
from node.clock import Clock
from node.config import RunConfig
from node.figures import Figures
from node.peer import Manner
from node.testbed.record import write_line
from node.training import Worker

UNIT_S = 0.25
COUNTERS = {"exchanges": 7, "exchanges/n1": 12, "exchanges/n2": 3, "missed_gradients": 2, "exchange_units_p99": 0.04}


class Frozen:
    """An algorithm whose model and counters are what they are."""

    def __init__(self, model, counters):
        self._model, self._counters = model, counters

    def model(self, now):
        return self._model

    def counters(self):
        return self._counters


async def at_once(fn, *args):
    return fn(*args)


def make_account(
    model,
    optimum=None,
    test=None,
    counters=COUNTERS,
    units=40.0,
    seconds=None,
    score=(math.nan, math.nan),
    figures=None,
    manner=Manner(),
):
    parts = SimpleNamespace(
        orders=SimpleNamespace(name="n0"),
        config=RunConfig(),
        run="run-1",
        place=SimpleNamespace(neighbours={"n1": Edge(0.5, 0.1, True), "n2": Edge(0.1, 0.1, False)}),
        optimum=optimum,
        test=test,
        trainer=SimpleNamespace(evaluate=lambda vector, shard: score),
        identity=None,
        guard=SimpleNamespace(waiting=0),
    )
    clock = Clock(UNIT_S)
    clock.begin_at(units, units * UNIT_S if seconds is None else seconds)
    training = SimpleNamespace(behind_units=1.5)
    peer = SimpleNamespace(
        algorithm=Frozen(model, counters),
        figures=figures or Figures(),
        clock=clock,
        training=training,
        worker=Worker(at_once),
        manner=manner,
    )
    members = SimpleNamespace(states=lambda: {"n1": "alive", "n2": "gone"})
    return Account(parts, peer, members), parts, members


def spoken(line, folder):
    """A line as it stands in the record, which must be strict JSON."""
    write_line(folder, "n0", line)

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return json.loads((folder / "peers" / "n0.jsonl").read_text(), parse_constant=refuse)


@pytest.mark.trio
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
async def test_the_distance_is_that_from_the_optimum(tmp_path, dtype):
    optimum = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    account, *_ = make_account(torch.tensor([4.0, 6.0, 3.0], dtype=dtype), optimum)
    await account.examine()
    assert spoken(account.line(), tmp_path)["distance"] == 5.0
    assert account.status("learning").distance == 5.0


@pytest.mark.trio
async def test_what_does_not_exist_is_null_or_not_there(tmp_path):
    account, *_ = make_account(torch.zeros(2), test="shard", counters={}, score=(0.5, math.nan))
    await account.examine()
    line = spoken(account.line(), tmp_path)
    assert (line["test_loss"], line["accuracy"], line["exchange_p99_units"]) == (0.5, None, None)
    assert not {"distance", "missed_gradients"} & line.keys()


class Ended(FinalMerge):
    """What has learnt until unit 30, and merges since."""

    def __init__(self, inner):
        self.inner, self._frozen, self._merges, self.learnt_until = inner, inner.model(0), True, 30.0
        self.merged = None

    def counters(self):
        return self.inner.counters()


def test_while_models_are_merged_the_time_of_learning_stands_still():
    account, *_ = make_account(torch.zeros(2))
    assert not account.merging
    before = account.line()
    account._peer.algorithm = Ended(account._peer.algorithm)
    assert account.merging
    line = account.line()
    assert (line["units"], line["seconds"]) == (30.0, 30.0 * UNIT_S)
    assert line["rate_achieved"] == {name: pytest.approx(r * 40 / 30) for name, r in before["rate_achieved"].items()}
    assert account.status("merging").units == 40.0, "the clock goes on"


@pytest.mark.trio
async def test_rates_are_per_unit_in_lines_and_per_second_in_the_status(tmp_path):
    account, *_ = make_account(torch.zeros(2))
    line = spoken(account.line(), tmp_path)
    assert (line["unit_s"], line["units"], line["seconds"]) == (UNIT_S, 40.0, 10.0)
    assert line["exchanges_with"] == {"n1": 12, "n2": 3}
    assert line["rate_asked"] == {"n1": 0.5, "n2": 0.1}
    assert line["rate_achieved"] == pytest.approx({"n1": 12 / 40, "n2": 3 / 40})
    assert (line["exchange_p99_units"], line["missed_gradients"], line["exchanges"]) == (0.04, 2, 7)
    one = account.status("learning").peers["n1"]
    assert (one.rate_asked_hz, one.rate_achieved_hz, one.exchanges) == pytest.approx((2.0, 1.2, 12))


@pytest.mark.trio
async def test_where_edges_have_no_clocks_there_are_rounds_and_no_rates(tmp_path):
    account, *_ = make_account(torch.zeros(2), counters={"exchanges": 9, "rounds": 5, "missed_models": 1})
    line, status = spoken(account.line(), tmp_path), account.status("learning")
    assert (line["rounds"], line["missed_models"], status.round, status.exchanges) == (5, 1, 5, 9)
    assert not {"rate_asked", "rate_achieved", "exchanges_with"} & line.keys()
    assert {one.exchanges for one in status.peers.values()} == {None}
    pulse = account.pulse()
    assert (pulse.rates, pulse.counts) == ({}, {}), "nothing that a peer could be told it doesn't keep up with"


def test_neighbours_models_are_as_far_away_as_they_were_in_the_latest_exchange(tmp_path):
    account, *_ = make_account(torch.zeros(2), counters={**COUNTERS, "distance/n2": 2.5})
    assert spoken(account.line(), tmp_path)["distance_to"] == {"n2": 2.5}
    peers = account.status("learning").peers
    assert peers["n2"].distance == 2.5
    assert math.isnan(peers["n1"].distance)
    assert (peers["n2"].exchanges, peers["n2"].rate_asked_hz) == (3, pytest.approx(0.4))


@pytest.mark.parametrize(
    ("manner", "left"),
    [
        (Manner(), math.inf),
        (Manner(duration_s=25.0), 15.0),
        (Manner(duration_s=25.0, steps=50), 10 * UNIT_S),
        (Manner(duration_s=9.0), 0.0),
    ],
)
def test_as_much_time_is_left_as_the_duration_or_the_steps_leave(manner, left):
    account, *_ = make_account(torch.zeros(2), figures=Figures(gradients=40), manner=manner)
    assert account.status("learning").seconds_left == left


def test_what_was_sent_of_vectors_and_of_views_stands_apart(tmp_path):
    figures = Figures(messages_sent=3, bytes_sent=400, view_bytes_sent=17)
    line = spoken(make_account(torch.zeros(2), figures=figures)[0].line(), tmp_path)
    assert (line["messages_sent"], line["bytes_sent"], line["view_bytes_sent"]) == (3, 400, 17)


@pytest.mark.trio
async def test_seconds_are_those_that_have_passed_though_units_were_once_longer():
    account, *_ = make_account(torch.zeros(2), units=40.0, seconds=25.0)
    status, line = account.status("learning"), account.line()
    assert (status.units, status.seconds, line["units"], line["seconds"]) == (40.0, 25.0, 40.0, 25.0)
    assert status.peers["n1"].rate_achieved_hz == pytest.approx(12 / 25)
    assert line["rate_achieved"]["n1"] == pytest.approx(12 / 40)


@pytest.mark.trio
async def test_only_neighbours_that_are_there_are_judged():
    account, *_ = make_account(torch.zeros(2))
    await trio.lowlevel.checkpoint()
    pulse = account.pulse()
    assert pulse.rates == {"n1": 0.5}
    assert (pulse.behind_units, pulse.exchange_units, pulse.units) == (1.5, 0.04, 40.0)


@pytest.mark.parametrize("phase", ["waiting", "draining"])
def test_a_daemon_without_a_unit_says_who_is_there_and_what_waits(phase):
    _, parts, members = make_account(torch.zeros(2))
    parts.identity, parts.guard.waiting = SimpleNamespace(expiry_s=2e9), 3
    status = waiting_status(parts, members, phase)
    assert (status.phase, status.ready) == (phase, True)
    assert {name: peer.state for name, peer in status.peers.items()} == {"n1": "alive", "n2": "gone"}
    assert (status.certificate_expiry_timestamp_seconds, status.inbox_depth) == (2e9, 3)
    assert math.isnan(status.unit_seconds)
