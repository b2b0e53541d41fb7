"""The rates of edges as a watcher counts them, and what is said of those that are slow."""

from __future__ import annotations

import pytest

from node.watch.counts import MARKS_MAX, Counted, Tally
from tests.unit.test_watch_follow import Watcher, answer, near, three


def test_a_rate_is_of_the_latest_seconds() -> None:
    counted = Counted()
    for second in range(31):
        counted.add(float(second), 2 * second + (5 if second >= 25 else 0))
    assert counted.over(10) == Tally(25, 10.0)
    assert counted.over(10).rate_hz == 2.5  # type: ignore[union-attr]
    assert counted.over(60) == Tally(65, 30.0)


def test_a_rate_needs_time_and_forgets_what_was_undone() -> None:
    counted = Counted()
    assert counted.over(10) is None
    counted.add(5.0, 10)
    counted.add(5.0, 12)
    counted.add(6.0, 12)
    assert counted.over(10) is None
    counted.add(7.0, 14)
    assert counted.over(10) == Tally(4, 2.0)
    counted.add(4.0, 9)
    counted.add(6.5, 11)
    assert counted.over(10) == Tally(2, 2.5)


def test_a_rate_is_known_however_seldom_it_is_asked_for() -> None:
    counted = Counted()
    for look in range(20):
        counted.add(100.0 * look, 250 * look)
    assert counted.over(10) == counted.over(60) == Tally(250, 100.0)


def test_marks_are_few_whatever_a_clock_says() -> None:
    counted = Counted()
    for look in range(3 * MARKS_MAX):
        counted.add(look / 128, look)
    assert counted.over(60) == Tally(MARKS_MAX - 1, (MARKS_MAX - 1) / 128)


def test_an_edge_has_what_its_owner_counts() -> None:
    watcher = Watcher()
    assert watcher.plan
    edge = watcher.plan.edges[0]
    told = {}
    for t in range(1, 9):
        mine = {edge.a: near(exchanges=999), edge.b: near(exchanges=3 * t)}
        told = watcher.look(*[answer(name, seconds=float(t), peers=mine) for name in ("n0", "n1", "n2")])
    assert told["frame"]["achieved"][0] == 3
    assert watcher.story["edges"][0]["asked"] == 4
    row = {row["what"]: row for row in told["promises"]}["exchanges a second"]
    assert row["asked"] == "8"


def test_the_story_is_told_again_when_a_rate_becomes_known() -> None:
    watcher = Watcher()
    waiting = [answer(name, phase="waiting", peers={}) for name in ("n0", "n1", "n2")]
    assert watcher.look(*waiting)["whole"] is True
    assert watcher.look(*waiting)["whole"] is False
    assert watcher.look(*three(1))["whole"] is True
    assert watcher.look(*three(2))["whole"] is False


def test_an_edge_that_stays_slow_is_told_once() -> None:
    watcher, events, links = Watcher(), [], []
    for t in range(1, 80):
        peers = {name: near(exchanges=t, hz=4.0) for name in ("n0", "n1", "n2")}
        told = watcher.look(*[answer(name, seconds=float(t), peers=peers) for name in ("n0", "n1", "n2")])
        events += told["events"]
        links.append(told["frame"]["link"])
    slow = [event for event in events if event["kind"] == "slow"]
    assert len(slow) == 2, "each edge once"
    assert links == ["aa"] * links.count("aa") + ["ll"] * links.count("ll")
    assert links.count("aa") >= 30, "that is told of no edge before"
    assert links.count("ll") >= 30
    assert slow[0]["t"] >= 30
    assert "25%" in slow[0]["text"]


@pytest.mark.parametrize("away", ["n0", "n1", "n2"])
def test_no_edge_is_blamed_for_a_neighbour_that_was_away(away: str) -> None:
    watcher, events, names = Watcher(), [], ("n0", "n1", "n2")
    with_it = with_others = 0
    for t in range(1, 160):
        down = 60 <= t < 100
        with_it += 0 if down else 4
        with_others += 4
        words = {
            name: {other: near(exchanges=with_it if away in (name, other) else with_others) for other in names}
            for name in names
        }
        there = [name for name in names if not down or name != away]
        told = watcher.look(*[answer(name, seconds=float(t), peers=words[name]) for name in there])
        events += told["events"]
        row = {row["what"]: row for row in told["promises"]}.get("slowest edge")
        if row and t > 104:
            assert (row["well"], row["achieved"]) == (True, "4")
    assert [event["kind"] for event in events if event["kind"] in ("gone", "slow")] == ["gone"]


def test_what_was_achieved_stands_when_the_first_has_stopped_learning() -> None:
    watcher = Watcher()
    for t in range(1, 40):
        peers = {name: near(exchanges=4 * t) for name in ("n0", "n1", "n2")}
        told = watcher.look(*[answer(name, seconds=float(t), peers=peers) for name in ("n0", "n1", "n2")])
    ending = {"n0": "merging", "n1": "learning", "n2": "learning"}
    last = watcher.look(*[answer(name, seconds=40.0, phase=phase, peers=peers) for name, phase in ending.items()])
    assert last["promises"] == told["promises"]
    assert {row["what"]: row["achieved"] for row in last["promises"]}["exchanges a second"] == "8"


def behind(watcher: Watcher, seconds: float, units: float) -> str:
    """What is told of local steps, at a look at which n1 says that it is so many units behind in this life."""
    n0, _, n2 = three(seconds)
    peers = {"n0": near(), "n2": near()}
    told = watcher.look(n0, answer("n1", seconds=seconds, units=2 * seconds, behind_units=units, peers=peers), n2)
    return {row["what"]: row["achieved"] for row in told["promises"]}.get("local steps behind", "")


def test_lateness_is_that_of_the_latest_minutes() -> None:
    watcher = Watcher()
    late = [behind(watcher, 1e5 + t, 3000.0 if t < 200 else 3000.0 + t - 200) for t in range(400)]
    assert set(late[1:201]) == {"0"}
    assert set(late[321:]) == {"0.5"}, "a unit of two in each second"


def test_lateness_begins_anew_with_each_life() -> None:
    watcher = Watcher()
    late = [behind(watcher, 1e5 + t, float(t % 30)) for t in range(100)]
    assert set(late) == {"", "0", "0.5"}
    assert late[30] != "0.5"
    assert late[31:60] == ["0.5"] * 29
