"""Lower bounds on what any rates must cost, from dual points that are made feasible here, whoever found them.

Two facts hold for all rates λ of a graph, with Λ their Laplacian and a(M)_e = b_eᵀ M b_e:

* λ2(Λ) ≤ ⟨X, Λ⟩ = a(X)ᵀλ for every X ⪰ 0 with tr X = 1 and X1 = 0;
* R_k ≥ 2s − s²·y_kᵀ Λ y_k for every number s and every vector y_k with b_kᵀ y_k = 1 (Fenchel), so that
  max_k R_k ≥ 2s − s²·a(Y)ᵀλ for every mean Y = Σ_k w_k y_k y_kᵀ of such products.

Rates are stable when R_k ≤ λ2 for every edge, and then (a(X) + s²·a(Y))ᵀλ ≥ 2s. If θ ≥ 0, prices v ≥ 0 of
capacities and prices π ≥ 0 of budgets satisfy θ(a(X) + s²·a(Y))_e ≤ c_e + v_e + π_i + π_j on every edge, then

    Σ c_e λ_e ≥ 2sθ − Σ v_e capacity_e − Σ π_i budget_i.

Without limits the best θ is plain, and the bound is 2/max_e (t·a(X) + a(Y)/t)_e/c_e for every t > 0. The
relaxation that knows no resistances asks for λ2 ≥ √2 instead (then R ≤ 2/λ2 ≤ λ2); its bound has √2 for 2s
and no Y.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy.optimize import linprog, minimize_scalar
from scipy.sparse import csr_array, hstack

from topology.problem import Dual, Problem, Reals

LEVEL = math.sqrt(2)
"""The λ2 that makes any rates stable, since no edge's resistance is above 2/λ2."""

SPAN = 4.0
TINY = 1e-300


def lower_bound(problem: Problem, dual: Dual) -> float:
    """The best bound on the total cost that a dual point gives; −inf at worst.

    Capacities' prices and the scales of X and Y are chosen here.
    """
    return _best(problem, problem.costs, dual)


def proves_infeasible(problem: Problem, dual: Dual) -> bool:
    """Whether a dual point proves that no rates keep the limits: exchanges for nothing would still cost something.

    A tenth of a millionth is allowed for rounding.
    """
    if not problem.limited:
        return False
    wider = dataclasses.replace(
        problem, capacities=problem.capacities * (1 + 1e-7), budgets=problem.budgets * (1 + 1e-7)
    )
    return _best(wider, np.zeros(len(problem.ends)), dual) > 0


def _best(problem: Problem, costs: Reals, dual: Dual) -> float:
    if dual.y is None:
        return _value(problem, costs, dual.a, LEVEL, dual.prices)
    a, y = dual.a, dual.y
    balance = 0.5 * math.log(max(y.max(), TINY) / max(a.max(), TINY))

    def loss(log_t: float) -> float:
        t = math.exp(log_t)
        return -_value(problem, costs, t * a + y / t, 2.0, dual.prices)

    found = minimize_scalar(loss, bounds=(balance - SPAN, balance + SPAN), method="bounded", options={"xatol": 1e-8})
    return float(-found.fun)


def _value(problem: Problem, costs: Reals, load: Reals, gain: float, prices: Reals | None) -> float:
    """The most of gain·θ less what limits cost, over θ with θ·load ≤ costs and prices together."""
    if not problem.limited:
        return gain * float((costs / np.maximum(load, TINY)).min())
    if prices is None:
        prices = _choose_prices(problem, costs, load, gain)
    paid = np.where(np.isfinite(problem.budgets), np.maximum(prices, 0), 0.0)
    i, j = problem.ends.T
    bearable = (costs + paid[i] + paid[j]) / np.maximum(load, TINY)
    free = np.isinf(problem.capacities)
    most = float(bearable[free].min()) if free.any() else math.inf
    # Beyond its own θ every capped edge costs capacity·load more: climb while that is less than the gain.
    capped = problem.capped[np.argsort(bearable[problem.capped])]
    slopes = gain - np.cumsum(problem.capacities[capped] * load[capped])
    turn = bearable[capped[slopes <= 0][0]] if (slopes <= 0).any() else math.inf
    theta = min(most, turn)
    if math.isinf(theta):
        return math.inf
    excess = np.maximum(theta * load[capped] - bearable[capped] * load[capped], 0)
    owed = float(problem.budgets[problem.budgeted] @ paid[problem.budgeted])
    return gain * theta - float(problem.capacities[capped] @ excess) - owed


def _choose_prices(problem: Problem, costs: Reals, load: Reals, gain: float) -> Reals:
    """Prices of budgets by a linear programme over θ and all prices; whatever it answers, the bound is checked."""
    rows, height = problem.limits
    unit = float(load.max())
    matrix = hstack([csr_array(load[:, None] / unit), -rows.T])
    objective = np.concatenate([[-gain / unit], height])
    answer = linprog(objective, A_ub=matrix, b_ub=costs, bounds=[(0, 1e6)] + [(0, None)] * len(height))
    prices = np.zeros(problem.n)
    if answer.x is not None:
        prices[problem.budgeted] = answer.x[1 + len(problem.capped) :]
    return prices
