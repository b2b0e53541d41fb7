"""Fastest averaging, solved: FDLA and FMMC (``topology.solvers.averaging``) by one primal-dual interior-point method.

The HKM direction with Mehrotra's corrector [1]_, on dense n × n matrices: products of these, and a Cholesky factor of
one matrix over all pairs of edges, are what a step costs. The weights satisfy all constraints at every step, so that
whoever stops early has some, with a proof of how good they are.

.. [1] M. Todd, K. Toh, R. Tütüncü. On the Nesterov-Todd direction in semidefinite programming. SIAM Journal on
   Optimization 8(3), 1998.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve, eigvalsh
from scipy.sparse import csr_array, diags_array

from topology.measures import laplacian
from topology.problem import Ends, Reals, Step, Stop, Watch
from topology.solvers.averaging import SIGNS, Program, modulus_of, proved, symmetric
from topology.solvers.matrices import cholesky, edge_products, edge_values
from topology.solvers.sparse import sparse_laplacian

ITERATIONS = 60
DOUBLE, SINGLE = 4000, 14000  # most edges for a Newton matrix in double and in single precision
ROWS = 256  # of the Newton matrix at a time
PRODUCTS = 200  # most conjugate gradient steps
SHORTEN = 0.9  # how far to go towards the boundary
SMALLEST_GAP = 1e-9  # where s or 1 − s is 0, no gap is a small part of it


class Mixing(NamedTuple):
    """Weights, and what is proved about them.

    Parameters
    ----------
    weights : ndarray, shape (m,)
    bound : float
        No weights that were to choose from have a smaller second largest eigenvalue modulus; 0 if nothing is proved.
    solver : str
        What computed them.
    """

    weights: Reals
    bound: float
    solver: str


class _Point(NamedTuple):
    """Strictly feasible weights, and multipliers that need not satisfy the dual's equations yet."""

    weights: Reals
    modulus: float
    duals: Reals  # X₁ and X₂
    multipliers: Reals  # z


class _Direction(NamedTuple):
    weights: Reals
    modulus: float
    matrices: Reals
    slacks: Reals
    duals: Reals
    multipliers: Reals


def fastest(
    n: int, ends: Ends, start: Reals, *, chain: bool, stop: Stop = Stop(), watch: Watch | None = None
) -> Mixing:
    """The weights of fastest averaging, FDLA or with ``chain`` FMMC.

    Parameters
    ----------
    n : int
        Number of nodes.
    ends : ndarray of int, shape (m, 2)
        The ends of every edge of a connected graph.
    start : ndarray, shape (m,)
        Where to start; for a chain they must be a chain's, with every node's own weight above 0. What is returned is
        not worse than these, nor than the best constant weight.
    chain : bool
        Whether no entry of the mixing matrix may be negative.
    stop : Stop
        The gap is modulus − bound as a part of the modulus or of 1 − modulus, whichever is less.
    watch : callable, optional
        Told of every step; cost is the modulus.
    """
    began_s = time.perf_counter()
    program = Program(n, ends, chain)
    constant, bound = symmetric(program)
    least, best = min(((modulus_of(program, weights), weights) for weights in (constant, start)), key=lambda x: x[0])
    solver = "closed form"
    point = _begin(program, start)
    for _ in range(ITERATIONS):
        spent_s = time.perf_counter() - began_s
        if watch:
            watch(Step(spent_s, least, bound))
        allowed = max(SMALLEST_GAP, stop.max_gap * min(least, 1 - least))
        if least - bound <= allowed or spent_s > stop.time_limit_s:
            break
        moved = _improve(program, point, allowed, began_s + stop.time_limit_s)
        if moved is None:  # rounding stands in the way of more
            break
        point, solver = moved, "interior point"
        bound = max(bound, proved(program, point.duals, point.multipliers))
        modulus, weights = _usable(program, point.weights)
        if modulus < least:
            least, best = modulus, weights
    return Mixing(best, min(bound, least), solver)


def _usable(program: Program, weights: Reals) -> tuple[float, Reals]:
    """Weights and their modulus. But for a chain they are first scaled so that 1 − λ2 = λn − 1: that is best."""
    if program.chain:
        return modulus_of(program, weights), weights
    low, high = eigvalsh(laplacian(program.n, program.ends, weights))[[1, -1]]
    return (high - low) / (high + low), weights * (2 / (low + high))


def _begin(program: Program, start: Reals) -> _Point:
    modulus = modulus_of(program, start)
    modulus += (1 - modulus) / 2
    matrices, slacks = program.slacks(start, modulus)
    inverses = np.linalg.inv(matrices) - program.mean
    mu = 1 / np.trace(inverses, axis1=1, axis2=2).sum()
    return _Point(start, modulus, mu * inverses, mu / slacks)


def _improve(program: Program, at: _Point, allowed: float, until_s: float) -> _Point | None:
    """One predictor and one corrector step; None when there is no progress. After ``until_s`` they may be inexact."""
    matrices, slacks = program.slacks(at.weights, at.modulus)
    size = 2 * (program.n - 1) + len(slacks)
    gap = float(np.vdot(at.duals, matrices) + at.multipliers @ slacks)
    try:
        newton = _Newton(program, at, matrices, slacks, 0.05 * max(allowed, 0.1 * gap), until_s)
        guess = newton.direction(0.0, None)
        ahead, behind = (min(1.0, step) for step in _reaches(program, at, matrices, slacks, guess))
        left = float(np.vdot(at.duals + behind * guess.duals, matrices + ahead * guess.matrices))
        left += float((at.multipliers + behind * guess.multipliers) @ (slacks + ahead * guess.slacks))
        centring = min(1.0, max(left / gap, 1e-2)) ** 2
        way = newton.direction(centring * gap / size, guess)
        ahead, behind = (min(1.0, SHORTEN * step) for step in _reaches(program, at, matrices, slacks, way))
    except LinAlgError:
        return None
    if max(ahead, behind) < 1e-3:
        return None
    return _Point(
        at.weights + ahead * way.weights,
        at.modulus + ahead * way.modulus,
        at.duals + behind * way.duals,
        at.multipliers + behind * way.multipliers,
    )


