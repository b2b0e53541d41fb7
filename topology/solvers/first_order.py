"""Gossip rates for graphs that are too large for dense matrices: a first-order method with a certificate.

Both problems maximise a function of p ≥ 0 that is concave and grows in proportion to p, at a total cost c·p = 1:
the algebraic connectivity λ2(p), or √(λ2(p)/Rmax(p)) with the largest effective resistance Rmax of an edge. They
are solved as min −log f(p) − μ Σ_e log p_e, where f has soft extremes in the place of λ2 and Rmax, which keep it
concave: (Σ_k λ_k^−s)^(−1/s) and (Σ_e R_e^s)^(1/s), for ever larger s and smaller μ. Where that is stationary, no
entry of ∇f/f exceeds c_e by more than a part m·μ, so that the gradient is itself a dual point with a bound nearly
as good [1]_.

With √(c_e p_e) as variables the metric of the simplex becomes the plain one, and limited-memory BFGS [2]_ needs few
steps. A step costs some Lanczos iterations, and two passes of an elimination (see ``topology.solvers.elimination``)
for all resistances and their exact derivatives; nothing is drawn at random.

.. [1] S. Boyd, L. Vandenberghe. Convex Optimization, sections 5.5 and 11.2. Cambridge University Press, 2004.
.. [2] D. C. Liu, J. Nocedal. On the limited memory BFGS method for large scale optimization. Mathematical
   Programming 45, 1989.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from topology.problem import Dual, Problem, Reals, Solution, Step, Stop, Watch
from topology.records import PlanError
from topology.solvers.certificate import LEVEL, lower_bound
from topology.solvers.combination import best_combination
from topology.solvers.elimination import resistance_method
from topology.solvers.sparse import eigenvalues_below, lowest_eigenpairs

FIRST_GAP, HARDER = 0.3, 3.0  # the gap that the first stage aims at, and how much less each next one
LAST_GAP = 0.5  # of the gap that is asked for: what the last stages aim at
EIGENVALUE_SOFTNESS = 0.33  # of a stage's gap, where few eigenvalues count
EIGENPAIRS, EIGENPAIRS_MAX = 8, 64
COUNTS = 0.01  # an eigenvector with this part of the first one's weight is not left out
PATIENCE, PROGRESS = 20, 1e-4  # a stage is over when so many steps gain less than this part of its gap
PIECES = 32  # how many dual points are combined
TOLD_S = 1.0
TINY = 1e-300
MARGIN = 1e-7  # how far below the computed λ2 one is proved first


class _Point(NamedTuple):
    """What is found at one place: the soft objective with its gradient in c·p, and the gap there."""

    value: float
    gradient: Reals
    gap: float


class _Spectrum(NamedTuple):
    """λ2, −log of the same in soft, the negative of that one's derivatives, and b_eᵀ X b_e of one X or two."""

    connectivity: float
    value: float
    slope: Reals
    duals: list[Reals]


class _Enough(Exception):
    """The gap is small enough, or the time is over."""


def solve_first_order(problem: Problem, *, resistances: bool, stop: Stop, watch: Watch | None = None) -> Solution:
    """Rates of least cost, up to a certified gap.

    Parameters
    ----------
    problem : Problem
        Without capacities and budgets.
    resistances : bool
        True for stable rates, b_eᵀ Λ⁺ b_e ≤ λ2(Λ) on every edge; False for the relaxation λ2(Λ) ≥ √2.
    stop : Stop
        When to end. One point is evaluated whatever the time limit, and the last check may go beyond it.
    watch : callable, optional
        Is told about once a second how far the solver has come.

    Returns
    -------
    Solution
        Its rates satisfy the constraints as they are.

    Raises
    ------
    PlanError
        When the problem has limits.
    """
    if problem.limited:
        raise PlanError("the first-order solver knows no capacities and budgets: leave them out, or take another one.")
    search = _Search(problem, resistances, stop, watch)
    degrees = np.bincount(problem.ends.ravel())
    roots = np.sqrt((1 / degrees[problem.ends]).sum(axis=1))
    gap = FIRST_GAP
    try:
        while True:
            roots = search.stage(roots, gap)
            gap = max(gap / HARDER, LAST_GAP * stop.max_gap)
    except _Enough:
        return search.solution()


