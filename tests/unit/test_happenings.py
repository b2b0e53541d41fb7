"""What a script has happen, and when: even spreads exactly, chance within its bounds."""

from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise, takewhile

import pytest
from scipy import stats

from node.testbed.happenings import Churn, Happening, Script, draw_crashes, draw_leaves, draw_stops, join_between

NAMES = [f"n{k}" for k in range(50)]


def test_joins_are_spread_evenly_in_the_order_of_the_plan() -> None:
    joins = join_between(["x", "y", "z"], (10.0, 20.0))
    assert joins == [Happening(10.0, "joined", "x"), Happening(15.0, "joined", "y"), Happening(20.0, "joined", "z")]
    assert join_between([], (10.0, 20.0)) == []
    assert join_between(["x"], (10.0, 20.0)) == [Happening(10.0, "joined", "x")]


def test_everybody_leaves_at_most_once_at_times_spread_evenly() -> None:
    leaves = draw_leaves(NAMES, 5, (0.0, 8.0), seed=3)
    assert [one.time for one in leaves] == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert len({one.name for one in leaves} & set(NAMES)) == 5
    assert leaves == draw_leaves(NAMES, 5, (0.0, 8.0), seed=3) != draw_leaves(NAMES, 5, (0.0, 8.0), seed=4)


def test_a_part_of_those_that_are_there_stops() -> None:
    before = [
        *(Happening(5.0, "left", name) for name in NAMES[:10]),
        *(Happening(5.0, "joined", name) for name in NAMES[10:20]),
        *(Happening(15.0, "left", name) for name in NAMES[20:30]),
        *(Happening(15.0, "joined", name) for name in NAMES[30:40]),
    ]
    stops = draw_stops(NAMES, before, 0.8, 10.0, seed=0)
    assert Counter((one.time, one.event) for one in stops) == {(10.0, "stopped"): 24}  # 0.8 of 50 - 10 - 10
    assert {one.name for one in stops} <= {*NAMES[10:30], *NAMES[40:]}
    assert len({one.name for one in stops}) == 24
    assert draw_stops(NAMES, before, 0.0, 10.0, seed=0) == []


def test_a_crash_is_followed_by_a_return_before_the_end() -> None:
    happenings = draw_crashes(NAMES, 30, 2.0, 100.0, seed=1)
    crashes, returns = happenings[::2], happenings[1::2]
    assert {one.event for one in crashes} == {"crashed"}
    assert [(one.name, one.time + 2.0, "restarted") for one in crashes] == [(o.name, o.time, o.event) for o in returns]
    assert all(0 <= one.time <= 98.0 for one in crashes)


def test_everything_is_played_in_the_order_of_time() -> None:
    planned = [*draw_crashes(NAMES, 5, 2.0, 10.0, seed=1), *join_between(NAMES[:9], (0.0, 10.0))]
    assert list(Script(planned).play(NAMES, 0)) == sorted(planned, key=lambda one: one.time)
    churned = list(islice(Script(planned, Churn(3.0, 1.0)).play(NAMES, 0), 500))
    assert [one.time for one in churned] == sorted(one.time for one in churned)


def test_churn_takes_turns_for_exponential_times() -> None:
    """Kolmogorov and Smirnov's test against both distributions; the seed is fixed, so that it can't fail by chance."""
    played = takewhile(lambda one: one.time < 2000.0, Script(churn=Churn(6.0, 1.5)).play(NAMES, seed=5))
    times: dict[str, list[float]] = {name: [0.0] for name in NAMES}
    for one in played:
        assert one.event == ("crashed" if len(times[one.name]) % 2 else "restarted")
        times[one.name].append(one.time)
    spans = [[b - a for a, b in pairwise(each)] for each in times.values()]
    up, down = ([span for each in spans for span in each[first::2]] for first in (0, 1))
    assert len(up) > 10_000
    assert stats.kstest(up, stats.expon(scale=6.0).cdf).pvalue > 0.01
    assert stats.kstest(down, stats.expon(scale=1.5).cdf).pvalue > 0.01


def test_churn_spares_who_leaves_and_who_is_not_there_yet() -> None:
    planned = [Happening(30.0, "joined", "n1"), Happening(40.0, "left", "n2")]
    played = list(takewhile(lambda one: one.time < 200.0, Script(planned, Churn(2.0, 1.0)).play(NAMES[:4], 0)))
    churned = [one for one in played if one.event in ("crashed", "restarted")]
    assert {one.name for one in churned} == {"n0", "n1", "n3"}
    assert min(one.time for one in churned if one.name == "n1") > 30.0


def test_who_joins_does_so_through_a_founder_that_stays() -> None:
    planned = [
        *join_between(NAMES[40:], (1.0, 2.0)),
        *(Happening(5.0, "left", name) for name in NAMES[:10]),
        *(Happening(5.0, "stopped", name) for name in NAMES[10:37]),
    ]
    contacts = Script(planned).contacts(NAMES, seed=0)
    assert list(contacts) == NAMES[40:]
    assert set(contacts.values()) == set(NAMES[37:40])
    nobody_stays = [*planned, *(Happening(5.0, "left", name) for name in NAMES[37:40])]
    assert set(Script(nobody_stays).contacts(NAMES, seed=0).values()) <= set(NAMES[:40])


@pytest.mark.parametrize(
    ("script", "crashes"),
    [
        (Script(), False),
        (Script([Happening(1.0, "stopped", "n0"), Happening(1.0, "left", "n1")]), False),
        (Script([Happening(1.0, "crashed", "n0")]), True),
        (Script(churn=Churn(1.0, 1.0)), True),
    ],
)
def test_snapshots_are_needed_only_where_peers_come_back(script: Script, crashes: bool) -> None:
    assert script.crashes is crashes
