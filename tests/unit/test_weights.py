"""Mixing matrices."""

from __future__ import annotations

import numpy as np
import pytest

from topology.families import FAMILIES
from topology.measures import edge_ends, mixing_matrix, spectral_gap
from topology.planning import build_plan
from topology.weights import WEIGHTS, metropolis


@pytest.mark.parametrize("rule", WEIGHTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_rule_averages_on_every_family(rule: str, family: str) -> None:
    plan = build_plan(family, 12, weights=rule)
    mixing = mixing_matrix(12, edge_ends(plan), np.array([edge.weight for edge in plan.edges]))
    np.testing.assert_array_equal(mixing, mixing.T)
    np.testing.assert_allclose(mixing.sum(axis=1), 1, atol=1e-12)
    assert (mixing >= -1e-12).all()
    values = np.random.default_rng(0).normal(size=12)
    np.testing.assert_allclose(np.linalg.matrix_power(mixing, 2000) @ values, values.mean(), atol=1e-9)
    assert 0 < spectral_gap(mixing) <= 1 + 1e-12


def test_metropolis_takes_the_larger_degree() -> None:
    ends = np.array([(0, 1), (0, 2), (0, 3), (3, 4)])  # degrees 3, 1, 1, 2, 1
    np.testing.assert_allclose(metropolis(5, ends), [1 / 4, 1 / 4, 1 / 4, 1 / 3])
