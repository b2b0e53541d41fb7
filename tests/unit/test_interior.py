"""The interior point's parts against what they stand for: dense algebra, derivatives, and a modelling language."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest

from tests.unit.direct_sdp import direct_sdp
from topology.measures import chi1, chi2, laplacian, resistances
from topology.problem import Infeasible, Problem, Reals, Stop
from topology.solvers.certificate import LEVEL, limit_shares
from topology.solvers.interior.blocks import Change
from topology.solvers.interior.constraints import Blocks
from topology.solvers.interior.newton import Newton
from topology.solvers.interior.point import Point, inside, start
from topology.solvers.interior.precondition import Preconditioner
from topology.solvers.interior.solver import solve_interior
from topology.solvers.matrices import DENSE_MAX, cholesky, edge_products, edge_values, inverse, longest_step
from topology.solvers.sparse import sparse_laplacian


def graph(n: int, seed: int = 0) -> np.ndarray:
    found = nx.connected_watts_strogatz_graph(n, 4, 0.5, seed=seed)
    return np.array(sorted(tuple(sorted(edge)) for edge in found.edges), dtype=np.int64)


def some_problem(limited: bool = True) -> Problem:
    ends = graph(9)
    draw = np.random.default_rng(1)
    capacities, budgets = np.full(len(ends), math.inf), np.full(9, math.inf)
    if limited:
        capacities[3], capacities[8], budgets[2] = 4.0, 3.0, 9.0
    costs = draw.uniform(0.5, 2, len(ends))
    return Problem.of(9, ends, costs=costs, capacities=capacities, budgets=budgets)


def incidence(n: int, ends: np.ndarray) -> Reals:
    matrix = np.zeros((n, len(ends)))
    matrix[ends[:, 0], np.arange(len(ends))] = 1
    matrix[ends[:, 1], np.arange(len(ends))] = -1
    return matrix


def test_edge_functions_are_products_with_the_incidence_matrix() -> None:
    n, ends = 8, graph(8)
    draw = np.random.default_rng(0)
    b, matrix, values = incidence(n, ends), draw.normal(size=(n, n)), draw.normal(size=len(ends))
    np.testing.assert_allclose(edge_values(matrix, ends), np.diag(b.T @ matrix @ b), atol=1e-12)
    np.testing.assert_allclose(sparse_laplacian(n, ends, values).toarray(), b @ np.diag(values) @ b.T, atol=1e-12)
    np.testing.assert_allclose(edge_products(matrix, ends, ends[:5]), b.T @ matrix @ b[:, :5], atol=1e-12)


@pytest.mark.parametrize("n", [5, DENSE_MAX + 20])
def test_the_longest_step_ends_at_the_boundary(n: int) -> None:
    draw = np.random.default_rng(n)
    root, direction = draw.normal(size=(n, n)), draw.normal(size=(n, n))
    matrix, direction = root @ root.T / n + np.eye(n), direction + direction.T
    factor = cholesky(matrix)
    assert factor is not None
    np.testing.assert_allclose(inverse(factor) @ matrix, np.eye(n), atol=1e-8)
    length = longest_step(factor, direction)
    assert np.linalg.eigvalsh(matrix + 0.97 * length * direction)[0] > 0
    assert np.linalg.eigvalsh(matrix + 1.1 * length * direction)[0] < 0
    assert math.isinf(longest_step(factor, np.eye(n)))
    assert cholesky(matrix + 1.1 * length * direction) is None


@pytest.mark.parametrize("resistances_too", [True, False])
@pytest.mark.parametrize("limited", [True, False])
def test_the_start_is_inside_and_balanced(resistances_too: bool, limited: bool) -> None:
    problem = some_problem(limited)
    point = start(problem, resistances_too)
    values = np.linalg.eigvalsh(laplacian(problem.n, problem.ends, point.at.rates))
    assert values[1] > point.at.level
    if resistances_too:
        felt = resistances(laplacian(problem.n, problem.ends, point.at.rates), problem.ends)
        assert felt.max() < point.at.level
    else:
        assert point.at.level == LEVEL
    products = [np.vdot(block.slack, block.multiplier) / block.degree for block in point.blocks()]
    np.testing.assert_allclose(products, products[0], rtol=1e-9)


def test_limits_are_part_of_the_point() -> None:
    """σ − e is what the rates leave of a limit, and v + (P − v) the penalty."""
    problem = some_problem()
    limits = start(problem, True).blocks().limits
    assert limits is not None
    rates = start(problem, True).at.rates
    loads = [rates[3], rates[8], sum(rate for rate, edge in zip(rates, problem.ends, strict=True) if 2 in edge)]
    (room, excess), (v, below) = np.split(limits.slack, 2), np.split(limits.multiplier, 2)
    np.testing.assert_allclose(room - excess, np.array([4.0, 3.0, 9.0]) - loads)
    np.testing.assert_allclose(v + below, 10 * problem.costs.max())


def test_what_breaks_a_constraint_is_not_inside() -> None:
    problem = some_problem(limited=False)
    point = start(problem, True)
    rates, level = point.at.rates, point.at.level
    assert inside(problem, True, rates, level) is not None
    assert inside(problem, True, rates, 10 * level) is None
    assert inside(problem, True, rates, 0.1 * level) is None
    assert inside(problem, False, rates, 0.1 * level) is not None


def forces(problem: Problem, at: Point, rates: Reals, level: float) -> tuple[Reals, float]:
    """The sum of all blocks' forces at other rates with multipliers moved as linearised complementarity says."""
    n, ends, blocks = problem.n, problem.ends, at.blocks()
    b, center = incidence(n, ends), np.eye(n) - 1 / n
    new = b @ np.diag(rates) @ b.T
    change = new - b @ np.diag(at.at.rates) @ b.T - (level - at.at.level) * center
    spectral = blocks.spectral
    bent = spectral.multiplier @ change @ np.linalg.pinv(spectral.slack, hermitian=True)
    x = spectral.multiplier - (bent + bent.T) / 2
    z = at.multipliers.signs * (1 - (rates - at.at.rates) / at.at.rates)
    edges, upward = np.diag(b.T @ x @ b) + z, -np.trace(x)
    if blocks.resistances is not None:
        inverse_new = np.linalg.pinv(new, hermitian=True)
        slack = level - np.diag(b.T @ inverse_new @ b)
        w = blocks.resistances.multiplier * (1 - (slack - blocks.resistances.slack) / blocks.resistances.slack)
        edges = edges + np.diag(b.T @ inverse_new @ (b @ np.diag(w) @ b.T) @ inverse_new @ b)
        upward += w.sum()
    if blocks.limits is not None:
        rows = problem.limits[0].toarray()
        # σ and e share what the rates take of a limit, so that the multipliers v and P − v move together.
        (room, excess), (v, below) = np.split(blocks.limits.slack, 2), np.split(blocks.limits.multiplier, 2)
        edges = edges - rows.T @ (v + rows @ (rates - at.at.rates) / (room / v + excess / below))
    return edges, float(upward)


