"""The reference for rates against closed forms, and against the same problem stated naively."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import networkx as nx
import numpy as np
import pytest

from tests.unit.direct_sdp import direct_sdp
from topology.measures import chi1, chi2, laplacian, resistances, total_rate
from topology.problem import Infeasible, Problem, Reals, Step, Stop
from topology.records import PlanError
from topology.solvers.certificate import limit_shares, lower_bound
from topology.solvers.semidefinite import reference_rates

ROOT_2 = math.sqrt(2)


def problem_on(graph: nx.Graph, **given: Reals) -> Problem:
    graph = nx.convert_node_labels_to_integers(graph)
    return Problem.of(len(graph), np.array(graph.edges), **given)


def drawn(seed: int) -> Problem:
    """A small world of 8 to 11 nodes, with costs."""
    graph = nx.connected_watts_strogatz_graph(8 + seed % 4, 4, 0.4, seed=seed)
    costs = np.random.default_rng(seed).uniform(0.2, 3, graph.number_of_edges())
    return problem_on(graph, costs=costs)


@cache
def naive(make: Callable[[int], Problem], seed: int, demanded: bool) -> tuple[float, Reals]:
    return direct_sdp(make(seed), demanded)


@cache
def limited(seed: int) -> Problem:
    """The same with capacities and budgets that are in the way of its best rates, and can be kept."""
    free, random = drawn(seed), np.random.default_rng(seed + 100)
    rates = naive(drawn, seed, True)[1]
    capacities = np.where(random.random(len(rates)) < 0.5, np.quantile(rates, 0.8), np.inf)
    loads = np.bincount(free.ends.ravel(), np.repeat(rates, 2))
    budgets = np.where(random.random(free.n) < 0.5, np.quantile(loads, 0.8), np.inf)
    return Problem.of(free.n, free.ends, costs=free.costs, capacities=capacities, budgets=budgets)


def total_of(problem: Problem, rates: Reals) -> float:
    """The total rate of probabilities in proportion to some rates."""
    matrix = laplacian(problem.n, problem.ends, rates / rates.sum())
    return total_rate(chi1(matrix), chi2(matrix, problem.ends))


@pytest.mark.parametrize(
    ("graph", "connectivity", "optimal"),
    [
        (nx.path_graph(20), 215.9, 121.1),
        (nx.grid_2d_graph(4, 4), 27.20, 24.89),
        (nx.grid_2d_graph(4, 4, periodic=True), 15.49, 15.49),
        (nx.barbell_graph(5, 0), 21.36, 18.22),
    ],
    ids=["line", "grid", "torus", "barbell"],
)
def test_known_totals(graph: nx.Graph, connectivity: float, optimal: float) -> None:
    problem = problem_on(graph)
    for demanded, total in ((False, connectivity), (True, optimal)):
        found = reference_rates(problem, resistances=demanded)
        assert total_of(problem, found.rates) == pytest.approx(total, rel=1e-3)
    assert found.rates.sum() == pytest.approx(total_of(problem, found.rates), rel=1e-9)


@pytest.mark.parametrize(
    ("graph", "connectivity", "optimal"),
    [
        (nx.path_graph(2), 1 / ROOT_2, 1 / ROOT_2),
        (nx.complete_graph(9), 8 / ROOT_2, 8 / ROOT_2),
        (nx.star_graph(8), ROOT_2 * 8, 8),
        (nx.path_graph(9), ROOT_2 * 9 * 80 / 12, 8 / (2 * math.sin(math.pi / 18))),
        (
            nx.cycle_graph(9),
            9 / (ROOT_2 * (1 - math.cos(2 * math.pi / 9))),
            math.sqrt(36 / (1 - math.cos(2 * math.pi / 9))),
        ),
    ],
    ids=["two", "complete", "star", "line", "cycle"],
)
def test_closed_forms(graph: nx.Graph, connectivity: float, optimal: float) -> None:
    """The most λ2 of a line is 12/(n(n²−1)), by Fiedler; on the others all edges are alike."""
    problem = problem_on(graph)
    for demanded, cost in ((False, connectivity), (True, optimal)):
        found = reference_rates(problem, resistances=demanded)
        assert found.rates.sum() == pytest.approx(cost, rel=1e-6)
        assert found.bound == pytest.approx(cost, rel=1e-5)


@pytest.mark.parametrize("demanded", [True, False])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("make", [drawn, limited], ids=["free", "limited"])
def test_against_the_naive_program(make: Callable[[int], Problem], seed: int, demanded: bool) -> None:
    problem = make(seed)
    expected, _ = naive(make, seed, demanded)
    if math.isinf(expected):
        with pytest.raises(Infeasible):
            reference_rates(problem, resistances=demanded)
        return
    found = reference_rates(problem, resistances=demanded)
    assert problem.costs @ found.rates == pytest.approx(expected, rel=1e-6)
    assert found.bound <= expected * (1 + 1e-6)
    assert found.bound == pytest.approx(expected, rel=1e-4)
    assert problem.keeps_limits(found.rates)
    assert_stable(problem, found.rates, demanded)


def assert_stable(problem: Problem, rates: Reals, demanded: bool) -> None:
    """Exactly: no solver's tolerance is left."""
    matrix = laplacian(problem.n, problem.ends, rates)
    needed = resistances(matrix, problem.ends).max() if demanded else ROOT_2
    assert np.linalg.eigvalsh(matrix)[1] >= needed * (1 - 1e-9)
    assert rates.min() >= 0


