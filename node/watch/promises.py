"""What was promised of a run, beside what it achieves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from node.keeping_up import BEHIND_MAX, EXPECTED_MIN
from node.testbed.rates import SHARE_MIN, WORTH_A_WORD, EdgeRate, chance, chi1_chi2, slow_edges

if TYPE_CHECKING:
    from topology.plan import Plan

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
    algorithm : str
        The run's.
    unit_s : float or None
        Seconds of a plan unit.
    asked : mapping of (str, str) to float
        Exchanges a unit that each edge is to make, where that is known.
    edges : sequence of EdgeRate
        Those of them that have been counted.
    span : str
        For how long, in words.
    exchange_units : sequence of float
        The 99th percentiles of how long the peers' exchanges take.
    behind : sequence of float
        Units a unit by which each peer's local steps are late.
    """

    algorithm: str
    unit_s: float | None
    asked: Mapping[tuple[str, str], float]
    edges: Sequence[EdgeRate]
    span: str
    exchange_units: Sequence[float]
    behind: Sequence[float]

    @property
    def bounds(self) -> Bounds:
        """What its algorithm stands."""
        return BOUNDS.get(self.algorithm, Bounds())


def promise(plan: Plan | None, achieved: Achieved) -> list[dict[str, Any]]:
    """The rows of the table, as a story has them; what an algorithm has not is not among them."""
    return [
        *_exchanges(achieved),
        *_slowest(achieved),
        *(_chis(achieved) if plan else []),  # of a part of the network they say nothing
        *_exchange_time(achieved),
        *_behind(achieved),
        *_gap(plan),
    ]


def _row(what: str, asked: str, achieved: str, well: bool | None, hint: str) -> dict[str, Any]:
    """``well`` is None where nobody can tell."""
    return {"what": what, "asked": asked, "achieved": achieved, "well": well, "hint": hint}


def _exchanges(achieved: Achieved) -> list[dict[str, Any]]:
    unit_s, edges = achieved.unit_s, achieved.edges
    if not achieved.asked or not unit_s:
        return []
    asked_hz = math.fsum(achieved.asked.values()) / unit_s
    if not edges:
        return [_row("exchanges a second", f"{asked_hz:.4g}", NONE, None, "of the whole network")]
    made_hz = math.fsum(edge.achieved for edge in edges) / unit_s
    units = max(edge.units for edge in edges)
    # What is not counted, since its owner is away, does not take place.
    whole = EdgeRate("", "", asked_hz * unit_s, round(made_hz * unit_s * units), units)
    well = _well([whole]) if whole.expected >= EXPECTED_MIN else None
    return [_row("exchanges a second", f"{asked_hz:.4g}", f"{made_hz:.4g}", well, f"all edges, over {achieved.span}")]


def _slowest(achieved: Achieved) -> list[dict[str, Any]]:
    judged = [edge for edge in achieved.edges if edge.expected >= EXPECTED_MIN]
    if not judged or not achieved.unit_s:
        return []
    worst = min(judged, key=lambda edge: edge.share)
    asked, made = (f"{rate / achieved.unit_s:.3g}" for rate in (worst.asked, worst.achieved))
    hint = f"{worst.a} – {worst.b}: {worst.share:.0%} of its exchanges a second, over {achieved.span}"
    return [_row("slowest edge", asked, made, _well(judged), hint)]


def _well(edges: Sequence[EdgeRate]) -> bool | None:
    """Whether all make most of their exchanges; None where some do not, and chance may be why."""
    return False if slow_edges(edges) else True if min(edge.share for edge in edges) >= SHARE_MIN else None


def _chis(achieved: Achieved) -> list[dict[str, Any]]:
    """χ1·χ2 of the rates asked and of those achieved; of these, what chance explains is not held against them."""
    if not achieved.asked or not _scientific():
        return []
    most, edges = achieved.bounds.chi1_chi2_max, achieved.edges
    planned = _product(tuple(achieved.asked.items()))
    whole = len(edges) == len(achieved.asked)
    made = chi1_chi2({(edge.a, edge.b): edge.achieved for edge in edges}) if whole else None
    well = None
    if made is not None and most < math.inf:
        well = True if made <= WORTH_A_WORD * most else None if _explained(edges, made) else False
    hint = "of the rates: how slowly all agree" + (f"; {most:g} at most" if most < math.inf else "")
    asked, achieves = (NONE if value is None else f"{value:.3g}" for value in (planned, made))
    return [_row("χ1·χ2", asked, achieves, well, hint)]


@lru_cache(maxsize=4)
def _product(rates: tuple[tuple[tuple[str, str], float], ...]) -> float | None:
    return chi1_chi2(dict(rates))


def _explained(edges: Sequence[EdgeRate], made: float) -> bool:
    """Whether chance at its worst on every edge does as much harm."""
    z = chance(edges)
    unlucky = chi1_chi2({(e.a, e.b): max(0.0, e.expected - z * math.sqrt(e.expected)) / e.units for e in edges})
    return unlucky is None or made <= unlucky


@cache
def _scientific() -> bool:
    """Whether the planner's packages are there."""
    try:
        import scipy  # noqa: F401
    except ImportError:
        return False
    return True


def _exchange_time(achieved: Achieved) -> list[dict[str, Any]]:
    if not achieved.exchange_units:
        return []
    most, longest = achieved.bounds.exchange_units_max, max(achieved.exchange_units)
    bounded = most < math.inf
    asked = f"≤ {most:g}" if bounded else NONE
    hint = "units, of the peer with the longest"
    return [_row("exchange time, p99", asked, f"{longest:.2g}", longest <= most if bounded else None, hint)]


def _behind(achieved: Achieved) -> list[dict[str, Any]]:
    if not achieved.behind:
        return []
    worst = max(achieved.behind)
    hint = "units a unit by which the local steps of the slowest peer are late"
    return [_row("local steps behind", f"≤ {BEHIND_MAX:g}", f"{worst:.2g}", worst <= BEHIND_MAX, hint)]


def _gap(plan: Plan | None) -> list[dict[str, Any]]:
    if plan is None or not _scientific():
        return []
    hint = "part of disagreement that one round of the plan's weights removes"
    return [_row("spectral gap", f"{_spectral_gap(plan):.3g}", NONE, None, hint)]


@cache
def _spectral_gap(plan: Plan) -> float:
    import numpy as np

    from topology.measures import edge_ends, mixing_gap

    return mixing_gap(len(plan.nodes), edge_ends(plan), np.array([edge.weight for edge in plan.edges]))
