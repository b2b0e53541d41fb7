"""How often each edge exchanges: rate policies, one function and one registry line each.

A policy splits one exchange over the edges: probabilities p ≥ 0 with Σp = 1. They are then scaled by the total
rate T = √(2·χ1(p)·χ2(p)), the least with which accelerated gossip is stable on them.

Every policy also says how far from the best it may be: a lower bound on the total rate of *any* probabilities.
The simplest one holds on every graph. By Foster's theorem Σ_e p_e b_eᵀ Λ⁺ b_e = n − 1, so that the largest
resistance is at least that mean: χ2 ≥ (n−1)/2; and χ1 ≥ χ2; hence T ≥ (n−1)/√2.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from topology.measures import chi1, chi2, laplacian, total_rate
from topology.plan import Rates
from topology.problem import Ends, Reals
from topology.records import PlanError, unknown

DIGITS = 10


class Allocation(NamedTuple):
    """What a policy answers.

    Parameters
    ----------
    probabilities : ndarray, shape (m,)
        How one exchange is split over the edges; they sum to 1.
    lower_bound : float
        No probabilities on this graph have a smaller total rate.
    solver : str
        What computed them.
    """

    probabilities: Reals
    lower_bound: float
    solver: str


def uniform(n: int, ends: Ends) -> Allocation:
    """Every edge equally often."""
    return Allocation(np.full(len(ends), 1 / len(ends)), foster_bound(n), "closed form")


RATES: dict[str, Callable[[int, Ends], Allocation]] = {"uniform": uniform}


def foster_bound(n: int) -> float:
    """(n − 1)/√2, the total rate that no graph of n nodes can do without."""
    return (n - 1) / math.sqrt(2)


def choose_rates(policy: str, n: int, ends: Ends) -> tuple[Reals, Rates]:
    """Rates of all edges by one policy, and what they achieve.

    Parameters
    ----------
    policy : str
        A key of ``RATES``.
    n : int
        Number of nodes.
    ends : ndarray of int, shape (m, 2)
        The ends of every edge of a connected graph.

    Returns
    -------
    rates : ndarray, shape (m,)
        Exchanges per unit of time.
    record : Rates
        What they achieve.

    Raises
    ------
    PlanError
        When there is no such policy.
    """
    if policy not in RATES:
        raise PlanError(unknown("rates policy", policy, RATES))
    began_s = time.perf_counter()
    found = RATES[policy](n, ends)
    spent_s = time.perf_counter() - began_s
    matrix = laplacian(n, ends, found.probabilities)
    one, two = _rounded(chi1(matrix)), _rounded(chi2(matrix, ends))
    total = total_rate(one, two)
    record = Rates(
        policy=policy,
        chi1=one,
        chi2=two,
        total_rate=_rounded(total),
        lower_bound=found.lower_bound,
        certified_gap=max(0.0, total / found.lower_bound - 1),
        solver=found.solver,
        seconds=round(spent_s, 6),
    )
    return np.array([_rounded(rate) for rate in total * found.probabilities]), record


def _rounded(value: float) -> float:
    """To ten digits: the last ones differ between builds of the linear algebra, and would change the plan's digest."""
    return float(f"{value:.{DIGITS}g}")
