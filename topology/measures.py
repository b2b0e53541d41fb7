"""What a plan promises, in figures: χ1, χ2, the total rate, the spectral gap, the work of each peer.

With Λ = Σ_e λ_e b_e b_eᵀ, the Laplacian of the edge rates (b_e = e_i − e_j),

    χ1 = 1/λ2(Λ)                    how slowly the network as a whole agrees
    χ2 = ½ max_e b_eᵀ Λ⁺ b_e        how badly the worst edge is backed up by other paths; χ2 ≤ χ1

and accelerated asynchronous gossip needs χ1·χ2 ≤ ½ [1]_. Both fall in proportion as all rates grow, so that
rates p that sum to 1 must be multiplied by at least √(2·χ1(p)·χ2(p)), the network's total rate.

Graphs are given as n and ``ends``, an integer array of shape (m, 2) with the two ends of each edge; all that is
done with them is dense, n × n.

.. [1] A. Nabli, E. Oyallon. DADAO: Decoupled Accelerated Decentralized Asynchronous Optimization. ICML 2023,
   arXiv:2208.00779.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.linalg import cho_factor, cho_solve, eigh, eigvalsh
from scipy.sparse import coo_array
from scipy.sparse.csgraph import shortest_path

from topology.plan import Plan
from topology.problem import Ends, Reals


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
    n = len(laplacian)
    # Λ + c·11ᵀ/n has the inverse Λ⁺ + 11ᵀ/(cn), whose constant part every b_e cancels; c sets its scale to Λ's.
    inverse = cho_solve(cho_factor(laplacian + np.trace(laplacian) / n**2), np.eye(n))
    i, j = ends.T
    resistance: Reals = inverse[i, i] + inverse[j, j] - 2 * inverse[i, j]
    return resistance


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


def diameter(n: int, ends: Ends) -> int:
    """Most hops between two nodes of a connected graph."""
    adjacency = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n, n)).tocsr()
    return int(shortest_path(adjacency, directed=False, unweighted=True).max())


def messages_sent(n: int, ends: Ends, rates: Reals) -> Reals:
    """Messages that each node sends per unit of time, shape (n,).

    An exchange is two messages with one model each, one from either end. What a node sends is therefore the
    sum of its edges' rates, and it receives as much.
    """
    sent: Reals = np.bincount(ends.ravel(), weights=np.repeat(rates, 2), minlength=n).astype(np.float64)
    return sent


def promises(plan: Plan, model_bytes: int) -> dict[str, Any]:
    """All figures of a plan by name: what ``gradvine show --json`` prints.

    Parameters
    ----------
    plan : Plan
    model_bytes : int
        Size of one model on the wire, in bytes.

    Returns
    -------
    dict
        The plan's rates record, and beside it: counts of nodes and edges, degrees, the most edges owned by one
        node, diameter (hops), spectral gap of one round, and messages and bytes sent per node and unit of time.
    """
    n, ends = len(plan.nodes), edge_ends(plan)
    degrees = np.bincount(ends.ravel(), minlength=n)
    sent = messages_sent(n, ends, np.array([edge.rate for edge in plan.edges]))
    mixing = mixing_matrix(n, ends, np.array([edge.weight for edge in plan.edges]))
    return {
        "family": plan.family,
        "nodes": n,
        "edges": len(ends),
        **vars(plan.rates),
        "diameter": diameter(n, ends),
        "spectral_gap": spectral_gap(mixing),
        "degree": {"min": int(degrees.min()), "mean": float(degrees.mean()), "max": int(degrees.max())},
        "edges_owned_max": int(np.bincount(ends[:, 0]).max()),
        "messages_sent": {"mean": float(sent.mean()), "max": float(sent.max())},
        "bytes_sent": {"mean": float(sent.mean() * model_bytes), "max": float(sent.max() * model_bytes)},
        "model_bytes": model_bytes,
        "digest": plan.digest,
    }
