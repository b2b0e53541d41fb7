"""What was promised of a run, beside what it achieves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from node.keeping_up import BEHIND_MAX, EXPECTED_MIN
from node.watch.answer import Answer
from node.watch.counts import Tally, too_few

if TYPE_CHECKING:
    from topology.plan import Plan

Pair = tuple[str, str]
NONE = "–"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What an algorithm stands: units that an exchange takes, and χ1·χ2 of the rates. See its ``tempo``."""

    exchange_units_max: float = math.inf
    chi1_chi2_max: float = math.inf


BOUNDS: Mapping[str, Bounds] = {"dadao": Bounds(0.2, 0.5), "acid": Bounds(2.0)}
"""A copy of what the algorithms themselves say, since importing them takes torch along."""


@dataclass(frozen=True, slots=True)
class Achieved:
    """What is known of a run.

    Parameters
    ----------
    answers : mapping of str to Answer
        Of the peers that are there.
    asked : mapping of (str, str) to float or None
        Exchanges a second of each edge, as planned.
    tallies : mapping of (str, str) to Tally or None
        How often each edge has exchanged, over the latest minute.
    """

    answers: Mapping[str, Answer]
    asked: Mapping[Pair, float | None]
    tallies: Mapping[Pair, Tally | None]

    @property
    def counted(self) -> list[tuple[Pair, float, Tally]]:
        """The edges of which both is known."""
        return [(pair, hz, tally) for pair, hz in self.asked.items() if hz and (tally := self.tallies[pair])]

    @property
    def unit_s(self) -> float | None:
        """Seconds of a plan unit."""
        return next((a.unit_seconds for a in self.answers.values() if a.unit_seconds), None)

    @property
    def bounds(self) -> Bounds:
        """Of the algorithm that most peers run."""
        return BOUNDS.get(next((a.algorithm for a in self.answers.values()), ""), Bounds())


def promise(plan: Plan | None, achieved: Achieved) -> list[dict[str, Any]]:
    """The rows of the table, as a story has them; what an algorithm has not is not among them."""
    return [
        *_exchanges(achieved),
        *_slowest(achieved),
        *_chis(achieved),
        *_exchange_time(achieved),
        *_behind(achieved),
        *_gap(plan),
    ]


def row(what: str, asked: str, achieved: str, well: bool | None, hint: str) -> dict[str, Any]:
    """A promise; ``well`` is None where nobody can tell."""
    return {"what": what, "asked": asked, "achieved": achieved, "well": well, "hint": hint}


def _exchanges(achieved: Achieved) -> list[dict[str, Any]]:
    asked = math.fsum(hz for hz in achieved.asked.values() if hz)
    if not asked:
        return []
    counted = achieved.counted
    made = math.fsum(tally.rate_hz for _, _, tally in counted)
    count = sum(tally.count for _, _, tally in counted)
    expected = asked * max((tally.seconds for _, _, tally in counted), default=0.0)
    known = bool(counted)
    well = not too_few(made / asked * expected, expected) if known and expected >= EXPECTED_MIN else None
    hint = f"of the whole network, over the last minute: {count}" if known else "of the whole network"
    return [row("exchanges a second", f"{asked:.3g}", f"{made:.3g}" if known else NONE, well, hint)]


def _slowest(achieved: Achieved) -> list[dict[str, Any]]:
    judged = [(tally.rate_hz / hz, pair, hz, tally) for pair, hz, tally in achieved.counted]
    judged = [one for one in judged if one[2] * one[3].seconds >= EXPECTED_MIN]
    if not judged:
        return []
    share, (a, b), hz, tally = min(judged, key=lambda one: one[0])
    well = not too_few(tally.count, hz * tally.seconds)
    return [row("slowest edge", f"{hz:.3g} /s", f"{tally.rate_hz:.3g} /s", well, f"{a} – {b}, {share:.0%} of its rate")]


def _chis(achieved: Achieved) -> list[dict[str, Any]]:
    """χ1·χ2 of the rates asked and of those achieved; these are only judged by what chance does not explain."""
    unit_s, most = achieved.unit_s, achieved.bounds.chi1_chi2_max
    asked = {pair: hz * unit_s for pair, hz in achieved.asked.items() if hz and unit_s}
    if not asked or len(asked) < len(achieved.asked) or unit_s is None:
        return []
    planned = product_of(tuple(asked.items()))
    if planned is None:
        return []
    made = unlucky = None
    if len(achieved.counted) == len(asked):
        made = product_of(tuple((pair, tally.rate_hz * unit_s) for pair, _, tally in achieved.counted))
        unlucky = product_of(tuple((pair, _unlucky_hz(hz, tally) * unit_s) for pair, hz, tally in achieved.counted))
    bound = f", at most {most:g} is asked" if most < math.inf else ""
    well = None
    if most < math.inf and made is not None:
        well = made <= 1.2 * most or (unlucky is not None and made <= unlucky)
    text = NONE if made is None else f"{made:.3g}"
    return [row("χ1·χ2", f"{planned:.3g}", text, well, f"of the rates: how slowly all agree{bound}")]


def _unlucky_hz(asked_hz: float, tally: Tally) -> float:
    """The least that chance alone makes of a rate, but for three cases in a thousand."""
    expected = asked_hz * tally.seconds
    return max(0.0, expected - 3 * math.sqrt(expected)) / tally.seconds


@cache
def _scientific() -> bool:
    """Whether the planner's packages are there."""
    try:
        import scipy  # noqa: F401
    except ImportError:
        return False
    return True


def product_of(rates: tuple[tuple[Pair, float], ...]) -> float | None:
    """χ1·χ2 of rates; None where those above 0 do not connect the graph, or the planner's packages are not there."""
    if not _scientific():
        return None
    from node.testbed.rates import chi1_chi2

    return chi1_chi2(dict(rates))


def _exchange_time(achieved: Achieved) -> list[dict[str, Any]]:
    times = [a.exchange_p99_units for a in achieved.answers.values() if a.exchange_p99_units is not None]
    if not times:
        return []
    most = achieved.bounds.exchange_units_max
    well = max(times) <= most if most < math.inf else None
    asked = f"≤ {most:g} units" if most < math.inf else NONE
    return [row("exchange time, p99", asked, f"{max(times):.2g} units", well, "of the peer with the longest")]


def _behind(achieved: Achieved) -> list[dict[str, Any]]:
    shares = [a.behind_units / a.units for a in achieved.answers.values() if a.units > 0]
    if not shares:
        return []
    worst = max(shares)
    hint = "units a unit by which local steps are late, at the peer that is latest"
    return [row("local steps behind", f"≤ {BEHIND_MAX:g}", f"{worst:.2g}", worst <= BEHIND_MAX, hint)]


def _gap(plan: Plan | None) -> list[dict[str, Any]]:
    if plan is None or not _scientific():
        return []
    hint = "part of disagreement that one round of the plan's weights removes"
    return [row("spectral gap", f"{_spectral_gap(plan):.3g}", NONE, None, hint)]


@cache
def _spectral_gap(plan: Plan) -> float:
    import numpy as np

    from topology.measures import edge_ends, mixing_gap

    return mixing_gap(len(plan.nodes), edge_ends(plan), np.array([edge.weight for edge in plan.edges]))
