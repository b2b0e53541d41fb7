"""Says which limits are in the way of a plan, and what would do."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from topology.problem import Infeasible, Problem, Reals, Stop
from topology.rates_large import solve_large
from topology.solvers.certificate import limit_shares

MATTERS = 0.02
CLOSE = 1.01
TIME_LIMIT_S = 5.0
PATIENCE_S = 15.0
NAMED_MAX = 4


def say_infeasible(problem: Problem, names: Sequence[str], *, resistances: bool, error: Infeasible) -> str:
    """The sentence for limits that no rates keep.

    Parameters
    ----------
    problem : Problem
    names : sequence of str
        What to call the nodes.
    resistances : bool
        Whether rates were to be stable, or only well connected.
    error : Infeasible
        The solver's complaint.
    """
    if error.proof is None and error.timed_out:
        return "no rates within these limits were found in the given time: allow more time, or raise some limits."
    if error.proof is None:
        return "no rates within these limits were found, nor a proof that there are none: raise some of them."
    shares = limit_shares(problem, error.proof)
    order = np.argsort(-shares)
    guilty = order[shares[order] > MATTERS * shares.sum()]
    enough = _enough(problem, guilty, resistances)
    relaxed = "" if resistances else ", or try '--rates optimal', which asks for less"
    said = f"no rates keep {_listed(problem, names, guilty)}"
    if enough is None:
        return f"{said}: raise it, or take it out{relaxed}."
    if len(guilty) == 1:
        return f"{said}: {_up(enough * problem.limits[1][guilty[0]])} would do{relaxed}."
    return f"{said}: {_up(enough)} times as much each would do{relaxed}."


def say_excess(problem: Problem, names: Sequence[str], policy: str, rates: Reals) -> str:
    """The sentence for rates of a policy that knows no limits."""
    rows, height = problem.limits
    load = rows @ rates
    worst = int(np.argmax(load / height))
    other = "" if policy == "optimal" else ", or try '--rates optimal'"
    return (
        f"{policy} rates break {_limit(problem, names, worst)}, which would have to be {_up(float(load[worst]))}: "
        f"raise it{other}."
    )


def _enough(problem: Problem, guilty: NDArray[np.int64], resistances: bool) -> float | None:
    """A factor by which the guilty limits could grow to be kept, hardly above the least; None when none is found."""
    low, high, until_s = 1.0, 2.0, time.perf_counter() + PATIENCE_S
    while not _feasible(_raised(problem, guilty, high), resistances):
        low, high = high, 2 * high
        if high > 1e6 or time.perf_counter() > until_s:
            return None
    while high / low > CLOSE and time.perf_counter() < until_s:
        middle = math.sqrt(low * high)
        if _feasible(_raised(problem, guilty, middle), resistances):
            high = middle
        else:
            low = middle
    return high


def _feasible(problem: Problem, resistances: bool) -> bool:
    stop = Stop(max_gap=math.inf, time_limit_s=TIME_LIMIT_S)
    try:
        solve_large(problem, resistances=resistances, stop=stop)
    except Infeasible:
        return False
    return True


def _raised(problem: Problem, guilty: NDArray[np.int64], factor: float) -> Problem:
    """The problem with the guilty limits multiplied by a factor."""
    capacities, budgets = problem.capacities.copy(), problem.budgets.copy()
    for row in guilty:
        if row < len(problem.capped):
            capacities[problem.capped[row]] *= factor
        else:
            budgets[problem.budgeted[row - len(problem.capped)]] *= factor
    return dataclasses.replace(problem, capacities=capacities, budgets=budgets)


def _listed(problem: Problem, names: Sequence[str], guilty: NDArray[np.int64]) -> str:
    said = [_limit(problem, names, row) for row in guilty[:NAMED_MAX]]
    rest = [f"{len(guilty) - NAMED_MAX} other limits"] if len(guilty) > NAMED_MAX else []
    *most, last = said + rest
    return f"{', '.join(most)} and {last} at once" if most else last


def _limit(problem: Problem, names: Sequence[str], row: int) -> str:
    value = f"{problem.limits[1][row]:.6g}"
    if row < len(problem.capped):
        a, b = np.sort(problem.ends[problem.capped[row]])
        return f"the capacity of {names[a]} – {names[b]} ({value})"
    return f"the budget of {names[problem.budgeted[row - len(problem.capped)]]} ({value})"


def _up(value: float) -> str:
    """Four digits, rounded up: what is written would do."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 3)
    return f"{math.ceil(value / unit * (1 - 1e-9)) * unit:.4g}"
