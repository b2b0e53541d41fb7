"""How often each edge exchanges: rate policies, one function and one registry line each.

A policy splits one exchange over the edges: probabilities p ≥ 0 with Σp = 1. They are then scaled by the total
rate T = √(2·χ1(p)·χ2(p)), the least with which accelerated gossip is stable on them.

``uniform`` gives every edge the same; ``connectivity`` maximises λ2 for what the exchanges cost, as is classical [1]_,
and does not look at χ2; ``optimal`` minimises the total cost itself, exactly.

Whatever the policy, the record says how far from the best its rates may be: a lower bound on the total cost of
*any* stable rates. The simplest one holds on every graph. By Foster's theorem Σ_e λ_e b_eᵀ Λ⁺ b_e = n − 1, so that
no resistance bound u is below (n−1)/Σλ; and λ2 ≤ 2Σλ/(n−1), the mean of all eigenvalues; hence Σλ ≥ (n−1)/√2.

.. [1] S. Boyd, A. Ghosh, B. Prabhakar, D. Shah. Randomized gossip algorithms. IEEE Transactions on Information Theory
   52(6), 2006.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError

from topology.explain import say_excess, say_infeasible
from topology.measures import chis, edge_resistances, total_rate
from topology.plan import Rates
from topology.problem import Dual, Infeasible, Problem, Reals, Solution, Stop, Watch
from topology.rates_large import AUTO, solve_large
from topology.records import PlanError, unknown
from topology.solvers.certificate import foster_bound, lower_bound

DIGITS = 10
LEAST_SHARE = 1e-9
LIMIT_TOLERANCE = 1e-8
PROGRAMME_MAX = 2000
ROUNDING = 1e-6
SMALL, FEW, FINE = 200, 2500, 1e-6


class Asked(NamedTuple):
    """What a policy gets besides the problem: when to stop, whom to tell, and which solver to use."""

    stop: Stop
    watch: Watch | None
    solver: str


class Allocation(NamedTuple):
    """What a policy answers.

    Parameters
    ----------
    probabilities : ndarray, shape (m,)
        How one exchange is split over the edges; they sum to 1.
    lower_bound : float
        No stable rates on this graph have a smaller total cost.
    policy_gap : float
        How far the policy's own aim may be from its best, as a part of it.
    solver : str
        What computed them.
    """

    probabilities: Reals
    lower_bound: float
    policy_gap: float
    solver: str


def uniform(problem: Problem, asked: Asked) -> Allocation:
    """Every edge equally often."""
    m = len(problem.ends)
    return Allocation(np.full(m, 1 / m), foster_bound(problem.n) * float(problem.costs.min()), 0.0, "closed form")


def connectivity(problem: Problem, asked: Asked) -> Allocation:
    """The largest λ2 for what the exchanges cost, whatever becomes of χ2.

    Limits are kept by rates that are stable for λ2 ≥ √2 alone.
    """
    found = _solve(problem, False, asked)
    split = _positive(problem, found.rates)
    # The spectral half of the bound is the solver's; Foster's theorem at these rates gives the other half.
    felt = edge_resistances(problem.n, problem.ends, split)
    prices = found.dual.prices if len(split) > PROGRAMME_MAX else None
    dual = Dual(found.dual.a, felt / float(split @ felt**2), prices)
    gap = float(problem.costs @ split) * float(found.rates.sum()) / found.bound - 1
    return Allocation(split, lower_bound(problem, dual), max(0.0, gap), found.solver)


def optimal(problem: Problem, asked: Asked) -> Allocation:
    """The least total cost: χ1 and χ2 at once."""
    found = _solve(problem, True, asked)
    split = _positive(problem, found.rates)
    even = np.full(len(split), 1 / len(split))
    if _cost(problem, even) <= _cost(problem, split) * (1 + ROUNDING) < math.inf:
        split = even  # as on a ring or a star, where nothing is gained
    return Allocation(split, found.bound, max(0.0, _cost(problem, split) / found.bound - 1), found.solver)


def _cost(problem: Problem, probabilities: Reals) -> float:
    """What exchanges cost per unit of time when they are just stable, or inf when that breaks a limit."""
    rates = total_rate(*chis(problem.n, problem.ends, probabilities)) * probabilities
    return float(problem.costs @ rates) if problem.keeps_limits(rates, LIMIT_TOLERANCE) else math.inf


def _solve(problem: Problem, resistances: bool, asked: Asked) -> Solution:
    stop = asked.stop
    if problem.n <= SMALL and len(problem.ends) <= FEW:  # a few steps more cost hardly anything
        stop = stop._replace(max_gap=min(stop.max_gap, FINE))
    return solve_large(problem, resistances=resistances, stop=stop, watch=asked.watch, solver=asked.solver)


RATES: dict[str, Callable[[Problem, Asked], Allocation]] = {
    "uniform": uniform,
    "connectivity": connectivity,
    "optimal": optimal,
}


def choose_rates(
    policy: str,
    problem: Problem,
    *,
    names: Sequence[str] | None = None,
    stop: Stop | None = None,
    watch: Watch | None = None,
    solver: str = AUTO,
) -> tuple[Reals, Rates]:
    """Rates of all edges by one policy, and what they achieve.

    Parameters
    ----------
    policy : str
        A key of ``RATES``.
    problem : Problem
        The graph, with costs and limits.
    names : sequence of str, optional
        What complaints call the nodes; n0, n1 and so on by default.
    stop : Stop, optional
        When a solver may end.
    watch : callable, optional
        Is told how the gap closes.
    solver : str
        A key of ``topology.rates_large.SOLVERS``, or auto.

    Returns
    -------
    rates : ndarray, shape (m,)
        Exchanges per unit of time.
    record : Rates
        What they achieve.

    Raises
    ------
    PlanError
        When there is no such policy or solver, or no rates keep the limits.
    """
    if policy not in RATES:
        raise PlanError(unknown("rates policy", policy, RATES))
    names = names or [f"n{k}" for k in range(problem.n)]
    asked = Asked(stop or Stop(), watch, solver)
    began_s = time.perf_counter()
    try:
        found = RATES[policy](problem, asked)
    except (LinAlgError, ArithmeticError):
        raise PlanError("costs and limits differ by so much that rounding errors win: bring them nearer.") from None
    except Infeasible as error:
        raise PlanError(say_infeasible(problem, names, resistances=policy == "optimal", error=error)) from None
    spent_s = time.perf_counter() - began_s
    one, two = (_rounded(chi) for chi in chis(problem.n, problem.ends, found.probabilities))
    total = total_rate(one, two)
    rates = np.array([_rounded(rate) for rate in total * found.probabilities])
    if not problem.keeps_limits(rates, LIMIT_TOLERANCE):
        raise PlanError(say_excess(problem, names, policy, rates))
    cost = float(problem.costs @ rates)
    record = Rates(
        policy=policy,
        chi1=one,
        chi2=two,
        total_rate=_rounded(total),
        lower_bound=found.lower_bound,
        certified_gap=max(0.0, cost / found.lower_bound - 1),
        solver=found.solver,
        seconds=round(spent_s, 6),
        policy_gap=found.policy_gap,
    )
    return rates, record


def _positive(problem: Problem, rates: Reals) -> Reals:
    """Rates as probabilities, none of them 0: an edge that never exchanges would be no edge.

    On what they get no more is spent than rounding errors cost, and no capacity is filled by it.
    """
    least = np.minimum(
        LEAST_SHARE / len(rates) * float(problem.costs @ rates) / problem.costs, 0.1 * problem.capacities
    )
    raised = np.maximum(rates, least)
    normal: Reals = raised / raised.sum()
    return normal


def _rounded(value: float) -> float:
    """To ten digits: the last ones differ between builds of the linear algebra, and would change the plan's digest."""
    return float(f"{value:.{DIGITS}g}")
