"""Neighbours: alive, suspect or gone, under a virtual clock."""

import logging

import numpy as np
import pytest
import trio

from algorithms.protocol import PeerDown, PeerUp, Reason
from node.members import Members
from node.wire.transport import Undelivered


class Line:
    """Pings end as ``reason`` said when they left, or are answered after ``lasts`` seconds if that is in time."""

    def __init__(self):
        self.reason, self.lasts, self.pings, self.waits = None, 0.01, [], []

    async def ping(self, to, wait_s):
        begun, reason, lasts = trio.current_time(), self.reason, self.lasts
        self.pings.append(begun)
        self.waits.append(wait_s)
        if reason is Reason.TIMEOUT:
            lasts = wait_s
        await trio.sleep(0 if reason and reason is not Reason.TIMEOUT else min(lasts, wait_s))
        if reason or trio.current_time() - begun >= wait_s:
            raise Undelivered(reason or Reason.TIMEOUT)


@pytest.fixture
async def line():
    return Line()


@pytest.fixture
async def members(line, nursery):
    members = Members(line, ["n1"], np.random.default_rng(0))
    members.changes, members.times = [], []

    def report(news):
        members.changes.append(news)
        members.times.append(trio.current_time())

    members.report = report
    nursery.start_soon(members.run)
    return members


async def next_ping(line):
    """When it left."""
    before = len(line.pings)
    while len(line.pings) == before:
        await trio.sleep(0.001)
    return line.pings[before]


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
    for _ in range(200):
        await trio.sleep(0.1)
        members.heard("n1")
    assert len(line.pings) == 8, "to learn how long answers take"
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
    ("reason", "least_s", "most_s"),
    [
        (Reason.UNREACHABLE, 1.5, 2.0 + 0.4),
        (Reason.TIMEOUT, 0.5 + 0.2 + 0.4 + 2.0, 1.2 + 0.2 + 0.4 + 2.0 + 0.3),
        (Reason.WRONG_RUN, 0.5, 1.3),
    ],
)
async def test_going_and_coming_is_noticed(autojump_clock, line, members, reason, least_s, most_s):
    await trio.sleep(20)
    line.reason, heard_s = reason, line.pings[-1] + line.lasts
    await trio.sleep(5)
    assert members.changes == [PeerUp("n1"), PeerDown("n1")]
    assert least_s <= members.times[1] - heard_s <= most_s
    assert members.gone() == ["n1"]
    await trio.sleep(60)
    line.reason = None
    await trio.sleep(8.5)
    assert members.changes == [PeerUp("n1"), PeerDown("n1"), PeerUp("n1")]


@pytest.mark.trio
@pytest.mark.parametrize(
    ("reason", "known", "suspect_s", "lasts_s"),
    [
        (Reason.UNREACHABLE, True, 0.0, 1.0),
        (Reason.TIMEOUT, True, 0.2 + 0.4, 2.0),
        (Reason.TIMEOUT, False, 2.0 + 2.0, 2.0),
    ],
)
async def test_alive_suspect_gone(autojump_clock, line, members, reason, known, suspect_s, lasts_s):
    """Two timeouts make a suspect and the score 1, which doubles the time of suspicion; ten pings share it."""
    await trio.sleep(20 if known else 2)
    line.reason = reason
    begun_s = await next_ping(line)
    while members.states()["n1"] == "alive":
        await trio.sleep(0.001)
    assert trio.current_time() - begun_s == pytest.approx(suspect_s, abs=0.01)
    assert members.changes == [PeerUp("n1")]
    while members.states()["n1"] == "suspect":
        await trio.sleep(0.001)
    lasted_s = members.times[1] - begun_s - suspect_s
    assert lasts_s - 0.01 <= lasted_s <= lasts_s * 1.1 + 0.01
    assert members.changes == [PeerUp("n1"), PeerDown("n1")]
    suspected = sorted({time for time in line.pings if begun_s + suspect_s - 1e-6 <= time < members.times[1]})
    assert len(suspected) in (10, 11)
    assert np.diff(suspected) == pytest.approx(lasts_s / 10)


@pytest.mark.trio
async def test_ill_health_makes_waits_and_suspicion_longer(autojump_clock, line, members):
    line.lasts = 0  # no answer is under way
    await trio.sleep(20)
    for score in range(1, 9):
        line.reason, members.health.score = Reason.UNREACHABLE, score
        begun_s = await next_ping(line)
        while not members.gone():
            await trio.sleep(0.001)
        assert line.waits[line.pings.index(begun_s)] == pytest.approx(0.2 * (1 + score))
        assert (1 + score) - 0.01 <= members.times[-1] - begun_s <= 1.1 * (1 + score) + 0.01
        line.reason = None
        await trio.sleep(30)


