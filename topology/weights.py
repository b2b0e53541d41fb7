"""Mixing matrices for synchronous rounds: one function and one registry line each.

A rule gives every edge a weight w_e; W = I − Σ_e w_e b_e b_eᵀ is then symmetric with rows that sum to 1.
Repeated multiplication by W averages, the faster the larger its spectral gap. Rules whose weights may be negative,
or leave a node a negative weight of its own, need less rounds where models are averaged plainly; what wants a Markov
chain, in which every average is one of models that are there, takes ``metropolis`` or ``fmmc``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from scipy.linalg import eigvalsh

from topology.measures import laplacian
from topology.problem import Ends, Reals, Stop, Watch
from topology.records import PlanError, unknown
from topology.solvers.fastest import Mixing, fastest

DIGITS = 10
Rule: TypeAlias = Callable[[int, Ends, Stop, "Watch | None"], Mixing]


def metropolis(n: int, ends: Ends) -> Reals:
    """w_ij = 1/(1 + max(d_i, d_j)): needs no more than the neighbours' degrees, and every node keeps some weight.

    .. [1] L. Xiao, S. Boyd, S. Lall. Distributed average consensus with time-varying Metropolis weights. 2006.
    """
    degrees = np.bincount(ends.ravel(), minlength=n)
    weights: Reals = 1 / (1 + degrees[ends].max(axis=1))
    return weights


def best_constant(n: int, ends: Ends) -> Reals:
    """w = 2/(λ2 + λn), of the unweighted Laplacian: the largest spectral gap that one weight for all edges can have.

    .. [1] L. Xiao, S. Boyd. Fast linear iterations for distributed averaging. Systems & Control Letters 53, 2004.
    """
    values = eigvalsh(laplacian(n, ends, np.ones(len(ends))))
    return _rounded(np.full(len(ends), 2 / (values[1] + values[-1])))


def fdla(n: int, ends: Ends, stop: Stop, watch: Watch | None) -> Mixing:
    """Fastest distributed linear averaging: the largest spectral gap that any weights have; some may be negative."""
    found = fastest(n, ends, best_constant(n, ends), chain=False, stop=stop, watch=watch)
    return found._replace(weights=_rounded(found.weights))


def fmmc(n: int, ends: Ends, stop: Stop, watch: Watch | None) -> Mixing:
    """Fastest mixing Markov chain: the largest spectral gap of the matrices with no negative entry."""
    found = fastest(n, ends, metropolis(n, ends), chain=True, stop=stop, watch=watch)
    return found._replace(weights=_rounded(found.weights))


WEIGHTS: dict[str, Rule] = {
    "metropolis": lambda n, ends, stop, watch: Mixing(metropolis(n, ends), 0.0, "closed form"),
    "best-constant": lambda n, ends, stop, watch: Mixing(best_constant(n, ends), 0.0, "closed form"),
    "fdla": fdla,
    "fmmc": fmmc,
}


def find_weights(rule: str, n: int, ends: Ends, stop: Stop = Stop(), watch: Watch | None = None) -> Mixing:
    """The weight of every edge by one rule, and how large a spectral gap no weights can exceed.

    Parameters
    ----------
    rule : str
        A key of ``WEIGHTS``.
    n : int
        Number of nodes.
    ends : ndarray of int, shape (m, 2)
        The ends of every edge of a connected graph.
    stop : Stop
        When a rule that searches may end; see :func:`topology.solvers.fastest.fastest` for what its gap is of.
    watch : callable, optional
        Told how far such a rule has come.

    Raises
    ------
    PlanError
        When there is no such rule.
    """
    if rule not in WEIGHTS:
        raise PlanError(unknown("weights", rule, WEIGHTS))
    return WEIGHTS[rule](n, ends, stop, watch)


def choose_weights(rule: str, n: int, ends: Ends, stop: Stop = Stop(), watch: Watch | None = None) -> Reals:
    """The weights of :func:`find_weights` alone, shape (m,)."""
    return find_weights(rule, n, ends, stop, watch).weights


def _rounded(weights: Reals) -> Reals:
    """To ten digits, since the last ones differ between builds of the linear algebra, and would change a plan's digest.

    Down, but for what is a rounding error below the next digit: a chain's weights at a node must not sum to above 1.
    """
    size = np.abs(weights)
    scale = 10.0 ** (DIGITS - 1 - np.floor(np.log10(np.maximum(size, 1e-300))))
    return np.copysign(np.floor(size * scale + 1e-3) / scale, weights)
