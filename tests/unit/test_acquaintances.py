"""Members that are no neighbours: pinged one after the other, under a virtual clock."""

from collections import Counter

import numpy as np
import pytest
import trio

from algorithms.protocol import PeerDown, PeerUp, Reason
from node.members import Members
from node.wire.memory import Faults, MemoryNetwork, Weather
from node.wire.transport import Undelivered

PERIOD_MAX_S = 1.2
"""Longest time between two acquaintances."""


class Lines:
    """Pings of those in ``reasons`` end so, at once; all others are answered."""

    def __init__(self):
        self.reasons, self.pings = {}, []

    async def ping(self, to, wait_s):
        self.pings.append((trio.current_time(), to))
        await trio.lowlevel.checkpoint()
        if to in self.reasons:
            raise Undelivered(self.reasons[to])

    def times(self, name, since=0.0):
        return [time for time, to in self.pings if to == name and time >= since]


@pytest.fixture
async def lines():
    return Lines()


@pytest.fixture
async def members(lines, nursery):
    members = Members(lines, ["n0"], np.random.default_rng(0))
    members.changes, members.times = [], []

    def report(news):
        members.changes.append(news)
        members.times.append(trio.current_time())

    members.report = report
    nursery.start_soon(members.run)
    await members.wait_for_all()
    members.changes.clear()
    members.times.clear()
    return members


def meet(members, count):
    names = [f"m{i}" for i in range(count)]
    for name in names:
        members.meet(name)
    return names


@pytest.mark.trio
@pytest.mark.parametrize("count", [10, 1000])
async def test_one_a_second_is_pinged_however_many_there_are(autojump_clock, lines, members, count):
    names = meet(members, count)
    assert set(members.states().values()) == {"alive"}
    await trio.sleep(1000)
    times = [time for time, to in lines.pings if to in names]
    assert 950 <= len(times) <= 1050
    assert np.std(np.diff(times)) > 0.05, "pings of many peers must not fall into step"
    assert members.changes == []
    assert sum(to == "n0" for _, to in lines.pings) > 900, "neighbours are watched as closely as ever"


@pytest.mark.trio
async def test_none_waits_for_more_than_two_passes_and_each_pass_has_its_own_order(autojump_clock, lines, members):
    names = meet(members, 20)
    await trio.sleep(2000)
    order = [to for _, to in lines.pings if to in names]
    passes = [order[start : start + 20] for start in range(0, len(order) - 19, 20)]
    assert len(passes) > 90
    assert all(sorted(each) == sorted(names) for each in passes)
    assert len({tuple(each) for each in passes}) == len(passes)
    first = Counter(each[0] for each in passes)
    assert len(first) > 15, "each is first in about one of 20 passes"


@pytest.mark.trio
@pytest.mark.parametrize("reason", [Reason.UNREACHABLE, Reason.TIMEOUT])
async def test_one_that_dies_is_gone_within_two_passes_and_back_within_two(autojump_clock, lines, members, reason):
    names = meet(members, 20)
    bound_s = (2 * len(names) - 1) * PERIOD_MAX_S
    await trio.sleep(50)
    for name in names[:4]:
        lines.reasons[name], died_s = reason, trio.current_time()
        while members.states()[name] == "alive":
            await trio.sleep(0.01)
        suspect_s = trio.current_time()
        assert suspect_s - died_s <= bound_s
        await trio.sleep(2.5)
        assert members.states()[name] == "gone"
        assert members.changes == [PeerDown(name)]
        own = [time for time in lines.times(name, suspect_s) if time < members.times[0]]
        assert len(own) >= 9, "a suspect is watched on its own"
        await trio.sleep(2 * bound_s)
        assert members.gone() == [name]
        del lines.reasons[name]
        await trio.sleep(bound_s)
        assert members.changes == [PeerDown(name), PeerUp(name)]
        members.changes.clear()
        members.times.clear()


@pytest.mark.trio
async def test_one_that_is_gone_costs_one_ping_a_pass(autojump_clock, lines, members):
    meet(members, 10)
    lines.reasons = {f"m{i}": Reason.UNREACHABLE for i in range(10)}
    await trio.sleep(30)
    assert len(members.gone()) == 10
    before = len([to for _, to in lines.pings if to != "n0"])
    await trio.sleep(1000)
    assert 950 <= len([to for _, to in lines.pings if to != "n0"]) - before <= 1050
    assert len(members.changes) == 10


@pytest.mark.trio
async def test_a_failed_send_brings_a_visit_forward(autojump_clock, lines, members):
    meet(members, 1000)
    await trio.sleep(5)
    begun_s = trio.current_time()
    members.undelivered("m7", Reason.TIMEOUT)
    await trio.sleep(0.01)
    assert len(lines.times("m7", begun_s)) == 1
    while trio.current_time() < begun_s + 10:
        members.undelivered("m7", Reason.UNREACHABLE)
        await trio.sleep(0.01)
    assert 30 <= len(lines.times("m7", begun_s)) <= 42, "at most four a second, however many sends fail"
    assert members.changes == []
    lines.reasons["m7"] = Reason.UNREACHABLE
    members.undelivered("m7", Reason.UNREACHABLE)
    await trio.sleep(1.5)
    assert members.changes == [PeerDown("m7")]


