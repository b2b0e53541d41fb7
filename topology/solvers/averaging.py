"""Fastest averaging, stated and proved: the weights whose mixing matrix has the least eigenvalue modulus after 1.

With L(w) = Σ_e w_e b_e b_eᵀ and Π = I − 11ᵀ/n, fastest distributed linear averaging (FDLA) [1]_ is

    minimise s   such that   Z₁ = L(w) − (1−s)Π ≽ 0,   Z₂ = (1+s)Π − L(w) ≽ 0,

and the fastest mixing Markov chain (FMMC) [2]_ wants w ≥ 0 and Σ_{e at i} w_e ≤ 1 too: slacks G w + h ≥ 0 with
multipliers z. The dual proves how far from the best some weights are: for X₁, X₂ ≽ 0 with tr X₁ + tr X₂ = 1 and, on
every edge, b_eᵀ(X₁ − X₂)b_e + (Gᵀz)_e = 0, no weights have s < tr X₁ − tr X₂ − hᵀz.

.. [1] L. Xiao, S. Boyd. Fast linear iterations for distributed averaging. Systems & Control Letters 53, 2004.
.. [2] S. Boyd, P. Diaconis, L. Xiao. Fastest mixing Markov chain on a graph. SIAM Review 46(4), 2004.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh, eigvalsh
from scipy.sparse import csr_array, eye_array, vstack

from topology.measures import laplacian
from topology.problem import Ends, Reals
from topology.solvers.matrices import edge_values

SIGNS = np.array([1.0, -1.0])  # of L(w) in Z₁ and Z₂


class Program:
    """The constraints of one graph. Pairs of matrices, for Z₁ and Z₂, are arrays of shape (2, n, n)."""

    def __init__(self, n: int, ends: Ends, chain: bool) -> None:
        m = len(ends)
        self.n, self.ends, self.chain = n, ends, chain
        self.at_node = csr_array((np.ones(2 * m), (ends.T.ravel(), np.tile(np.arange(m), 2))), shape=(n, m))
        self.rows = csr_array(vstack([eye_array(m), -self.at_node])) if chain else csr_array((0, m))
        self.room = np.concatenate([np.zeros(m), np.ones(n)]) if chain else np.zeros(0)
        self.mean = np.full((n, n), 1 / n)

    def slacks(self, weights: Reals, modulus: float) -> tuple[Reals, Reals]:
        """Z₁ and Z₂, and G w + h; the constant vector, in no Z's range, is made an eigenvector to 1."""
        matrices = self.change(weights, modulus) - SIGNS[:, None, None] * (np.eye(self.n) - self.mean) + self.mean
        return matrices, self.rows @ weights + self.room

    def change(self, weights: Reals, modulus: float) -> Reals:
        """What Z₁ and Z₂ change by, a linear map."""
        matrix = laplacian(self.n, self.ends, weights)
        changed: Reals = SIGNS[:, None, None] * matrix + modulus * (np.eye(self.n) - self.mean)
        return changed

    def adjoint(self, matrices: Reals, multipliers: Reals) -> Reals:
        """The map's adjoint, shape (m + 1,): last is the part of the modulus."""
        edges = edge_values(matrices[0], self.ends) - edge_values(matrices[1], self.ends)
        traces = np.trace(matrices, axis1=1, axis2=2).sum()
        return np.append(edges + self.rows.T @ multipliers, traces)


def modulus_of(program: Program, weights: Reals) -> float:
    """The second largest eigenvalue modulus of the mixing matrix, ``‖I − L(weights) − 11ᵀ/n‖₂``."""
    values = eigvalsh(laplacian(program.n, program.ends, weights))
    return float(max(1 - values[1], values[-1] - 1))


def proved(program: Program, duals: Reals, multipliers: Reals) -> float:
    """A lower bound on the modulus of all weights, from any multipliers.

    X₁ and X₂ are rid of negative eigenvalues. What is then left of the edges' equations, r, is taken up by a sum
    Σ_e δ_e b_e b_eᵀ that is added to X₂ where δ > 0, and to X₁, with −δ, where δ < 0: it takes
    Σ_f (b_eᵀb_f)² δ_f = r_e, a well conditioned system. In a chain z takes up r < 0.
    All are at last divided by tr X₁ + tr X₂.
    """
    duals = np.stack([_semidefinite(matrix - matrix.mean(axis=0)) for matrix in duals])
    room = np.maximum(multipliers[len(program.ends) :], 0)  # of the nodes: those of w ≥ 0 only take up what is left
    left = edge_values(duals[0], program.ends) - edge_values(duals[1], program.ends)
    if program.chain:
        left = np.maximum(left - program.at_node.T @ room, 0)
    added = _edges_with_products(program, left)
    first = np.trace(duals[0]) + 2 * np.maximum(-added, 0).sum()
    second = np.trace(duals[1]) + 2 * np.maximum(added, 0).sum()
    return float(max(0.0, (first - second - room.sum()) / (first + second)))


def _semidefinite(matrix: Reals) -> Reals:
    """The nearest positive semidefinite matrix with the constant vector in its kernel."""
    values, vectors = eigh(matrix - matrix.mean(axis=1, keepdims=True))
    nearest: Reals = (vectors * np.maximum(values, 0)) @ vectors.T
    return nearest


def _edges_with_products(program: Program, wanted: Reals) -> Reals:
    """δ with Σ_f (b_eᵀb_f)² δ_f = wanted_e: the matrix 2I + |B|ᵀ|B| is inverted through n × n by Woodbury's formula."""
    at_node = program.at_node
    inner = 2 * np.eye(program.n) + (at_node @ at_node.T).toarray()
    solved: Reals = (wanted - at_node.T @ cho_solve(cho_factor(inner), at_node @ wanted)) / 2
    return solved


def symmetric(program: Program) -> tuple[Reals, float]:
    """The best constant weight, and what the symmetric dual point proves: all there is if the graph is edge-transitive.

    The dual point consists of the projectors on the eigenspaces of λ2 and λn of the unweighted Laplacian, or of λ2
    alone and the constraints of the nodes of most neighbours, where these keep a chain from larger weights.
    """
    n, ends = program.n, program.ends
    m, degrees = len(ends), np.bincount(ends.ravel(), minlength=n)
    values, vectors = eigh(laplacian(n, ends, np.ones(m)))
    low, high = values[1], values[-1]
    spaces = [vectors[:, 1:][:, np.isclose(values[1:], value, rtol=1e-9)] for value in (low, high)]
    duals = np.stack([space @ space.T / space.shape[1] for space in spaces])
    weight, multipliers = 2 / (low + high), np.zeros(len(program.room))
    most = degrees == degrees.max()
    if program.chain and weight * degrees.max() > 1:
        weight = 1 / degrees.max()
        multipliers[m:] = most * low / m / most[ends].sum(axis=1).max()
        duals[1] = 0
    else:
        duals *= (np.array([high, low]) / (low + high))[:, None, None]
    return np.full(m, weight), proved(program, duals, multipliers)