@pytest.mark.parametrize("resistances_too", [True, False])
def test_newtons_product_is_the_derivative_of_the_forces(resistances_too: bool) -> None:
    problem = some_problem()
    point = start(problem, resistances_too)
    newton = newton_at(problem, point, resistances_too)
    draw = np.random.default_rng(2)
    move = np.append(draw.normal(size=len(problem.ends)), draw.normal() if resistances_too else 0.0)
    tiny = 1e-6
    sides = [
        forces(problem, point, point.at.rates + h * move[:-1], point.at.level + h * move[-1]) for h in (tiny, -tiny)
    ]
    product = newton.product(move)
    np.testing.assert_allclose(product[:-1], (sides[1][0] - sides[0][0]) / (2 * tiny), rtol=1e-5, atol=1e-5)
    if resistances_too:
        assert product[-1] == pytest.approx((sides[1][1] - sides[0][1]) / (2 * tiny), rel=1e-5)
    else:
        assert product[-1] == move[-1]


def newton_at(problem: Problem, point: Point, resistances_too: bool) -> Newton:
    return Newton(problem, point.blocks(), resistances_too, Preconditioner(problem), lambda: False)


@pytest.mark.parametrize("resistances_too", [True, False])
def test_the_matrix_that_is_factored_is_the_one_that_is_multiplied_with(resistances_too: bool) -> None:
    problem = some_problem()
    point = start(problem, resistances_too)
    newton = newton_at(problem, point, resistances_too)
    m = len(problem.ends)
    size = m + 1 if resistances_too else m  # a fixed level stays where it is
    columns = np.column_stack([newton.product(unit)[:size] for unit in np.eye(m + 1)[:size]])
    np.testing.assert_allclose(columns, columns.T, rtol=1e-8, atol=1e-10)
    # Of the resistances' own term the diagonal has only each edge's hold on itself.
    assert np.all(newton.diagonal()[:size] <= np.diag(columns) * (1 + 1e-9))
    assert np.all(newton.diagonal()[:size] >= 0.8 * np.diag(columns))
    preconditioner = newton.preconditioner
    assert preconditioner.improve(10_000)
    wanted = np.append(np.random.default_rng(3).normal(size=m), 0.0)
    np.testing.assert_allclose(columns @ preconditioner(wanted)[:size], wanted[:size], rtol=1e-6, atol=1e-6)


