"""Lower bounds on what any rates must cost, from dual points that are made feasible here, whoever found them.

Two facts hold for all rates λ of a graph, with Λ their Laplacian and a(M)_e = b_eᵀ M b_e:

* λ2(Λ) ≤ ⟨X, Λ⟩ = a(X)ᵀλ for every X ⪰ 0 with tr X = 1 and X1 = 0;
* R_k ≥ 2s − s²·y_kᵀ Λ y_k for every number s and every vector y_k with b_kᵀ y_k = 1 (Fenchel), so that
  max_k R_k ≥ 2s − s²·a(Y)ᵀλ for every mean Y = Σ_k w_k y_k y_kᵀ of such products.

Rates are stable when R_k ≤ λ2 for every edge, and then (a(X) + s²·a(Y))ᵀλ ≥ 2s. If θ ≥ 0, prices v ≥ 0 of
capacities and prices π ≥ 0 of budgets satisfy θ(a(X) + s²·a(Y))_e ≤ c_e + v_e + π_i + π_j on every edge, then

    Σ c_e λ_e ≥ 2sθ − Σ v_e capacity_e − Σ π_i budget_i.

Without limits the best θ is plain, and the bound is 2/max_e (t·a(X) + a(Y)/t)_e/c_e for every t > 0. The
restriction that knows no resistances asks for λ2 ≥ √2 instead (then R ≤ 2/λ2 ≤ λ2); its bound has √2 for 2s
and no Y.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy.linalg import eigvalsh
from scipy.optimize import linprog, minimize_scalar
from scipy.sparse import csr_array, hstack

from topology.problem import Dual, Problem, Reals
from topology.solvers.matrices import edge_values

LEVEL = math.sqrt(2)
"""The λ2 that makes any rates stable, since no edge's resistance is above 2/λ2."""

SPAN = 4.0
HUGE = 1e9
BLOCK = 4096
HOPELESS = 1e3
TINY = 1e-300


def lower_bound(problem: Problem, dual: Dual) -> float:
    """The best bound on the total cost that a dual point gives, and never less than :func:`foster_bound`.

    Capacities' prices and the scales of X and Y are chosen here.
    """
    return max(_best(problem, problem.costs, dual).value, foster_bound(problem.n) * float(problem.costs.min()))


def foster_bound(n: int) -> float:
    """(n − 1)/√2, the total rate that no graph of n nodes can do without, with or without resistances."""
    return (n - 1) / math.sqrt(2)


def dual_of(problem: Problem, spectral: Reals, inverse: Reals | None = None, weights: Reals | None = None) -> Dual:
    """A dual point from whatever a solver has: what is not quite feasible in it is repaired.

    Parameters
    ----------
    problem : Problem
    spectral : ndarray, shape (n, n)
        Wanted as X. It is centred, lifted until a full eigendecomposition finds nothing negative, and divided by
        its trace.
    inverse : ndarray, shape (n, n), optional
        Any matrix M: y_k = M b_k / b_kᵀ M b_k satisfies b_kᵀ y_k = 1.
    weights : ndarray, shape (m,), optional
        Wanted as the weights of y_k y_kᵀ; what is negative counts as 0.
    """
    n, (i, j) = problem.n, problem.ends.T
    centred = spectral - spectral.mean(axis=0)
    centred = centred - centred.mean(axis=1)[:, None]
    centred = (centred + centred.T) / 2
    lifted = max(0.0, -float(eigvalsh(centred, check_finite=False)[0])) * (np.eye(n) - 1 / n)
    positive = (centred + lifted) / np.trace(centred + lifted)
    a = edge_values(positive, problem.ends)
    if inverse is None or weights is None:
        return Dual(a)
    shares = np.maximum(weights, 0) / np.maximum(weights, 0).sum()
    mean = np.zeros((n, n))
    for first in range(0, len(i), BLOCK):
        part = slice(first, first + BLOCK)
        columns, k = inverse[:, i[part]] - inverse[:, j[part]], np.arange(len(i[part]))
        columns /= columns[i[part], k] - columns[j[part], k]
        mean += (columns * shares[part]) @ columns.T
    return Dual(a, edge_values(mean, problem.ends))


def proves_infeasible(problem: Problem, dual: Dual, reference: float) -> bool:
    """Whether a dual point proves that hardly any rates keep all limits.

    The proof is a bound above ``HOPELESS`` times a reference cost, that of rates without limits, and that times as
    much as costs differ.
    """
    spread = float(problem.costs.max() / problem.costs.min())  # dear edges may have to do what cheap ones can't
    return problem.limited and lower_bound(problem, dual) > HOPELESS * spread * reference


def limit_shares(problem: Problem, dual: Dual) -> Reals:
    """What each limit adds to a proof that there are no rates, shape (k,), in the order of ``problem.limits``.

    The prices are those of a linear programme, which names few limits.
    """
    return _best(problem, problem.costs / HOPELESS, dual._replace(prices=None)).shares


class _Priced(NamedTuple):
    """A bound, and what each limit takes off it, shape (k,)."""

    value: float
    shares: Reals


def _best(problem: Problem, costs: Reals, dual: Dual) -> _Priced:
    if dual.y is None:
        return _price(problem, costs, dual.a, LEVEL, dual.prices)
    a, y = dual.a, dual.y
    balance = 0.5 * math.log(max(y.max(), TINY) / max(a.max(), TINY))

    def at(log_t: float) -> _Priced:
        t = math.exp(log_t)
        return _price(problem, costs, t * a + y / t, 2.0, dual.prices)

    between = (balance - SPAN, balance + SPAN)
    found = minimize_scalar(lambda log_t: -at(log_t).value, bounds=between, method="bounded", options={"xatol": 1e-8})
    return at(float(found.x))


def _price(problem: Problem, costs: Reals, load: Reals, gain: float, prices: Reals | None) -> _Priced:
    """The most of gain·θ less what limits cost, over θ with θ·load ≤ costs and prices together."""
    load = np.maximum(load, TINY)
    if not problem.limited:
        return _Priced(gain * float((costs / load).min()), np.empty(0))
    if prices is None:
        prices = _choose_prices(problem, costs, load, gain)
    paid = np.where(np.isfinite(problem.budgets), np.maximum(prices, 0), 0.0)
    i, j = problem.ends.T
    bearable = (costs + paid[i] + paid[j]) / load
    # Beyond its own θ every capped edge costs capacity·load more: climb while that is less than the gain.
    capped = problem.capped[np.argsort(bearable[problem.capped])]
    enough = np.cumsum(problem.capacities[capped] * load[capped]) >= gain
    theta = float(bearable[capped[np.argmax(enough)]]) if enough.any() else math.inf
    theta = min(theta, float(bearable[np.isinf(problem.capacities)].min(initial=math.inf)))
    theta = min(theta, HUGE * float(bearable.max()))  # all capped, and far too low: the bound grows without end
    excess = np.maximum(theta - bearable, 0) * load
    capped, budgeted = problem.capped, problem.budgeted
    shares = np.concatenate([problem.capacities[capped] * excess[capped], problem.budgets[budgeted] * paid[budgeted]])
    return _Priced(gain * theta - float(shares.sum()), shares)


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
