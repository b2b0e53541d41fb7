"""Preconditioners of Newton's matrix: its diagonal, or a Cholesky factor over the edges that pull on each other.

The diagonal costs nothing and does well on graphs with much symmetry and at the first points; a factor makes
conjugate gradients end in a few steps, but costs about k³/3 for k edges. As with hired skis, one is bought when
as much has been spent on conjugate gradients as it costs, and a larger one when that happens again; from then on
every point begins with one of that size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from topology.problem import Problem, Reals
from topology.solvers.interior.blocks import Dense
from topology.solvers.interior.constraints import Blocks

EXACT_MAX = 2500
SIZE, GROWTH = 5000, 1.6
WEAK = 0.003
GATHERING = 40
PRICE_MIN, PRICE_MAX = 2, 80


class Preconditioner:
    """Applies an approximate inverse of Newton's matrix; :meth:`start` begins each point."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.size = min(SIZE, len(problem.ends))
        self.needed = False

    def start(self, diagonal: Reals, blocks: Blocks, free_level: bool) -> None:
        """Begin a point whose matrix has this diagonal and these blocks."""
        self.diagonal = diagonal
        self.blocks = blocks
        self.free_level = free_level
        self.factored = False
        self.bought = 0

    def improve(self, spent: int) -> bool:
        """Whether the preconditioner has become another one after so many steps of conjugate gradients."""
        if not self.factored:
            if not self.needed and spent < self._price(self.size):
                return False
            self.needed = self.factored = True
        else:
            larger = min(int(GROWTH * self.size), len(self.problem.ends))
            if larger == self.size or spent - self.bought < self._price(larger):
                return False
            self.size = larger
        self.bought = spent
        self._factor()
        return True

    def _price(self, size: int) -> int:
        """What a factor over so many edges costs, in steps of conjugate gradients."""
        factor = size**3 / 3 + GATHERING * size**2
        product = 8 * self.problem.n**3 + 100 * self.problem.n**2
        return int(np.clip(factor / product, PRICE_MIN, PRICE_MAX))

    def __call__(self, left: Reals) -> Reals:
        soft: Reals = left / self.diagonal
        if self.factored:
            part = (self.scale * left[self.chosen]).astype(self.scale.dtype)
            soft[self.chosen] = self.scale * cho_solve(self.factor, part, check_finite=False)
        return soft

    def _factor(self) -> None:
        m = len(self.diagonal) - 1
        edges = np.arange(m)
        if m > EXACT_MAX:
            coupled = 1 - self.blocks.signs.stiffness / self.diagonal[:-1]
            strongest = np.sort(np.argsort(-coupled)[: self.size])
            edges = strongest[coupled[strongest] > WEAK]
        kind = np.float64 if len(edges) <= EXACT_MAX else np.float32
        matrix = self._matrix(edges, kind)
        self.chosen = np.append(edges, m)
        own = np.diagonal(matrix)
        self.scale = (1 / np.sqrt(np.maximum(own, np.finfo(kind).eps * own.max()))).astype(kind)
        matrix *= self.scale
        matrix *= self.scale[:, None]
        self.factor = _ridged_factor(matrix, 1e-13 if kind is np.float64 else 1e-6)

    def _matrix(self, edges: NDArray[np.int64], kind: type[np.floating]) -> NDArray[Any]:
        k = len(edges)
        whole = np.zeros((k + 1, k + 1), kind)
        column = np.zeros(k, kind)
        system = Dense(whole[:k, :k], column, self.diagonal[:-1], exact=kind is np.float64)
        for block in self.blocks:
            block.fill(system, edges)
        if self.free_level:
            whole[k, :k] = column
        whole[k, k] = self.diagonal[-1]
        return whole


def _ridged_factor(matrix: NDArray[np.floating], ridge: float) -> tuple[NDArray[np.floating], bool]:
    """A lower factor of a matrix with ones on its diagonal, and as little more there as it takes."""
    while True:
        matrix[np.diag_indices(len(matrix))] = 1 + ridge
        try:
            factor: tuple[NDArray[np.floating], bool] = cho_factor(matrix, lower=True, check_finite=False)
            return factor
        except LinAlgError:
            ridge *= 10
