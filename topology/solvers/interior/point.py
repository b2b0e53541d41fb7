"""A point of the interior: rates, level and all slacks and multipliers; where to start, and how to step."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError, eigvalsh

from topology.problem import Problem, Reals
from topology.solvers.certificate import LEVEL
from topology.solvers.interior.constraints import Blocks, Limits, Resistances, Signs, Spectral
from topology.solvers.interior.newton import Direction
from topology.solvers.matrices import cholesky, edge_values, inverse, pseudo_inverse
from topology.solvers.sparse import sparse_laplacian

ROOM = {True: 1.5, False: 1.1}
KEPT = 0.05
SHORTER = 0.7
TRIES = 40
PENALTY = 10.0
STIFFER = 10.0
PENALTY_MAX = 1e12
NONE = np.empty(0)


class Multipliers(NamedTuple):
    """Of all constraints: X, w, v with P − v, and z; w and v may be empty."""

    spectral: Reals
    resistances: Reals
    limits: Reals
    signs: Reals


class Inside(NamedTuple):
    """Rates and a level strictly inside the constraints, with what has been computed of them.

    Parameters
    ----------
    rates : ndarray, shape (m,)
    level : float
    shift : float
        α, the mean of the Laplacian's eigenvalues: matrices get α·J to have an inverse.
    slack : ndarray, shape (n, n)
        Z = L − u(I − J).
    factor : ndarray, shape (n, n)
        Lower factor of Z + α·J.
    inverse : ndarray, shape (n, n), or None
        P = L⁺, where resistances matter.
    """

    rates: Reals
    level: float
    shift: float
    slack: Reals
    factor: Reals
    inverse: Reals | None


def inside(problem: Problem, resistances: bool, rates: Reals, level: float) -> Inside | None:
    """What is known about rates and a level, or None when they break a constraint."""
    n = problem.n
    laplacian = sparse_laplacian(n, problem.ends, rates).toarray()
    shift = float(np.trace(laplacian)) / n
    slack = laplacian + level / n
    slack[np.diag_indices(n)] -= level
    factor = cholesky(slack + shift / n)
    if factor is None:
        return None
    pseudo = pseudo_inverse(laplacian) if resistances else None
    if pseudo is not None and np.any(edge_values(pseudo, problem.ends) >= level):
        return None
    return Inside(rates, level, shift, slack, factor, pseudo)


@dataclass(frozen=True, eq=False)
class Point:
    """An iterate.

    Parameters
    ----------
    problem : Problem
    at : Inside
        Its rates and level.
    multipliers : Multipliers
    spectral_factor : ndarray, shape (n, n)
        Lower factor of X + (tr X)·J.
    room : ndarray, shape (2k,)
        σ and e: what is left of the limits, and by how much they may be exceeded.
    """

    problem: Problem
    at: Inside
    multipliers: Multipliers
    spectral_factor: Reals
    room: Reals

    def blocks(self) -> Blocks:
        """All constraints."""
        at, given, ends = self.at, self.multipliers, self.problem.ends
        solved = inverse(at.factor) - 1 / (at.shift * self.problem.n)
        return Blocks(
            Spectral(ends, at.slack, given.spectral, solved, (at.factor, self.spectral_factor)),
            None if at.inverse is None else Resistances.at(ends, at.level, at.inverse, given.resistances),
            Limits(self.problem.limits[0], self.room, given.limits) if self.problem.limited else None,
            Signs(at.rates, given.signs),
        )

    def stepped(self, blocks: Blocks, direction: Direction, primal: float, dual: float) -> tuple[Point, float]:
        """The point after steps of at most these lengths, shortened until it is inside for certain.

        Also the length of the primal step.
        """
        primal, at = self._moved(blocks, direction, primal)
        moves = dict(zip((type(block) for block in blocks), direction.moves, strict=True))
        dual, spectral, factor = _raised(self.multipliers.spectral, moves[Spectral].multiplier, dual)
        given = self.multipliers
        multipliers = Multipliers(
            spectral,
            NONE if at.inverse is None else given.resistances + dual * moves[Resistances].multiplier,
            given.limits + dual * moves[Limits].multiplier if self.problem.limited else NONE,
            given.signs + dual * moves[Signs].multiplier,
        )
        multipliers = multipliers._replace(limits=_penalised(multipliers.limits))
        room = self.room + primal * moves[Limits].slack if self.problem.limited else NONE
        return Point(self.problem, at, multipliers, factor, room), primal

    def _moved(self, blocks: Blocks, direction: Direction, length: float) -> tuple[float, Inside]:
        change, at = direction.change, self.at
        for _ in range(TRIES):
            rates, level = at.rates + length * change.rates, at.level + length * change.level
            found = inside(self.problem, at.inverse is not None, rates, level)
            if found is not None and _has_room(found, self.problem, blocks):
                return length, found
            length *= SHORTER
        return 0.0, at


def _has_room(found: Inside, problem: Problem, blocks: Blocks) -> bool:
    if found.inverse is None or blocks.resistances is None:
        return True
    room = found.level - edge_values(found.inverse, problem.ends)
    return bool(np.all(room > KEPT * blocks.resistances.slack))


def _penalised(limits: Reals) -> Reals:
    """v and P − v with a higher penalty P where v comes near it: a limit that can be kept is worth any price."""
    prices, below = np.split(limits, 2)
    stiffer = np.minimum(STIFFER * (prices + below), np.maximum(PENALTY_MAX, prices + below))
    return np.concatenate([prices, np.where(below < prices, stiffer - prices, below)])


def _raised(matrix: Reals, direction: Reals, length: float) -> tuple[float, Reals, Reals]:
    for _ in range(TRIES):
        raised = matrix + length * direction
        factor = cholesky(raised + np.trace(raised) / len(raised))
        if factor is not None:
            return length, raised, factor
        length *= SHORTER
    factor = cholesky(matrix + np.trace(matrix) / len(matrix))
    assert factor is not None, "the multiplier was positive definite"
    return 0.0, matrix, factor


# ------------------------------------------------------------------------------------------- start


def start(problem: Problem, resistances: bool) -> Point:
    """Uniform spending, scaled well inside; multipliers that make all complementarity products equal."""
    rates = 1 / problem.costs
    laplacian = sparse_laplacian(problem.n, problem.ends, rates).toarray()
    values = eigvalsh(laplacian, check_finite=False)[1:]
    room = ROOM[resistances]
    if resistances:
        resistance = edge_values(pseudo_inverse(laplacian), problem.ends)
        scale = room * float(np.sqrt(resistance.max() / values[0]))
        level = _central_level(values * scale, resistance / scale)
    else:
        scale, level = room * LEVEL / float(values[0]), LEVEL
    at = inside(problem, resistances, rates * scale, level)
    if at is None:
        raise LinAlgError("costs differ by too much for uniform spending to be inside")
    return _balanced(problem, at)


def _central_level(values: Reals, resistance: Reals) -> float:
    """The level at which both kinds of multiplier have the same mass."""
    low, high = float(resistance.max()), float(values[0])
    for _ in range(60):
        level = (low + high) / 2
        if np.sum(1 / (values - level)) > np.sum(1 / (level - resistance)):
            high = level
        else:
            low = level
    return level


def _balanced(problem: Problem, at: Inside) -> Point:
    room = at.level - edge_values(at.inverse, problem.ends) if at.inverse is not None else NONE
    ones = Multipliers(inverse(at.factor) - 1 / (at.shift * problem.n), 1 / room, NONE, 1 / at.rates)
    free = dataclasses.replace(problem, capacities=problem.capacities + np.inf, budgets=problem.budgets + np.inf)
    pulled = sum(block.force()[0] for block in Point(free, at, ones, at.factor, NONE).blocks())
    mu = float(problem.costs @ at.rates) / float(pulled @ at.rates)
    multipliers = Multipliers(*(mu * value for value in ones))
    factor = cholesky(multipliers.spectral + np.trace(multipliers.spectral) / problem.n)
    if factor is None:
        raise LinAlgError("costs differ by too much for a multiplier to be positive definite")
    rows, height = problem.limits
    penalty = PENALTY * float(problem.costs.max())
    # σv = μ and e(P − v) = μ, where σ − e is what the rates leave of a limit.
    left = (height - rows @ at.rates) * penalty
    prices = 2 * mu * penalty / (left + 2 * mu + np.sqrt(left**2 + 4 * mu**2))
    limits = np.concatenate([prices, penalty - prices])
    return Point(problem, at, multipliers._replace(limits=limits), factor, mu / limits)
