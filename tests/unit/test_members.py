"""Neighbours: alive or gone, under a virtual clock."""

import logging

import numpy as np
import pytest
import trio

from algorithms.protocol import PeerDown, PeerUp, Reason
from node.members import Members
from node.wire.transport import Undelivered


class Line:
    """Pings end as ``reason`` says now; their times are kept."""

    def __init__(self, reason=None):
        self.reason, self.pings = reason, []

    async def ping(self, to, wait_s=None):
        self.pings.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.reason:
            raise Undelivered(self.reason)


@pytest.fixture
async def line():
    return Line()


@pytest.fixture
async def members(line, nursery):
    members = Members(line, ["n1"], np.random.default_rng(0))
    members.changes = []
    members.report = members.changes.append
    nursery.start_soon(members.run)
    return members


def gaps(line, since):
    times = [time for time in line.pings if time >= since]
    return np.diff(times)


@pytest.mark.trio
async def test_one_that_answers_is_alive_and_pinged_about_every_second(autojump_clock, line, members):
    assert members.states() == {"n1": "gone"}
    await members.wait_for_all()
    await trio.sleep(100)
    assert members.states() == {"n1": "alive"}
    assert members.changes == [PeerUp("n1")]
    assert 80 <= len(line.pings) <= 125
    assert np.std(gaps(line, 1)) > 0.05, "pings of many peers must not fall into step"


@pytest.mark.trio
async def test_one_that_was_just_heard_is_not_pinged(autojump_clock, line, members):
    await members.wait_for_all()
    before = len(line.pings)
    for _ in range(100):
        await trio.sleep(0.1)
        members.heard("n1")
    assert len(line.pings) == before


@pytest.mark.trio
async def test_one_that_is_gone_is_pinged_ever_more_rarely(autojump_clock, line, members):
    line.reason = Reason.UNREACHABLE
    await trio.sleep(100)
    found = gaps(line, 0)
    assert found[0] < 0.6
    assert 4 * 0.8 <= found[-5:].min() <= found[-5:].max() <= 5 * 1.2 + 0.3
    assert members.changes == []


@pytest.mark.trio
@pytest.mark.parametrize(
    ("reason", "most_s"), [(Reason.UNREACHABLE, 2.4), (Reason.TIMEOUT, 3.6), (Reason.WRONG_RUN, 1.6)]
)
async def test_going_and_coming_is_noticed(autojump_clock, line, members, reason, most_s):
    await members.wait_for_all()
    line.reason = reason
    await trio.sleep(most_s)
    assert members.changes == [PeerUp("n1"), PeerDown("n1")]
    assert members.gone() == ["n1"]
    await trio.sleep(60)
    line.reason = None
    await trio.sleep(6.5)
    assert members.changes == [PeerUp("n1"), PeerDown("n1"), PeerUp("n1")]


@pytest.mark.trio
async def test_one_timeout_and_busy_are_no_death(autojump_clock, line, members):
    await members.wait_for_all()
    for reason in (Reason.TIMEOUT, Reason.BUSY):
        line.reason, before = reason, len(line.pings)
        while len(line.pings) == before:
            await trio.sleep(0.01)
        line.reason = None
        await trio.sleep(3)
    line.reason = Reason.BUSY
    await trio.sleep(20)
    assert members.changes == [PeerUp("n1")]


@pytest.mark.trio
async def test_whatever_comes_from_a_peer_proves_it_alive(autojump_clock, line, members):
    line.reason = Reason.UNREACHABLE
    await trio.sleep(10)
    members.heard("n1")
    members.heard("a member that is no neighbour")
    assert members.changes == [PeerUp("n1")]


@pytest.mark.trio
async def test_a_failed_send_brings_the_ping_forward_and_decides_nothing(autojump_clock, line, members):
    await members.wait_for_all()
    await trio.sleep(5)
    start, before = trio.current_time(), len(line.pings)
    while trio.current_time() < start + 10:
        members.undelivered("n1", Reason.UNREACHABLE)
        await trio.sleep(0.01)
    assert members.changes == [PeerUp("n1")]
    assert 30 <= len(line.pings) - before <= 50, "at most four a second, however many sends fail"


@pytest.mark.trio
async def test_news_are_carried_at_once_though_all_is_quiet(autojump_clock, line, members):
    await members.wait_for_all()
    for _ in range(20):
        await trio.sleep(0.4)
        members.heard("n1")
    before = len(line.pings)
    members.tell_all()
    await trio.sleep(0.35)
    assert len(line.pings) == before + 1
    for _ in range(20):
        await trio.sleep(0.4)
        members.heard("n1")
    assert len(line.pings) == before + 1


@pytest.mark.trio
@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (Reason.WRONG_RUN, "n1 refuses this peer: it is in another run"),
        (Reason.MALFORMED, "n1 and this peer can't read each other's pings"),
    ],
)
async def test_a_refusal_is_told_once_in_words(autojump_clock, line, members, caplog, reason, words):
    line.reason = reason
    with caplog.at_level(logging.ERROR):
        await trio.sleep(60)
        members.undelivered("n1", reason)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(words)


@pytest.mark.trio
async def test_one_that_is_heard_is_not_gone_though_it_can_not_be_reached_yet(autojump_clock, line, members):
    line.reason = Reason.UNREACHABLE
    for _ in range(100):
        members.heard("n1")
        members.undelivered("n1", Reason.UNREACHABLE)
        await trio.sleep(0.4)
    assert members.changes == [PeerUp("n1")]
