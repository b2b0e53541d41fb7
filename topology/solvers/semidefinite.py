"""The planner's semidefinite programs as the literature states them, solved by general solvers through cvxpy.

They are the reference for the planner's own methods and practical for small graphs: Clarabel, an interior-point
method, up to ``INTERIOR`` nodes, and SCS, a first-order method that is less exact, beyond. And they take any further
constraint on the rates that cvxpy can express.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, TypeAlias

import cvxpy
import numpy as np
from scipy.linalg import eigvalsh, pinvh
from scipy.sparse import csr_array

from topology.measures import laplacian
from topology.measures import resistances as effective_resistances
from topology.problem import Dual, Ends, Infeasible, Problem, Reals, Solution, Step, Stop, Watch
from topology.records import PlanError
from topology.solvers.certificate import LEVEL, dual_of, lower_bound

INTERIOR = 50
TRIES = 4
NOISE = 1e-5
FLOOR = 1e-12
BROKEN = 1e-5
SECONDS_MIN = 0.1
TINY = 1e-300

SETTINGS: dict[str, dict[str, Any]] = {
    # As far as rounding lets it: the bound is less exact than the rates are. Cliques gain nothing and cost digits.
    "CLARABEL": {
        **dict.fromkeys(("tol_gap_abs", "tol_gap_rel", "tol_feas"), 1e-10),
        "accept_unknown": True,
        "chordal_decomposition_enable": False,
    }
}
TIME_LIMITS = {"CLARABEL": "time_limit", "SCS": "time_limit_secs"}

Further: TypeAlias = Callable[[cvxpy.Variable], "list[cvxpy.Constraint]"]


def fastest_mixing(n: int, ends: Ends, *, chain: bool) -> tuple[Reals, float]:
    """Edge weights whose mixing matrix has the least second largest eigenvalue modulus: symmetric FDLA of [1]_.

    Parameters
    ----------
    n : int
        Number of nodes.
    ends : ndarray of int, shape (m, 2)
        The ends of every edge of a connected graph.
    chain : bool
        Whether the matrix must be a Markov chain [2]_: no entry negative.

    Returns
    -------
    weights : ndarray, shape (m,)
        As exact as the solver is.
    modulus : float
        ``‖I − L(weights) − J‖₂`` as the solver sees it.

    .. [1] L. Xiao, S. Boyd. Fast linear iterations for distributed averaging. Systems & Control Letters 53, 2004.
    .. [2] S. Boyd, P. Diaconis, L. Xiao. Fastest mixing Markov chain on a graph. SIAM Review 46(4), 2004.
    """
    incidence = _incidence(n, ends)
    weights, modulus = cvxpy.Variable(len(ends)), cvxpy.Variable()
    mixing = np.eye(n) - incidence @ cvxpy.diag(weights) @ incidence.T
    error = mixing - np.full((n, n), 1 / n)
    constraints = [error << modulus * np.eye(n), error >> -modulus * np.eye(n)]
    if chain:
        constraints += [weights >= 0, cvxpy.diag(mixing) >= 0]
    least = _solve(cvxpy.Problem(cvxpy.Minimize(modulus), constraints), n)
    return np.asarray(weights.value), least


def _incidence(n: int, ends: Ends) -> csr_array:
    """The columns b_e = e_i − e_j, shape (n, m)."""
    m = len(ends)
    return csr_array((np.repeat([1.0, -1.0], m), (ends.T.ravel(), np.tile(np.arange(m), 2))), shape=(n, m))


def _solve(problem: Any, n: int) -> float:
    """The optimum, with its point left in the problem's variables; a ``cvxpy.SolverError`` when the solver gives up."""
    return float(problem.solve(solver=cvxpy.CLARABEL if n <= INTERIOR else cvxpy.SCS))


# ------------------------------------------------------------------------------------------------- rates


def reference_rates(
    problem: Problem,
    *,
    resistances: bool,
    stop: Stop = Stop(),
    watch: Watch | None = None,
    solver: str = "CLARABEL",
    further: Further | None = None,
) -> Solution:
    """The cheapest rates, by a semidefinite program over the rates and a level u.

    With P in the place of Λ⁺ + 11ᵀ/n, λ2 ≥ u and R_e ≤ u read

        Λ + (2u/n)·11ᵀ ⪰ u·I,    [[Λ + 11ᵀ/n, I], [I, P]] ⪰ 0,    b_eᵀ P b_e ≤ u.

    The answer is put right: rates are made just stable by a common factor, and multipliers feasible. If that
    breaks a limit, the limits are drawn a little tighter and all is solved once more.

    Parameters
    ----------
    problem : Problem
    resistances : bool
        True for stable rates, R_e ≤ λ2 on every edge; False for the restriction λ2 ≥ √2.
    stop : Stop
        Only its time limit matters: the solver goes as far as it can.
    watch : callable, optional
        Is told of every program that was solved.
    solver : str
        An installed solver of cvxpy's that knows semidefinite cones.
    further : callable, optional
        From the rates, a ``cvxpy.Variable`` of shape (m,), to more constraints that they must satisfy, to within
        ``BROKEN`` of the largest rate.

    Returns
    -------
    Solution
        Its rates are stable as they are. The bound knows nothing of ``further``.

    Raises
    ------
    Infeasible
        When no rates keep the limits, or none were found in time.
    PlanError
        When no rates satisfy the further constraints, or the solver fails.
    """
    began_s = time.perf_counter()
    program = _RateProgram(problem, resistances, solver, further)
    steps: list[Step] = []
    cost, bound, rates, dual = math.inf, -math.inf, None, None
    for _ in range(TRIES):
        found = program.solve(stop.time_limit_s - (time.perf_counter() - began_s))
        if (proved := lower_bound(problem, found.dual)) > bound:
            bound, dual = proved, found.dual
        if program.keeps(found.rates):
            cost, rates = float(problem.costs @ found.rates), found.rates
        steps.append(Step(time.perf_counter() - began_s, cost, bound))
        if watch:
            watch(steps[-1])
        if rates is not None or steps[-1].seconds > stop.time_limit_s:
            break
        program.tighten(found.rates)
    if rates is None or dual is None:
        raise Infeasible(None)
    return Solution(rates, dual, bound, f"cvxpy, {solver}", tuple(steps))


