"""When a run was how far: its peers' reports folded over time, and the moments at which it reached set levels.

Peers report at moments of their own. At each of these the newest report of every peer counts, once all have one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from statistics import median
from typing import Any

Lines = Mapping[str, Sequence[Mapping[str, Any]]]
"""The reports of every peer, by name."""

ACCURACIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
DISTANCES = ("1e-2", "1e-4", "1e-6")
"""Relative distances to the optimum that are worth a line of their own."""
WORK = ("gradients", "samples", "exchanges")
"""What it took to get so far."""


def newest_over_time(lines: Lines, key: str, *, wait: bool = True) -> Iterator[tuple[float, list[Mapping[str, Any]]]]:
    """The newest report of every peer that holds a figure ``key``, at each moment, in seconds, at which one came in.

    Yields nothing before all peers have reported one, unless told not to wait for them.
    """
    newest: dict[str, Mapping[str, Any]] = {}
    reports = [(line["seconds"], name, line) for name, peer in lines.items() for line in peer]
    reports = sorted((report for report in reports if report[2].get(key) is not None), key=lambda r: r[:2])
    for seconds, together in groupby(reports, key=lambda report: report[0]):
        newest |= {name: line for _, name, line in together}
        if len(newest) == len(lines) or not wait:
            yield seconds, list(newest.values())


def newest_model(lines: Lines) -> list[dict[str, Any]]:
    """How the newest model of a run does, at each moment at which a report came in, as if one peer had reported it all.

    Where only a sample of the peers works at a time, most hold old models. The newest is that of the highest round: its
    figures are means over the peers that hold it. Work and traffic are the sums over all peers.
    """
    course: list[dict[str, Any]] = []
    for seconds, latest in newest_over_time(lines, "rounds", wait=False):
        rounds = rounds_done(latest)
        holders = [line for line in latest if line["rounds"] == rounds]
        distances = [line["distance"] for line in holders if line.get("distance") is not None]
        course.append(
            {
                "seconds": seconds,
                "units": max(line["units"] for line in latest),
                "rounds": rounds,
                "accuracy": _mean(holders, "accuracy"),
                "test_loss": _mean(holders, "test_loss"),
                "distance": root_mean_square(distances) if distances else None,
                **{key: total(latest, key) for key in (*WORK, "bytes_sent", "view_bytes_sent")},
            }
        )
    return course


def _mean(lines: Sequence[Mapping[str, Any]], key: str) -> float | None:
    known = [line[key] for line in lines if line.get(key) is not None]
    return sum(known) / len(known) if known else None


def to_accuracy(lines: Lines) -> dict[str, dict[str, float | None]]:
    """For each level that the mean accuracy reached: when it first did, and the work and traffic until then."""
    reached: dict[str, dict[str, float | None]] = {}
    for seconds, newest in newest_over_time(lines, "accuracy"):
        mean = sum(line["accuracy"] for line in newest) / len(newest)
        for level in ACCURACIES:
            if mean >= level and str(level) not in reached:
                sums = {key: total(newest, key) for key in (*WORK, "bytes_sent")}
                reached[str(level)] = {"seconds": seconds, "rounds": rounds_done(newest), **sums}
    return reached


def to_distance(lines: Lines) -> dict[str, dict[str, float]]:
    """For each level under which the relative distance to the optimum stayed: from when on, and the work until then.

    ``time`` is in plan units; a level that was left again counts from the last time that it was reached.
    """
    start = start_distance(lines)
    if start is None:
        return {}
    reached: dict[str, dict[str, float]] = {}
    for _, newest in newest_over_time(lines, "distance"):
        distance = root_mean_square([line["distance"] for line in newest])
        for level in DISTANCES:
            if distance > float(level) * start:
                reached.pop(level, None)
            elif level not in reached:
                time = max(line["units"] for line in newest)
                reached[level] = {"time": time, **{key: total(newest, key) for key in WORK}}
    return reached


def start_distance(lines: Lines) -> float | None:
    """The root mean square of the peers' first distances to the optimum; None where a peer has reported none."""
    first = [
        next((line["distance"] for line in peer if line.get("distance") is not None), None) for peer in lines.values()
    ]
    known = [distance for distance in first if distance is not None]
    return root_mean_square(known) if known and len(known) == len(first) else None


def total(lines: Sequence[Mapping[str, Any]], key: str) -> float:
    """The sum of a counter over one report of each peer; what a peer does not count is 0."""
    return sum(line.get(key) or 0 for line in lines)


def rounds_done(lines: Sequence[Mapping[str, Any]]) -> float | None:
    """The rounds of the peer that has done the most, by one report of each; None where there are no rounds."""
    return max((line["rounds"] for line in lines if line.get("rounds") is not None), default=None)


def root_mean_square(values: Sequence[float]) -> float:
    """√(mean of the squares)."""
    return math.hypot(*values) / math.sqrt(len(values))


def spread_of_load(lines: Sequence[Mapping[str, Any]], key: str) -> dict[str, float]:
    """Min, median and max of a counter, by one report of each peer."""
    values = [line.get(key) or 0 for line in lines]
    return {"min": min(values), "median": median(values), "max": max(values)}


def spread(values: Sequence[float]) -> dict[str, float] | None:
    """Mean, min and max; None where a value is not a finite number."""
    if not all(math.isfinite(value) for value in values):
        return None
    return {"mean": sum(values) / len(values), "min": min(values), "max": max(values)}
