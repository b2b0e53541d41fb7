"""Measures against closed forms, and against other ways to compute the same."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest

from topology.families import FAMILIES
from topology.measures import (
    chi1,
    chi2,
    chis,
    diameter,
    edge_ends,
    edge_resistances,
    laplacian,
    messages_sent,
    mixing_gap,
    mixing_matrix,
    resistances,
    spectral_gap,
    total_rate,
)
from topology.plan import PlanError
from topology.planning import build_plan
from topology.problem import Problem
from topology.promises import promises
from topology.rates import choose_rates

SIZES = [3, 4, 10, 16, 33]

CLOSED_FORMS = {
    "complete": lambda n: ((n - 1) / 2, (n - 1) / math.sqrt(2)),
    "star": lambda n: (n - 1, n - 1),
    "ring": lambda n: (
        n / (2 * (1 - math.cos(2 * math.pi / n))),
        math.sqrt(n * (n - 1) / (2 * (1 - math.cos(2 * math.pi / n)))),
    ),
    "line": lambda n: ((n - 1) / (2 * (1 - math.cos(math.pi / n))), (n - 1) / (2 * math.sin(math.pi / (2 * n)))),
}


@pytest.mark.parametrize("family", CLOSED_FORMS)
@pytest.mark.parametrize("n", SIZES)
def test_closed_forms_at_uniform_rates(family: str, n: int) -> None:
    rates = build_plan(family, n).rates
    one, total = CLOSED_FORMS[family](n)
    assert rates.chi1 == pytest.approx(one, rel=1e-9)
    assert rates.chi2 == pytest.approx((n - 1) / 2, rel=1e-9)
    assert rates.total_rate == pytest.approx(total, rel=1e-9)


@pytest.mark.parametrize(("family", "n", "total"), [("line", 20, 121.1), ("grid", 16, 26.25), ("torus", 16, 15.49)])
def test_published_totals(family: str, n: int, total: float) -> None:
    assert build_plan(family, n).rates.total_rate == pytest.approx(total, abs=0.05)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plan_as_written_is_just_stable(family: str) -> None:
    plan = build_plan(family, 16)
    ends, rates = edge_ends(plan), np.array([edge.rate for edge in plan.edges])
    matrix = laplacian(16, ends, rates)
    assert rates.sum() == pytest.approx(plan.rates.total_rate, rel=1e-8)
    assert chi1(matrix) * chi2(matrix, ends) == pytest.approx(0.5, rel=1e-8)
    assert chi1(matrix) == pytest.approx(plan.rates.chi1 / plan.rates.total_rate, rel=1e-8)


def random_network(seed: int) -> tuple[int, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    graph = nx.connected_watts_strogatz_graph(14, 4, 0.4, seed=seed)
    return 14, np.array(graph.edges), random.uniform(0.01, 3, graph.number_of_edges())


@pytest.mark.parametrize("seed", range(5))
def test_resistances_against_the_pseudo_inverse(seed: int) -> None:
    n, ends, rates = random_network(seed)
    matrix = laplacian(n, ends, rates)
    incidence = np.zeros((len(ends), n))
    incidence[np.arange(len(ends)), ends[:, 0]], incidence[np.arange(len(ends)), ends[:, 1]] = 1, -1
    np.testing.assert_allclose(matrix, incidence.T @ np.diag(rates) @ incidence, atol=1e-12)
    expected = np.einsum("ek,kl,el->e", incidence, np.linalg.pinv(matrix), incidence)
    np.testing.assert_allclose(resistances(matrix, ends), expected, rtol=1e-9)
    assert chi2(matrix, ends) == pytest.approx(expected.max() / 2)
    assert chi1(matrix) == pytest.approx(1 / np.sort(np.linalg.eigvalsh(matrix))[1])
    assert (rates * expected).sum() == pytest.approx(n - 1)  # Foster's theorem


@pytest.mark.parametrize("seed", range(5))
def test_no_rates_fall_below_the_bound(seed: int) -> None:
    n, ends, rates = random_network(seed)
    matrix = laplacian(n, ends, rates / rates.sum())
    _, record = choose_rates("uniform", Problem.of(n, ends))
    assert total_rate(chi1(matrix), chi2(matrix, ends)) >= record.lower_bound
    assert record.certified_gap == pytest.approx(record.total_rate / record.lower_bound - 1)
    assert record.lower_bound == pytest.approx((n - 1) / math.sqrt(2))


def test_the_bound_is_attained_by_the_complete_graph() -> None:
    assert build_plan("complete", 9).rates.certified_gap == pytest.approx(0, abs=1e-9)


def test_a_network_in_two_parts_never_agrees() -> None:
    assert math.isinf(chi1(laplacian(4, np.array([(0, 1), (2, 3)]), np.ones(2))))


def test_unknown_policies_suggest_the_nearest() -> None:
    with pytest.raises(PlanError, match="did you mean 'uniform'"):
        build_plan("ring", 4, rates="unifrom")
    with pytest.raises(PlanError, match="did you mean 'metropolis'"):
        build_plan("ring", 4, weights="metropols")


@pytest.mark.parametrize(("family", "n", "hops"), [("ring", 9, 4), ("line", 9, 8), ("star", 9, 2), ("torus", 16, 4)])
def test_diameter(family: str, n: int, hops: int) -> None:
    assert diameter(n, edge_ends(build_plan(family, n))) == hops


def test_spectral_gap_of_known_matrices() -> None:
    assert spectral_gap(np.full((5, 5), 0.2)) == pytest.approx(1)
    assert spectral_gap(np.eye(5)) == pytest.approx(0)
    assert spectral_gap(np.array([[0.0, 1.0], [1.0, 0.0]])) == pytest.approx(0)  # swaps for ever
    ring = build_plan("ring", 8)  # Metropolis weights 1/3: eigenvalues (1 + 2 cos(2πk/8))/3
    assert promises(ring, 1)["spectral_gap"] == pytest.approx(1 - (1 + 2 * math.cos(math.pi / 4)) / 3)


def test_messages_and_bytes() -> None:
    assert messages_sent(3, np.array([(0, 1), (0, 2)]), np.array([2.0, 5.0])).tolist() == [7, 2, 5]
    figures = promises(build_plan("star", 5), model_bytes=100)
    assert figures["total_rate"] == pytest.approx(4)
    assert figures["messages_sent"] == pytest.approx({"mean": 8 / 5, "max": 4})
    assert figures["bytes_sent"] == pytest.approx({"mean": 160, "max": 400})
    assert figures["degree"] == {"min": 1, "mean": 8 / 5, "max": 4}
    assert figures["edges_owned_max"] == 1


def test_addresses() -> None:
    named = build_plan("ring", 3, named_hosts=True)
    assert [(node.address, node.http) for node in named.nodes] == [(f"n{k}:7700", f"n{k}:9700") for k in range(3)]
    assert build_plan("ring", 3, host="10.0.0.1", port=80, http_port=90).nodes[2].http == "10.0.0.1:92"
    assert build_plan("ring", 3, port=9699).nodes[0].http == "127.0.0.1:9702"
    assert named.digest == build_plan("ring", 3).digest
    for ports in ({"port": 0}, {"port": 65534}, {"http_port": 7702}, {"port": 65535, "named_hosts": True}):
        with pytest.raises(PlanError, match="port"):
            build_plan("ring", 3, **ports)


def sparse_network(kind: str) -> nx.Graph:
    """A connected graph on 0 … n−1 with no structure, with hardly a cycle, or with many."""
    if kind == "star with tails":
        return nx.from_edgelist([(0, k) for k in range(1, 60)] + [(k, k + 59) for k in range(1, 60, 3)])
    if kind == "geometric":
        return next(g for s in range(99) if nx.is_connected(g := nx.random_geometric_graph(150, 0.16, seed=s)))
    graph = {
        "ring": nx.cycle_graph(64),
        "line": nx.path_graph(40),
        "grid": nx.grid_2d_graph(9, 14),
        "torus": nx.grid_2d_graph(8, 10, periodic=True),
        "regular": nx.random_regular_graph(4, 120, seed=2),
        "tree": nx.random_labeled_tree(150, seed=5),
    }[kind]
    return nx.convert_node_labels_to_integers(graph)


KINDS = ["ring", "line", "grid", "torus", "regular", "tree", "geometric", "star with tails"]


@pytest.mark.parametrize("kind", KINDS)
def test_sparse_measures_are_the_dense_ones(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = nx.convert_node_labels_to_integers(sparse_network(kind))
    n, ends = len(graph), np.array(graph.edges)
    draw = np.random.default_rng(7)
    rates = draw.uniform(0.02, 2, len(ends))
    weights = draw.uniform(0.2, 1, len(ends)) / max(degree for _, degree in graph.degree)
    matrix = laplacian(n, ends, rates)
    monkeypatch.setattr("topology.measures.DENSE_MAX", 1)
    monkeypatch.setattr("topology.solvers.sparse.DENSE_NODES", 1)
    assert chis(n, ends, rates) == pytest.approx((chi1(matrix), chi2(matrix, ends)), rel=1e-9)
    np.testing.assert_allclose(edge_resistances(n, ends, rates), resistances(matrix, ends), rtol=1e-9)
    for sign in (1, 1.9):  # the smallest eigenvalue of the mixing matrix counts where weights are large
        expected = spectral_gap(mixing_matrix(n, ends, sign * weights))
        assert mixing_gap(n, ends, sign * weights) == pytest.approx(expected, rel=1e-9)
    assert diameter(n, ends) == nx.diameter(graph)


@pytest.mark.parametrize("kind", ["regular", "grid"])
def test_measures_without_a_factor(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = sparse_network(kind)
    n, ends = len(graph), np.array(graph.edges)
    rates = np.random.default_rng(7).uniform(0.02, 0.2, len(ends))
    expected = (*chis(n, ends, rates), mixing_gap(n, ends, rates))
    monkeypatch.setattr("topology.measures.DENSE_MAX", 1)
    monkeypatch.setattr("topology.solvers.sparse.DENSE_NODES", 1)
    monkeypatch.setattr("topology.solvers.elimination.DENSE_WORK", 0)
    assert (*chis(n, ends, rates), mixing_gap(n, ends, rates)) == pytest.approx(expected, rel=1e-9)


def test_ten_thousand_peers_in_a_grid() -> None:
    rows = np.arange(10_000).reshape(100, 100)
    pairs = [(rows[:, :-1], rows[:, 1:]), (rows[:-1], rows[1:])]
    ends = np.concatenate([np.stack([a.ravel(), b.ravel()], axis=1) for a, b in pairs])
    one, two = chis(10_000, ends, np.ones(len(ends)))
    assert one == pytest.approx(1 / (2 - 2 * math.cos(math.pi / 100)), rel=1e-9)
    assert edge_resistances(10_000, ends, np.ones(len(ends))).sum() == pytest.approx(9999, rel=1e-10)  # Foster
    assert 0.25 < two < 0.5  # half of what the edges of a wide grid have, and less than an edge alone
    assert mixing_gap(10_000, ends, np.full(len(ends), 0.2)) == pytest.approx(0.2 / one, rel=1e-9)
    assert diameter(10_000, ends) == 198