def _reaches(program: Program, at: _Point, matrices: Reals, slacks: Reals, way: _Direction) -> tuple[float, float]:
    """How far the weights, and the multipliers, can go before they leave the cone."""
    return (
        _reach(matrices, way.matrices, slacks, way.slacks),
        _reach(at.duals + program.mean, way.duals, at.multipliers, way.multipliers),
    )


def _reach(matrices: Reals, change: Reals, slacks: Reals, slack_change: Reals) -> float:
    """A step within an eighth of the largest one, found by trying; no more than makes a full step when shortened."""
    high = 1 / max(SHORTEN, float(np.max(-slack_change / slacks, initial=0.0)))
    if _positive(matrices + high * change):
        return high
    low = 0.0
    while high - low > high / 8 and high > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if _positive(matrices + middle * change) else (low, middle)
    return low


def _positive(matrices: Reals) -> bool:
    return all(cholesky(matrix) is not None for matrix in matrices)


class _Newton:
    """The Newton equations of one point, on the edges and the modulus: the matrix A (X · Z⁻¹) Aᵀ.

    Solved by conjugate gradients, with products of n × n matrices only; a Cholesky factor makes them one step long.
    """

    def __init__(
        self, program: Program, at: _Point, matrices: Reals, slacks: Reals, accuracy: float, until_s: float
    ) -> None:
        self.program, self.at, self.slacks = program, at, slacks
        self.accuracy, self.until_s = accuracy, until_s
        self.inverses = np.linalg.inv(matrices) - program.mean
        self.ratios = at.multipliers / slacks
        self.local = csr_array(program.rows.T @ diags_array(self.ratios) @ program.rows)
        self.border = program.adjoint(at.duals @ self.inverses, np.zeros(len(slacks)))
        self.prepare = self._factor() if len(program.ends) <= SINGLE else self._diagonal()

    def direction(self, mu: float, guess: _Direction | None) -> _Direction:
        """Towards X Z = mu I, with Mehrotra's second-order correction by a direction that was found before."""
        program, at = self.program, self.at
        duals, multipliers = mu * self.inverses, mu / self.slacks
        if guess:
            duals = duals - _symmetric(guess.duals @ guess.matrices @ self.inverses)
            multipliers = multipliers - guess.multipliers * guess.slacks / self.slacks
        wanted = program.adjoint(duals, multipliers)
        wanted[-1] -= 1
        found = self._solve(wanted)
        slacks = program.rows @ found[:-1]
        return _Direction(
            found[:-1],
            found[-1],
            program.change(found[:-1], found[-1]),
            slacks,
            duals - at.duals - _symmetric(self._through(found)),
            multipliers - at.multipliers - self.ratios * slacks,
        )

    def _solve(self, wanted: Reals) -> Reals:
        found, left = np.zeros_like(wanted), wanted
        ahead = self.prepare(left)
        way, product = ahead, left @ ahead
        for _ in range(PRODUCTS):
            image = self.program.adjoint(self._through(way), self.ratios * (self.program.rows @ way[:-1]))
            step = product / (way @ image)
            found, left = found + step * way, left - step * image
            if np.abs(left).sum() <= self.accuracy or time.perf_counter() > self.until_s:
                break
            ahead, before = self.prepare(left), product
            product = left @ ahead
            way = ahead + product / before * way
        return found

    def _through(self, way: Reals) -> Reals:
        """X (change of Z) Z⁻¹, for both."""
        sparse = sparse_laplacian(self.program.n, self.program.ends, way[:-1])
        return np.stack(
            [
                (sign * (sparse @ dual).T + way[-1] * dual) @ inverse
                for sign, dual, inverse in zip(SIGNS, self.at.duals, self.inverses, strict=True)
            ]
        )

    def _diagonal(self) -> Callable[[Reals], Reals]:
        ends = self.program.ends
        diagonal = self.local.diagonal()
        for dual, inverse in zip(self.at.duals, self.inverses, strict=True):
            diagonal = diagonal + edge_values(dual, ends) * edge_values(inverse, ends)
        full = np.append(diagonal, self.border[-1])
        return lambda left: left / full

    def _factor(self) -> Callable[[Reals], Reals]:
        ends, m = self.program.ends, len(self.program.ends)
        kind = np.float64 if m <= DOUBLE else np.float32
        matrix = np.zeros((m + 1, m + 1), kind)
        for dual, inverse in zip(self.at.duals.astype(kind), self.inverses.astype(kind), strict=True):
            for first in range(0, m, ROWS):
                some = ends[first : first + ROWS]
                products = edge_products(dual, some, ends) * edge_products(inverse, some, ends)
                matrix[first : first + len(some), :m] += products
        local = self.local.tocoo()
        matrix[local.row, local.col] += local.data
        matrix[m], matrix[:, m] = self.border, self.border
        scale = 1 / np.sqrt(matrix.diagonal())
        matrix *= scale
        matrix *= scale[:, None]
        matrix[np.arange(m + 1), np.arange(m + 1)] += 100 * np.finfo(kind).eps
        factor = cho_factor(matrix, lower=True, overwrite_a=True, check_finite=False)
        return lambda left: scale * cho_solve(factor, (scale * left).astype(kind), check_finite=False)


def _symmetric(matrices: Reals) -> Reals:
    return (matrices + matrices.transpose(0, 2, 1)) / 2
