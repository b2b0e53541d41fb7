"""Graph families: the right graph, or one sentence."""

from __future__ import annotations

import networkx as nx
import pytest

from topology.families import FAMILIES, make_graph, sides
from topology.plan import PlanError

COMPOSITE = [4, 6, 9, 12, 16, 25]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n", COMPOSITE)
def test_every_family_is_simple_connected_and_named_in_order(family: str, n: int) -> None:
    graph = make_graph(family, n, degree=2 if family == "regular" else None)
    assert set(graph) == {f"n{k}" for k in range(n)}
    assert nx.is_connected(graph)
    assert not nx.number_of_selfloops(graph)


@pytest.mark.parametrize("family", ["complete", "ring", "line", "star", "exponential"])
def test_two_nodes_have_one_edge(family: str) -> None:
    assert [set(edge) for edge in make_graph(family, 2).edges] == [{"n0", "n1"}]


@pytest.mark.parametrize(
    ("family", "n", "edges", "degrees"),
    [
        ("complete", 7, 21, {6}),
        ("ring", 7, 7, {2}),
        ("line", 7, 6, {1, 2}),
        ("star", 7, 6, {1, 6}),
        ("grid", 12, 17, {2, 3, 4}),
        ("torus", 12, 24, {4}),
        ("torus", 8, 12, {3}),
        ("torus", 4, 4, {2}),
        ("exponential", 16, 56, {7}),
        ("exponential", 7, 21, {6}),
    ],
)
def test_counts(family: str, n: int, edges: int, degrees: set[int]) -> None:
    graph = make_graph(family, n)
    assert graph.number_of_edges() == edges
    assert {degree for _, degree in graph.degree} == degrees


def test_neighbours_of_a_node() -> None:
    assert set(make_graph("star", 5)["n0"]) == {"n1", "n2", "n3", "n4"}
    assert set(make_graph("grid", 12)["n5"]) == {"n1", "n4", "n6", "n9"}  # 3 × 4, row by row
    assert set(make_graph("torus", 12)["n0"]) == {"n1", "n3", "n4", "n8"}
    offsets = {1, 2, 4, 8}
    assert set(make_graph("exponential", 12)["n0"]) == {f"n{k % 12}" for o in offsets for k in (o, -o)}


@pytest.mark.parametrize(
    ("n", "degree"), [(2, 1), (3, 2), (10, 2), (10, 3), (10, 9), (10, 8), (9, 6), (50, 3), (60, 45)]
)
def test_regular_graphs_are_regular(n: int, degree: int) -> None:
    for seed in range(3):
        graph = make_graph("regular", n, degree=degree, seed=seed)
        assert {d for _, d in graph.degree} == {degree}
        assert nx.is_connected(graph)


def test_the_seed_decides() -> None:
    def edges(seed: int) -> set[frozenset[str]]:
        return {frozenset(edge) for edge in make_graph("regular", 30, degree=4, seed=seed).edges}

    assert edges(1) == edges(1)
    assert edges(1) != edges(2)


def test_most_square() -> None:
    assert [sides(n) for n in (4, 7, 12, 24, 36, 34)] == [(2, 2), (1, 7), (3, 4), (4, 6), (6, 6), (2, 17)]


@pytest.mark.parametrize(
    ("family", "n", "options", "says"),
    [
        ("rign", 4, {}, "did you mean 'ring'"),
        ("ring", 1, {}, "at least two nodes"),
        ("ring", -3, {}, "at least two nodes"),
        ("grid", 13, {}, "13 is prime: take 12 or 14"),
        ("torus", 7, {}, "7 is prime: take 6 or 8"),
        ("grid", 2, {}, "2 is prime: take 4"),
        ("grid", 3, {}, "3 is prime: take 4"),
        ("ring", 5, {"degree": 2}, "no degree to choose"),
        ("regular", 5, {"degree": 3}, "must be even"),
        ("regular", 5, {"degree": 5}, "from 1 to 4"),
        ("regular", 5, {"degree": 0}, "from 1 to 4"),
        ("regular", 6, {"degree": 1}, "not connected"),
        ("regular", 4, {}, "from 1 to 3"),
        ("ring", 4, {"seed": -1}, "0 or more"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(family, n, options, says) -> None:
    with pytest.raises(PlanError, match=says):
        make_graph(family, n, **options)