def test_the_limits_of_the_drawn_problems_matter() -> None:
    costs = [(naive(drawn, seed, True)[0], naive(limited, seed, True)[0]) for seed in range(4)]
    assert all(free * 1.001 < bounded < math.inf for free, bounded in costs)


@pytest.mark.parametrize("seed", range(4))
def test_no_random_rates_are_cheaper_than_the_bound(seed: int) -> None:
    problem, random = drawn(seed), np.random.default_rng(seed)
    bound = reference_rates(problem, resistances=True).bound
    best = naive(drawn, seed, True)[1]
    for spread in (0.01, 0.1, 1.0, 3.0):
        for _ in range(25):
            rates = best * np.exp(spread * random.normal(size=len(best)))
            stable = rates * total_of(problem, rates) / rates.sum()
            assert problem.costs @ stable >= bound


def test_the_bound_is_of_the_dual_point_that_is_handed_on() -> None:
    for problem in (drawn(0), limited(0)):
        found = reference_rates(problem, resistances=True)
        assert lower_bound(problem, found.dual) == found.bound


def test_scs_finds_the_same() -> None:
    problem = drawn(1)
    exact, rough = (reference_rates(problem, resistances=True, solver=solver) for solver in ("CLARABEL", "SCS"))
    assert rough.solver == "cvxpy, SCS"
    assert problem.costs @ rough.rates == pytest.approx(float(problem.costs @ exact.rates), rel=1e-3)
    assert rough.bound == pytest.approx(exact.bound, rel=1e-3)
    assert_stable(problem, rough.rates, True)


def star_with_budgets(hub: float) -> Problem:
    return problem_on(nx.star_graph(7), budgets=np.array([hub, 50.0] + [math.inf] * 6))


def test_a_hub_takes_part_in_everything() -> None:
    found = reference_rates(star_with_budgets(7 * (1 + 1e-6)), resistances=True)
    assert found.rates.sum() == pytest.approx(7, rel=1e-6)
    with pytest.raises(Infeasible) as caught:
        reference_rates(star_with_budgets(3.5), resistances=True)
    problem, proof = star_with_budgets(3.5), caught.value.proof
    assert proof is not None
    assert lower_bound(problem, proof) > 1e3
    hub, leaf = limit_shares(problem, proof)
    assert leaf < 1e-6 * hub


def test_a_dear_bridge_is_used_less() -> None:
    problem = problem_on(nx.barbell_graph(4, 0))
    bridge = int(np.flatnonzero((problem.ends == [3, 4]).all(axis=1))[0])
    costs = np.ones(len(problem.ends))
    costs[bridge] = 10
    cheap = reference_rates(problem, resistances=True).rates
    dear = reference_rates(problem_on(nx.barbell_graph(4, 0), costs=costs), resistances=True).rates
    assert dear[bridge] / dear.sum() < 0.9 * cheap[bridge] / cheap.sum()


def test_further_constraints() -> None:
    problem = problem_on(nx.cycle_graph(7))
    alone = reference_rates(problem, resistances=True)
    found = reference_rates(problem, resistances=True, further=lambda rates: [rates[0] >= 3 * rates[1], rates[2] == 4])
    assert found.rates[0] >= 3 * found.rates[1] * (1 - 1e-5)
    assert found.rates[2] == pytest.approx(4, rel=1e-5)
    assert_stable(problem, found.rates, True)
    assert found.rates.sum() > alone.rates.sum() + 0.1
    # More than stability needs: such rates are not scaled down.
    many = reference_rates(problem, resistances=True, further=lambda rates: [rates >= 10])
    np.testing.assert_allclose(many.rates, 10, rtol=1e-5)


def test_further_constraints_that_cannot_be() -> None:
    problem = problem_on(nx.cycle_graph(5))
    with pytest.raises(PlanError, match="relax some"):
        reference_rates(problem, resistances=True, further=lambda rates: [rates[0] <= -1])
    capped = problem_on(nx.cycle_graph(5), capacities=np.full(5, 4.0))
    with pytest.raises(PlanError, match="relax some"):
        reference_rates(capped, resistances=True, further=lambda rates: [rates[0] == 5])


def test_solvers_that_do_not_do() -> None:
    with pytest.raises(PlanError, match="another solver"):
        reference_rates(problem_on(nx.cycle_graph(5)), resistances=True, solver="OSQP")


def test_what_is_found_when_time_is_short_is_still_stable() -> None:
    problem = problem_on(nx.random_regular_graph(4, 30, seed=0))
    seen: list[Step] = []
    found = reference_rates(problem, resistances=True, stop=Stop(time_limit_s=0.1), watch=seen.append)
    assert_stable(problem, found.rates, True)
    assert tuple(seen) == found.steps
    assert seen[-1].cost >= seen[-1].bound == found.bound
