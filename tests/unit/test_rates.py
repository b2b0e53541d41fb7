"""Rate policies against closed forms, published numbers, a direct semidefinite programme, and their own promises."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.direct_sdp import direct_sdp
from topology.measures import chi1, chi2, laplacian, total_rate
from topology.plan import Plan
from topology.planning import Demands, build_plan
from topology.problem import Ends, Infeasible, Problem, Reals, Stop
from topology.rates import RATES, choose_rates
from topology.rates_large import solve_large
from topology.records import PlanError

FINE = Stop(max_gap=1e-7)

CLOSED_FORMS = {
    "complete": lambda n: (n - 1) / math.sqrt(2),
    "star": lambda n: n - 1,
    "ring": lambda n: math.sqrt(n * (n - 1) / (2 * (1 - math.cos(2 * math.pi / n)))),
    "line": lambda n: (n - 1) / (2 * math.sin(math.pi / (2 * n))),
}

PUBLISHED = [
    ("line", 20, 121.08, 215.754, 121.08),
    ("grid", 16, 26.252, 27.197, 24.890),
    ("torus", 16, 15.492, 15.492, 15.492),
    ("barbell", 10, 38.441, 21.362, 18.215),
]


def total(n: int, ends: Ends, rates: Reals) -> float:
    """√(2·χ1·χ2) of rates scaled to sum to 1."""
    matrix = laplacian(n, ends, rates / rates.sum())
    return total_rate(chi1(matrix), chi2(matrix, ends))


def random_graph(seed: int) -> tuple[int, Ends]:
    draw = np.random.default_rng(seed)
    n = int(draw.integers(4, 15))
    graph = nx.connected_watts_strogatz_graph(n, 3, 0.5, seed=seed)
    graph.add_edges_from(draw.choice(n, (3, 2), replace=False) if n >= 6 else [])
    return n, np.array(sorted(tuple(sorted(edge)) for edge in graph.edges), dtype=np.int64)


@pytest.mark.parametrize("family", CLOSED_FORMS)
@pytest.mark.parametrize("n", [3, 4, 12, 25])
def test_optimal_rates_attain_closed_forms(family: str, n: int) -> None:
    rates = build_plan(family, n, rates="optimal", stop=FINE).rates
    assert rates.total_rate == pytest.approx(CLOSED_FORMS[family](n), rel=1e-6)
    assert rates.lower_bound == pytest.approx(CLOSED_FORMS[family](n), rel=1e-6)


@pytest.mark.parametrize(("family", "n", "uniform", "connectivity", "optimal"), PUBLISHED)
def test_published_totals(family: str, n: int, uniform: float, connectivity: float, optimal: float) -> None:
    for policy, expected in (("uniform", uniform), ("connectivity", connectivity), ("optimal", optimal)):
        found = build_plan(family, n, rates=policy, stop=Stop(1e-5)).rates
        assert found.total_rate == pytest.approx(expected, rel=1e-4), policy


@pytest.mark.parametrize("n", [3, 6, 11])
def test_connectivity_of_a_line_is_a_parabola(n: int) -> None:
    """Of all rates that sum to 1 on a line, λ2 is largest for p_k ∝ k(n−k), where it is 12/(n(n²−1))."""
    plan = build_plan("line", n, rates="connectivity", stop=FINE)
    k = np.arange(1, n)
    parabola = k * (n - k) / np.sum(k * (n - k))
    by_place = {min(int(e.a[1:]), int(e.b[1:])): e.rate / plan.rates.total_rate for e in plan.edges}
    np.testing.assert_allclose([by_place[i] for i in range(n - 1)], parabola, rtol=1e-3)
    assert plan.rates.chi1 == pytest.approx(n * (n * n - 1) / 12, rel=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_no_policy_beats_optimal_and_nothing_beats_its_bound(seed: int) -> None:
    n, ends = random_graph(seed)
    records = {policy: choose_rates(policy, Problem.of(n, ends))[1] for policy in RATES}
    best = records["optimal"]
    assert best.total_rate <= min(record.total_rate for record in records.values()) * (1 + 2e-6)
    assert best.certified_gap <= 1e-3
    assert records["connectivity"].chi1 <= records["uniform"].chi1 * (1 + 1e-3)
    assert records["connectivity"].policy_gap <= 1e-3
    bound = max(record.lower_bound for record in records.values())
    assert bound <= best.total_rate
    draw = np.random.default_rng(seed)
    for _ in range(50):
        assert total(n, ends, draw.exponential(size=len(ends)) + 1e-3) >= bound


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("resistances", [True, False])
def test_costs_agree_with_a_direct_programme(seed: int, resistances: bool) -> None:
    n, ends = random_graph(seed)
    costs = np.random.default_rng(seed).uniform(0.5, 4, len(ends))
    problem = Problem.of(n, ends, costs=costs)
    least, _ = direct_sdp(problem, resistances)
    rates, record = choose_rates("optimal" if resistances else "connectivity", problem, stop=Stop(1e-6))
    scale = 1 if resistances else math.sqrt(2) * chi1(laplacian(n, ends, rates))  # up to λ2 = √2
    assert costs @ rates * scale == pytest.approx(least, rel=1e-5)
    assert record.policy_gap <= 2e-6
    assert record.lower_bound <= costs @ rates
    assert record.certified_gap == pytest.approx(costs @ rates / record.lower_bound - 1)


@pytest.mark.parametrize("seed", range(4))
def test_limits_agree_with_a_direct_programme(seed: int) -> None:
    n, ends = random_graph(seed)
    free, _ = choose_rates("optimal", Problem.of(n, ends))
    capacities = np.full(len(ends), math.inf)
    capacities[np.argsort(free)[-2:]] = 0.9 * np.sort(free)[-2:]
    load = np.bincount(ends.ravel(), np.repeat(free, 2), n)
    budgets = np.where(np.arange(n) == load.argmax(), 0.97 * load.max(), math.inf)
    problem = Problem.of(n, ends, capacities=capacities, budgets=budgets)
    least, _ = direct_sdp(problem, True)
    if math.isinf(least):
        with pytest.raises(PlanError, match="no rates keep"):
            choose_rates("optimal", problem)
        return
    rates, record = choose_rates("optimal", problem, stop=Stop(1e-6))
    assert rates.sum() == pytest.approx(least, rel=1e-5)
    assert record.certified_gap <= 1e-5
    assert np.all(rates <= capacities * (1 + 1e-8))
    assert np.all(np.bincount(ends.ravel(), np.repeat(rates, 2), n) <= budgets * (1 + 1e-8))


def written(path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def bridge_rate(plan: Plan) -> float:
    return next(edge.rate for edge in plan.edges if {edge.a, edge.b} == {"n4", "n5"})


@pytest.mark.parametrize("policy", ["connectivity", "optimal"])
def test_an_expensive_bridge_gets_less(policy: str, tmp_path) -> None:
    costs = written(tmp_path / "costs.csv", "n4,n5,10\n")
    cheap = build_plan("barbell", 10, rates=policy)
    dear = build_plan("barbell", 10, rates=policy, demands=Demands(link_costs=costs))
    assert bridge_rate(dear) < 0.6 * bridge_rate(cheap)
    assert {edge.cost for edge in dear.edges} == {1.0, 10.0}
    assert dear.rates.total_rate > cheap.rates.total_rate


def test_a_hub_with_half_its_budget_is_refused_with_what_would_do(tmp_path) -> None:
    """All rates of a star pass through its hub: it needs n − 1, and neither more nor less will do."""
    half = Demands(budgets=written(tmp_path / "half.csv", "n0,9.5\n"))
    with pytest.raises(PlanError, match=r"no rates keep the budget of n0 \(9.5\): 19\S* would do"):
        build_plan("star", 20, rates="optimal", demands=half)
    with pytest.raises(PlanError, match=r"uniform rates break the budget of n0 \(9.5\).*have to be 19: raise"):
        build_plan("star", 20, demands=half)
    with pytest.raises(PlanError, match=r": 26\.\d+ would do, or try '--rates optimal', which asks for less"):
        build_plan("star", 20, rates="connectivity", demands=half)
    enough = Demands(budgets=written(tmp_path / "enough.csv", "n0,19\n"))
    assert build_plan("star", 20, rates="optimal", demands=enough).rates.total_rate == pytest.approx(19)


def test_a_bridge_without_the_capacity_is_refused_with_what_would_do(tmp_path) -> None:
    """A bridge's resistance is 1/rate, and it is between halves that λ2 joins: some rate is too small."""
    narrow = Demands(capacities=written(tmp_path / "narrow.csv", "n4,n5,0.6\n"))
    with pytest.raises(PlanError, match=r"the capacity of n4 – n5 \(0.6\): 1\.\d+ would do") as refusal:
        build_plan("barbell", 10, rates="optimal", demands=narrow)
    needed = float(str(refusal.value).split(": ")[1].split()[0])
    wide = Demands(capacities=written(tmp_path / "wide.csv", f"n4,n5,{needed}\n"))
    assert bridge_rate(build_plan("barbell", 10, rates="optimal", demands=wide)) <= needed * (1 + 1e-8)
    tight = Demands(capacities=written(tmp_path / "tight.csv", f"n4,n5,{0.9 * needed}\n"))
    with pytest.raises(PlanError, match="no rates keep"):
        build_plan("barbell", 10, rates="optimal", demands=tight)