@pytest.mark.trio
async def test_one_that_is_met_again_is_pinged_at_once_if_it_was_gone(autojump_clock, lines, members):
    meet(members, 1000)
    lines.reasons["m7"] = Reason.WRONG_RUN
    members.undelivered("m7", Reason.TIMEOUT)
    await trio.sleep(1)
    assert members.changes == [PeerDown("m7")]
    del lines.reasons["m7"]
    members.meet("m7")
    await trio.sleep(0.01)
    assert members.changes == [PeerDown("m7"), PeerUp("m7")]
    before = len(lines.pings)
    members.meet("m7")
    members.meet("n0")
    await trio.sleep(0.01)
    assert len(lines.pings) == before
    assert len(members.states()) == 1001


@pytest.mark.trio
@pytest.mark.parametrize("state", ["alive", "suspect", "gone"])
async def test_one_that_has_left_is_neither_pinged_nor_spoken_of(autojump_clock, lines, members, state):
    meet(members, 5)
    if state != "alive":
        lines.reasons["m3"] = Reason.UNREACHABLE
        members.undelivered("m3", Reason.UNREACHABLE)
        await trio.sleep(0.55 if state == "suspect" else 2)
    assert members.states()["m3"] == state
    changes = list(members.changes)
    members.part("m3")
    members.part("m3")
    members.part("somebody")
    await trio.sleep(0.25)
    left_s = trio.current_time()
    lines.reasons.clear()
    members.heard("m3")
    members.undelivered("m3", Reason.UNREACHABLE)
    await trio.sleep(60)
    assert lines.times("m3", left_s) == []
    assert "m3" not in members.states()
    assert members.changes == changes
    members.meet("m3")
    await trio.sleep(12)
    assert lines.times("m3", left_s) != []


@pytest.mark.trio
async def test_a_neighbour_is_watched_though_it_has_left(autojump_clock, lines, members):
    members.part("n0")
    await trio.sleep(10)
    assert members.states() == {"n0": "alive"}
    assert len(lines.times("n0", 1.0)) > 7


@pytest.mark.trio
async def test_only_neighbours_are_waited_for(autojump_clock, lines):
    alone = Members(lines, [], np.random.default_rng(0))
    with trio.fail_after(1):
        await alone.wait_for_all()
    both = Members(lines, ["n0"], np.random.default_rng(0))
    both.meet("m0")
    lines.reasons["n0"] = Reason.UNREACHABLE
    async with trio.open_nursery() as nursery:
        nursery.start_soon(both.run)
        with trio.move_on_after(60) as waiting:
            await both.wait_for_all()
        assert waiting.cancelled_caught
        lines.reasons = {"m0": Reason.UNREACHABLE}
        both.undelivered("m0", Reason.UNREACHABLE)
        with trio.fail_after(10):
            await both.wait_for_all()
        nursery.cancel_scope.cancel()
    both.undelivered("m0", Reason.UNREACHABLE)
    assert both.states() == {"n0": "alive", "m0": "gone"}


@pytest.mark.trio
async def test_with_three_pings_in_ten_lost_nobody_is_accused(autojump_clock):
    """Of 20 peers, each with two neighbours and 17 acquaintances; then one dies, and all the others notice."""
    loss = 1 - np.sqrt(0.7)  # either way
    network = MemoryNetwork(Weather(Faults(loss=loss, delay=0.02, deadline=5.0), np.random.default_rng(5)))
    names, changes = [f"n{i}" for i in range(20)], []
    peers = {}
    async with trio.open_nursery() as nursery:
        for i, name in enumerate(names):
            line = await nursery.start(join, network, name)
            neighbours = [names[i - 1], names[(i + 1) % 20]]
            peers[name] = Members(line, neighbours, np.random.default_rng(i))
            for other in names:
                if other != name:
                    peers[name].meet(other)
            nursery.start_soon(peers[name].run)
        await trio.sleep(30)
        assert all(not members.gone() for members in peers.values())
        for name, members in peers.items():
            members.report = lambda news, name=name: changes.append((name, news))
        await trio.sleep(200)
        assert changes == []
        del network._inboxes["n7"]
        await trio.sleep((2 * 17 - 1) * PERIOD_MAX_S + 20)
        del peers["n7"]
        assert {name for name, news in changes if news == PeerDown("n7")} == set(peers)
        assert all(members.gone() == ["n7"] for members in peers.values())
        nursery.cancel_scope.cancel()


async def join(network, name, *, task_status):
    async with network.join(name) as transport:
        task_status.started(transport)
        await trio.sleep_forever()
