"""Graph families: the right graph, or one sentence."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import networkx as nx
import numpy as np
import pytest

from topology import families
from topology.families import FAMILIES, geometric_positions, make_graph, sides
from topology.files import node_order
from topology.records import PlanError

SIZES = {"hypercube": [4, 8, 16, 32], "barbell": [4, 6, 10, 26], "small-world": [5, 9, 16, 25]}
RANDOM = ["regular", "erdos-renyi", "small-world", "geometric"]


def every(default=(4, 6, 9, 12, 16, 25)) -> list[tuple[str, int]]:
    """Every family in several of its sizes."""
    return [(family, n) for family in FAMILIES for n in SIZES.get(family, default)]


def edges_of(graph: nx.Graph) -> set[tuple[int, int]]:
    """The edges by the nodes' numbers."""
    return {(min(pair), max(pair)) for pair in ((int(a[1:]), int(b[1:])) for a, b in graph.edges)}


@pytest.mark.parametrize(("family", "n"), every())
def test_every_family_is_simple_connected_and_named_in_order(family: str, n: int) -> None:
    graph = make_graph(family, n, degree=2 if family == "regular" else None)
    assert node_order(graph) == [f"n{k}" for k in range(n)]
    assert nx.is_connected(graph)
    assert not graph.is_directed()
    assert not graph.is_multigraph()
    assert not nx.number_of_selfloops(graph)


@pytest.mark.parametrize(
    "family", [f for f in FAMILIES if f not in ("grid", "torus", "barbell", "regular", "small-world")]
)
def test_two_nodes_have_one_edge(family: str) -> None:
    assert edges_of(make_graph(family, 2)) == {(0, 1)}


@pytest.mark.parametrize(
    ("family", "n", "edges", "degrees", "diameter"),
    [
        ("complete", 7, 21, {6}, 1),
        ("ring", 7, 7, {2}, 3),
        ("line", 7, 6, {1, 2}, 6),
        ("star", 7, 6, {1, 6}, 2),
        ("grid", 12, 17, {2, 3, 4}, 5),
        ("torus", 12, 24, {4}, 3),
        ("torus", 8, 12, {3}, 3),
        ("torus", 4, 4, {2}, 2),
        ("exponential", 16, 56, {7}, 2),
        ("exponential", 7, 21, {6}, 1),
        ("hypercube", 16, 32, {4}, 4),
        ("hypercube", 128, 448, {7}, 7),
        ("tree", 15, 14, {1, 2, 3}, 6),
        ("tree", 12, 11, {1, 2, 3}, 6),
        ("barbell", 10, 21, {4, 5}, 3),
        ("barbell", 4, 3, {1, 2}, 3),
        ("lollipop", 10, 15, {1, 2, 4, 5}, 6),
        ("lollipop", 9, 14, {1, 2, 4, 5}, 5),
        ("lollipop", 3, 2, {1, 2}, 2),
    ],
)
def test_counts(family: str, n: int, edges: int, degrees: set[int], diameter: int) -> None:
    graph = make_graph(family, n)
    assert graph.number_of_edges() == edges
    assert {degree for _, degree in graph.degree} == degrees
    assert nx.diameter(graph) == diameter


def test_neighbours_of_a_node() -> None:
    assert set(make_graph("star", 5)["n0"]) == {"n1", "n2", "n3", "n4"}
    assert set(make_graph("grid", 12)["n5"]) == {"n1", "n4", "n6", "n9"}  # 3 × 4, row by row
    assert set(make_graph("torus", 12)["n0"]) == {"n1", "n3", "n4", "n8"}
    offsets = {1, 2, 4, 8}
    assert set(make_graph("exponential", 12)["n0"]) == {f"n{k % 12}" for o in offsets for k in (o, -o)}


@pytest.mark.parametrize("n", [2, 8, 32])
def test_hypercube_joins_what_differs_in_one_bit(n: int) -> None:
    expected = {(a, b) for a in range(n) for b in range(a + 1, n) if (a ^ b).bit_count() == 1}
    assert edges_of(make_graph("hypercube", n)) == expected