class _Search:
    """The best rates and the best dual point found so far, and how to look for better ones."""

    def __init__(self, problem: Problem, resistances: bool, stop: Stop, watch: Watch | None):
        self._problem, self._resistances, self._stop, self._watch = problem, resistances, stop, watch
        self._began_s = self._told_s = time.perf_counter()
        self._method = resistance_method(problem.n, problem.ends)
        self._count = EIGENPAIRS
        self._crowd = math.log(EIGENPAIRS)  # entropy of the weights of eigenvectors: it adds to the gap
        self._softest = FIRST_GAP * EIGENVALUE_SOFTNESS  # with which all eigenvectors that count are computed
        self._cost, self._bound = math.inf, 0.0
        self._rates = np.ones(len(problem.ends))
        self._dual = Dual(self._rates)
        self._pieces: deque[Dual] = deque(maxlen=PIECES)
        self._fresh = 0  # how many of them no combination has seen
        self._steps: list[Step] = []

    def stage(self, roots: Reals, gap: float) -> Reals:
        """Minimise with extremes as soft as suits one gap, from and to √(c·p)."""
        barrier = gap / 2 / len(roots)
        softness = min(gap * EIGENVALUE_SOFTNESS / self._crowd, self._softest), gap / math.log(len(roots) + 1)
        now = (math.inf, math.inf)

        def objective(roots: Reals) -> tuple[float, Reals]:
            nonlocal now
            total = float(roots @ roots)
            q = roots**2 / total
            point = self._evaluate(q, *softness)
            slope = point.gradient - point.gradient @ q - barrier / q + gap / 2  # q's scale changes nothing
            now = (point.value - barrier * float(np.log(q).sum()), point.gap)
            return now[0], 2 * roots / total * slope

        options = {"maxcor": 20, "maxiter": 10_000, "maxfun": 20_000, "ftol": 1e-15, "gtol": 0.0}
        over = _until_slow(lambda: now, gap)
        found = minimize(objective, roots, jac=True, method="L-BFGS-B", callback=over, options=options).x
        self._combine()
        self._tell()
        return np.asarray(found / np.sqrt(np.mean(found**2)))

    def _evaluate(self, q: Reals, eigenvalue_softness: float, resistance_softness: float) -> _Point:
        """The point at q = c·p, with −½ log of the soft λ2 and +½ log of the soft Rmax, or −log of the soft λ2."""
        costs, p = self._problem.costs, q / self._problem.costs
        found = self._spectral(p, eigenvalue_softness)
        if not self._resistances:
            here = self._note(p, found.connectivity, math.nan, [Dual(a) for a in found.duals])
            return _Point(found.value, -found.slope / costs, here)
        felt = self._method.resistances(p)
        high, weights = _soft_max(np.log(felt), resistance_softness)
        slope = self._method.sensitivity(p, weights / felt)
        y = slope / float(weights @ felt)
        here = self._note(p, found.connectivity, float(felt.max()), [Dual(a, y) for a in found.duals])
        return _Point((found.value + high) / 2, -(found.slope + slope) / 2 / costs, here)

    def _spectral(self, p: Reals, softness: float) -> _Spectrum:
        """What the lowest eigenpairs say, as many of them as count."""
        problem = self._problem
        while True:
            values, vectors = lowest_eigenpairs(problem.n, problem.ends, p, self._count, factorise=self._method.sparse)
            value, weights = _soft_max(-np.log(np.maximum(values, TINY)), softness)
            if weights[-1] < COUNTS * weights[0] or self._count >= min(EIGENPAIRS_MAX, problem.n - 1):
                break
            self._count = min(2 * self._count, EIGENPAIRS_MAX)
        self._crowd = max(1.0, -float(weights @ np.log(weights + TINY)))
        i, j = problem.ends.T
        squares = (vectors[i] - vectors[j]) ** 2
        weights /= np.maximum(values, TINY)
        slope, trace = squares @ weights, float(weights.sum())
        duals = [slope / trace]
        if len(values) == EIGENPAIRS_MAX:
            self._softest = math.log(max(values[-1], TINY) / max(values[0], TINY)) / math.log(1 / COUNTS) + MARGIN
            # Another X gives all other eigenvectors, whose squares make up 2 on every edge, the last one's weight.
            rest = float(weights[-1]) * (problem.n - 1 - len(values))
            duals.append((slope + weights[-1] * (2 - squares.sum(axis=1))) / (trace + rest))
        return _Spectrum(float(values[0]), value, slope, duals)

    def _note(self, p: Reals, connectivity: float, resistance: float, duals: list[Dual]) -> float:
        """Keep what is better than before; the gap between these rates and the best of these dual points."""
        scale = math.sqrt(resistance / connectivity) if self._resistances else LEVEL / connectivity
        if (cost := scale * float(self._problem.costs @ p)) < self._cost:
            self._cost, self._rates = cost, scale * p
        self._pieces.extend(duals)
        self._fresh += len(duals)
        bound = max(self._improve(dual) for dual in duals)
        if self._fresh >= PIECES:
            self._combine()
        step = self._now()
        if time.perf_counter() - self._told_s > TOLD_S:
            self._tell()
        if step.gap <= self._stop.max_gap or step.seconds > self._stop.time_limit_s:
            raise _Enough
        return cost / bound - 1

    def _improve(self, dual: Dual) -> float:
        if (bound := lower_bound(self._problem, dual)) > self._bound:
            self._bound, self._dual = bound, dual
        return bound

    def _combine(self) -> None:
        """A better dual point from all recent ones; their error is averaged out."""
        self._fresh = 0
        pieces = [*self._pieces, self._dual]
        groups = [np.stack([piece.a for piece in pieces], axis=1)]
        if self._resistances:
            groups.append(np.stack([piece.y for piece in pieces if piece.y is not None], axis=1))
        weights = best_combination([group / self._problem.costs[:, None] for group in groups])
        self._improve(Dual(*(group @ weight for group, weight in zip(groups, weights, strict=True))))

    def _now(self) -> Step:
        return Step(time.perf_counter() - self._began_s, self._cost, self._bound)

    def _tell(self) -> None:
        self._told_s = time.perf_counter()
        self._steps.append(self._now())
        if self._watch:
            self._watch(self._steps[-1])

    def solution(self) -> Solution:
        """The best so far, with rates that certainly satisfy the constraints."""
        self._combine()
        level = self._proved_connectivity(self._rates)
        if self._resistances:
            scale = math.sqrt(float(self._method.resistances(self._rates).max()) / level)
        else:
            scale = LEVEL / level
        rates = self._rates * scale
        self._cost = float(self._problem.costs @ rates)
        self._tell()
        return Solution(rates, self._dual, self._bound, "first-order", tuple(self._steps))

    def _proved_connectivity(self, rates: Reals) -> float:
        """A number that λ2 is not below: iterations may miss an eigenvalue, a count can't."""
        n, ends = self._problem.n, self._problem.ends
        values, _ = lowest_eigenpairs(n, ends, rates, self._count, factorise=self._method.sparse)
        margin = MARGIN
        while margin < 1:
            level = float(values[0]) * (1 - margin)
            try:
                if eigenvalues_below(n, ends, rates, level, accuracy=margin / 2) == 1:
                    return level * (1 - margin / 2)
            except ArithmeticError:
                pass  # that close to λ2 the count is not to be trusted
            margin *= 10 if margin < 0.01 else 1.5
        raise ArithmeticError("the connectivity of the rates found can't be proved: their extremes are too far apart")


def _until_slow(now: Callable[[], tuple[float, float]], gap: float) -> Callable[[Reals], None]:
    """A callback that ends a stage once its gap is reached, or hardly anything is gained."""
    values: deque[float] = deque(maxlen=PATIENCE)

    def over(_: Reals) -> None:
        value, reached = now()
        values.append(value)
        slow = len(values) == PATIENCE and values[0] - values[-1] < PROGRESS * gap
        if slow or reached < 1.5 * gap:
            raise StopIteration

    return over


def _soft_max(values: Reals, softness: float) -> tuple[float, Reals]:
    """softness·log Σ exp(values/softness), and its gradient: weights that sum to 1."""
    largest = float(values.max())
    weights = np.exp((values - largest) / softness)
    total = float(weights.sum())
    return largest + softness * math.log(total), weights / total