@pytest.mark.trio
@pytest.mark.parametrize("how", ["message", "answer", "busy"])
async def test_any_sign_of_life_clears_a_suspicion(autojump_clock, line, members, how):
    await trio.sleep(20)
    line.reason = Reason.TIMEOUT
    while members.states()["n1"] == "alive":
        await trio.sleep(0.01)
    await trio.sleep(1.7)
    assert members.states()["n1"] == "suspect"
    line.reason = Reason.BUSY if how == "busy" else None if how == "answer" else Reason.TIMEOUT
    if how == "message":
        members.heard("n1")
    await trio.sleep(0.35)
    assert members.states()["n1"] == "alive"
    assert members.changes == [PeerUp("n1")]


@pytest.mark.trio
async def test_answers_that_all_at_once_take_long_are_no_death(autojump_clock, line, members):
    await trio.sleep(20)
    assert line.waits[-1] == 0.2
    line.lasts = 0.7
    await trio.sleep(100)
    assert members.changes == [PeerUp("n1")]
    assert line.waits[-1] > 0.7, "it has learnt to wait"
    assert line.pings[-1] - line.pings[-11] > 10, "and pings no more often than before"


@pytest.mark.trio
async def test_one_that_is_silent_again_and_again_comes_and_goes_once_each(autojump_clock, line, members):
    for _ in range(20):
        line.reason = None
        await trio.sleep(10)
        line.reason = Reason.TIMEOUT
        await trio.sleep(10)
    assert members.changes == [PeerUp("n1"), PeerDown("n1")] * 20
    line.reason = None
    await trio.sleep(20)
    for _ in range(100):
        line.reason = Reason.TIMEOUT
        await trio.sleep(1.0)
        line.reason = None
        await trio.sleep(1.0)
    assert members.changes == [PeerUp("n1"), PeerDown("n1")] * 20 + [PeerUp("n1")], "a pause of a second is no death"


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
    await trio.sleep(15)
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
@pytest.mark.parametrize("reason", [Reason.UNREACHABLE, Reason.TIMEOUT])
async def test_one_that_is_heard_is_not_gone_though_it_can_not_be_reached_yet(autojump_clock, line, members, reason):
    line.reason = reason
    for _ in range(100):
        members.heard("n1")
        members.undelivered("n1", reason)
        await trio.sleep(0.4)
        if reason is Reason.TIMEOUT:
            assert members.states() == {"n1": "alive"}, "it was heard since the ping left"
    assert members.changes == [PeerUp("n1")]


@pytest.mark.trio
async def test_messages_are_as_good_for_the_own_health_as_answers(autojump_clock, line, members):
    await trio.sleep(20)
    members.health.score, before = 8, len(line.pings)
    for _ in range(100):
        members.heard("n1")
        await trio.sleep(0.1)
    assert len(line.pings) == before
    assert members.health.score == 0


@pytest.mark.trio
async def test_one_that_is_gone_is_waited_for_no_longer_in_ill_health(autojump_clock, line, members):
    line.reason = Reason.TIMEOUT
    await trio.sleep(20)
    members.health.score, before = 8, len(line.pings)
    await trio.sleep(60)
    assert set(line.waits[before:]) == {2.0}


@pytest.mark.trio
@pytest.mark.parametrize("score", [0, 8])
@pytest.mark.parametrize("stopped_s", [1.6, 30.0, 1e6])
async def test_a_process_that_was_stopped_accuses_nobody(autojump_clock, line, members, stopped_s, score):
    """At every moment of a suspicion, from the first ping that is lost to the last moment before it would be over."""
    whole_s = (0.2 + 0.4) * (1 + score) + 1.0 * (1 + min(score + 1, 8))
    for moment_s in np.linspace(0, whole_s - 0.01, 40):
        line.reason = None
        await trio.sleep(20)
        assert members.gone() == []
        line.reason, members.health.score, before = Reason.TIMEOUT, score, len(members.changes)
        await next_ping(line)
        await trio.sleep(moment_s)
        assert members.changes[before:] == []
        line.reason = None
        autojump_clock.jump(stopped_s)
        await trio.sleep(5)
        assert members.states() == {"n1": "alive"}
        assert members.changes[before:] == []


@pytest.mark.trio
async def test_an_answer_that_came_while_the_process_was_stopped_was_not_missing(autojump_clock, line, members):
    await trio.sleep(20)
    for score in range(1, 4):
        await next_ping(line)
        autojump_clock.jump(30)
        await trio.sleep(0.001)
        assert members.states() == {"n1": "alive"}
        assert members.health.score == 1
        await next_ping(line)
        assert line.waits[-1] == 0.2 * 2, f"not doubled, and twice as long for {score} stops"
        await trio.sleep(0.3)
        assert members.health.score == 0


@pytest.mark.trio
async def test_a_loop_that_is_always_a_little_late_still_notices(autojump_clock, line, members):
    await trio.sleep(20)
    line.reason = Reason.TIMEOUT
    begun_s = trio.current_time()
    while not members.gone():
        await trio.sleep(2)
        autojump_clock.jump(2)
        assert trio.current_time() < begun_s + 200
