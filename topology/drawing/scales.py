"""What colours and widths in a picture of a plan mean: one scale, which several plans may share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap
from numpy.typing import NDArray

from topology.measures import edge_ends, messages_sent
from topology.plan import Plan
from topology.problem import Reals
from topology.promises import IDLE

NEGLIGIBLE = 0.01
DECADE = 10.0
EQUAL = 1.001


class Span(NamedTuple):
    """From the lowest to the highest of some figures above zero.

    Parameters
    ----------
    low, high : float
        What is beyond them is shown as they are.
    log : bool
        Whether it is the figures' ratios that are shown, not their differences.
    differ : bool
        Whether there is anything to tell apart.
    """

    low: float
    high: float
    log: bool
    differ: bool

    @classmethod
    def of(cls, values: Reals) -> Span:
        """All these figures, or all but low ones that hardly add to their sum when they are far apart."""
        # Edges that are nearly idle would leave all others with the darkest colours.
        rising = np.sort(values)
        low = float(rising[np.searchsorted(rising.cumsum(), NEGLIGIBLE * rising.sum())])
        high = float(rising[-1])
        differ = high > EQUAL * float(rising[0])
        if high > DECADE * low:
            return cls(low, high, True, differ)
        # At least a factor of two, so that nearly equal values look nearly equal.
        return cls(min(float(rising[0]), high / 2), high, False, differ)

    def place(self, values: Reals) -> Reals:
        """Where figures are between low, 0, and high, 1."""
        low, high, inside = self.low, self.high, np.clip(values, self.low, self.high)
        placed: Reals = np.log(inside / low) / math.log(high / low) if self.log else (inside - low) / (high - low)
        return placed

    def round_values(self, most: int) -> Reals:
        """At most so many round figures, all along.

        >>> Span(0.13, 0.61, False, True).round_values(5).tolist()
        [0.2, 0.3, 0.4, 0.5, 0.6]
        """
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            decades = [10.0**k for k in range(first, last + 1)]
            choices = [np.outer(decades, parts).ravel() for parts in ((1, 2, 5), (1, 3), (1,))]
            choices += [np.array(decades[::step]) for step in range(2, len(decades) + 1)]
        else:
            first = math.floor(math.log10(self.high - self.low)) - 1
            steps = [part * 10.0**k for k in range(first, first + 4) for part in (1, 2, 5)]
            choices = [np.arange(math.ceil(self.low / step), self.high / step + 1) * step for step in steps]
        rounded = (np.array([float(f"{value:.6g}") for value in values]) for values in choices)
        within = (values[(values >= self.low) & (values <= self.high)] for values in rounded)
        return next(values for values in within if len(values) <= most)


class Scale(NamedTuple):
    """How the rates of edges and the loads of nodes are shown."""

    rates: Span
    loads: Span


def shared_scale(plans: Sequence[Plan]) -> Scale:
    """One scale for all edges of some plans that are not idle, and for all their nodes."""
    rates = np.concatenate([edge_rates(plan)[~idle_edges(plan)] for plan in plans])
    return Scale(Span.of(rates), Span.of(np.concatenate([node_loads(plan) for plan in plans])))


def edge_rates(plan: Plan) -> Reals:
    """Exchanges of each edge per unit of time, shape (m,)."""
    return np.array([edge.rate for edge in plan.edges])


def node_loads(plan: Plan) -> Reals:
    """Messages that each node sends per unit of time, shape (n,)."""
    return messages_sent(len(plan.nodes), edge_ends(plan), edge_rates(plan))


def idle_edges(plan: Plan) -> NDArray[np.bool_]:
    """Which edges exchange less than a thousandth as often as the average one, shape (m,)."""
    rates = edge_rates(plan)
    idle: NDArray[np.bool_] = rates < IDLE * rates.mean()
    return idle


def rate_colours() -> Colormap:
    """From rare to frequent; perceptually uniform, and told apart by the colour-blind."""
    # The lightest shades would vanish on white.
    return LinearSegmentedColormap.from_list("rates", matplotlib.colormaps["plasma_r"](np.linspace(0.2, 1, 256)))


def load_colours() -> Colormap:
    """From light to heavy load; light enough for a name in dark letters."""
    return LinearSegmentedColormap.from_list("loads", ["#ffffff", "#9fb0bf"])
