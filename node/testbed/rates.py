"""How often edges exchanged, against how often the plan asks them to.

An exchange is counted at both of its ends; what the edge's owner has counted is taken. Clocks are Poisson clocks: of N
exchanges that are to be expected, N ± √N take place, and only what falls short of that by more than chance explains is
called slow.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from node.errors import TaskError
from node.keeping_up import EXPECTED_MIN
from node.testbed.milestones import Lines

if TYPE_CHECKING:
    from algorithms.protocol import Tempo
    from node.config import RunConfig
    from topology.plan import Plan

SHARE_MIN = 0.8
"""An edge that achieves less of what it is asked is slow."""

FALSE_ALARM = 0.05
"""Probability that chance alone makes any edge of a run look slow."""

WORTH_A_WORD = 1.2
"""So many times what χ1·χ2 of the edge rates may be, and something is said of it."""

RATE_MIN = 1e-9
"""As a part of the highest rate, in place of 0 where matrices must not be singular."""


@dataclass(frozen=True, slots=True)
class EdgeRate:
    """One edge.

    Parameters
    ----------
    a, b : str
        Its owner and the other end.
    asked : float
        Exchanges a unit that it is to make.
    count : int
        Those that it has made.
    units : float
        In this time.
    """

    a: str
    b: str
    asked: float
    count: int
    units: float

    @property
    def achieved(self) -> float:
        """Exchanges a unit that it has made."""
        return self.count / self.units if self.units else 0.0

    @property
    def expected(self) -> float:
        """Exchanges that were to be expected."""
        return self.asked * self.units

    @property
    def share(self) -> float:
        """How much of what was asked it has achieved."""
        return self.count / self.expected if self.expected else 0.0


def asked_rates(plan: Plan, config: RunConfig) -> dict[tuple[str, str], float]:
    """Exchanges a unit that a run asks of each edge, by its owner and its other end."""
    from node.place import rate_scale  # which loads torch

    try:
        scale = rate_scale(plan, config)
    except TaskError:  # the reference points are no algorithms and exchange nothing
        return {}
    return {(edge.a, edge.b): edge.rate * scale for edge in plan.edges}


def edge_rates(asked: Mapping[tuple[str, str], float], lines: Lines) -> list[EdgeRate]:
    """The edges whose owners have counted, the one that achieved the least of what it was asked first."""
    last = {name: peer[-1] for name, peer in lines.items() if peer and "exchanges_with" in peer[-1]}
    edges = [
        EdgeRate(a, b, rate, int(last[a]["exchanges_with"].get(b, 0)), last[a]["units"])
        for (a, b), rate in asked.items()
        if a in last
    ]
    return sorted(edges, key=lambda edge: (edge.share, edge.a, edge.b))


def sum_rates(edges: Sequence[EdgeRate], asked: Mapping[tuple[str, str], float]) -> dict[str, Any] | None:
    """What ``summary.json`` says of the rates; None where no edge was counted.

    The worst edge is the one that achieved the least of what it was asked, out of those that can be judged.
    """
    if not edges:
        return None
    worst = next((edge for edge in edges if edge.expected >= EXPECTED_MIN), None)
    whole = len(edges) == len(asked)
    return {
        "asked": sum(edge.asked for edge in edges),
        "achieved": sum(edge.achieved for edge in edges),
        "worst_edge": worst and {"peers": [worst.a, worst.b], "asked": worst.asked, "achieved": worst.achieved},
        "chi1_chi2_asked": chi1_chi2(asked),
        "chi1_chi2_achieved": chi1_chi2({(edge.a, edge.b): edge.achieved for edge in edges}) if whole else None,
    }


def chi1_chi2(rates: Mapping[tuple[str, str], float]) -> float | None:
    """χ1·χ2 of the rates of all edges of a graph; None where those above 0 do not connect it."""
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    from topology.measures import chis

    names = sorted({name for pair in rates for name in pair})
    position = {name: k for k, name in enumerate(names)}
    ends = np.array([(position[a], position[b]) for a, b in rates], dtype=np.int64)
    values = np.array(list(rates.values()))
    graph = coo_array((values, (ends[:, 0], ends[:, 1])), shape=(len(names), len(names))).tocsr()
    graph.eliminate_zeros()
    if connected_components(graph, directed=False, return_labels=False) > 1:
        return None
    # An edge that happened not to exchange still is one over which χ2 is taken.
    chi1, chi2 = chis(len(names), ends, np.maximum(values, RATE_MIN * values.max()))
    return chi1 * chi2


# --------------------------------------------------------------------------------------------- in words


def remarks(summary: Mapping[str, Any], edges: Sequence[EdgeRate], away: Collection[str] = ()) -> list[str]:
    """What an operator should know about the exchanges of a run, in sentences; none where all is well.

    Parameters
    ----------
    summary : mapping
        ``summary.json``.
    edges : sequence of EdgeRate
        The edges, from the slowest.
    away : collection of str
        Peers that crashed or were lost, for which nobody else is to be blamed.
    """
    return [
        *_say_slow(edges, away),
        *say_unstable(summary, edges, away),
        *_say_long(summary, away),
        *_say_lost(summary),
    ]


def tempo_of(name: str) -> Tempo:
    """What the algorithm of this name asks of time and rates; of one that is not known any more, nothing."""
    from algorithms import ALGORITHMS
    from algorithms.protocol import Tempo

    return ALGORITHMS[name].tempo if name in ALGORITHMS else Tempo()


def chance(edges: Sequence[EdgeRate]) -> float:
    """The z for which no Poisson clock falls short of its N ticks by z·√N, with all but a small probability.

    P(X ≤ N − t) ≤ exp(−t²/2N) for each edge, and the union bound over all of them.
    """
    return math.sqrt(2 * math.log(max(1, len(edges)) / FALSE_ALARM))


def slow_edges(edges: Sequence[EdgeRate]) -> list[EdgeRate]:
    """Those under 80 % of what was asked that chance does not explain."""
    z = chance(edges)
    return [
        edge
        for edge in edges
        if edge.expected >= EXPECTED_MIN
        and edge.share < SHARE_MIN
        and edge.count < edge.expected - z * math.sqrt(edge.expected)
    ]


def _say_slow(edges: Sequence[EdgeRate], away: Collection[str]) -> list[str]:
    slow = [edge for edge in slow_edges(edges) if edge.a not in away and edge.b not in away]
    if not slow:
        return []
    worst = slow[0]
    more = f", and {len(slow) - 1} more below {SHARE_MIN:.0%}" if len(slow) > 1 else ""
    return [
        f"The edge {worst.a} – {worst.b} made {worst.achieved:.3g} exchanges a unit of the {worst.asked:.3g} asked for "
        f"({worst.share:.0%}{more}): where peers or network can't keep up, give a longer --time-unit."
    ]


def say_unstable(summary: Mapping[str, Any], edges: Sequence[EdgeRate], away: Collection[str] = ()) -> list[str]:
    """What of the rates, asked or achieved, leaves the algorithm without its guarantee."""
    from algorithms.dadao import ROUNDING

    name, rates = str(summary["algorithm"]), summary.get("rates") or {}
    most, product, asked = tempo_of(name).chi1_chi2_max, rates.get("chi1_chi2_achieved"), rates.get("chi1_chi2_asked")
    if asked is not None and asked > most * (1 + ROUNDING):
        return [
            f"The guarantee of {name} needs χ1·χ2 ≤ {most:g}; at the rates asked for it is {asked:.3g}: leave out "
            "--exchanges-per-step, or raise it."
        ]
    if product is None or product <= WORTH_A_WORD * most:
        return []
    # χ1 and χ2 only grow as rates fall: what the rates would give if chance had been at its worst on every edge.
    z = chance(edges)
    unlucky = {(e.a, e.b): max(0.0, e.expected - z * math.sqrt(e.expected)) / e.units for e in edges if e.units}
    explained = chi1_chi2(unlucky) if unlucky else None
    if explained is None or product <= explained:
        return []
    return [
        f"The guarantee of {name} needs χ1·χ2 ≤ {most:g}; at the achieved rates it is {product:.2f}: {_cure(away)}."
    ]


def _say_long(summary: Mapping[str, Any], away: Collection[str]) -> list[str]:
    name = str(summary["algorithm"])
    time, most = summary.get("exchange_p99_units"), tempo_of(name).exchange_units_max
    if time is None or time <= most:
        return []
    return [
        f"The guarantee of {name} needs exchanges that take less than {most:g} units; 99 % of one peer's took up to "
        f"{time:.2g}: {_cure(away)}."
    ]


def _cure(away: Collection[str]) -> str:
    return "peers crashed or were lost meanwhile" if away else "give a longer --time-unit"


def _say_lost(summary: Mapping[str, Any]) -> list[str]:
    name, lost = str(summary["algorithm"]), summary.get("lost_exchanges")
    if not lost or math.isinf(tempo_of(name).chi1_chi2_max):
        return []
    return [
        f"Crashes left {lost:.0f} exchanges applied at one end only, so that {name} settles beside the optimum: write "
        "--durability exact."
    ]
