"""The numbers behind the pictures of runs: what the peers reported, on one grid of times.

Theory of operation
-------------------
Peers report at moments of their own. All their reports are brought onto one grid of times by interpolation, so that a
mean over peers is taken at equal times; a peer that is lost stays at its last value. What is drawn begins when every
peer has reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from node.testbed.milestones import Lines, start_distance

Array = NDArray[np.float64]

GRID_POINTS = 240
RATE_WINDOWS = 30
STRAIGHT = (0.25, 0.9)
"""The parts of a decay, on a logarithmic axis, between which it is taken for straight: it begins with oscillations and
ends where rounding errors or noise stop it."""
DECAY_MIN = math.log(10)
"""Curves that fall by less are not taken for straight anywhere,"""
STRAIGHT_MIN = 0.95
"""nor those of whose variance, between these parts, a line explains less (R²)."""
DISTANCE_MIN = 1e-300
"""In place of 0 on a logarithmic axis."""


@dataclass(frozen=True)
class Figures:
    """One run, ready to be drawn.

    Parameters
    ----------
    label : str
        What the run is called in the picture.
    lines : mapping
        Its reports.
    merged_accuracy : float or None
        Of the merged model, or of the mean of all final models.
    virtual : bool
        Whether its seconds are virtual ones.
    rate_asked : float or None
        Exchanges a unit that the plan asks of the whole network.
    unit_s : float or None
        Seconds of one plan unit.
    bound : float or None
        The rate, 1/units, at which theory has the distance to the optimum fall at least.
    peers : int or None
        Where its reports are those of the newest model instead of a peer's: whose work and traffic they sum up.
    averaged : bool
        Whether the peers did not merge their models, so that ``merged_accuracy`` is that of their mean.
    looks : sequence of mappings
        What was seen of all its models together while it lasted, from the first look to the last.
    """

    label: str
    lines: Lines
    merged_accuracy: float | None = None
    virtual: bool = False
    rate_asked: float | None = None
    unit_s: float | None = None
    bound: float | None = None
    peers: int | None = None
    averaged: bool = False
    looks: Sequence[Mapping[str, Any]] = ()

    def measured(self, key: str) -> bool:
        """Whether any peer has reported a figure."""
        return any(line.get(key) is not None for peer in self.lines.values() for line in peer)

    def looked(self, key: str) -> tuple[Array, Array]:
        """When a figure of all models together was seen, by the run's clock, and which it was."""
        seen = [(look[self.clock], look[key]) for look in self.looks if look.get(key) is not None]
        times, values = np.array(seen, dtype=float).reshape(-1, 2).T
        return times, values

    @property
    def clock(self) -> str:
        """What its time is counted in: plan units where theory says something about them, else seconds."""
        return "units" if self.measured("distance") else "seconds"


def time_grid(lines: Lines, points: int = GRID_POINTS, clock: str = "seconds") -> Array:
    """Equally spaced times, shape ``(points,)``, from when all peers have reported to the last report."""
    spans = [(peer[0][clock], peer[-1][clock]) for peer in lines.values() if peer]
    if not spans or len(spans) < len(lines):
        return np.zeros(0)
    return np.linspace(max(first for first, _ in spans), max(last for _, last in spans), points)


def on_grid(lines: Lines, key: str, grid: Array, clock: str = "seconds") -> Array:
    """A figure of every peer at the grid's times, shape ``(peers, points)``; NaN before a peer's first value."""
    rows = []
    for peer in lines.values():
        pairs = [(line[clock], line[key]) for line in peer if line.get(key) is not None]
        times, values = np.array(pairs, dtype=float).reshape(-1, 2).T
        rows.append(np.interp(grid, times, values, left=np.nan) if len(pairs) else np.full(len(grid), np.nan))
    return np.array(rows).reshape(len(rows), len(grid))


def growth(lines: Lines, key: str, clock: str = "seconds") -> tuple[Array, Array]:
    """The middles of equal stretches of time and by how much the peers' sum of ``key`` grew in each, per time."""
    reports = max((len(peer) for peer in lines.values()), default=0)
    edges = time_grid(lines, 1 + min(RATE_WINDOWS, max(1, reports // 2)), clock)
    sums = on_grid(lines, key, edges, clock).sum(0)
    if len(edges) < 2 or edges[-1] <= edges[0] or np.isnan(sums).any():
        return np.zeros(0), np.zeros(0)
    return (edges[1:] + edges[:-1]) / 2, np.diff(sums) / np.diff(edges)


# ------------------------------------------------------------------------------ the distance to the optimum


def relative_distances(lines: Lines, grid: Array) -> Array:
    """Every peer's distance as a part of the root mean square of the first ones, shape ``(peers, points)``.

    Between two reports it is interpolated as what falls exponentially; the grid is in plan units.
    """
    start = start_distance(lines)
    if not start:
        return np.full((len(lines), len(grid)), np.nan)
    logarithms = {
        name: [
            {"units": line["units"], "log": math.log(max(line["distance"], DISTANCE_MIN) / start)}
            for line in peer
            if line.get("distance") is not None
        ]
        for name, peer in lines.items()
    }
    return np.exp(on_grid(logarithms, "log", grid, "units"))


def mean_distance(lines: Lines, grid: Array) -> Array:
    """The root mean square over the peers of :func:`relative_distances`, shape ``(points,)``."""
    return np.sqrt((relative_distances(lines, grid) ** 2).mean(0))


def fit_decay(times: Array, distances: Array) -> tuple[Array, float, float] | None:
    """The straight part of a decay on a logarithmic axis, by least squares.

    It lasts from when the first quarter of the whole fall, in logarithms, is over for good until nine tenths are.

    Returns
    -------
    (Array, float, float) or None
        Its times, and r and a of the fitted a·exp(-r·t); None where nothing falls by a factor of ten, or not
        straight.
    """
    known = np.isfinite(distances)
    times, logarithms = times[known], np.log(distances[known])
    if not len(times) or logarithms[0] - logarithms.min() < DECAY_MIN:
        return None
    fallen = (logarithms[0] - logarithms) / (logarithms[0] - logarithms.min())
    first = int(np.flatnonzero(fallen < STRAIGHT[0])[-1]) + 1
    end = int(np.argmax(fallen >= STRAIGHT[1])) + 1
    if end - first < 3:
        return None
    times, logarithms = times[first:end], logarithms[first:end]
    slope, intercept = np.polyfit(times, logarithms, 1)
    explained = 1 - np.var(logarithms - slope * times) / np.var(logarithms)
    if explained < STRAIGHT_MIN:
        return None
    return times, float(-slope), float(np.exp(intercept))


def guaranteed_rate(smoothness: float, convexity: float) -> float:
    """The rate, 1/units, at which DADAO's distance to the optimum falls at least: √(μ/L)/(16√2) [1]_.

    The theorem bounds the squared distance by exp(-c·t) with c = √(μ/L)/(8√2), so the distance itself by half of it.

    .. [1] A. Nabli, E. Oyallon, "DADAO: Decoupled Accelerated Decentralized Asynchronous Optimization", ICML 2023,
       arXiv:2208.00779, the theorem on the rate of convergence.
    """
    return math.sqrt(convexity / smoothness) / (16 * math.sqrt(2))
