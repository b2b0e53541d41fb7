"""Lower bounds never exceed what a direct semidefinite programme finds, whatever they are made from."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest

from tests.unit.direct_sdp import direct_sdp
from topology.measures import laplacian
from topology.problem import Dual, Problem, Reals
from topology.solvers.certificate import LEVEL, dual_of, foster_bound, limit_shares, lower_bound, proves_infeasible

N = 7
ENDS = np.array(sorted(nx.connected_watts_strogatz_graph(N, 4, 0.6, seed=4).edges), dtype=np.int64)
M = len(ENDS)


def incidence() -> Reals:
    matrix = np.zeros((N, M))
    matrix[ENDS[:, 0], np.arange(M)], matrix[ENDS[:, 1], np.arange(M)] = 1, -1
    return matrix


def problem_of(kind: str) -> Problem:
    draw = np.random.default_rng(5)
    costs = draw.uniform(0.5, 3, M)
    capacities, budgets = np.full(M, math.inf), np.full(N, math.inf)
    if kind in ("capacities", "both"):
        capacities[[0, 4, 7]] = [1.0, 1.5, 0.8]
    if kind in ("budgets", "both"):
        budgets[[1, 3]] = [3.0, 3.5]
    return Problem.of(N, ENDS, costs=costs, capacities=capacities, budgets=budgets)


def some_dual(draw: np.random.Generator, resistances: bool) -> Dual:
    root = draw.normal(size=(N, int(draw.integers(1, N))))
    if not resistances:
        return dual_of(Problem.of(N, ENDS), root @ root.T)
    inverse = np.linalg.pinv(laplacian(N, ENDS, draw.exponential(size=M) + 0.1))
    return dual_of(Problem.of(N, ENDS), root @ root.T, inverse, draw.exponential(size=M))


@pytest.mark.parametrize("kind", ["free", "capacities", "budgets", "both"])
@pytest.mark.parametrize("resistances", [True, False])
def test_no_dual_point_exceeds_the_optimum(kind: str, resistances: bool) -> None:
    problem = problem_of(kind)
    least, _ = direct_sdp(problem, resistances)
    assert math.isfinite(least)
    draw = np.random.default_rng(6)
    best = -math.inf
    for _ in range(60):
        dual = some_dual(draw, resistances)
        for prices in (None, np.zeros(N), draw.exponential(size=N) * draw.integers(0, 2, N)):
            bound = lower_bound(problem, dual._replace(prices=prices))
            assert bound <= least * (1 + 1e-7)
            best = max(best, bound)
    assert best > 0.2 * least  # and they are worth something


def test_the_complete_graph_has_a_perfect_certificate() -> None:
    """X = (I − J)/(n − 1) and the projection's y_k prove (n − 1)/√2, which uniform rates attain."""
    ends = np.array([(i, j) for i in range(N) for j in range(i)])
    problem = Problem.of(N, ends)
    center = np.eye(N) - 1 / N
    dual = dual_of(problem, center, center, np.ones(len(ends)))
    assert lower_bound(problem, dual) == pytest.approx((N - 1) / math.sqrt(2), rel=1e-9)
    # Without resistances λ2 = √2 must be paid for: Σλ ≥ √2·(n − 1)/2, which is the same number.
    assert lower_bound(problem, dual._replace(y=None)) == pytest.approx(LEVEL * (N - 1) / 2, rel=1e-12)


def test_a_dual_point_is_what_it_says() -> None:
    draw = np.random.default_rng(7)
    root, weights = draw.normal(size=(N, 3)), draw.exponential(size=M)
    inverse = np.linalg.pinv(laplacian(N, ENDS, np.ones(M)))
    dual = dual_of(Problem.of(N, ENDS), root @ root.T, inverse, weights)
    b, center = incidence(), np.eye(N) - 1 / N
    x = center @ root @ root.T @ center
    np.testing.assert_allclose(dual.a, np.diag(b.T @ x @ b) / np.trace(x), rtol=1e-10)
    y = sum(
        w * np.outer(column, column) / (edge @ column) ** 2
        for w, edge, column in zip(weights / weights.sum(), b.T, (inverse @ b).T, strict=True)
    )
    assert dual.y is not None
    np.testing.assert_allclose(dual.y, np.diag(b.T @ y @ b), rtol=1e-10)


def test_what_is_not_feasible_is_repaired() -> None:
    draw = np.random.default_rng(8)
    crooked = draw.normal(size=(N, N))  # neither symmetric, nor positive, nor centred
    crooked[0] += 3
    weights = draw.normal(size=M)
    inverse = np.linalg.pinv(laplacian(N, ENDS, np.ones(M)))
    dual = dual_of(Problem.of(N, ENDS), crooked, inverse, weights)
    least, _ = direct_sdp(Problem.of(N, ENDS), True)
    assert np.all(dual.a >= 0)
    assert lower_bound(Problem.of(N, ENDS), dual) <= least
    same = dual_of(Problem.of(N, ENDS), crooked, inverse, np.maximum(weights, 0))
    np.testing.assert_allclose(dual.y, same.y)


@pytest.mark.parametrize("kind", ["capacities", "budgets", "both"])
def test_given_prices_the_best_scale_is_found(kind: str) -> None:
    """Against trying many scales θ of X, by the definition."""
    problem = problem_of(kind)
    draw = np.random.default_rng(9)
    for _ in range(20):
        dual = some_dual(draw, False)._replace(prices=draw.exponential(size=N))
        paid = np.where(np.isfinite(problem.budgets), dual.prices, 0)
        room = problem.costs + paid[ENDS[:, 0]] + paid[ENDS[:, 1]]
        budgeted = np.isfinite(problem.budgets)
        best = foster_bound(N) * float(problem.costs.min())  # which always holds
        for theta in np.linspace(0, 40, 4001):
            excess = np.maximum(theta * dual.a - room, 0)
            if np.all(excess[np.isinf(problem.capacities)] == 0):
                capped = np.isfinite(problem.capacities)
                owed = problem.capacities[capped] @ excess[capped] + problem.budgets[budgeted] @ paid[budgeted]
                best = max(best, LEVEL * theta - owed)
        assert lower_bound(problem, dual) == pytest.approx(best, abs=0.02)
        assert lower_bound(problem, dual) >= best - 1e-9


def test_a_proof_that_there_are_no_rates() -> None:
    """A hub that may take part in half of what it must: X of the whole star, priced at the hub."""
    star = np.array([(0, k) for k in range(1, 6)])
    budgets = np.array([2.5, *[math.inf] * 5])
    tight, wide = Problem.of(6, star, budgets=budgets), Problem.of(6, star, budgets=4 * budgets)
    rates = laplacian(6, star, np.ones(5))
    fiedler = np.diag([0.0, 1, 1, 1, 1, 1]) - np.pad(
        np.full((5, 5), 0.2), ((1, 0), (1, 0))
    )  # leaves against each other
    dual = dual_of(tight, fiedler, np.linalg.pinv(rates), np.ones(5))
    prices = 1e6 * np.eye(6)[0]
    assert proves_infeasible(tight, dual._replace(prices=prices), reference=5.0)
    assert not proves_infeasible(wide, dual._replace(prices=prices), reference=5.0)
    assert not proves_infeasible(Problem.of(6, star), dual, reference=5.0)
    shares = limit_shares(tight, dual)
    assert shares.shape == (1,)
    assert shares[0] > 0
