"""Whether a peer keeps up with its plan, and one sentence when it does not.

Rates are judged over windows, so that a peer that has kept up for days is heard at once when it no longer does, and
one whose neighbour was away is not blamed for that. The clocks of edges are Poisson clocks: a count is called low only
where chance does not explain it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

TOLD_EVERY_S = 60.0
"""Shortest time between two sentences."""

EXPECTED_MIN, EXPECTED_MAX = 20.0, 400.0
"""An edge is judged once so many exchanges were to be expected; after so many its window begins anew."""

RATIO_MIN = 0.8
"""Less than this part of the exchanges is too few,"""

DEVIATIONS = 5.0
"""if they are also this many standard deviations fewer than expected: chance has a try every second, for months."""

BEHIND_MAX = 0.1
"""More units than this a unit are too much to be late by."""

WINDOW_UNITS = 100.0
"""Local steps are judged over at least as many units."""

WINDOW_S = 10.0
"""Nothing is judged by less time than this: connections and caches are made first."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """What is judged, at one moment.

    Parameters
    ----------
    seconds, units : float
        The moment, of any clock and of the run's.
    behind_units : float
        By how much local steps are late, summed up.
    exchange_units : float
        The longest an exchange takes, but for the slowest; NaN where that is not known.
    rates : mapping of str to float
        Exchanges a unit as planned, with each neighbour that is there.
    counts : mapping of str to int
        Exchanges so far.
    """

    seconds: float
    units: float
    behind_units: float
    exchange_units: float
    rates: Mapping[str, float]
    counts: Mapping[str, int]


class KeepingUp:
    """Looks at one peer's pulse every now and then.

    Parameters
    ----------
    exchange_units_max : float
        Units that an exchange may take.
    """

    def __init__(self, exchange_units_max: float) -> None:
        self._exchange_units_max = exchange_units_max
        self._told_s = -math.inf
        self._first: Pulse | None = None
        self._steps: Pulse | None = None
        self._edges: dict[str, Pulse] = {}

    def look(self, now: Pulse) -> str | None:
        """What is wrong, in one sentence, and what to do; None when nothing is, or it has just been said."""
        findings = [*self._steps_late(now), *self._edge_slow(now), *self._exchange_long(now)]
        if not findings or now.seconds - self._told_s < TOLD_EVERY_S:
            return None
        self._told_s = now.seconds
        return f"can't keep up: {'; '.join(findings)}. Write a longer --time-unit."

    def _steps_late(self, now: Pulse) -> list[str]:
        self._steps = since = self._steps or now
        units = now.units - since.units
        if units < WINDOW_UNITS or now.seconds - since.seconds < WINDOW_S:
            return []
        self._steps = now
        late = min((now.behind_units - since.behind_units) / units, 0.99)
        return [f"a local step takes {_shown(1 / (1 - late))} units"] if late > BEHIND_MAX else []

    def _edge_slow(self, now: Pulse) -> list[str]:
        """The edge that has fewest of its exchanges, if those are too few."""
        self._edges = {name: self._edges.get(name, now) for name in now.rates}
        ratios = {}
        for name, since in self._edges.items():
            expected, count = now.rates[name] * (now.units - since.units), now.counts[name] - since.counts[name]
            if expected < EXPECTED_MIN or now.seconds - since.seconds < WINDOW_S:
                continue
            if too_few(count, expected):
                ratios[name] = count / expected
            if expected >= EXPECTED_MAX:
                self._edges[name] = now
        name = min(ratios, key=lambda name: ratios[name], default="")
        return [f"{ratios[name]:.0%} of the exchanges with {name} take place"] if name else []

    def _exchange_long(self, now: Pulse) -> list[str]:
        self._first = first = self._first or now  # counts are those of all lives, the times of this one
        made = sum(now.counts.values()) - sum(first.counts.values())
        enough = made >= EXPECTED_MIN and now.seconds - first.seconds >= WINDOW_S
        long = enough and now.exchange_units > self._exchange_units_max
        return [f"an exchange takes up to {_shown(now.exchange_units)} units"] if long else []


def too_few(count: float, expected: float) -> bool:
    """Whether fewer exchanges have taken place than an edge must make, and chance does not explain it."""
    short = expected - count
    return expected >= EXPECTED_MIN and count < RATIO_MIN * expected and short > DEVIATIONS * math.sqrt(expected)


def _shown(value: float) -> str:
    return f"{value:.2g}" if value < 100 else f"{value:.0f}"
