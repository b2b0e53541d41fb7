"""All effective resistances of a sparse graph at once, by eliminating its nodes front by front.

The resistance of an edge needs three entries of an inverse of the Laplacian. Solving for them one edge at a time
costs m solves; but the entries of the inverse on the pattern of the factor follow from each other, from the last
eliminated node to the first [1]_, for about the price of one factorisation. Here nodes are eliminated in groups
with dense matrices ("fronts") [2]_, so that NumPy does the work.

The rates may be complex, which gives derivatives without rounding errors [3]_: the imaginary part of R(p + ihw)
is h·Σ_k w_k ∂R/∂p_k up to O(h³), and h can be as small as one likes.

.. [1] K. Takahashi, J. Fagan, M.-S. Chen. Formation of a sparse bus impedance matrix and its application to short
   circuit study. Power Industry Computer Applications Conference, 1973.
.. [2] I. S. Duff, J. K. Reid. The multifrontal solution of indefinite sparse symmetric linear equations. ACM TOMS 9,
   1983.
.. [3] W. Squire, G. Trapp. Using complex variables to estimate derivatives of real functions. SIAM Review 40, 1998.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cholesky
from scipy.linalg.lapack import dpotri
from scipy.sparse.linalg import spilu

from topology.problem import Ends, Reals
from topology.solvers.matrices import edge_values
from topology.solvers.sparse import sparse_laplacian

LEAF_NODES = 24  # subtrees up to this size are eliminated as one dense block: NumPy's calls cost more than the zeros
BLOCK = 256  # edges at a time, where each takes a row of n numbers
PADDING = 8  # columns whose patterns differ by no more rows than this share a front

TINY = 1e-40  # of complex steps: its square is lost beside 1, and rates are nowhere near it
DENSE_WORK = 3e8  # operations from which on one dense inverse is faster

Places = NDArray[np.int64]


class Front(NamedTuple):
    """A group of nodes that are eliminated together; positions count the group first, then the nodes around it.

    Parameters
    ----------
    nodes : ndarray
        Who is eliminated, in the order of elimination.
    size : int
        Number of nodes in the group and around it.
    parent : int
        The front in which all nodes around it appear; −1 for a last one.
    into : ndarray
        Where the parent has the nodes around it.
    edges, a, b : ndarray
        The edges whose first eliminated end is in the group, and the positions of their ends.
    grounded, at : ndarray
        The edges from the group to the node that is not eliminated, and the positions of their ends.
    """

    nodes: Places
    size: int
    parent: int
    into: Places
    edges: Places
    a: Places
    b: Places
    grounded: Places
    at: Places


class Elimination:
    """In which order, and in which groups, a connected graph's nodes are eliminated; reused for all rates.

    The node with most neighbours is not eliminated: it is grounded, which makes the Laplacian invertible.
    """

    sparse = True

    def __init__(self, n: int, ends: Ends):
        self.n, self.ends = n, ends
        degrees = np.bincount(ends.ravel(), minlength=n)
        rank = _elimination_order(n, ends, int(degrees.argmax()))
        patterns = _patterns(n, np.sort(rank[ends], axis=1))
        later = _children_first(patterns)
        rank = later[rank]
        moved = [np.sort(later[patterns[k]]) for k in np.argsort(later)[:-1]]
        self.fronts = _fronts(n, np.sort(rank[ends], axis=1), moved, np.argsort(rank))
        self.work = float(sum(front.size**2 * len(front.nodes) for front in self.fronts))

    def resistances(self, rates: NDArray[Any]) -> NDArray[Any]:
        """The effective resistance of every edge, shape (m,); complex for complex rates."""
        inverses, spreads = self._eliminate(rates)
        found = np.empty(len(rates), dtype=rates.dtype)
        blocks: list[NDArray[Any]] = [np.empty(0)] * len(self.fronts)
        for k in range(len(self.fronts) - 1, -1, -1):
            front, spread, own = self.fronts[k], spreads[k], len(self.fronts[k].nodes)
            block = np.empty((front.size, front.size), dtype=rates.dtype)
            if front.size > own:
                around = blocks[front.parent][front.into[:, None], front.into]
                across = spread @ around
                block[own:, own:], block[:own, own:], block[own:, :own] = around, -across, -across.T
                block[:own, :own] = inverses[k] + across @ spread.T
            else:
                block[:, :] = inverses[k]
            blocks[k] = block
            diagonal = block.diagonal()
            found[front.edges] = diagonal[front.a] + diagonal[front.b] - 2 * block[front.a, front.b]
            found[front.grounded] = diagonal[front.at]
        return found

    def sensitivity(self, rates: Reals, weights: Reals) -> Reals:
        """−Σ_k weights_k ∂R_k/∂rates_e = Σ_k weights_k (b_eᵀ Λ⁺ b_k)², shape (m,), by one complex pass."""
        return -self.resistances(rates + 1j * TINY * weights).imag / TINY

    def _eliminate(self, rates: NDArray[Any]) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        """Of every front, the inverse of its own block and that inverse times the block beside it."""
        degrees = np.zeros(self.n, dtype=rates.dtype)
        np.add.at(degrees, self.ends, rates[:, None])
        matrices = [np.zeros((front.size, front.size), dtype=rates.dtype) for front in self.fronts]
        inverses, spreads = [], []
        for k, front in enumerate(self.fronts):
            matrix, own = matrices[k], len(front.nodes)
            matrix[front.a, front.b] -= rates[front.edges]
            matrix[front.b, front.a] -= rates[front.edges]
            matrix[range(own), range(own)] += degrees[front.nodes]
            inverse = np.linalg.inv(matrix[:own, :own])
            spread = inverse @ matrix[:own, own:]
            if front.size > own:
                rest = matrix[own:, own:] - matrix[own:, :own] @ spread
                matrices[front.parent][front.into[:, None], front.into] += rest
            inverses.append(inverse)
            spreads.append(spread)
            matrices[k] = np.empty(0)
        return inverses, spreads


class Inverse:
    """The same by one inverse of shape (n, n), for graphs that do not come apart: those that mix fast."""

    sparse = False

    def __init__(self, n: int, ends: Ends):
        self.n, self.ends = n, ends
        self._last: tuple[Reals, Reals] | None = None

    def resistances(self, rates: Reals) -> Reals:
        """The effective resistance of every edge, shape (m,)."""
        return edge_values(self._inverse(rates), self.ends)

    def sensitivity(self, rates: Reals, weights: Reals) -> Reals:
        """Σ_k weights_k (b_eᵀ Λ⁺ b_k)², shape (m,)."""
        inverse = self._inverse(rates)
        weighted = np.ascontiguousarray((sparse_laplacian(self.n, self.ends, weights) @ inverse).T)
        slope = np.empty(len(rates))
        for first in range(0, len(rates), BLOCK):
            i, j = self.ends[first : first + BLOCK].T
            slope[first : first + BLOCK] = ((inverse[i] - inverse[j]) * (weighted[i] - weighted[j])).sum(axis=1)
        return slope

    def _inverse(self, rates: Reals) -> Reals:
        if self._last is None or not np.array_equal(self._last[0], rates):
            # Λ + c·11ᵀ/n has the inverse Λ⁺ + 11ᵀ/(cn), whose constant part every b_e cancels.
            matrix = sparse_laplacian(self.n, self.ends, rates).toarray()
            matrix += np.trace(matrix) / self.n**2
            upper = cholesky(matrix, overwrite_a=True, check_finite=False)
            inverse, _ = dpotri(upper, overwrite_c=True)
            below = np.tril_indices(self.n, -1)
            inverse[below] = inverse.T[below]
            self._last = rates.copy(), inverse
        return self._last[1]


def resistance_method(n: int, ends: Ends) -> Elimination | Inverse:
    """The faster of the two for a graph."""
    elimination = Elimination(n, ends)
    return elimination if elimination.work < DENSE_WORK else Inverse(n, ends)


def _elimination_order(n: int, ends: Ends, ground: int) -> Places:
    """When each node is eliminated, shape (n,); the ground is last."""
    rank = np.full(n, n - 1)
    rest = np.delete(np.arange(n), ground)
    # Only the order is wanted, by minimum degree: an incomplete factor that drops everything is the cheapest way to it.
    matrix = sparse_laplacian(n, ends, np.ones(len(ends)))[rest][:, rest].tocsc()
    options = {"SymmetricMode": True}
    order = spilu(matrix, drop_tol=1.0, fill_factor=1, permc_spec="MMD_AT_PLUS_A", options=options).perm_c
    rank[rest] = order
    return rank


def _patterns(n: int, first_last: Ends) -> list[Places]:
    """For each node, in order of elimination, the later ones that it is joined to by then, but for the ground."""
    inner = first_last[first_last[:, 1] < n - 1]
    inner = inner[np.argsort(inner[:, 0], kind="stable")]
    where = np.searchsorted(inner[:, 0], np.arange(n))
    parts = [[inner[where[k] : where[k + 1], 1]] for k in range(n - 1)]
    patterns = []
    for k in range(n - 1):
        pattern = np.unique(np.concatenate(parts[k]))
        patterns.append(pattern)
        if len(pattern):
            parts[pattern[0]].append(pattern[1:])
    return patterns


def _parents(patterns: list[Places]) -> list[int]:
    """The elimination tree: the next node that each is joined to, or −1."""
    return [int(pattern[0]) if len(pattern) else -1 for pattern in patterns]


def _children_first(patterns: list[Places]) -> Places:
    """New places for the same elimination in which every subtree of the tree is consecutive, shape (n,)."""
    children: list[list[int]] = [[] for _ in range(len(patterns) + 1)]
    for k, up in enumerate(_parents(patterns)):
        children[up].append(k)  # −1, the last one, has the roots
    reverse, stack = [], [len(patterns)]
    while stack:
        reverse.append(node := stack.pop())
        stack.extend(children[node])
    places = np.empty(len(reverse), dtype=np.int64)
    places[reverse] = np.arange(len(reverse))[::-1]
    return places


def _groups(patterns: list[Places]) -> list[tuple[int, int]]:
    """The first and the last node of every front, in order of elimination."""
    parent = _parents(patterns)
    below = np.ones(len(patterns), dtype=np.int64)
    for k, up in enumerate(parent):
        if up >= 0:
            below[up] += below[k]
    groups, first = [], 0
    while first < len(patterns):
        last = first
        while parent[last] >= 0 and below[parent[last]] <= LEAF_NODES:
            last = parent[last]
        begun, rows = last, len(patterns[last])
        while parent[last] == last + 1 and len(patterns[last + 1]) + (last + 1 - begun) - rows <= PADDING:
            last += 1
        groups.append((first, last))
        first = last + 1
    return groups


def _fronts(n: int, first_last: Ends, patterns: list[Places], nodes: Places) -> list[Front]:
    groups = _groups(patterns)
    everyone = [np.concatenate([np.arange(first, last + 1), patterns[last]]) for first, last in groups]
    front_of = np.repeat(np.arange(len(groups)), [last + 1 - first for first, last in groups])
    order = np.argsort(first_last[:, 0], kind="stable")
    where = np.searchsorted(first_last[order, 0], [first for first, _ in groups] + [n])
    fronts = []
    for k, (first, last) in enumerate(groups):
        around, edges = patterns[last], order[where[k] : where[k + 1]]
        parent = int(front_of[around[0]]) if len(around) else -1
        into = np.searchsorted(everyone[parent], around) if len(around) else around
        outer = first_last[edges, 1] == n - 1
        grounded, edges = edges[outer], edges[~outer]
        a, b = np.searchsorted(everyone[k], first_last[edges].T)
        at = first_last[grounded, 0] - first
        fronts.append(Front(nodes[first : last + 1], len(everyone[k]), parent, into, edges, a, b, grounded, at))
    return fronts