def test_a_node_between_two_halves_that_may_do_too_little(tmp_path) -> None:
    """Two triangles joined by an edge: an independent semidefinite programme needs 3.116 of one of its ends."""
    office = written(
        tmp_path / "office.txt", "anna ben\nanna chris\nben chris\nchris dora\ndora emil\ndora fritz\nemil fritz"
    )
    for budget in (2, 3):
        demands = Demands(budgets=written(tmp_path / "budget.csv", f"dora,{budget}\n"))
        with pytest.raises(PlanError, match=r"the budget of dora \(\d\): 3\.1\d* would do"):
            build_plan(f"file:{office}", rates="optimal", demands=demands)
    demands = Demands(budgets=written(tmp_path / "budget.csv", "dora,3.2\n"))
    assert build_plan(f"file:{office}", rates="optimal", demands=demands).rates.certified_gap < 1e-3


def test_many_limits_are_summed_up(tmp_path) -> None:
    budgets = Demands(budgets=written(tmp_path / "all.csv", "".join(f"n{k},0.5\n" for k in range(9))))
    with pytest.raises(PlanError, match=r"and \d other limits at once: \d\S* times as much each would do"):
        build_plan("ring", 9, rates="optimal", demands=budgets)


def same_as_direct(problem: Problem, resistances: bool) -> None:
    """Solved or refused as a direct programme says."""
    least, _ = direct_sdp(problem, resistances)
    if math.isinf(least):
        with pytest.raises(Infeasible):
            solve_large(problem, resistances=resistances, stop=Stop(1e-5, 30))
    else:
        found = solve_large(problem, resistances=resistances, stop=Stop(1e-5, 30))
        assert problem.costs @ found.rates == pytest.approx(least, rel=1e-4)
        assert found.bound <= least * (1 + 1e-6)
        assert problem.keeps_limits(found.rates)


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("resistances", [True, False])
@pytest.mark.parametrize("capacity", [0.01, 0.5, 0.72, 1.2, 2.0, 5.0])
def test_every_edge_capped_alike(capacity: float, resistances: bool) -> None:
    for graph in (nx.cycle_graph(5), nx.complete_graph(4), nx.path_graph(2)):
        ends = np.array(graph.edges, dtype=np.int64)
        same_as_direct(Problem.of(len(graph), ends, capacities=np.full(len(ends), capacity)), resistances)


