"""Mixing matrices: every rule averages, and the fastest ones are as good as theory says."""

from __future__ import annotations

import math
import subprocess
import sys

import networkx as nx
import numpy as np
import pytest

from topology.families import FAMILIES
from topology.measures import edge_ends, laplacian, mixing_matrix, spectral_gap
from topology.planning import build_plan
from topology.problem import Ends, Stop
from topology.records import PlanError
from topology.weights import WEIGHTS, best_constant, choose_weights, find_weights, metropolis

CHAINS = ("metropolis", "fmmc")


def ends_of(graph: nx.Graph) -> Ends:
    return np.array(nx.convert_node_labels_to_integers(graph).edges, dtype=np.int64)


def modulus(n: int, ends: Ends, rule: str, **keys) -> float:
    return 1 - spectral_gap(mixing_matrix(n, ends, choose_weights(rule, n, ends, **keys)))


@pytest.mark.parametrize("rule", WEIGHTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_rule_averages_on_every_family(rule: str, family: str) -> None:
    plan = build_plan(family, 16, weights=rule)  # a size that every family has
    mixing = mixing_matrix(16, edge_ends(plan), np.array([edge.weight for edge in plan.edges]))
    np.testing.assert_array_equal(mixing, mixing.T)
    np.testing.assert_allclose(mixing.sum(axis=1), 1, atol=1e-12)
    values = np.random.default_rng(0).normal(size=16)
    np.testing.assert_allclose(np.linalg.matrix_power(mixing, 2000) @ values, values.mean(), atol=1e-9)
    assert 0 < spectral_gap(mixing) <= 1 + 1e-12
    if rule in CHAINS:
        assert (mixing >= -1e-12).all()


def test_metropolis_takes_the_larger_degree() -> None:
    ends = np.array([(0, 1), (0, 2), (0, 3), (3, 4)])  # degrees 3, 1, 1, 2, 1
    np.testing.assert_allclose(metropolis(5, ends), [1 / 4, 1 / 4, 1 / 4, 1 / 3])


def test_no_constant_is_better_than_the_best() -> None:
    ends = ends_of(nx.grid_2d_graph(3, 4))
    best = best_constant(12, ends)
    values = np.linalg.eigvalsh(laplacian(12, ends, np.ones(len(ends))))
    np.testing.assert_allclose(best, 2 / (values[1] + values[-1]), rtol=1e-9)
    gap = spectral_gap(mixing_matrix(12, ends, best))
    for factor in (0.9, 0.99, 1.01, 1.1):
        assert spectral_gap(mixing_matrix(12, ends, best * factor)) < gap


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7, 12, 25])
@pytest.mark.parametrize("rule", ["fdla", "fmmc"])
def test_rings(n: int, rule: str) -> None:
    # λ2 = 2 − 2cos(2π/n), and λn = 4 for even n, 2 + 2cos(π/n) for odd n
    low = 2 - 2 * math.cos(2 * math.pi / n) if n > 2 else 2.0
    high = 2.0 if n == 2 else 4.0 if n % 2 == 0 else 2 + 2 * math.cos(math.pi / n)
    ends = ends_of(nx.cycle_graph(n) if n > 2 else nx.path_graph(2))
    found = find_weights(rule, n, ends)
    np.testing.assert_allclose(found.weights, 2 / (low + high), rtol=1e-9)
    assert found.bound == pytest.approx((high - low) / (high + low), abs=1e-9)
    assert found.solver == "closed form"


@pytest.mark.parametrize("n", [2, 3, 4, 9])
@pytest.mark.parametrize("rule", ["fdla", "fmmc"])
def test_a_complete_graph_averages_in_one_round(n: int, rule: str) -> None:
    ends = ends_of(nx.complete_graph(n))
    np.testing.assert_allclose(choose_weights(rule, n, ends), 1 / n, rtol=1e-9)
    assert modulus(n, ends, rule) < 1e-8


@pytest.mark.parametrize("n", [3, 4, 7, 20])
def test_stars(n: int) -> None:
    # The Laplacian has 0, 1 (n − 2 times) and n; a chain's hub has no more than 1 to give to n − 1 leaves.
    ends = ends_of(nx.star_graph(n - 1))
    linear, chain = find_weights("fdla", n, ends), find_weights("fmmc", n, ends)
    np.testing.assert_allclose(linear.weights, 2 / (n + 1), rtol=1e-9)
    np.testing.assert_allclose(chain.weights, 1 / (n - 1), rtol=1e-9)
    assert linear.bound == pytest.approx((n - 1) / (n + 1))
    assert chain.bound == pytest.approx((n - 2) / (n - 1))
    assert linear.solver == chain.solver == "closed form"


@pytest.mark.parametrize("n", [3, 6, 11, 20])
def test_the_fastest_chain_on_a_line_moves_half_the_time(n: int) -> None:
    # S. Boyd, P. Diaconis, J. Sun, L. Xiao. Fastest mixing Markov chain on a path. American Mathematical Monthly, 2006.
    ends = ends_of(nx.path_graph(n))
    found = find_weights("fmmc", n, ends, Stop(max_gap=1e-7))
    assert modulus(n, ends, "fmmc", stop=Stop(max_gap=1e-7)) == pytest.approx(math.cos(math.pi / n), abs=1e-7)
    assert found.bound == pytest.approx(math.cos(math.pi / n), abs=1e-7)


@pytest.mark.parametrize(
    "graph",
    [
        nx.grid_2d_graph(4, 5),
        nx.barbell_graph(6, 2),
        nx.gnp_random_graph(20, 0.25, seed=3),
        nx.random_labeled_tree(20, seed=1),
    ],
    ids=["grid", "barbell", "random", "tree"],
)
def test_the_fastest_are_no_slower_than_the_simple_rules(graph: nx.Graph) -> None:
    n, ends = len(graph), ends_of(graph)
    found = {rule: modulus(n, ends, rule) for rule in WEIGHTS}
    assert found["fdla"] <= found["best-constant"] + 1e-9
    assert found["fdla"] <= found["fmmc"] * (1 + 1e-3)
    assert found["fmmc"] <= found["metropolis"] + 1e-9
    for rule in ("fdla", "fmmc"):
        bound = find_weights(rule, n, ends).bound
        assert bound <= found[rule] + 1e-9
        assert found[rule] - bound <= 1.01e-3 * (1 - found[rule])


def test_what_is_found_before_time_is_up_is_returned() -> None:
    ends = ends_of(nx.barbell_graph(6, 2))
    for rule, simple in (("fdla", "best-constant"), ("fmmc", "metropolis")):
        hasty = find_weights(rule, 14, ends, Stop(time_limit_s=0.0))
        assert 0 < hasty.bound <= 1
        hasty_modulus = 1 - spectral_gap(mixing_matrix(14, ends, hasty.weights))
        assert modulus(14, ends, rule) < hasty_modulus <= modulus(14, ends, simple) + 1e-9


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(PlanError, match="did you mean 'fdla'"):
        choose_weights("fdlaa", 2, np.array([(0, 1)]))


def test_weights_need_no_modelling_language() -> None:
    code = "import sys, topology.weights; print('cvxpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
