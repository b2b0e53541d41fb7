"""Mixing matrices for synchronous rounds: one function and one registry line each.

A rule gives every edge a weight w_e; W = I − Σ_e w_e b_e b_eᵀ is then symmetric with rows that sum to 1.
Repeated multiplication by W averages, the faster the larger its spectral gap.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from topology.problem import Ends, Reals
from topology.records import PlanError, unknown


def metropolis(n: int, ends: Ends) -> Reals:
    """w_ij = 1/(1 + max(d_i, d_j)): needs no more than the neighbours' degrees, and every node keeps some weight.

    .. [1] L. Xiao, S. Boyd, S. Lall. Distributed average consensus with time-varying Metropolis weights. 2006.
    """
    degrees = np.bincount(ends.ravel(), minlength=n)
    weights: Reals = 1 / (1 + degrees[ends].max(axis=1))
    return weights


WEIGHTS: dict[str, Callable[[int, Ends], Reals]] = {"metropolis": metropolis}


def choose_weights(rule: str, n: int, ends: Ends) -> Reals:
    """The weight of every edge, shape (m,), by one rule; a :class:`PlanError` when there is no such rule."""
    if rule not in WEIGHTS:
        raise PlanError(unknown("weights", rule, WEIGHTS))
    return WEIGHTS[rule](n, ends)
