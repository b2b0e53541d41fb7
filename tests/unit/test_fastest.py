"""The fastest averaging's solver and its proof, against general semidefinite solvers and dense linear algebra."""

from __future__ import annotations

from itertools import pairwise

import networkx as nx
import numpy as np
import pytest

from topology.measures import mixing_matrix
from topology.problem import Ends, Step, Stop
from topology.solvers import fastest as module
from topology.solvers.averaging import Program, modulus_of, proved, symmetric
from topology.solvers.fastest import fastest
from topology.solvers.semidefinite import fastest_mixing
from topology.weights import metropolis

EXACT = Stop(max_gap=1e-7)


def drawn(seed: int) -> tuple[int, Ends]:
    """A connected graph of 4 to 16 nodes, a random tree and some edges more."""
    random = np.random.default_rng(seed)
    n = int(random.integers(4, 17))
    graph = nx.random_labeled_tree(n, seed=seed)
    for _ in range(int(random.integers(0, 2 * n))):
        graph.add_edge(*random.choice(n, 2, replace=False).tolist())
    return n, np.array(graph.edges, dtype=np.int64)


@pytest.mark.parametrize("chain", [False, True], ids=["fdla", "fmmc"])
@pytest.mark.parametrize("seed", range(12))
def test_general_solvers_find_the_same(seed: int, chain: bool) -> None:
    n, ends = drawn(seed)
    program = Program(n, ends, chain)
    found = fastest(n, ends, metropolis(n, ends), chain=chain, stop=EXACT)
    _, least = fastest_mixing(n, ends, chain=chain)
    assert modulus_of(program, found.weights) == pytest.approx(least, abs=1e-6)
    assert found.bound == pytest.approx(least, abs=1e-6)


@pytest.mark.parametrize("seed", range(12))
def test_a_chain_has_no_negative_entry(seed: int) -> None:
    n, ends = drawn(seed)
    mixing = mixing_matrix(n, ends, fastest(n, ends, metropolis(n, ends), chain=True, stop=EXACT).weights)
    assert (mixing >= -1e-15).all()


def test_negative_weights_are_faster_where_they_are_allowed() -> None:
    # Two complete graphs, joined by one edge: it wants more weight than its ends' rows have in a chain.
    ends = np.array(nx.barbell_graph(5, 0).edges, dtype=np.int64)
    linear = fastest(10, ends, metropolis(10, ends), chain=False, stop=EXACT)
    chain = fastest(10, ends, metropolis(10, ends), chain=True, stop=EXACT)
    assert modulus_of(Program(10, ends, False), linear.weights) < chain.bound
    assert np.diagonal(mixing_matrix(10, ends, linear.weights)).min() < 0


@pytest.mark.parametrize("chain", [False, True], ids=["fdla", "fmmc"])
@pytest.mark.parametrize("seed", range(8))
def test_any_multipliers_prove_what_no_weights_go_below(seed: int, chain: bool) -> None:
    n, ends = drawn(seed)
    program, random = Program(n, ends, chain), np.random.default_rng(seed)
    least = modulus_of(program, fastest(n, ends, metropolis(n, ends), chain=chain, stop=EXACT).weights)
    halves = random.normal(size=(2, n, n))
    duals = halves + halves.transpose(0, 2, 1) * random.choice([0, 1])  # neither symmetric nor definite, at times
    assert 0 <= proved(program, duals, random.normal(size=len(program.room))) <= least + 1e-9
    assert 0 <= proved(program, duals * [[[1.0]], [[0.0]]], np.zeros(len(program.room))) <= least + 1e-9


@pytest.mark.parametrize(
    "graph",
    [
        nx.cycle_graph(9),
        nx.complete_bipartite_graph(3, 5),
        nx.hypercube_graph(3),
        nx.petersen_graph(),
        nx.star_graph(6),
        nx.icosahedral_graph(),
        nx.line_graph(nx.complete_graph(6)),  # 1/degree keeps a chain from the best constant
        nx.grid_2d_graph(4, 4, periodic=True),
    ],
)
@pytest.mark.parametrize("chain", [False, True], ids=["fdla", "fmmc"])
def test_one_weight_is_proved_best_on_edge_transitive_graphs(graph: nx.Graph, chain: bool) -> None:
    n, ends = len(graph), np.array(nx.convert_node_labels_to_integers(graph).edges, dtype=np.int64)
    program = Program(n, ends, chain)
    weights, bound = symmetric(program)
    assert modulus_of(program, weights) == pytest.approx(bound, abs=1e-10)
    assert fastest_mixing(n, ends, chain=chain)[1] == pytest.approx(bound, abs=1e-6)


def test_other_graphs_are_not_taken_for_edge_transitive() -> None:
    ends = np.array(nx.lollipop_graph(4, 3).edges, dtype=np.int64)
    weights, bound = symmetric(program := Program(7, ends, False))
    assert bound < fastest(7, ends, metropolis(7, ends), chain=False, stop=EXACT).bound < modulus_of(program, weights)


@pytest.mark.parametrize("limits", [(0, 10**6), (0, 0)], ids=["single precision", "no factor"])
@pytest.mark.parametrize("chain", [False, True], ids=["fdla", "fmmc"])
def test_many_edges_are_solved_to_the_same_answer(limits, chain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    n, ends = drawn(5)
    direct = fastest(n, ends, metropolis(n, ends), chain=chain, stop=EXACT)
    monkeypatch.setattr(module, "DOUBLE", limits[0])
    monkeypatch.setattr(module, "SINGLE", limits[1])
    iterated = fastest(n, ends, metropolis(n, ends), chain=chain, stop=Stop(max_gap=1e-4))
    program = Program(n, ends, chain)
    least = modulus_of(program, iterated.weights)
    assert least - iterated.bound <= 1.01e-4 * min(least, 1 - least)
    assert iterated.bound <= modulus_of(program, direct.weights) + 1e-12
    assert least >= direct.bound - 1e-12


def test_steps_are_told_and_close_the_gap() -> None:
    n, ends = drawn(3)
    steps: list[Step] = []
    found = fastest(n, ends, metropolis(n, ends), chain=False, stop=Stop(max_gap=1e-4), watch=steps.append)
    assert all(later.cost <= step.cost and later.bound >= step.bound for step, later in pairwise(steps))
    assert steps[-1].bound == found.bound
    assert len(steps) > 3
