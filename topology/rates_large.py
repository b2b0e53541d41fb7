"""Which solver finds the rates: chosen by the graph's size and structure, or by name.

Small graphs and limits go to the interior point, whose n × n matrices must fit into memory: few steps, each of them
dear. Large graphs go to a first-order method on sparse matrices, the sooner the better the graph can be cut into
pieces. A modelling language does the same for small graphs and any further constraint
(``topology.solvers.semidefinite``): slower by far, and the reference for both. All have their certificates checked
alike.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from topology.problem import Problem, Solution, Stop, Watch
from topology.records import PlanError, unknown

SMALL, MEDIUM, LARGE = 300, 600, 2500
ALIKE = 32
AUTO = "auto"


def solve_large(
    problem: Problem, *, resistances: bool, stop: Stop | None = None, watch: Watch | None = None, solver: str = AUTO
) -> Solution:
    """The cheapest rates by the solver that suits the graph.

    Parameters
    ----------
    problem : Problem
    resistances : bool
        True for stable rates, R_e ≤ λ2 on every edge; False for the restriction λ2 ≥ √2.
    stop : Stop, optional
        When to end.
    watch : callable, optional
        Is told of every step.
    solver : str
        A key of ``SOLVERS``, or auto.

    Raises
    ------
    PlanError
        When there is no such solver, or it can't do what is asked.
    Infeasible
        When no rates keep the limits.
    """
    if solver == AUTO:
        solver = _suitable(problem)
    if solver not in SOLVERS:
        raise PlanError(unknown("solver", solver, (AUTO, *SOLVERS)))
    return SOLVERS[solver](problem, resistances, stop or Stop(), watch)


def _suitable(problem: Problem) -> str:
    if problem.n <= SMALL or problem.limited:
        return "interior-point"
    if _hub_leaves(problem) > ALIKE and problem.n <= LARGE:
        return "interior-point"  # so many equal eigenvalues that a few eigenvectors prove little
    if problem.n > MEDIUM:
        return "first-order"
    from topology.solvers.elimination import resistance_method

    return "first-order" if resistance_method(problem.n, problem.ends).sparse else "interior-point"


def _hub_leaves(problem: Problem) -> int:
    """The most nodes that hang on one node by their only edge."""
    degrees = np.bincount(problem.ends.ravel(), minlength=problem.n)
    hubs = [problem.ends[degrees[problem.ends[:, end]] == 1, 1 - end] for end in (0, 1)]
    return int(np.bincount(np.concatenate(hubs), minlength=1).max())


def _interior(problem: Problem, resistances: bool, stop: Stop, watch: Watch | None) -> Solution:
    from topology.solvers.interior.solver import solve_interior

    return solve_interior(problem, resistances=resistances, stop=stop, watch=watch)


def _first_order(problem: Problem, resistances: bool, stop: Stop, watch: Watch | None) -> Solution:
    from topology.solvers.first_order import solve_first_order

    return solve_first_order(problem, resistances=resistances, stop=stop, watch=watch)


def _modelled(problem: Problem, resistances: bool, stop: Stop, watch: Watch | None) -> Solution:
    from topology.solvers.semidefinite import reference_rates  # importing cvxpy takes a second

    return reference_rates(problem, resistances=resistances, stop=stop, watch=watch)


SOLVERS: dict[str, Callable[[Problem, bool, Stop, Watch | None], Solution]] = {
    "interior-point": _interior,
    "first-order": _first_order,
    "cvxpy": _modelled,
}
