"""Which solver finds the rates: chosen by the graph's size, or by name.

Up to some thousand nodes it is the interior point, whose n × n matrices fit into memory and whose every step gives a
certificate; beyond, a first-order method on sparse matrices. A modelling language does the same for small
graphs and any further constraint (``topology.semidefinite``): slower by far, and the reference for both.
"""

from __future__ import annotations

from collections.abc import Callable

from topology.problem import Problem, Solution, Stop, Watch
from topology.records import PlanError, unknown

DENSE_MAX = 2500
AUTO = "auto"


def solve_large(
    problem: Problem, *, resistances: bool, stop: Stop | None = None, watch: Watch | None = None, solver: str = AUTO
) -> Solution:
    """The cheapest rates by the solver that suits the graph.

    Parameters
    ----------
    problem : Problem
    resistances : bool
        True for stable rates, R_e ≤ λ2 on every edge; False for the relaxation λ2 ≥ √2.
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
        solver = "interior-point" if problem.n <= DENSE_MAX or problem.limited else "first-order"
    if solver not in SOLVERS:
        raise PlanError(unknown("solver", solver, (AUTO, *SOLVERS)))
    return SOLVERS[solver](problem, resistances, stop or Stop(), watch)


def _interior(problem: Problem, resistances: bool, stop: Stop, watch: Watch | None) -> Solution:
    from topology.interior.solver import solve_interior

    return solve_interior(problem, resistances=resistances, stop=stop, watch=watch)


def _first_order(problem: Problem, resistances: bool, stop: Stop, watch: Watch | None) -> Solution:
    from topology.first_order import solve_first_order

    return solve_first_order(problem, resistances=resistances, stop=stop, watch=watch)


def _modelled(problem: Problem, resistances: bool, stop: Stop, watch: Watch | None) -> Solution:
    from topology.semidefinite import reference_rates  # importing cvxpy takes a second

    return reference_rates(problem, resistances=resistances, stop=stop, watch=watch)


SOLVERS: dict[str, Callable[[Problem, bool, Stop, Watch | None], Solution]] = {
    "interior-point": _interior,
    "first-order": _first_order,
    "cvxpy": _modelled,
}
