"""The planner's semidefinite programs as the literature states them, solved by general solvers through cvxpy.

They are the reference for the planner's own methods and practical for small graphs: Clarabel, an interior-point
method, up to ``INTERIOR`` nodes, and SCS, a first-order method that is less exact, beyond.
"""

from __future__ import annotations

from typing import Any

import cvxpy
import numpy as np
from scipy.sparse import csr_array

from topology.problem import Ends, Reals

INTERIOR = 50


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
