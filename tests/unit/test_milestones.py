"""What a run reached when: worked out by hand from reports that come at different moments."""

from __future__ import annotations

import math
from typing import Any

import pytest

from node.testbed.milestones import (
    newest_model,
    newest_over_time,
    root_mean_square,
    rounds_done,
    spread,
    spread_of_load,
    start_distance,
    to_accuracy,
    to_distance,
)


def reports(key: str, *values: tuple[float, float | None]) -> list[dict[str, Any]]:
    """A peer's, (seconds, figure) each, with a unit of half a second and ten local steps a second."""
    return [
        {"seconds": s, "units": 2 * s, key: value, "bytes_sent": 100 * s}
        | {"gradients": 10 * s, "samples": 50 * s, "exchanges": 3 * s}
        for s, value in values
    ]


def work(seconds: float) -> dict[str, float]:
    """Of peers that have worked for so many seconds, all in all."""
    return {"gradients": 10 * seconds, "samples": 50 * seconds, "exchanges": 3 * seconds}


def test_the_newest_report_of_every_peer_counts_once_all_have_reported() -> None:
    lines = {"a": reports("accuracy", (0, None), (1, 0.2), (2, 0.6)), "b": reports("accuracy", (1, 0.4), (3, 0.8))}
    folded = [(s, [line["accuracy"] for line in newest]) for s, newest in newest_over_time(lines, "accuracy")]
    assert folded == [(1, [0.2, 0.4]), (2, [0.6, 0.4]), (3, [0.6, 0.8])]
    assert list(newest_over_time(lines | {"c": []}, "accuracy")) == []


def test_an_accuracy_counts_from_when_the_mean_first_reached_it() -> None:
    lines = {"a": reports("accuracy", (1, 0.4), (2, 0.8), (4, 0.3)), "b": reports("accuracy", (1, 0.4), (3, 0.6))}
    reached = to_accuracy(lines)
    assert reached["0.6"] == {"seconds": 2, "rounds": None, "bytes_sent": 200 + 100} | work(3)
    assert reached["0.7"]["seconds"] == 3
    assert set(reached) == {"0.5", "0.6", "0.7"}


def test_rounds_are_those_of_who_has_done_the_most() -> None:
    a, b = reports("accuracy", (1, 0.4), (2, 0.8), (4, 1.0)), reports("accuracy", (1, 0.4), (3, 0.6))
    for line, rounds in zip([*a, *b], (0, 7, 20, 5, 9), strict=True):
        line["rounds"] = rounds
    reached = to_accuracy({"a": a, "b": b, "c": reports("accuracy", (1, 0.6))})
    assert [reached[level]["rounds"] for level in ("0.6", "0.7")] == [7, 20]
    assert rounds_done([a[0], b[0]]) == 5
    assert rounds_done(reports("accuracy", (1, 0.5))) is None


def test_a_distance_counts_from_when_on_it_stays_below() -> None:
    # Both begin at 1. The root mean square goes 1, √(0.5·(1e-4)²), above 1e-2 again, then below 1e-2 and 1e-4 for good.
    lines = {
        "a": reports("distance", (0, 1.0), (1, 1e-4), (2, 0.1), (3, 1e-3), (4, 1e-5)),
        "b": reports("distance", (0, 1.0), (1, 0.0), (2, 0.0), (3, 0.0), (4, 0.0)),
    }
    reached = to_distance(lines)
    assert reached["1e-2"] == {"time": 6} | work(6)
    assert reached["1e-4"] == {"time": 8} | work(8)
    assert "1e-6" not in reached


def test_distances_are_relative_to_the_first_ones_of_all_peers() -> None:
    lines = {"a": reports("distance", (1, 300.0), (3, 3.0)), "b": reports("distance", (2, 400.0), (3, 4.0))}
    assert start_distance(lines) == pytest.approx(math.sqrt((300**2 + 400**2) / 2))
    assert to_distance(lines)["1e-2"]["time"] == 6


@pytest.mark.parametrize(
    "lines", [{}, {"a": reports("accuracy", (1, 0.5))}, {"a": reports("distance", (1, 1)), "b": []}]
)
def test_there_is_no_distance_where_a_peer_has_reported_none(lines: dict[str, Any]) -> None:
    assert start_distance(lines) is None
    assert to_distance(lines) == {}


def test_the_newest_model_is_that_of_the_highest_round_whoever_holds_it() -> None:
    def line(s: float, rounds: int, accuracy: float, **more: float) -> dict[str, Any]:
        return reports("accuracy", (s, accuracy))[0] | {"rounds": rounds, "view_bytes_sent": 7 * s} | more

    lines = {
        "a": [line(0, 0, 0.1), line(2, 3, 0.5), line(4, 5, 0.9, distance=3.0)],
        "b": [line(0, 0, 0.3), line(2, 2, 0.8)],  # then it stops, and has worked for two seconds
        "c": [line(3, 3, 0.7), line(4, 5, 0.7, distance=4.0)],  # joined late
        "d": [{"seconds": 1, "units": 2, "accuracy": 1.0}],  # counts no rounds
    }
    course = newest_model(lines)
    assert [(one["seconds"], one["units"], one["rounds"]) for one in course] == [
        (0, 0, 0),
        (2, 4, 3),
        (3, 6, 3),
        (4, 8, 5),
    ]
    assert [one["accuracy"] for one in course] == pytest.approx([0.2, 0.5, 0.6, 0.8])
    assert [one["distance"] for one in course] == [None, None, None, pytest.approx(math.sqrt(12.5))]
    worked = [0, 2 + 2, 2 + 2 + 3, 4 + 2 + 4]
    for key, each in ({"bytes_sent": 100, "view_bytes_sent": 7} | work(1)).items():
        assert [one[key] for one in course] == [each * seconds for seconds in worked]
    assert to_accuracy({"newest": course})["0.8"] == {"seconds": 4, "rounds": 5, "bytes_sent": 1000} | work(10)
    assert newest_model({}) == []


def test_the_load_is_spread_over_all_peers() -> None:
    lines = [{"bytes_sent": n} for n in (10, 40, 20, 90)]
    assert spread_of_load(lines, "bytes_sent") == {"min": 10, "median": 30, "max": 90}
    assert spread_of_load([*lines, {}], "bytes_sent") == {"min": 0, "median": 20, "max": 90}


def test_means_and_their_absence() -> None:
    assert root_mean_square([3.0, 4.0]) == pytest.approx(math.sqrt(12.5))
    assert spread([0.25, 0.75]) == {"mean": 0.5, "min": 0.25, "max": 0.75}
    assert spread([0.25, math.nan]) is None