class _Found(NamedTuple):
    """A solver's answer, put right."""

    rates: Reals
    dual: Dual


class _RateProgram:
    """What the solver is asked: all but the limits, which are drawn tighter by a margin."""

    def __init__(self, problem: Problem, resistances: bool, solver: str, further: Further | None) -> None:
        n, m = problem.n, len(problem.ends)
        self.problem, self.solver = problem, solver
        incidence, mean = _incidence(n, problem.ends), np.full((n, n), 1 / n)
        self.rates = cvxpy.Variable(m, nonneg=True)
        self.level = cvxpy.Variable() if resistances else cvxpy.Constant(LEVEL)
        matrix = incidence @ cvxpy.diag(self.rates) @ incidence.T
        # Twice the level lifts the constant vector, too; with the level alone there would be no interior.
        self.spectral = matrix + 2 * self.level * mean >> self.level * np.eye(n)
        self.further = further(self.rates) if further else []
        self.constraints = [self.spectral, *self.further]
        self.felt: Any = None
        if resistances:
            inverse = cvxpy.Variable((n, n), symmetric=True)
            self.felt = cvxpy.diag(incidence.T @ inverse @ incidence) <= self.level
            self.constraints += [cvxpy.bmat([[matrix + mean, np.eye(n)], [np.eye(n), inverse]]) >> 0, self.felt]
        self.margin = 0.0
        self.failure: cvxpy.SolverError | None = None

    def solve(self, seconds: float) -> _Found:
        """The cheapest rates."""
        self._minimise(self.problem.costs @ self.rates, 1 - self.margin, seconds)
        if self.rates.value is None:
            self._explain(seconds)
        return self._put_right()

    def _put_right(self) -> _Found:
        given: Any = self.rates.value
        rates = np.maximum(given, FLOOR * (np.abs(given).max() or 1.0))
        matrix = laplacian(self.problem.n, self.problem.ends, rates)
        connectivity = float(eigvalsh(matrix)[1])
        if self.felt is None:
            return _Found(self._scaled(rates, LEVEL / connectivity), dual_of(self.problem, self.spectral.dual_value))
        felt = effective_resistances(matrix, self.problem.ends)
        weights = np.maximum(self.felt.dual_value, TINY) * felt**2
        dual = dual_of(self.problem, self.spectral.dual_value, pinvh(matrix), weights)
        return _Found(self._scaled(rates, math.sqrt(felt.max() / connectivity)), dual)

    def _scaled(self, rates: Reals, factor: float) -> Reals:
        scaled: Reals = rates * (max(1.0, factor) if self.further else factor)  # they may ask for more than stability
        return scaled

    def keeps(self, rates: Reals) -> bool:
        """Whether rates satisfy limits and further constraints."""
        self.rates.value = rates
        broken = max((float(np.max(constraint.violation())) for constraint in self.further), default=0.0)
        return self.problem.keeps_limits(rates) and broken <= BROKEN * float(rates.max())

    def tighten(self, rates: Reals) -> None:
        """Draw the limits tighter by twice what the rates exceed them by."""
        rows, height = self.problem.limits
        self.margin += 2 * max(0.0, float(np.max(rows @ rates / height, initial=0.0)) - 1)

    def _minimise(self, what: Any, room: Any, seconds: float) -> None:
        """Find the least of an expression, with all limits multiplied by ``room``; rates are None if there is none."""
        rows, height = self.problem.limits
        limits = [rows @ self.rates <= room * height] if self.problem.limited else []
        settings = SETTINGS.get(self.solver, {})
        if self.solver in TIME_LIMITS:
            settings = {**settings, TIME_LIMITS[self.solver]: max(seconds, SECONDS_MIN)}
        self.rates.value = None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # whatever is inaccurate is put right
                program = cvxpy.Problem(cvxpy.Minimize(what), self.constraints + limits)
                program.solve(solver=self.solver, **settings)
        except cvxpy.SolverError as error:
            self.failure = error  # some fail where they should say infeasible

    def _explain(self, seconds: float) -> NoReturn:
        """Say what is in the way: the least factor by which all limits would have to grow has the proof for a dual."""
        if self.problem.limited and not self.further:
            factor = cvxpy.Variable()
            self._minimise(factor, factor, seconds)
            if factor.value is not None and factor.value > 1 + NOISE:
                raise Infeasible(self._put_right().dual)
        if self.failure:
            raise PlanError(f"{self.solver} finds no rates ({self.failure}): take another solver.")
        if self.further:
            raise PlanError("no rates satisfy the limits and the further constraints at once: relax some of them.")
        raise Infeasible(None)
