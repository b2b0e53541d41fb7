"""A primal-dual interior point for the rate problems, on dense n × n matrices: seven to twenty steps on any graph.

Mehrotra's predictor and corrector: the first solve of Newton's equations aims at complementarity 0 and tells how far
one can go; the second aims at as much as is worth it, with the first one's curvature put right. Every point gives
feasible rates and, through ``topology.solvers.certificate``, a lower bound, so that any point may be the last one.
"""

from __future__ import annotations

import math
import time

import numpy as np
from scipy.linalg import LinAlgError, eigvalsh
from scipy.sparse.linalg import eigsh

from topology.problem import Dual, Infeasible, Problem, Reals, Solution, Step, Stop, Watch
from topology.solvers.certificate import LEVEL, dual_of, lower_bound, proves_infeasible
from topology.solvers.interior.constraints import Blocks
from topology.solvers.interior.newton import Direction, Newton
from topology.solvers.interior.point import Inside, start
from topology.solvers.interior.precondition import Preconditioner
from topology.solvers.matrices import DENSE_MAX

STEPS_MAX = 80
FRACTION = 0.9
ACCURACY = 0.1
CUT = 0.1
LEAST = 1e-3


def solve_interior(
    problem: Problem, *, resistances: bool, stop: Stop | None = None, watch: Watch | None = None
) -> Solution:
    """The cheapest rates, to within a gap.

    Parameters
    ----------
    problem : Problem
    resistances : bool
        True for stable rates, R_e ≤ λ2 on every edge; False for the restriction λ2 ≥ √2.
    stop : Stop, optional
        When to end.
    watch : callable, optional
        Is told of every step.

    Returns
    -------
    Solution
        Its rates are stable as they are.

    Raises
    ------
    Infeasible
        When no rates keep the limits, or none were found in time.
    """
    search = _Search(problem, resistances, stop or Stop(), watch)
    point, preconditioner, cut = start(problem, resistances), Preconditioner(problem), False
    for _ in range(STEPS_MAX):
        blocks = point.blocks()
        if search.note(point.at, blocks):
            break
        newton = Newton(problem, blocks, resistances, preconditioner, search.out_of_time)
        accuracy = ACCURACY * min(newton.residual, max(search.gap, search.stop.max_gap), 1)
        try:
            direction, primal, dual = _aim(newton, accuracy, centring=cut)
            point, taken = point.stepped(blocks, direction, primal, dual)
        except LinAlgError:
            break  # rounding has the upper hand: what was found by now is all there is
        cut = taken < CUT * primal
    return search.answer()


def _aim(newton: Newton, accuracy: float, *, centring: bool) -> tuple[Direction, float, float]:
    """The direction from a point, and how far to go along it, primal and dual.

    After a step that had to be cut short, ``centring`` asks for room instead of progress.
    """
    mu = newton.complementarity
    predictor = newton.direction(0.0, 3 * accuracy)
    primal, dual = (min(1.0, length) for length in newton.steps(predictor))
    left = 1.0 if centring else min(1.0, max(newton.after(predictor, primal, dual) / mu, LEAST))
    direction = newton.direction(mu * left**2, accuracy, predictor)
    primal, dual = (min(1.0, FRACTION * length) for length in newton.steps(direction))
    return direction, primal, dual


class _Search:
    """The best rates and the best bound so far."""

    def __init__(self, problem: Problem, resistances: bool, stop: Stop, watch: Watch | None) -> None:
        self.problem = problem
        self.resistances = resistances
        self.stop = stop
        self.watch = watch
        self.began_s = time.perf_counter()
        self.steps: list[Step] = []
        self.rates: Reals | None = None
        self.best: Blocks | None = None
        self.cost, self.bound = math.inf, -math.inf
        self.reference = 0.0  # what the first rates cost, which know no limits

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began_s

    @property
    def gap(self) -> float:
        return self.cost / self.bound - 1 if self.bound > 0 and self.rates is not None else math.inf

    def out_of_time(self) -> bool:
        return self.seconds > self.stop.time_limit_s

    def note(self, at: Inside, blocks: Blocks) -> bool:
        """Take what a point has to offer; True when it may be the last one."""
        self._note_rates(at, blocks)
        self._note_bound(blocks)
        self.steps.append(Step(self.seconds, self.cost, self.bound))
        if self.watch:
            self.watch(self.steps[-1])
        found = self.rates is not None and self.gap <= self.stop.max_gap
        return found or self.out_of_time()

    def answer(self) -> Solution:
        """The best that was found, its bound computed anew from the multipliers.

        Raises
        ------
        Infeasible
            When no rates were found.
        """
        assert self.best is not None, "every point has a bound"
        held = self.best.resistances
        if held is None:
            dual = dual_of(self.problem, self.best.spectral.multiplier)
        else:
            weights = held.multiplier * held.values**2
            dual = dual_of(self.problem, self.best.spectral.multiplier, held.inverse, weights)
        dual = dual._replace(prices=self._dual(self.best).prices)
        if self.rates is None:
            raise Infeasible(None, timed_out=self.out_of_time())
        return Solution(self.rates, dual, lower_bound(self.problem, dual), "interior point", tuple(self.steps))

    def _note_rates(self, at: Inside, blocks: Blocks) -> None:
        connectivity = at.level + 1 / _largest(blocks.spectral.inverse)
        scale = LEVEL / connectivity
        if blocks.resistances is not None:
            scale = math.sqrt(blocks.resistances.values.max() / connectivity)
        rates = scale * at.rates
        cost = float(self.problem.costs @ rates)
        self.reference = self.reference or cost
        if cost < self.cost and self.problem.keeps_limits(rates):
            self.cost, self.rates = cost, rates

    def _dual(self, blocks: Blocks) -> Dual:
        edges, mass = blocks.spectral.force()
        y, prices, held = None, None, blocks.resistances
        if held is not None:
            y = held.force()[0] / float(held.multiplier @ held.values**2)
        if blocks.limits is not None:
            prices = np.zeros(self.problem.n)
            prices[self.problem.budgeted] = blocks.limits.prices[len(self.problem.capped) :]
        return Dual(edges / -mass, y, prices)

    def _note_bound(self, blocks: Blocks) -> None:
        dual = self._dual(blocks)
        bound = lower_bound(self.problem, dual)
        if self.best is None or bound > self.bound:
            self.bound, self.best = bound, blocks
        if self.rates is None and proves_infeasible(self.problem, dual, self.reference):
            raise Infeasible(dual)


def _largest(matrix: Reals) -> float:
    """The largest eigenvalue of a positive semidefinite matrix."""
    if len(matrix) <= DENSE_MAX:
        return float(eigvalsh(matrix, check_finite=False)[-1])
    return float(eigsh(matrix, k=1, which="LA", tol=1e-6, return_eigenvectors=False)[0])