@pytest.mark.parametrize("n", [2, 3, 15, 22])
def test_tree_hangs_every_node_on_its_parent(n: int) -> None:
    assert edges_of(make_graph("tree", n)) == {((k - 1) // 2, k) for k in range(1, n)}


def test_barbell_and_lollipop_are_what_their_names_say() -> None:
    clique = {(a, b) for b in range(5) for a in range(b)}
    other = {(a + 5, b + 5) for a, b in clique}
    assert edges_of(make_graph("barbell", 10)) == clique | other | {(4, 5)}
    assert edges_of(make_graph("lollipop", 9)) == clique | {(4, 5), (5, 6), (6, 7), (7, 8)}


# ------------------------------------------------------------------------------------------ random


@pytest.mark.parametrize(
    ("n", "degree"), [(2, 1), (3, 2), (10, 2), (10, 3), (10, 9), (10, 8), (9, 6), (50, 3), (60, 45)]
)
def test_regular_graphs_are_regular(n: int, degree: int) -> None:
    for seed in range(3):
        graph = make_graph("regular", n, degree=degree, seed=seed)
        assert {d for _, d in graph.degree} == {degree}
        assert nx.is_connected(graph)


@pytest.mark.parametrize("family", RANDOM)
@pytest.mark.parametrize("n", [5, 12, 30])
def test_random_families_are_connected_over_seeds(family: str, n: int) -> None:
    assert all(nx.is_connected(make_graph(family, n, seed=seed)) for seed in range(40))


@pytest.mark.parametrize("family", RANDOM)
def test_the_seed_decides(family: str) -> None:
    one, same, other = (edges_of(make_graph(family, 30, seed=seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_another_process_draws_the_same_graphs() -> None:
    program = "import sys, json; from topology.families import make_graph\n"
    program += "print(json.dumps([sorted(map(sorted, make_graph(f, 40, seed=7).edges)) for f in sys.argv[1:]]))"
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    done = subprocess.run(
        [sys.executable, "-c", program, *RANDOM], capture_output=True, text=True, check=True, env=environment
    )
    assert json.loads(done.stdout) == [sorted(map(sorted, make_graph(f, 40, seed=7).edges)) for f in RANDOM]


@pytest.mark.parametrize(("probability", "expected"), [(None, 2 * math.log(60) / 60), (0.3, 0.3), (1.0, 1.0)])
def test_edges_are_there_with_their_probability(probability: float | None, expected: float) -> None:
    draws, pairs = 40, 60 * 59 / 2
    counts = [make_graph("erdos-renyi", 60, probability=probability, seed=s).number_of_edges() for s in range(draws)]
    error = math.sqrt(expected * (1 - expected) / (draws * pairs))
    # Only connected graphs are kept, which have a few more edges: hence the slack.
    assert sum(counts) / draws / pairs == pytest.approx(expected, abs=4 * error + 0.002 * (probability is None))


@pytest.mark.parametrize("degree", [2, 4, 6])
def test_small_worlds_rewire_with_their_probability(degree: int) -> None:
    ring = {(min(k, (k + j) % 40), max(k, (k + j) % 40)) for k in range(40) for j in range(1, degree // 2 + 1)}
    assert edges_of(make_graph("small-world", 40, degree=degree, probability=0)) == ring
    moved = 0
    for seed in range(60):
        found = edges_of(make_graph("small-world", 40, degree=degree, probability=0.2, seed=seed))
        assert len(found) == len(ring)
        moved += len(ring - found)
    tried = 60 * len(ring)
    # A rewired edge may come back where it was or where another one has left: hence the slack.
    assert moved / tried == pytest.approx(0.2, abs=4 * math.sqrt(0.2 * 0.8 / tried) + 0.02)


def test_small_worlds_have_degree_4_and_a_tenth_rewired_unless_told() -> None:
    told = make_graph("small-world", 60, degree=4, probability=0.1, seed=3)
    assert edges_of(make_graph("small-world", 60, seed=3)) == edges_of(told)


@pytest.mark.parametrize("family", ["erdos-renyi", "small-world"])
def test_draws_go_on_until_one_is_connected_and_end(family: str, monkeypatch) -> None:
    build = {
        "erdos-renyi": lambda draw: nx.gnp_random_graph(12, 0.2, seed=draw),
        "small-world": lambda draw: nx.watts_strogatz_graph(12, 2, 0.2, seed=draw),
    }[family]
    options = {"erdos-renyi": {"probability": 0.2}, "small-world": {"degree": 2, "probability": 0.2}}[family]
    says = {"erdos-renyi": r"0.2.*raise it above ln\(n\)/n, about 0.21", "small-world": "raise the degree to 4"}[family]
    monkeypatch.setattr(families, "DRAWS", 2)
    ends = set()
    for seed in range(60):
        draw = np.random.default_rng(seed)
        found = [graph for graph in (build(draw), build(draw)) if nx.is_connected(graph)]
        ends.add(len(found))
        if found:
            expected = {(min(pair), max(pair)) for pair in found[0].edges}
            assert edges_of(make_graph(family, 12, seed=seed, **options)) == expected
        else:
            with pytest.raises(PlanError, match=says):
                make_graph(family, 12, seed=seed, **options)
    assert ends == {0, 1, 2}


# --------------------------------------------------------------------------------------- geometric


def distances(n: int, seed: int) -> np.ndarray:
    """Between the places of all nodes, shape (n, n)."""
    spots = geometric_positions(n, seed)
    return np.sqrt(((spots[:, None] - spots[None]) ** 2).sum(axis=2))


def longest_of_shortest_tree(n: int, seed: int) -> float:
    """The least radius that connects the places, by networkx."""
    graph = nx.from_numpy_array(distances(n, seed))
    return max(length["weight"] for *_, length in nx.minimum_spanning_edges(graph))


@pytest.mark.parametrize("radius", [0.4, 0.7, 1.5])
def test_geometric_graphs_join_what_is_near(radius: float) -> None:
    for seed in range(5):
        near = distances(30, seed) <= radius
        expected = {(a, b) for a in range(30) for b in range(a + 1, 30) if near[a, b]}
        assert edges_of(make_graph("geometric", 30, radius=radius, seed=seed)) == expected


def test_places_fill_the_unit_square() -> None:
    spots = geometric_positions(4000, 5)
    assert spots.shape == (4000, 2)
    counts, *_ = np.histogram2d(*spots.T, bins=4, range=[[0, 1], [0, 1]])
    assert counts.sum() == 4000
    np.testing.assert_allclose(counts, 250, atol=5 * math.sqrt(250))


@pytest.mark.parametrize("n", [2, 3, 10, 40])
def test_without_a_radius_it_is_the_usual_one_or_the_least_that_connects(n: int) -> None:
    usual = 1.3 * math.sqrt(math.log(n) / (math.pi * n))
    ends = set()
    for seed in range(20):
        least = longest_of_shortest_tree(n, seed)
        ends.add(least > usual)
        count = make_graph("geometric", n, seed=seed).number_of_edges()
        low, high = (np.triu(distances(n, seed) <= max(usual, least) + more, 1).sum() for more in (1e-12, 1.1e-4))
        assert low <= count <= high
    assert ends == {False, True}


def test_too_small_a_radius_is_refused_with_the_least_that_will_do() -> None:
    for seed in range(10):
        least = longest_of_shortest_tree(25, seed)
        with pytest.raises(PlanError, match="not connected at radius") as refusal:
            make_graph("geometric", 25, radius=least - 1e-9, seed=seed)
        named = float(str(refusal.value).split("take ")[1].split()[0])
        assert least < named < least + 1.1e-4
        assert nx.is_connected(make_graph("geometric", 25, radius=named, seed=seed))


# ---------------------------------------------------------------------------------------- refusals


def test_most_square() -> None:
    assert [sides(n) for n in (4, 7, 12, 24, 36, 34)] == [(2, 2), (1, 7), (3, 4), (4, 6), (6, 6), (2, 17)]


@pytest.mark.parametrize(
    ("family", "n", "options", "says"),
    [
        ("rign", 4, {}, "did you mean 'ring'"),
        ("file.txt", 4, {}, "file:PATH"),
        ("ring", 1, {}, "at least two nodes"),
        ("ring", -3, {}, "at least two nodes"),
        ("ring", None, {}, "say how many peers, --nodes N"),
        ("grid", 13, {}, "13 is prime: take 12 or 14 nodes"),
        ("torus", 7, {}, "7 is prime: take 6 or 8 nodes"),
        ("grid", 2, {}, "2 is prime: take 4 nodes"),
        ("torus", 3, {}, "3 is prime: take 4 nodes"),
        ("grid", 5, {}, "5 is prime: take 4 or 6 nodes"),
        ("hypercube", 12, {}, "not 12: take 8 or 16"),
        ("hypercube", 3, {}, "not 3: take 2 or 4"),
        ("barbell", 7, {}, "not 7 nodes: take 6 or 8 nodes"),
        ("barbell", 2, {}, "not 2 nodes: take 4 nodes"),
        ("ring", 5, {"degree": 2}, "no degree to choose: leave it out, or take regular or small-world"),
        ("regular", 6, {"probability": 0.5}, "no probability to choose: .* take erdos-renyi or small-world"),
        ("small-world", 6, {"radius": 0.5}, "no radius to choose: leave it out, or take geometric"),
        ("regular", 5, {"degree": 3}, "must be even"),
        ("regular", 5, {"degree": 5}, "from 1 to 4"),
        ("regular", 5, {"degree": 0}, "from 1 to 4"),
        ("regular", 6, {"degree": 1}, "not connected"),
        ("regular", 4, {}, "from 1 to 3"),
        ("small-world", 2, {}, "three nodes or more"),
        ("small-world", 4, {}, "even one from 2 to 2"),
        ("small-world", 9, {"degree": 3}, "even one from 2 to 8"),
        ("small-world", 9, {"degree": 0}, "even one from 2 to 8"),
        ("small-world", 9, {"degree": 10}, "even one from 2 to 8"),
        ("small-world", 9, {"probability": 1.5}, "from 0 to 1"),
        ("small-world", 9, {"probability": math.nan}, "from 0 to 1"),
        ("erdos-renyi", 9, {"probability": 0.0}, "above 0, up to 1"),
        ("erdos-renyi", 9, {"probability": 1.1}, "above 0, up to 1"),
        ("erdos-renyi", 9, {"probability": math.nan}, "above 0, up to 1"),
        ("erdos-renyi", 90, {"probability": 1e-30}, r"raise it above ln\(n\)/n, about 0.05"),
        ("geometric", 9, {"radius": 0.0}, "finite number above 0"),
        ("geometric", 9, {"radius": -1.0}, "finite number above 0"),
        ("geometric", 9, {"radius": math.inf}, "finite number above 0"),
        ("geometric", 9, {"radius": math.nan}, "finite number above 0"),
        ("ring", 4, {"seed": -1}, "0 or more"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(family, n, options, says) -> None:
    with pytest.raises(PlanError, match=says) as refusal:
        make_graph(family, n, **options)
    assert "\n" not in str(refusal.value)