@pytest.mark.parametrize("resistances", [True, False])
@pytest.mark.parametrize("dear", [1e2, 1e4])
def test_dear_edges_that_limits_force_into_use(dear: float, resistances: bool) -> None:
    ends = np.array(nx.complete_graph(4).edges, dtype=np.int64)
    cheap = (ends == 0).any(axis=1)
    costs, capacities = np.where(cheap, 1.0, dear), np.where(cheap, 0.5, math.inf)
    same_as_direct(Problem.of(4, ends, costs=costs, capacities=capacities), resistances)


@pytest.mark.parametrize("dear", [1e2, 1e4, 1e6])
def test_edges_of_no_use_cost_nothing(dear: float) -> None:
    ends = np.array(nx.complete_graph(6).edges, dtype=np.int64)
    costs = np.where((ends == 0).any(axis=1), 1.0, dear)
    rates, record = choose_rates("optimal", Problem.of(6, ends, costs=costs))
    assert record.certified_gap < 1e-5
    assert rates.min() > 0


def test_a_tiny_capacity_is_kept() -> None:
    ends = np.array(nx.complete_graph(6).edges, dtype=np.int64)
    capacities = np.where(np.arange(len(ends)) == 3, 1e-9, math.inf)
    rates, _ = choose_rates("optimal", Problem.of(6, ends, capacities=capacities))
    assert 0 < rates[3] <= 1e-9


