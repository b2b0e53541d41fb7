"""The four constraints of the rate problem.

    minimise Σ c_e l_e over rates l and a level u, subject to
        Z = L(l) − u(I − J) ⪰ 0    multiplier X    :class:`Spectral`      λ2 of the rate Laplacian is at least u
        s = u − R(l) ≥ 0           multiplier w    :class:`Resistances`   every edge's resistance is at most u
        l ≥ 0                      multiplier z    :class:`Signs`
        σ = h + e − G l ≥ 0        multiplier v    :class:`Limits`        capacities and budgets, exceeded by e ≥ 0

with L(v) = B diag(v) Bᵀ and a(M)_e = b_eᵀ M b_e, so that R = a(P) with P = L(l)⁺. The stationarity conditions
are c = a(X) + a(S) + z − Gᵀv and 0 = Σw − tr X, where S = P L(w) P. Linearised complementarity is

    dX = μZ⁻¹ − X − sym(X dZ Z⁻¹),    dw = μ/s − w − (w/s) ds,    and likewise z and v;

the correctors are sym(dX dZ Z⁻¹), dw·ds/s and so on.

Limits may be exceeded at a penalty, P each, so that there is always an interior to start in: e's multiplier is P − v.
Whoever steps raises the penalty where v comes near it; if the limits can be kept, e vanishes, and if they can't, the
cost grows beyond all bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from topology.problem import Ends, Reals
from topology.solvers.interior.blocks import Block, Change, Chosen, Dense, Move, Pull
from topology.solvers.matrices import edge_products, edge_values, longest_step, symmetric
from topology.solvers.sparse import sparse_laplacian

HELD = 0.05
STRIP = 1024


@dataclass(frozen=True, eq=False)
class Spectral:
    """Z ⪰ 0: slack and multiplier are n × n matrices.

    Parameters
    ----------
    ends : ndarray of int, shape (m, 2)
    slack, multiplier : ndarray, shape (n, n)
        Z and X.
    inverse : ndarray, shape (n, n)
        Z's pseudo-inverse.
    factors : pair of ndarray, shape (n, n)
        Lower factors of Z and X, each made positive definite by a multiple of J.
    """

    ends: Ends
    slack: Reals
    multiplier: Reals
    inverse: Reals
    factors: tuple[Reals, Reals]

    @property
    def degree(self) -> int:
        return len(self.slack) - 1

    def force(self) -> Pull:
        return self._pull(self.multiplier)

    def centred(self, mu: float, corrector: Reals | float) -> Pull:
        return self._pull(mu * self.inverse - corrector)

    def product(self, change: Change) -> Pull:
        bent = (change.laplacian @ self.multiplier).T @ self.inverse  # X V Z⁻¹
        edges = edge_values(bent, self.ends) - change.level * edge_values(self._bent, self.ends)
        return edges, change.level * float(np.trace(self._bent)) - float(np.trace(bent))

    def diagonal(self) -> Pull:
        edges = edge_values(self.multiplier, self.ends) * edge_values(self.inverse, self.ends)
        return edges, float(np.trace(self._bent))

    def fill(self, system: Dense, chosen: Chosen) -> None:
        ends, kind = self.ends[chosen], system.matrix.dtype
        part = edge_products(self.multiplier.astype(kind), ends, ends)
        part *= edge_products(self.inverse.astype(kind), ends, ends)
        system.matrix += part
        system.column -= edge_values(self._bent, ends).astype(kind)

    def move(self, change: Change, mu: float, corrector: Reals | float) -> Move:
        slack = change.laplacian.toarray()
        n = len(slack)
        slack[np.diag_indices(n)] -= change.level
        slack += change.level / n
        bent = symmetric(self.multiplier @ slack @ self.inverse)
        return Move(slack, mu * self.inverse - self.multiplier - bent - corrector)

    def corrector(self, move: Move) -> Reals:
        return symmetric(move.multiplier @ move.slack @ self.inverse)

    def steps(self, move: Move) -> tuple[float, float]:
        return longest_step(self.factors[0], move.slack), longest_step(self.factors[1], move.multiplier)

    @cached_property
    def _bent(self) -> Reals:
        bent: Reals = self.multiplier @ self.inverse
        return bent

    def _pull(self, multiplier: Reals) -> Pull:
        return edge_values(multiplier, self.ends), -float(np.trace(multiplier))


class _Plain:
    """A slack and a multiplier that are arrays of numbers."""

    slack: Reals
    multiplier: Reals

    @property
    def degree(self) -> int:
        return len(self.slack)

    @property
    def stiffness(self) -> Reals:
        """What the multiplier loses for each unit that the slack gains."""
        return self.multiplier / self.slack

    def corrector(self, move: Move) -> Reals:
        return move.multiplier * move.slack / self.slack

    def steps(self, move: Move) -> tuple[float, float]:
        return _to_zero(self.slack, move.slack), _to_zero(self.multiplier, move.multiplier)

    def _moved(self, slack: Reals, mu: float, corrector: Reals | float) -> Move:
        return Move(slack, mu / self.slack - self.multiplier - self.stiffness * slack - corrector)


def _to_zero(values: Reals, direction: Reals) -> float:
    falls = float(np.max(-direction / values, initial=0.0))
    return 1 / falls if falls > 0 else np.inf


@dataclass(frozen=True, eq=False)
class Resistances(_Plain):
    """u − R ≥ 0.

    Parameters
    ----------
    ends : ndarray of int, shape (m, 2)
    slack, multiplier : ndarray, shape (m,)
        u − R and w.
    inverse : ndarray, shape (n, n)
        P, the rate Laplacian's pseudo-inverse.
    spread : ndarray, shape (n, n)
        S = P L(w) P.
    values : ndarray, shape (m,)
        R.
    """

    ends: Ends
    slack: Reals
    multiplier: Reals
    inverse: Reals
    spread: Reals
    values: Reals

    @classmethod
    def at(cls, ends: Ends, level: float, inverse: Reals, multiplier: Reals) -> Resistances:
        """The block at a level and a pseudo-inverse P."""
        values = edge_values(inverse, ends)
        return cls(ends, level - values, multiplier, inverse, symmetric(_spread(ends, inverse, multiplier)), values)

    def force(self) -> Pull:
        return edge_values(self.spread, self.ends), float(self.multiplier.sum())

    def centred(self, mu: float, corrector: Reals | float) -> Pull:
        target = mu / self.slack - corrector
        return edge_values(_spread(self.ends, self.inverse, target), self.ends), float(target.sum())

    def product(self, change: Change) -> Pull:
        tilted = change.laplacian @ self.inverse  # V P
        lost = self.stiffness * (change.level + edge_values(self.inverse @ tilted, self.ends))
        edges = 2 * edge_values(tilted.T @ self.spread, self.ends)
        edges += edge_values(_spread(self.ends, self.inverse, lost), self.ends)
        return edges, float(lost.sum())

    def diagonal(self) -> Pull:
        edges = 2 * self.values * edge_values(self.spread, self.ends) + self.stiffness * self.values**4
        return edges, float(self.stiffness.sum())

    def fill(self, system: Dense, chosen: Chosen) -> None:
        ends, kind = self.ends[chosen], system.matrix.dtype
        inverse = self.inverse.astype(kind)
        part = edge_products(inverse, ends, ends)
        part *= edge_products(self.spread.astype(kind), ends, ends)
        part *= 2
        system.matrix += part
        # A constraint that hardly holds its own edge holds no other one.
        held = self.stiffness * self.values**4 > HELD * system.diagonal
        active = np.flatnonzero(held | system.exact)
        squares = edge_products(inverse, ends, self.ends[active])
        squares *= squares
        system.column += squares @ self.stiffness[active].astype(kind)
        squares *= np.sqrt(self.stiffness[active]).astype(kind)
        for first in range(0, len(chosen), STRIP):
            last = first + STRIP  # Cholesky reads the lower part only
            system.matrix[first:last, :last] += squares[first:last] @ squares[:last].T

    def move(self, change: Change, mu: float, corrector: Reals | float) -> Move:
        slack = change.level + edge_values(self.inverse @ (change.laplacian @ self.inverse), self.ends)
        return self._moved(slack, mu, corrector)


def _spread(ends: Ends, inverse: Reals, weights: Reals) -> Reals:
    spread: Reals = inverse @ (sparse_laplacian(len(inverse), ends, weights) @ inverse)
    return spread


@dataclass(frozen=True, eq=False)
class Signs(_Plain):
    """l ≥ 0: the slack is the rates, shape (m,), and so is the multiplier z."""

    slack: Reals
    multiplier: Reals

    def force(self) -> Pull:
        return self.multiplier, 0.0

    def centred(self, mu: float, corrector: Reals | float) -> Pull:
        return mu / self.slack - corrector, 0.0

    def product(self, change: Change) -> Pull:
        return self.stiffness * change.rates, 0.0

    def diagonal(self) -> Pull:
        return self.stiffness, 0.0

    def fill(self, system: Dense, chosen: Chosen) -> None:
        system.matrix[np.diag_indices(len(chosen))] += self.stiffness[chosen].astype(system.matrix.dtype)

    def move(self, change: Change, mu: float, corrector: Reals | float) -> Move:
        return self._moved(change.rates, mu, corrector)


@dataclass(frozen=True, eq=False)
class Limits(_Plain):
    """h + e − G l ≥ 0 and e ≥ 0.

    Parameters
    ----------
    rows : sparse array, shape (k, m)
        G.
    slack, multiplier : ndarray, shape (2k,)
        σ and e; v and P − v.
    """

    rows: csr_array
    slack: Reals
    multiplier: Reals

    @property
    def prices(self) -> Reals:
        """v, shape (k,)."""
        return self.multiplier[: len(self.multiplier) // 2]

    @property
    def give(self) -> Reals:
        """What the price of a limit gains for each exchange more."""
        room, excess = np.split(self.slack / self.multiplier, 2)
        return 1 / (room + excess)

    def force(self) -> Pull:
        return -(self.rows.T @ self.prices), 0.0

    def centred(self, mu: float, corrector: Reals | float) -> Pull:
        return -(self.rows.T @ (self.prices + self.give * self._lack(mu, corrector))), 0.0

    def product(self, change: Change) -> Pull:
        return self.rows.T @ (self.give * (self.rows @ change.rates)), 0.0

    def diagonal(self) -> Pull:
        return (self.rows * self.rows).T @ self.give, 0.0

    def fill(self, system: Dense, chosen: Chosen) -> None:
        rows = self.rows[:, chosen].multiply(np.sqrt(self.give)[:, None]).tocsr()
        system.matrix += (rows.T @ rows).toarray().astype(system.matrix.dtype)

    def move(self, change: Change, mu: float, corrector: Reals | float) -> Move:
        raised = self.give * (self.rows @ change.rates + self._lack(mu, corrector))
        multiplier = np.concatenate([raised, -raised])
        _, excess = np.split(self._wanted(mu, corrector) - self.slack * multiplier / self.multiplier, 2)
        return Move(np.concatenate([excess - self.rows @ change.rates, excess]), multiplier)

    def _wanted(self, mu: float, corrector: Reals | float) -> Reals:
        """What the slacks would gain if the multipliers stayed."""
        gain: Reals = (mu - corrector * self.slack) / self.multiplier - self.slack
        return gain

    def _lack(self, mu: float, corrector: Reals | float) -> Reals:
        """By how much more σ would gain than e if the multipliers stayed: the rates leave room for nothing."""
        room, excess = np.split(self._wanted(mu, corrector), 2)
        difference: Reals = room - excess
        return difference


@dataclass(frozen=True, eq=False)
class Blocks:
    """All constraints of a problem; iterating leaves out those that it does not have."""

    spectral: Spectral
    resistances: Resistances | None
    limits: Limits | None
    signs: Signs

    def __iter__(self) -> Iterator[Block]:
        each: tuple[Block | None, ...] = (self.spectral, self.resistances, self.limits, self.signs)
        return (block for block in each if block is not None)
