"""The planner's problem as it is written in papers: one semidefinite programme with every constraint, solved once."""

from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np

from topology.problem import Problem, Reals

TOLERANCES = (1e-8, 1e-7, 1e-6)
"""The first that Clarabel attains; rounding stops it before 1e-8 on some symmetric graphs."""


def direct_sdp(problem: Problem, resistances: bool) -> tuple[float, Reals]:
    """The least cost and the rates that attain it, both up to one of ``TOLERANCES``.

    Parameters
    ----------
    problem : Problem
        Of at most some 20 nodes.
    resistances : bool
        True for R_e ≤ λ2 on every edge, False for λ2 ≥ √2.

    Returns
    -------
    cost : float
        inf when nothing satisfies the constraints.
    rates : ndarray, shape (m,)
        nan then.
    """
    n, m = problem.n, len(problem.ends)
    incidence = np.zeros((m, n))
    incidence[np.arange(m), problem.ends[:, 0]] = 1
    incidence[np.arange(m), problem.ends[:, 1]] = -1
    mean = np.full((n, n), 1 / n)
    rates = cp.Variable(m, nonneg=True)
    matrix = incidence.T @ cp.diag(rates) @ incidence
    constraints = []
    if resistances:
        u = cp.Variable()
        constraints.append(matrix + 2 * u * mean >> u * np.eye(n))  # 2: with 1 there is no interior
        for b in incidence:
            constraints.append(cp.bmat([[matrix + mean, b[:, None]], [b[None, :], cp.reshape(u, (1, 1), "C")]]) >> 0)
    else:
        constraints.append(matrix + 2 * mean >> np.sqrt(2) * np.eye(n))
    for e in range(m):
        if np.isfinite(problem.capacities[e]):
            constraints.append(rates[e] <= problem.capacities[e])
    for i in range(n):
        if np.isfinite(problem.budgets[i]):
            constraints.append(abs(incidence[:, i]) @ rates <= problem.budgets[i])
    question = cp.Problem(cp.Minimize(problem.costs @ rates), constraints)
    for tolerance in TOLERANCES:
        exact = {"tol_gap_abs": tolerance, "tol_gap_rel": tolerance, "tol_feas": tolerance}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # inaccurate: the next tolerance is for that
            question.solve(solver="CLARABEL", chordal_decomposition_enable=False, **exact)
        if question.status != cp.OPTIMAL_INACCURATE:
            break
    if question.status == cp.INFEASIBLE:
        return np.inf, np.full(m, np.nan)
    assert question.status == cp.OPTIMAL, question.status
    return float(question.value), np.asarray(rates.value)
