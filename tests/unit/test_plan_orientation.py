"""Who owns which edge: no orientation has a peer that owns fewer edges than the busiest one."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.orientation import orient

PAIRS = [(f"n{i}", f"n{j}") for i, j in combinations(range(6), 2)]


def most_owned(edges: list[tuple[str, str]]) -> int:
    return max(Counter(owner for owner, _ in edges).values(), default=0)


def least_by_brute_force(edges: list[tuple[str, str]]) -> int:
    return min(most_owned(list(choice)) for choice in product(*[(edge, edge[::-1]) for edge in edges]))


@given(st.lists(st.sampled_from(PAIRS), unique=True, max_size=10))
def test_the_busiest_owner_owns_as_few_as_possible(edges) -> None:
    oriented = orient(edges)
    assert [set(pair) for pair in oriented] == [set(pair) for pair in edges]
    assert most_owned(oriented) == least_by_brute_force(edges)


def test_in_a_star_the_leaves_own() -> None:
    for n in (2, 3, 64):
        assert orient([("n0", f"n{k}") for k in range(1, n)]) == [(f"n{k}", "n0") for k in range(1, n)]
    turned = [(f"n{k}", "n0") for k in range(1, 64)]
    assert orient(turned) == turned


@pytest.mark.parametrize("n", [2, 3, 8, 41])
def test_complete_graphs_and_rings_are_even(n: int) -> None:
    names = [f"n{k}" for k in range(n)]
    assert most_owned(orient(list(combinations(names, 2)))) == n // 2
    if n > 2:
        assert most_owned(orient([(names[k - 1], names[k]) for k in range(n)])) == 1


def test_a_tree_needs_no_second_edge_whatever_the_order() -> None:
    random = np.random.default_rng(5)
    for _ in range(20):
        edges = [(f"n{k}", f"n{random.integers(k)}") for k in range(1, 200)]
        random.shuffle(edges)
        assert most_owned(orient(edges)) == 1


def test_thousands_of_edges() -> None:
    random = np.random.default_rng(1)
    drawn = {tuple(sorted(pair)) for pair in random.integers(1000, size=(7000, 2)).tolist() if pair[0] != pair[1]}
    edges = [(f"n{a}", f"n{b}") for a, b in sorted(drawn)]
    # m/n is a lower bound for every orientation, and a random graph this dense attains it.
    assert most_owned(orient(edges)) == -(-len(edges) // 1000)
    assert orient(edges) == orient(edges)