def test_no_time_at_all_with_limits_ends_in_a_sentence_or_a_plan() -> None:
    for capacity in (1.1, 5.0):
        problem = Problem.of(2, np.array([(0, 1)]), capacities=np.array([capacity]), budgets=np.full(2, capacity))
        try:
            _, record = choose_rates("optimal", problem, stop=Stop(1e-3, 0.0))
        except PlanError:
            continue  # that nothing was found in time; what else can go wrong is no PlanError
        assert record.lower_bound > 0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.2, 3.0))
def test_budgets_are_kept_or_refused(seed: int, share: float) -> None:
    n, ends = random_graph(seed)
    free, record = choose_rates("optimal", Problem.of(n, ends))
    budgets = share * np.bincount(ends.ravel(), np.repeat(free, 2), n)
    try:
        rates = solve_large(Problem.of(n, ends, budgets=budgets), resistances=True, stop=Stop(0.01, 10)).rates
    except Infeasible:
        assert share < 1.01
        return
    assert share > 0.5  # half the sum of all budgets bounds the total rate
    assert np.all(np.bincount(ends.ravel(), np.repeat(rates, 2), n) <= budgets * (1 + 1e-8))
    assert rates.sum() >= record.lower_bound


def test_time_that_is_up_leaves_the_best_so_far() -> None:
    _, record = choose_rates("optimal", Problem.of(*random_graph(3)), stop=Stop(max_gap=0.0, time_limit_s=0.0))
    assert math.isfinite(record.certified_gap)
    assert record.certified_gap > 1e-3


def test_progress_is_told_and_the_gap_closes() -> None:
    steps = []
    _, record = choose_rates("optimal", Problem.of(*random_graph(5)), watch=steps.append)
    assert len(steps) > 3
    assert [step.cost for step in steps] == sorted((step.cost for step in steps), reverse=True)
    assert [step.bound for step in steps] == sorted(step.bound for step in steps)
    assert record.certified_gap == pytest.approx(steps[-1].gap, abs=1e-6)


def test_unknown_solvers_suggest_the_nearest() -> None:
    with pytest.raises(PlanError, match="did you mean 'interior-point'"):
        build_plan("ring", 4, rates="optimal", solver="interior")


@pytest.mark.parametrize(("family", "n"), [("complete", 7), ("ring", 9), ("star", 8), ("line", 12), ("torus", 16)])
def test_where_nothing_is_gained_rates_stay_uniform(family: str, n: int) -> None:
    rates = {edge.rate for edge in build_plan(family, n, rates="optimal").edges}
    assert max(rates) == pytest.approx(min(rates), rel=1e-9)
