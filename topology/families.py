"""Graph families: one function a family, thin over networkx, one registry line each.

A family's function takes the number of nodes, a seeded generator and the options that its registry line names,
and returns a connected simple graph on 0 … n−1. :func:`make_graph` checks what was asked and names the nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import networkx as nx
import numpy as np

from topology.records import PlanError, unknown


class Family(NamedTuple):
    """How to build a graph of the family, and which options it takes."""

    build: Callable[..., nx.Graph]
    options: tuple[str, ...] = ()


def make_graph(family: str, n: int, *, degree: int | None = None, seed: int = 0) -> nx.Graph:
    """A connected graph on the nodes n0 … n{N−1}.

    Parameters
    ----------
    family : str
        A key of ``FAMILIES``.
    n : int
        Number of nodes, at least 2.
    degree : int, optional
        Neighbours of each node, for the families that let one choose; None for their default.
    seed : int
        What a random family draws from; the same seed gives the same graph.

    Raises
    ------
    PlanError
        When there is no such family, or none of its graphs has this size or degree.
    """
    if family not in FAMILIES:
        raise PlanError(unknown("family", family, FAMILIES))
    if n < 2:
        raise PlanError(f"a plan needs at least two nodes, not {n}.")
    if seed < 0:
        raise PlanError(f"the seed is {seed}: write 0 or more.")
    build, takes = FAMILIES[family]
    given: dict[str, Any] = {key: value for key, value in {"degree": degree}.items() if value is not None}
    for key in given:
        if key not in takes:
            raise PlanError(f"the family {family} has no {key} to choose: leave it out, or take another family.")
    graph = build(n, np.random.default_rng(seed), **given)
    assert nx.is_connected(graph), f"{family} with n={n}, degree={degree}, seed={seed} is not connected"
    return nx.relabel_nodes(graph, {k: f"n{k}" for k in range(n)})


def complete(n: int, draw: np.random.Generator) -> nx.Graph:
    """Everybody with everybody."""
    return nx.complete_graph(n)


def ring(n: int, draw: np.random.Generator) -> nx.Graph:
    """A closed chain; two nodes are joined once."""
    return nx.cycle_graph(n)


def line(n: int, draw: np.random.Generator) -> nx.Graph:
    """An open chain."""
    return nx.path_graph(n)


def star(n: int, draw: np.random.Generator) -> nx.Graph:
    """A hub, n0, with everybody else around it."""
    return nx.star_graph(n - 1)


def grid(n: int, draw: np.random.Generator) -> nx.Graph:
    """The most square a × b rectangle; nodes are counted row by row."""
    return _rectangle(n, "grid", periodic=False)


def torus(n: int, draw: np.random.Generator) -> nx.Graph:
    """A grid whose opposite sides are joined."""
    return _rectangle(n, "torus", periodic=True)


def exponential(n: int, draw: np.random.Generator) -> nx.Graph:
    """Node i is joined to i ± 2^k modulo n, for every 2^k < n."""
    return nx.circulant_graph(n, [2**k for k in range((n - 1).bit_length())])


def regular(n: int, draw: np.random.Generator, degree: int = 4) -> nx.Graph:
    """A random graph in which every node has the same number of neighbours."""
    if not 1 <= degree < n:
        raise PlanError(f"{n} nodes can't have {degree} neighbours each: choose a degree from 1 to {n - 1}.")
    if n * degree % 2:
        raise PlanError(f"{n} nodes can't have {degree} neighbours each: one of the two numbers must be even.")
    if degree == 1 and n > 2:
        raise PlanError(f"{n} nodes with one neighbour each are not connected: choose a degree of 2 or more.")
    if degree == 2:
        return nx.cycle_graph(n)  # the only connected one
    # Drawing a dense graph directly hardly ever succeeds; its complement is sparse.
    if 2 * degree >= n:
        return nx.complement(nx.random_regular_graph(n - 1 - degree, n, seed=draw))
    # From degree 3 on, nearly every graph is connected: a second draw is rare.
    while not nx.is_connected(graph := nx.random_regular_graph(degree, n, seed=draw)):
        pass
    return graph


def sides(n: int) -> tuple[int, int]:
    """The most square a × b = n with a ≤ b; a is 1 when n is prime.

    >>> sides(24)
    (4, 6)
    """
    a = next(k for k in range(math.isqrt(n), 0, -1) if n % k == 0)
    return a, n // a


def _rectangle(n: int, family: str, periodic: bool) -> nx.Graph:
    rows, columns = sides(n)
    if rows == 1:
        raise PlanError(f"a {family} is a rectangle and {n} is prime: take {max(n - 1, 4)} or {n + 1 + (n < 3)} nodes.")
    graph = nx.grid_2d_graph(rows, columns, periodic=periodic)
    return nx.relabel_nodes(graph, {(row, column): row * columns + column for row, column in graph})


FAMILIES: dict[str, Family] = {
    "complete": Family(complete),
    "ring": Family(ring),
    "line": Family(line),
    "star": Family(star),
    "grid": Family(grid),
    "torus": Family(torus),
    "exponential": Family(exponential),
    "regular": Family(regular, ("degree",)),
}
