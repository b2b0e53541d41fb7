"""What a plan promises, in figures: χ1, χ2, the total rate, the spectral gap, the work of each peer.

With Λ = Σ_e λ_e b_e b_eᵀ, the Laplacian of the edge rates (b_e = e_i − e_j),

    χ1 = 1/λ2(Λ)                    how slowly the network as a whole agrees
    χ2 = ½ max_e b_eᵀ Λ⁺ b_e        how badly the worst edge is backed up by other paths; χ2 ≤ χ1

and accelerated asynchronous gossip needs χ1·χ2 ≤ ½ [1]_. Both fall in proportion as all rates grow, so that
rates p that sum to 1 must be multiplied by at least √(2·χ1(p)·χ2(p)), the network's total rate.

Graphs are given as n and ``ends``, an integer array of shape (m, 2) with the two ends of each edge. What takes a
matrix is dense, n × n; what takes rates is sparse on graphs of more than ``DENSE_MAX`` nodes.

.. [1] A. Nabli, E. Oyallon. DADAO: Decoupled Accelerated Decentralized Asynchronous Optimization. ICML 2023,
   arXiv:2208.00779.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.linalg import eigh, eigvalsh
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import breadth_first_order, shortest_path

from topology.plan import Plan
from topology.problem import Ends, Reals
from topology.solvers.elimination import resistance_method
from topology.solvers.matrices import edge_values, pseudo_inverse
from topology.solvers.sparse import highest_eigenvalue, lowest_eigenpairs

DENSE_MAX = 1500
PRECISION = 1e-13


def edge_ends(plan: Plan) -> Ends:
    """The positions in ``plan.nodes`` of each edge's owner and other end, shape (m, 2)."""
    position = {node.name: k for k, node in enumerate(plan.nodes)}
    return np.array([(position[edge.a], position[edge.b]) for edge in plan.edges], dtype=np.int64)


def laplacian(n: int, ends: Ends, rates: Reals) -> Reals:
    """Σ_e rates_e b_e b_eᵀ, shape (n, n)."""
    matrix = np.zeros((n, n))
    i, j = ends.T
    np.subtract.at(matrix, (i, j), rates)
    np.subtract.at(matrix, (j, i), rates)
    np.fill_diagonal(matrix, -matrix.sum(axis=1))
    return matrix


def chi1(laplacian: Reals) -> float:
    """The inverse algebraic connectivity 1/λ2 of a rate Laplacian, in units of time; inf if not connected."""
    connectivity = float(eigh(laplacian, eigvals_only=True, subset_by_index=[1, 1])[0])
    return 1 / connectivity if connectivity > 1e-14 * np.trace(laplacian) else math.inf


def chi2(laplacian: Reals, ends: Ends) -> float:
    """Half the largest effective resistance of an edge, in units of time.

    Parameters
    ----------
    laplacian : ndarray, shape (n, n)
        Of a connected graph's rates.
    ends : ndarray of int, shape (m, 2)
        The edges over which the maximum is taken.
    """
    return float(resistances(laplacian, ends).max()) / 2


def resistances(laplacian: Reals, ends: Ends) -> Reals:
    """The effective resistance b_eᵀ Λ⁺ b_e of every edge, shape (m,); the graph must be connected."""
    return edge_values(pseudo_inverse(laplacian), ends)


def chis(n: int, ends: Ends, rates: Reals) -> tuple[float, float]:
    """χ1 and χ2 of a connected graph's rates, in units of time.

    Parameters
    ----------
    n : int
        Number of nodes.
    ends : ndarray of int, shape (m, 2)
    rates : ndarray, shape (m,)
        Above 0.
    """
    if n <= DENSE_MAX:
        matrix = laplacian(n, ends, rates)
        return chi1(matrix), chi2(matrix, ends)
    method = resistance_method(n, ends)
    values, _ = lowest_eigenpairs(n, ends, rates, 4, factorise=method.sparse, precision=PRECISION)
    return 1 / float(values[0]), float(method.resistances(rates).max()) / 2


def edge_resistances(n: int, ends: Ends, rates: Reals) -> Reals:
    """The effective resistance of every edge, as :func:`resistances` has it from a matrix, shape (m,)."""
    if n <= DENSE_MAX:
        return resistances(laplacian(n, ends, rates), ends)
    found: Reals = resistance_method(n, ends).resistances(rates)
    return found


def total_rate(chi1: float, chi2: float) -> float:
    """The smallest total rate, in edge events per unit of time, for χ1 and χ2 of rates that sum to 1."""
    return math.sqrt(2 * chi1 * chi2)


def mixing_matrix(n: int, ends: Ends, weights: Reals) -> Reals:
    """The symmetric W = I − Σ_e weights_e b_e b_eᵀ, whose rows sum to 1, shape (n, n)."""
    matrix: Reals = np.eye(n) - laplacian(n, ends, weights)
    return matrix


def spectral_gap(mixing: Reals) -> float:
    """1 − max(\\|λ_2\\|, \\|λ_n\\|) of a symmetric mixing matrix: the part of disagreement that one round removes."""
    values = eigvalsh(mixing)
    return float(1 - max(abs(values[0]), abs(values[-2])))


def mixing_gap(n: int, ends: Ends, weights: Reals) -> float:
    """The spectral gap of :func:`mixing_matrix`, which must average: the graph with non-zero weights is connected."""
    if n <= DENSE_MAX:
        return spectral_gap(mixing_matrix(n, ends, weights))
    factorise = resistance_method(n, ends).sparse
    values, _ = lowest_eigenpairs(n, ends, weights, 4, factorise=factorise, precision=PRECISION)
    highest = highest_eigenvalue(n, ends, weights, factorise=factorise, precision=PRECISION)
    return 1 - max(abs(1 - float(values[0])), abs(1 - highest))


def diameter(n: int, ends: Ends) -> int:
    """Most hops between two nodes of a connected graph.

    Large graphs are searched from nodes far from a middle one inwards, until no two nodes nearer to it can be farther
    apart than what was found [1]_.

    .. [1] P. Crescenzi, R. Grossi, M. Habib, L. Lanzi, A. Marino. On computing the diameter of real-world undirected
       graphs. Theoretical Computer Science 514, 2013.
    """
    adjacency = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n, n)).tocsr()
    if n <= DENSE_MAX:
        return int(shortest_path(adjacency, directed=False, unweighted=True).max())
    adjacency = csr_array(adjacency + adjacency.T)
    across = _longest_path(adjacency, _longest_path(adjacency, 0)[-1])
    order, before = breadth_first_order(adjacency, across[len(across) // 2])
    hops = np.zeros(n, dtype=np.int64)
    for node in order[1:]:
        hops[node] = hops[before[node]] + 1
    found = len(across) - 1
    for node in order[::-1]:
        if found >= 2 * hops[node]:
            break
        found = max(found, len(_longest_path(adjacency, node)) - 1)
    return found


def _longest_path(adjacency: csr_array, start: int) -> list[int]:
    """A shortest path from a node to one that is farthest from it."""
    order, before = breadth_first_order(adjacency, start)
    path = [int(order[-1])]
    while path[-1] != start:
        path.append(int(before[path[-1]]))
    return path[::-1]


def messages_sent(n: int, ends: Ends, rates: Reals) -> Reals:
    """Messages that each node sends per unit of time, shape (n,).

    An exchange is two messages with one model each, one from either end. What a node sends is therefore the
    sum of its edges' rates, and it receives as much.
    """
    sent: Reals = np.bincount(ends.ravel(), weights=np.repeat(rates, 2), minlength=n).astype(np.float64)
    return sent
