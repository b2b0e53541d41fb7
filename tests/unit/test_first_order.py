"""The first-order solver against closed forms, dense linear algebra and another solver; its bounds against rates."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
from scipy.optimize import linprog

from topology.problem import Dual, Problem, Solution, Step, Stop
from topology.records import PlanError
from topology.solvers.certificate import lower_bound
from topology.solvers.combination import best_combination
from topology.solvers.elimination import Elimination, Inverse
from topology.solvers.first_order import solve_first_order
from topology.solvers.interior.solver import solve_interior
from topology.solvers.sparse import eigenvalues_below, lowest_eigenpairs, sparse_laplacian

STOP = Stop(max_gap=1e-3, time_limit_s=30.0)


def graph(kind: str, n: int) -> nx.Graph:
    """A connected graph whose nodes are 0 to n − 1."""
    if kind == "grid":
        side = math.isqrt(n)
        return nx.convert_node_labels_to_integers(nx.grid_2d_graph(side, side))
    if kind == "geometric":
        return next(g for s in range(99) if nx.is_connected(g := nx.random_geometric_graph(n, 0.35, seed=s)))
    if kind == "random":
        return next(g for s in range(99) if nx.is_connected(g := nx.gnp_random_graph(n, 0.15, seed=s)))
    if kind == "tree":
        return nx.random_labeled_tree(n, seed=3)
    return {"complete": nx.complete_graph, "ring": nx.cycle_graph, "line": nx.path_graph, "star": star}[kind](n)


def star(n: int) -> nx.Graph:
    return nx.star_graph(n - 1)


def problem(kind: str, n: int, costs: np.ndarray | None = None) -> Problem:
    return Problem.of(n, np.array(graph(kind, n).edges), costs=costs)


def incidence(p: Problem) -> np.ndarray:
    rows = np.zeros((len(p.ends), p.n))
    rows[np.arange(len(rows)), p.ends[:, 0]], rows[np.arange(len(rows)), p.ends[:, 1]] = 1, -1
    return rows


def dense(p: Problem, rates: np.ndarray) -> tuple[float, np.ndarray]:
    """λ2 and all resistances, from first principles."""
    b = incidence(p)
    matrix = b.T @ np.diag(rates) @ b
    return float(np.linalg.eigvalsh(matrix)[1]), np.einsum("ek,kl,el->e", b, np.linalg.pinv(matrix), b)


def least_cost(p: Problem, split: np.ndarray, resistances: bool) -> float:
    """What rates in these proportions cost once they satisfy the constraints."""
    connectivity, felt = dense(p, split)
    scale = math.sqrt(felt.max() / connectivity) if resistances else math.sqrt(2) / connectivity
    return scale * float(p.costs @ split)


def check(p: Problem, found: Solution, resistances: bool, gap: float) -> None:
    """The rates satisfy the constraints, the bound is that of its dual point, and the two are close."""
    connectivity, felt = dense(p, found.rates)
    if resistances:
        assert felt.max() <= connectivity * (1 + 1e-9)
    else:
        assert connectivity >= math.sqrt(2) * (1 - 1e-9)
    assert found.rates.min() >= 0
    assert found.bound == pytest.approx(lower_bound(p, found.dual), rel=1e-9)
    assert found.bound <= p.costs @ found.rates <= (1 + gap) * found.bound


CLOSED_FORMS = {
    ("complete", 7): (6 / math.sqrt(2), 6 / math.sqrt(2)),
    ("star", 8): (7, 7 * math.sqrt(2)),
    ("ring", 9): (
        math.sqrt(9 * 8 / (2 * (1 - math.cos(2 * math.pi / 9)))),
        9 / math.sqrt(2) / (1 - math.cos(2 * math.pi / 9)),
    ),
    ("line", 12): (11 / (2 * math.sin(math.pi / 24)), math.sqrt(2) * 12 * 11 * 13 / 12),
    ("grid", 36): (None, math.sqrt(2) * 2 * 6 * 6 * 35 / 12),
}
"""Optimal, and √2 times the sum of the best rates with λ2 = 1. On a line those are parabolic, k(n−k)/2, with the sum
(n−1)n(n+1)/12; on a grid the same in every row and column."""


@pytest.mark.parametrize("resistances", [True, False])
@pytest.mark.parametrize(("kind", "n"), CLOSED_FORMS)
def test_closed_forms(kind: str, n: int, resistances: bool) -> None:
    p = problem(kind, n)
    found = solve_first_order(p, resistances=resistances, stop=STOP)
    check(p, found, resistances, 1e-3)
    expected = CLOSED_FORMS[kind, n][0 if resistances else 1]
    if expected is not None:
        assert found.bound <= expected * (1 + 1e-9)
        assert found.rates.sum() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("resistances", [True, False])
@pytest.mark.parametrize("kind", ["geometric", "random", "tree"])
def test_against_the_interior_point(kind: str, resistances: bool) -> None:
    p = problem(kind, 40)
    found = solve_first_order(p, resistances=resistances, stop=Stop(5e-3, 30.0))
    check(p, found, resistances, 5e-3)
    exact = solve_interior(p, resistances=resistances, stop=Stop(1e-5, 30.0))
    assert found.bound <= p.costs @ exact.rates * (1 + 1e-9)
    assert p.costs @ found.rates >= exact.bound * (1 - 1e-9)


@pytest.mark.parametrize("resistances", [True, False])
@pytest.mark.parametrize("kind", ["geometric", "star", "grid"])
def test_no_rates_fall_below_the_bound(kind: str, resistances: bool) -> None:
    draw = np.random.default_rng(4)
    p = problem(kind, 25, draw.uniform(0.3, 3, len(graph(kind, 25).edges)))
    found = solve_first_order(p, resistances=resistances, stop=Stop(3e-3, 30.0))
    check(p, found, resistances, 3e-3)
    for spread in (0.01, 0.1, 1, 3):
        others = found.rates * np.exp(spread * draw.standard_normal((50, len(p.ends))))
        assert min(least_cost(p, split, resistances) for split in others) >= found.bound
    assert least_cost(p, np.ones(len(p.ends)), resistances) >= found.bound


@pytest.mark.parametrize("most", [4, 64])
@pytest.mark.parametrize("kind", ["geometric", "random", "star"])
def test_dual_points_are_above_what_they_bound(kind: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topology.solvers.first_order.EIGENPAIRS", min(most, 8))
    monkeypatch.setattr("topology.solvers.first_order.EIGENPAIRS_MAX", most)
    p = problem(kind, 60)
    found = solve_first_order(p, resistances=True, stop=Stop(5e-2, 2.0))
    assert found.dual.y is not None
    draw = np.random.default_rng(5)
    for spread in (0.01, 0.3, 3):
        for _ in range(20):
            rates = found.rates * np.exp(spread * draw.standard_normal(len(p.ends)))
            connectivity, felt = dense(p, rates)
            assert found.dual.a @ rates >= connectivity * (1 - 1e-9)  # ⟨X, Λ⟩ ≥ λ2 as tr X = 1
            assert found.dual.y @ rates >= (1 - 1e-9) / felt.max()  # yᵀΛy ≥ 1/R_k as b_kᵀy = 1


def test_a_dearer_bridge_exchanges_less_often() -> None:
    bridge = nx.barbell_graph(5, 0)
    ends = np.array(bridge.edges)
    (at,) = [k for k, (i, j) in enumerate(ends) if i < 5 <= j]
    shares = []
    for cost in (0.1, 1.0, 10.0):
        p = Problem.of(10, ends, costs=np.where(np.arange(len(ends)) == at, cost, 1.0))
        found = solve_first_order(p, resistances=True, stop=STOP)
        check(p, found, True, 1e-3)
        shares.append(found.rates[at] / found.rates.sum())
        if cost == 1:
            assert found.bound <= 18.22 + 0.005
            assert found.rates.sum() == pytest.approx(18.22, rel=2e-3)
    assert shares[0] > 1.5 * shares[1] > 2 * shares[2]


def test_limits_are_refused_in_a_sentence() -> None:
    ring = problem("ring", 5)
    limited = Problem.of(5, ring.ends, capacities=np.full(5, 2.0))
    with pytest.raises(PlanError, match="knows no capacities"):
        solve_first_order(limited, resistances=True, stop=STOP)


def test_it_stops_in_time_and_tells_how_far_it_has_come() -> None:
    told: list[Step] = []
    p = problem("random", 60)
    found = solve_first_order(p, resistances=True, stop=Stop(1e-9, 0.0), watch=told.append)
    assert tuple(told) == found.steps
    assert told[-1].cost == pytest.approx(p.costs @ found.rates)
    check(p, found, True, told[-1].gap + 1e-9)
    assert told[-1].gap > 0.01  # there was time for one point only


def test_a_bridge_without_cycles_leaves_no_choice() -> None:
    p = Problem.of(2, np.array([(0, 1)]), costs=np.array([3.0]))
    stable = solve_first_order(p, resistances=True, stop=STOP)
    assert stable.rates == pytest.approx([1 / math.sqrt(2)])  # λ2 = 2λ = 1/λ
    assert stable.bound == pytest.approx(3 / math.sqrt(2))
    assert solve_first_order(p, resistances=False, stop=STOP).bound == pytest.approx(3 / math.sqrt(2))


@pytest.mark.parametrize("kind", ["grid", "geometric", "random", "tree", "star", "complete", "line"])
def test_eliminations_give_resistances_and_their_derivatives(kind: str) -> None:
    p = problem(kind, 64)
    draw = np.random.default_rng(1)
    rates, weights = draw.uniform(0.01, 2, len(p.ends)), draw.uniform(0, 1, len(p.ends))
    _, felt = dense(p, rates)
    b = incidence(p)
    between = b @ np.linalg.pinv(b.T @ np.diag(rates) @ b) @ b.T
    for method in (Elimination(p.n, p.ends), Inverse(p.n, p.ends)):
        np.testing.assert_allclose(method.resistances(rates), felt, rtol=1e-9)
        np.testing.assert_allclose(method.sensitivity(rates, weights), between**2 @ weights, rtol=1e-9)


def test_a_large_graph_has_fosters_sum_of_resistances() -> None:
    p = problem("grid", 2500)
    rates = np.random.default_rng(1).uniform(0.01, 2, len(p.ends))
    assert rates @ Elimination(p.n, p.ends).resistances(rates) == pytest.approx(2499, rel=1e-10)


@pytest.mark.parametrize("factorise", [True, False])
@pytest.mark.parametrize("n", [49, 256])
def test_lowest_eigenpairs(n: int, factorise: bool) -> None:
    p = problem("grid", n)
    rates = np.random.default_rng(2).uniform(0.2, 2, len(p.ends))
    matrix = sparse_laplacian(n, p.ends, rates).toarray()
    np.testing.assert_allclose(matrix, incidence(p).T @ np.diag(rates) @ incidence(p), atol=1e-12)
    values, vectors = lowest_eigenpairs(n, p.ends, rates, 9, factorise=factorise)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix)[1:10], rtol=1e-7)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(9), atol=1e-8)
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-4)


def test_the_count_sees_what_was_claimed_too_much() -> None:
    p = problem("geometric", 60)
    rates = np.random.default_rng(3).uniform(0.2, 2, len(p.ends))
    values = np.linalg.eigvalsh(incidence(p).T @ np.diag(rates) @ incidence(p))
    assert eigenvalues_below(60, p.ends, rates, values[1] * (1 - 1e-7)) == 1
    assert eigenvalues_below(60, p.ends, rates, values[1] * (1 + 1e-7)) == 2
    for k in (5, 20, 59):
        assert eigenvalues_below(60, p.ends, rates, (values[k - 1] + values[k]) / 2) == k


def test_a_missed_eigenvalue_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    p = problem("geometric", 60)
    seen = []

    def too_high(*arguments: object, **options: object) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = lowest_eigenpairs(*arguments, **options)  # type: ignore[arg-type]
        seen.append(values[0])
        return values * 1.3, vectors

    monkeypatch.setattr("topology.solvers.first_order.lowest_eigenpairs", too_high)
    found = solve_first_order(p, resistances=False, stop=Stop(1e-2, 0.0))
    assert dense(p, found.rates)[0] >= math.sqrt(2)
    assert len(seen) == 2


def test_the_best_combination_is_a_linear_programme() -> None:
    rows = np.random.default_rng(0).uniform(0, 1, (40, 6))
    (weights,) = best_combination([rows])
    assert weights.sum() == pytest.approx(1)
    assert weights.min() > 0
    answer = linprog(
        [0] * 6 + [1], np.hstack([rows, -np.ones((40, 1))]), np.zeros(40), [[1] * 6 + [0]], [1], [(0, None)] * 7
    )
    assert (rows @ weights).max() == pytest.approx(answer.fun, rel=1e-4)


def test_the_best_combination_of_two_kinds_is_a_bound_no_other_beats() -> None:
    draw = np.random.default_rng(0)
    p = problem("geometric", 30)
    groups = [draw.uniform(0, 1, (len(p.ends), 4)), draw.uniform(0, 50, (len(p.ends), 4))]
    best = lower_bound(p, Dual(*(group @ part for group, part in zip(groups, best_combination(groups), strict=True))))
    for part in draw.dirichlet(np.ones(4), (200, 2)):
        assert lower_bound(p, Dual(*(group @ w for group, w in zip(groups, part, strict=True)))) <= best * (1 + 1e-4)
