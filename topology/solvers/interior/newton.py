"""Newton's equations of the rate problem: summed over the blocks, solved by preconditioned conjugate gradients.

With H the blocks' products, the step (dl, du) solves H (dl, du) = −(c, 0) + Σ centred forces. H has one row for
each edge and one for the level; it is symmetric and positive definite, and never formed but for a preconditioner.
A problem whose level is fixed has the identity in its last row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from topology.problem import Problem, Reals
from topology.solvers.interior.blocks import Change, Move
from topology.solvers.interior.constraints import Blocks
from topology.solvers.interior.precondition import Preconditioner
from topology.solvers.sparse import sparse_laplacian

ITERATIONS_MAX = 200
ROUNDING = 1e-13


class Direction(NamedTuple):
    """A step of the variables, and of every block's slack and multiplier."""

    change: Change
    moves: tuple[Move, ...]

    @property
    def unknowns(self) -> Reals:
        """The rates' change and the level's, shape (m + 1,)."""
        return np.append(self.change.rates, self.change.level)


class Newton:
    """The equations at one point.

    Parameters
    ----------
    problem : Problem
    blocks : Blocks
        The constraints, at the point.
    free_level : bool
        Whether the level is a variable.
    preconditioner : Preconditioner
        What is known from the points before.
    out_of_time : callable
        When it says True, the equations are left as they are solved by then.
    """

    def __init__(
        self,
        problem: Problem,
        blocks: Blocks,
        free_level: bool,
        preconditioner: Preconditioner,
        out_of_time: Callable[[], bool],
    ) -> None:
        self.problem = problem
        self.blocks = blocks
        self.free_level = free_level
        self.out_of_time = out_of_time
        self.forces = [block.force() for block in blocks]
        self.pressure = 1 + abs(blocks.spectral.force()[1])
        self.preconditioner = preconditioner
        preconditioner.start(self.diagonal(), blocks, free_level)

    @property
    def residual(self) -> float:
        """How far the forces are from balance on the worst edge, as a part of its cost."""
        pulled = sum(edges for edges, _ in self.forces)
        return float(np.max(np.abs(self.problem.costs - pulled) / self.problem.costs))

    @property
    def complementarity(self) -> float:
        """The mean product of a slack and its multiplier."""
        total = sum(float(np.vdot(block.slack, block.multiplier)) for block in self.blocks)
        return total / sum(block.degree for block in self.blocks)

    def after(self, direction: Direction, primal: float, dual: float) -> float:
        """The complementarity that steps of these lengths would leave."""
        total = 0.0
        for block, move in zip(self.blocks, direction.moves, strict=True):
            total += float(np.vdot(block.slack + primal * move.slack, block.multiplier + dual * move.multiplier))
        return total / sum(block.degree for block in self.blocks)

    def steps(self, direction: Direction) -> tuple[float, float]:
        """The longest steps, primal and dual, that keep slacks and multipliers from turning negative."""
        each = [block.steps(move) for block, move in zip(self.blocks, direction.moves, strict=True)]
        return min(primal for primal, _ in each), min(dual for _, dual in each)

    def direction(self, mu: float, accuracy: float, before: Direction | None = None) -> Direction:
        """The step to the point where all complementarity products are mu.

        Parameters
        ----------
        mu : float
            0 for the predictor.
        accuracy : float
            The residual that may be left on an edge, as a part of its cost.
        before : Direction, optional
            The predictor: its second-order terms are corrected, and the search starts from it.
        """
        correctors: list[Reals | float] = [0.0 for _ in self.blocks]
        if before is not None:
            correctors = [block.corrector(move) for block, move in zip(self.blocks, before.moves, strict=True)]
        aims = [block.centred(mu, corrector) for block, corrector in zip(self.blocks, correctors, strict=True)]
        wanted = np.append(sum(edges for edges, _ in aims) - self.problem.costs, sum(level for _, level in aims))
        if not self.free_level:
            wanted[-1] = 0.0
        unknowns = self._solve(wanted, None if before is None else before.unknowns, accuracy)
        change = self._change(unknowns)
        moves = (block.move(change, mu, corrector) for block, corrector in zip(self.blocks, correctors, strict=True))
        return Direction(change, tuple(moves))

    def product(self, unknowns: Reals) -> Reals:
        """H times a vector of shape (m + 1,)."""
        change = self._change(unknowns)
        parts = [block.product(change) for block in self.blocks]
        level = sum(part for _, part in parts) if self.free_level else change.level
        return np.append(sum(edges for edges, _ in parts), level)

    def diagonal(self) -> Reals:
        """H's diagonal, shape (m + 1,)."""
        parts = [block.diagonal() for block in self.blocks]
        level = sum(part for _, part in parts) if self.free_level else 1.0
        return np.append(sum(edges for edges, _ in parts), level)

    def _change(self, unknowns: Reals) -> Change:
        rates = unknowns[:-1]
        return Change(rates, float(unknowns[-1]), sparse_laplacian(self.problem.n, self.problem.ends, rates))

    def _solve(self, wanted: Reals, start: Reals | None, accuracy: float) -> Reals:
        """Conjugate gradients, until the residual is small on every edge: a relative rule would stall far away."""
        found = np.zeros_like(wanted) if start is None else start.copy()
        left = wanted - self.product(found) if start is not None else wanted.copy()
        scale = np.append(self.problem.costs, self.pressure)
        ahead, energy = np.zeros_like(left), 1.0
        for spent in range(ITERATIONS_MAX):
            if np.max(np.abs(left) / scale) <= max(accuracy, ROUNDING) or self.out_of_time():
                break
            if self.preconditioner.improve(spent):
                ahead, energy = np.zeros_like(left), 1.0
            soft = self.preconditioner(left)
            energy, before = float(left @ soft), energy
            ahead = soft + energy / before * ahead
            stretched = self.product(ahead)
            curvature = float(ahead @ stretched)
            if not curvature > ROUNDING * ROUNDING * energy:
                break  # nothing but rounding is left
            length = energy / curvature
            found += length * ahead
            left -= length * stretched
        return found
