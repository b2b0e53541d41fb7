"""What the planner is asked: a graph, what an exchange costs on each edge, and how much edges and nodes can bear.

Rates λ ≥ 0, in exchanges per unit of time, are wanted with the least total cost Σ_e c_e λ_e such that

    b_eᵀ Λ⁺ b_e ≤ λ2(Λ) for every edge e        (that is χ1·χ2 ≤ ½: accelerated gossip is stable)
    λ_e ≤ capacity_e,   Σ_{e at i} λ_e ≤ budget_i

with Λ = Σ_e λ_e b_e b_eᵀ. Without capacities and budgets the rates may be scaled freely, and only the
probabilities p = λ/Σλ matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

Ends: TypeAlias = NDArray[np.int64]
Reals: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Problem:
    """A connected simple graph with costs and limits.

    Parameters
    ----------
    n : int
        Number of nodes.
    ends : ndarray of int, shape (m, 2)
        The two ends of every edge.
    costs : ndarray, shape (m,)
        What one exchange costs on each edge, above 0.
    capacities : ndarray, shape (m,)
        The most exchanges per unit of time that an edge can bear; inf for any number.
    budgets : ndarray, shape (n,)
        The most exchanges per unit of time that a node can take part in; inf for any number.
    """

    n: int
    ends: Ends
    costs: Reals
    capacities: Reals
    budgets: Reals

    @classmethod
    def of(
        cls,
        n: int,
        ends: Ends,
        *,
        costs: Reals | None = None,
        capacities: Reals | None = None,
        budgets: Reals | None = None,
    ) -> Problem:
        """A problem in which every exchange costs 1 and nothing is limited, but for what is given."""
        m = len(ends)
        return cls(
            n,
            ends,
            np.ones(m) if costs is None else costs,
            np.full(m, math.inf) if capacities is None else capacities,
            np.full(n, math.inf) if budgets is None else budgets,
        )

    @cached_property
    def capped(self) -> NDArray[np.int64]:
        """The edges with a capacity."""
        return np.flatnonzero(np.isfinite(self.capacities))

    @cached_property
    def budgeted(self) -> NDArray[np.int64]:
        """The nodes with a budget."""
        return np.flatnonzero(np.isfinite(self.budgets))

    @property
    def limited(self) -> bool:
        """Whether there is any capacity or budget."""
        return bool(len(self.capped) or len(self.budgeted))

    @cached_property
    def limits(self) -> tuple[csr_array, Reals]:
        """All limits as G λ ≤ h: first the capacities, then the budgets; G has shape (limits, m)."""
        m, k = len(self.ends), np.arange(len(self.ends))
        at_node = csr_array((np.ones(2 * m), (self.ends.T.ravel(), np.tile(k, 2))), shape=(self.n, m))
        one_edge = csr_array((np.ones(m), (k, k)), shape=(m, m))
        rows = csr_array(vstack([one_edge[self.capped], at_node[self.budgeted]]))
        return rows, np.concatenate([self.capacities[self.capped], self.budgets[self.budgeted]])

    def keeps_limits(self, rates: Reals, tolerance: float = 1e-9) -> bool:
        """Whether rates keep all capacities and budgets, to a part of each."""
        rows, height = self.limits
        return bool(np.all(rows @ rates <= height * (1 + tolerance)))


class Stop(NamedTuple):
    """When a solver may end, whichever comes first.

    Parameters
    ----------
    max_gap : float
        Cost above the lower bound, as a part of it.
    time_limit_s : float
        In seconds.
    """

    max_gap: float = 1e-3
    time_limit_s: float = 60.0


class Step(NamedTuple):
    """How far a solver has come: the best cost it has found and the best lower bound it has proved."""

    seconds: float
    cost: float
    bound: float

    @property
    def gap(self) -> float:
        """Cost above the bound, as a part of it."""
        return self.cost / self.bound - 1 if self.bound > 0 else math.inf


Watch: TypeAlias = Callable[[Step], None]


class Dual(NamedTuple):
    """A dual point, as far as bounds need it; see ``topology.solvers.certificate``.

    Parameters
    ----------
    a : ndarray, shape (m,)
        b_eᵀ X b_e of a positive semidefinite X of trace 1 whose rows sum to 0.
    y : ndarray, shape (m,), or None
        b_eᵀ Y b_e of a mean of y_k y_kᵀ with b_kᵀ y_k = 1; None for the restriction without resistances.
    prices : ndarray, shape (n,), or None
        Of the nodes' budgets, in cost per exchange; None to have them chosen by a linear programme.
    """

    a: Reals
    y: Reals | None = None
    prices: Reals | None = None


class Infeasible(Exception):
    """No rates keep the limits, or none were found.

    Parameters
    ----------
    proof : Dual or None
        The dual point that proves that there are none; None when it is not known.
    timed_out : bool
        Whether there would have been more to try.
    """

    def __init__(self, proof: Dual | None, *, timed_out: bool = False) -> None:
        super().__init__("no rates that keep the limits were found" if proof is None else "no rates keep the limits")
        self.proof = proof
        self.timed_out = timed_out


class Solution(NamedTuple):
    """What a solver answers.

    Parameters
    ----------
    rates : ndarray, shape (m,)
        Not negative; see the solver for their scale.
    dual : Dual
        The dual point of the lower bound.
    bound : float
        No rates that satisfy the constraints have a smaller total cost.
    solver : str
        What computed them.
    steps : tuple of Step
        How the gap closed.
    """

    rates: Reals
    dual: Dual
    bound: float
    solver: str
    steps: tuple[Step, ...]
