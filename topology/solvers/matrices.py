"""The matrix functions that solvers and measures are made of; matrices are dense, n × n.

A graph's incidence matrix B has the columns b_e = e_i − e_j. It is never formed: Bᵀ M B and b_eᵀ M b_e are
differences of M's entries, and B diag(v) Bᵀ is a sparse Laplacian.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, eigvalsh, solve_triangular
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

from topology.problem import Ends, Reals

DENSE_MAX = 200
BLOCK = 256


def edge_values(matrix: Reals, ends: Ends) -> Reals:
    """b_eᵀ M b_e of every edge, shape (m,); M need not be symmetric."""
    i, j = ends.T
    diagonal = np.diagonal(matrix)
    values: Reals = diagonal[i] + diagonal[j] - matrix[i, j] - matrix[j, i]
    return values


def edge_products(matrix: NDArray[np.floating], rows: Ends, columns: Ends) -> NDArray[np.floating]:
    """b_eᵀ M b_f for e in rows and f in columns, in the matrix's own precision."""
    out = np.empty((len(rows), len(columns)), matrix.dtype)
    first_end, other_end = np.ascontiguousarray(columns.T)
    for first in range(0, len(rows), BLOCK):
        i, j = rows[first : first + BLOCK].T
        part = matrix[i] - matrix[j]
        np.subtract(part.take(first_end, 1), part.take(other_end, 1), out=out[first : first + BLOCK])
    return out


def symmetric(matrix: Reals) -> Reals:
    """(M + Mᵀ)/2."""
    return (matrix + matrix.T) / 2


def cholesky(matrix: Reals) -> Reals | None:
    """The lower factor of a symmetric matrix, or None when it is not positive definite."""
    factor, failed = dpotrf(matrix, lower=True, clean=True)
    return None if failed else factor


def inverse(factor: Reals) -> Reals:
    """The inverse of the matrix with this lower factor."""
    lower, failed = dpotri(factor, lower=True)
    if failed:
        raise LinAlgError("a factor with a zero on its diagonal")
    full = np.tril(lower)
    return full + np.tril(full, -1).T


def pseudo_inverse(laplacian: Reals) -> Reals:
    """L⁺ of a connected graph's Laplacian; a ``LinAlgError`` when it is not connected."""
    n, shift = len(laplacian), float(np.trace(laplacian)) / len(laplacian)
    factor = cholesky(laplacian + shift / n)  # L + shift·J has the inverse L⁺ + J/shift
    if factor is None:
        raise LinAlgError("the rates do not connect the graph")
    pseudo: Reals = inverse(factor) - 1 / (shift * n)
    return pseudo


def longest_step(factor: Reals, direction: Reals) -> float:
    """The largest a with C Cᵀ + a·D ⪰ 0, to about a hundredth; C is lower triangular, D symmetric.

    It is −1/μ for μ the smallest eigenvalue of C⁻¹ D C⁻ᵀ: by Lanczos when the matrices are large, so that the
    caller must still see whether the step holds.
    """
    lowest = _lowest(factor, direction)
    return 1 / -lowest if lowest < 0 else math.inf


def _lowest(factor: Reals, direction: Reals) -> float:
    n = len(factor)

    def solved(values: Reals, transposed: int) -> Reals:
        answer: Reals = solve_triangular(factor, values, lower=True, trans=transposed, check_finite=False)
        return answer

    if n <= DENSE_MAX:
        return float(eigvalsh(solved(solved(direction, 0).T, 0), subset_by_index=[0, 0], check_finite=False)[0])
    operator = LinearOperator((n, n), matvec=lambda v: solved(direction @ solved(v, 1), 0), dtype=float)
    start = np.cos(1.7 * np.arange(n) + 0.3)  # any vector that no graph's symmetry knows; the same one each time
    try:
        found = eigsh(operator, k=1, which="SA", tol=1e-2, ncv=20, v0=start, maxiter=30, return_eigenvectors=False)
    except ArpackError as unfinished:
        found = getattr(unfinished, "eigenvalues", np.empty(0))
    return 1.01 * float(found[0]) if len(found) else -2.0
