"""Linear algebra on the Laplacians of large sparse graphs: factors, lowest eigenpairs, inertia.

No n × n matrix is stored. Laplacians are factorised with SuperLU, whose fill stays small on graphs that come apart
when few nodes are taken out: trees, grids, road maps, neighbours in the plane. On graphs that mix fast the fill is
nearly n²/2; there the eigenpairs come from products with the Laplacian alone, which then need few steps.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh, norm
from scipy.sparse import coo_array, csc_array, eye_array
from scipy.sparse.linalg import LinearOperator, SuperLU, eigsh, splu

from topology.problem import Ends, Reals

DENSE_NODES = 100  # up to which a full eigendecomposition is no dearer


def sparse_laplacian(n: int, ends: Ends, rates: Reals) -> csc_array:
    """Σ_e rates_e b_e b_eᵀ, shape (n, n), without storing its zeros."""
    i, j = ends.T
    rows, columns = np.concatenate([i, j, i, j]), np.concatenate([j, i, i, j])
    return csc_array(coo_array((np.concatenate([-rates, -rates, rates, rates]), (rows, columns)), shape=(n, n)))


def symmetric_factor(matrix: csc_array) -> SuperLU:
    """L·U of a symmetric matrix in a fill-reducing order, with all pivots on the diagonal."""
    options = {"SymmetricMode": True}
    return splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)


class PseudoInverse:
    """Λ⁺ of a connected graph's rates, by a factor of Λ without its last row and column."""

    def __init__(self, n: int, ends: Ends, rates: Reals):
        self.n = n
        self._factor = symmetric_factor(sparse_laplacian(n, ends, rates)[:-1, :-1].tocsc())

    def solve(self, right: Reals) -> Reals:
        """Λ⁺ times one vector, shape (n,), or several as columns, shape (n, k)."""
        centred = right - right.mean(axis=0)
        solution = np.zeros_like(centred, order="F")
        solution[:-1] = self._factor.solve(np.asfortranarray(centred[:-1]))
        centred_solution: Reals = solution - solution.mean(axis=0)
        return centred_solution


def lowest_eigenpairs(
    n: int, ends: Ends, rates: Reals, count: int, *, factorise: bool = True, precision: float = 1e-8
) -> tuple[Reals, Reals]:
    """The smallest eigenvalues above λ1 = 0 of a connected graph's Laplacian, with their eigenvectors.

    Parameters
    ----------
    n : int
        Number of nodes.
    ends : ndarray of int, shape (m, 2)
    rates : ndarray, shape (m,)
    count : int
        How many; there are n − 1.
    factorise : bool
        Whether to iterate with the pseudo-inverse (few steps, but a factor of Λ) or with Λ itself.
    precision : float
        Relative, of the eigenvalues.

    Returns
    -------
    values : ndarray, shape (min(count, n − 1),)
        In ascending order.
    vectors : ndarray, shape (n, min(count, n − 1))
        Orthonormal, as columns, and orthogonal to the constant one.
    """
    if n <= max(DENSE_NODES, 3 * count):
        values, vectors = eigh(sparse_laplacian(n, ends, rates).toarray())
        return values[1 : count + 1], vectors[:, 1 : count + 1]
    start = np.random.default_rng(n).standard_normal(n)  # always the same: the same problem has the same answer
    if factorise:
        inverse = PseudoInverse(n, ends, rates)
        operator = LinearOperator((n, n), matvec=inverse.solve, dtype=np.float64)
        values, vectors = eigsh(operator, k=count, which="LA", v0=start - start.mean(), tol=precision)
        values = 1 / values
    else:
        matrix = sparse_laplacian(n, ends, rates).tocsr()
        lift = 2 * float(matrix.diagonal().max()) / n  # moves the constant vector from the bottom to the top
        operator = LinearOperator((n, n), matvec=lambda x: matrix @ x + lift * x.sum(), dtype=np.float64)
        steps = max(2 * count + 1, 40)
        values, vectors = eigsh(operator, k=count, which="SA", v0=start, tol=precision, ncv=min(steps, n - 1))
    order = np.argsort(values)
    return values[order], vectors[:, order]


def highest_eigenvalue(n: int, ends: Ends, rates: Reals, *, factorise: bool = True, precision: float = 1e-8) -> float:
    """The largest eigenvalue of the Laplacian; see :func:`lowest_eigenpairs`."""
    matrix = sparse_laplacian(n, ends, rates)
    start = np.random.default_rng(n).standard_normal(n)
    if not factorise:
        return float(eigsh(matrix.tocsr(), k=1, which="LA", v0=start, tol=precision, return_eigenvectors=False)[0])
    # Nothing is above Gershgorin's bound, so that the nearest eigenvalue to it is the largest one.
    above = float(np.abs(matrix).sum(axis=0).max()) * (1 + 1e-8)
    factor = symmetric_factor(csc_array(above * eye_array(n, format="csc") - matrix))
    operator = LinearOperator((n, n), matvec=factor.solve, dtype=np.float64)
    nearest = eigsh(operator, k=4, which="LA", v0=start, tol=precision, return_eigenvectors=False)
    return above - 1 / float(nearest.max())


def eigenvalues_below(n: int, ends: Ends, rates: Reals, level: float, accuracy: float = 1e-8) -> int:
    """How many eigenvalues of the Laplacian are below a level, by Sylvester's law of inertia.

    The count is that of a matrix which differs from the Laplacian by less than accuracy·level.

    Raises
    ------
    ArithmeticError
        When that can't be said, as when the level is an eigenvalue.
    """
    shifted = csc_array(sparse_laplacian(n, ends, rates) - level * eye_array(n, format="csc"))
    factor = symmetric_factor(shifted)
    probe = np.random.default_rng(n).standard_normal(n)
    found = factor.solve(probe)
    # The factor is that of a matrix which is off by about so much: the backward error of the solution.
    error = float(norm(shifted @ found - probe) / norm(found))
    if not error < accuracy * level or not np.array_equal(factor.perm_r, factor.perm_c):
        raise ArithmeticError(f"the factor of Λ − {level:g}·I is too inaccurate to count its negative eigenvalues")
    return int((factor.U.diagonal() < 0).sum())