def test_a_direction_solves_the_equations() -> None:
    problem = some_problem()
    point = start(problem, True)
    newton = newton_at(problem, point, True)
    mu = newton.complementarity
    direction = newton.direction(0.3 * mu, 1e-12)
    blocks: Blocks = newton.blocks
    stationary = problem.costs.copy()
    for block, move in zip(blocks, direction.moves, strict=True):
        if block is not blocks.spectral:
            products = block.slack * move.multiplier + block.multiplier * move.slack + block.slack * block.multiplier
            np.testing.assert_allclose(products, 0.3 * mu, rtol=1e-8)
    moved = [block.product(Change(*direction.change)) for block in blocks]
    aims = [block.centred(0.3 * mu, 0.0) for block in blocks]
    stationary -= sum(aim[0] for aim in aims) - sum(part[0] for part in moved)
    np.testing.assert_allclose(stationary, 0, atol=1e-9)


@pytest.mark.parametrize("resistances_too", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_solutions_agree_with_a_modelling_language(resistances_too: bool, seed: int) -> None:
    draw = np.random.default_rng(seed)
    ends = graph(10, seed)
    problem = Problem.of(10, ends, costs=draw.uniform(0.3, 3, len(ends)))
    least, _ = direct_sdp(problem, resistances_too)
    found = solve_interior(problem, resistances=resistances_too, stop=Stop(1e-6))
    assert problem.costs @ found.rates == pytest.approx(least, rel=1e-5)
    assert found.bound == pytest.approx(least, rel=1e-5)
    assert found.bound <= least * (1 + 1e-6)
    matrix = laplacian(10, ends, found.rates)
    if resistances_too:
        assert 2 * chi2(matrix, ends) * chi1(matrix) <= 1 + 1e-6
    else:
        assert chi1(matrix) <= (1 + 1e-6) / LEVEL


@pytest.mark.parametrize("kind", ["sparse", "dense", "tree"])
def test_larger_graphs_close_their_gap(kind: str) -> None:
    if kind == "sparse":
        n, ends = 250, graph(250)
    elif kind == "dense":
        n, ends = 40, np.array(nx.barbell_graph(20, 0).edges, dtype=np.int64)
    else:
        n, ends = 230, np.array(nx.random_labeled_tree(230, seed=1).edges, dtype=np.int64)
    found = solve_interior(Problem.of(n, ends), resistances=True, stop=Stop(0.01))
    matrix = laplacian(n, ends, found.rates)
    assert 2 * chi2(matrix, ends) * chi1(matrix) == pytest.approx(1, rel=1e-4)
    assert found.rates.sum() / found.bound - 1 <= 0.0101


def test_a_preconditioner_over_some_edges_still_leads_there(monkeypatch) -> None:
    """Beyond a size only edges that pull on each other are factored, in single precision, and more if need be."""
    monkeypatch.setattr("topology.solvers.interior.precondition.EXACT_MAX", 20)
    monkeypatch.setattr("topology.solvers.interior.precondition.SIZE", 20)
    monkeypatch.setattr("topology.solvers.interior.precondition.PRICE_MAX", 2)
    problem = Problem.of(20, graph(20))
    few = solve_interior(problem, resistances=True, stop=Stop(1e-4))
    monkeypatch.undo()
    all_of_them = solve_interior(problem, resistances=True, stop=Stop(1e-4))
    assert few.rates.sum() == pytest.approx(all_of_them.rates.sum(), rel=2e-4)


def test_limits_that_cannot_be_kept_come_with_a_proof() -> None:
    """The second limit is wide: it adds nothing to the proof."""
    ends = np.array([(0, k) for k in range(1, 6)])
    budgets = np.array([2.5, 50, *[math.inf] * 4])
    with pytest.raises(Infeasible) as refusal:
        solve_interior(problem := Problem.of(6, ends, budgets=budgets), resistances=True)
    assert refusal.value.proof is not None
    shares = limit_shares(problem, refusal.value.proof)
    assert shares[1] < 1e-3 * shares[0]
