"""Graph families: one function a family, thin over networkx, one registry line each.

A family's function takes the number of nodes, a seeded generator and the options that its registry line names,
and returns a connected simple graph on 0 … n−1. :func:`make_graph` checks what was asked and names the nodes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import networkx as nx
import numpy as np
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform

from topology.files import load_graph
from topology.problem import Reals
from topology.records import PlanError, unknown

FILE = "file:"
NODES_MAX, EDGES_MAX = 100_000, 2_000_000
DENSE = {"complete": 1.0, "barbell": 0.5, "lollipop": 0.25}  # parts of all possible edges
DRAWS = 20


class Family(NamedTuple):
    """How to build a graph of the family, and which options it takes."""

    build: Callable[..., nx.Graph]
    options: tuple[str, ...] = ()


def make_graph(
    family: str,
    n: int | None = None,
    *,
    degree: int | None = None,
    probability: float | None = None,
    radius: float | None = None,
    seed: int = 0,
) -> nx.Graph:
    """A connected graph: on the nodes n0 … n{N−1}, or as it is in a file.

    Parameters
    ----------
    family : str
        A key of ``FAMILIES``, or ``file:PATH`` for a graph that :func:`topology.files.load_graph` reads.
    n : int, optional
        Number of nodes, at least 2; of a file it may be left out.
    degree : int, optional
        Neighbours of each node, where one can choose; None for the family's default, as below.
    probability : float, optional
        Of an edge to be there (erdos-renyi), or to be rewired (small-world).
    radius : float, optional
        Up to which distance nodes are joined, where they lie in the unit square.
    seed : int
        What a random family draws from; the same seed gives the same graph.

    Raises
    ------
    PlanError
        When there is no such family, or none of its graphs has this size and these options.
    """
    if seed < 0:
        raise PlanError(f"the seed is {seed}: write 0 or more.")
    options = {"degree": degree, "probability": probability, "radius": radius}
    given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
    if family.startswith(FILE):
        _check_options("a graph from a file", (), given)
        return _from_file(family.removeprefix(FILE), n)
    if family not in FAMILIES and Path(family).is_file():
        raise PlanError(f"{family} is no family but a file: write {FILE}{family}.")
    if family not in FAMILIES:
        raise PlanError(unknown("family", family, [*FAMILIES, f"{FILE}PATH"]))
    if n is None:
        raise PlanError(f"the family {family} has graphs of many sizes: say how many peers, --nodes N.")
    if n < 2:
        raise PlanError(f"a plan needs at least two nodes, not {n}.")
    build, takes = FAMILIES[family]
    _check_options(f"the family {family}", takes, given)
    _check_size(family, n, degree, probability)
    graph = build(n, np.random.default_rng(seed), **given)
    assert nx.is_connected(graph), f"{family} with n={n}, {given}, seed={seed} is not connected"
    return nx.relabel_nodes(graph, {k: f"n{k}" for k in range(n)})


def _check_size(family: str, n: int, degree: int | None, probability: float | None) -> None:
    """Refuse what would not fit into memory, before it is built."""
    share = DENSE.get(family, probability if family == "erdos-renyi" else None) or 0
    edges = max(n * (degree or 1) / 2, share * n * n / 2)
    if n > NODES_MAX or edges > EDGES_MAX:
        raise PlanError(f"that is too large: a plan has at most {NODES_MAX:,} nodes and {EDGES_MAX:,} edges.")


def _from_file(path: str, n: int | None) -> nx.Graph:
    if not path:
        raise PlanError(f"{FILE} names no file: write {FILE}PATH.")
    graph = load_graph(path)
    if n not in (None, len(graph)):
        raise PlanError(f"the graph {path} has {len(graph)} nodes, not {n}: leave the number out.")
    return graph


def _check_options(what: str, takes: tuple[str, ...], given: dict[str, Any]) -> None:
    for key in given:
        if key not in takes:
            able = " or ".join(name for name, family in FAMILIES.items() if key in family.options)
            raise PlanError(f"{what} has no {key} to choose: leave it out, or take {able}.")


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


def hypercube(n: int, draw: np.random.Generator) -> nx.Graph:
    """Nodes whose numbers differ in one binary digit are joined."""
    dimension = n.bit_length() - 1
    if n != 2**dimension:
        raise PlanError(f"a hypercube has 2, 4, 8, … nodes, not {n}: take {2**dimension} or {2 ** (dimension + 1)}.")
    return nx.convert_node_labels_to_integers(nx.hypercube_graph(dimension), ordering="sorted")


def tree(n: int, draw: np.random.Generator) -> nx.Graph:
    """A binary tree, filled row by row: node k hangs on node (k−1)//2."""
    return nx.full_rary_tree(2, n)


def barbell(n: int, draw: np.random.Generator) -> nx.Graph:
    """Two halves, complete each, with one edge between them."""
    if n < 4 or n % 2:
        raise PlanError(f"a barbell has two equal halves of 2 nodes or more, not {n} nodes: take {_even_near(n)}.")
    return nx.barbell_graph(n // 2, 0)


def lollipop(n: int, draw: np.random.Generator) -> nx.Graph:
    """The first half is complete; the rest is a line that hangs on it."""
    head = max(2, (n + 1) // 2)
    return nx.lollipop_graph(head, n - head)


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


def erdos_renyi(n: int, draw: np.random.Generator, probability: float | None = None) -> nx.Graph:
    """Every edge is there with the same probability, 2·ln(n)/n if not given; such graphs, but connected.

    Source: P. Erdős, A. Rényi, On random graphs I, Publ. Math. Debrecen 6 (1959): from ln(n)/n on, large ones are
    connected.
    """
    threshold = math.log(n) / n
    probability = 2 * threshold if probability is None else probability
    if not 0 < probability <= 1:
        raise PlanError(f"an edge can't be there with probability {probability}: choose one above 0, up to 1.")
    return _first_connected(
        lambda: nx.gnp_random_graph(n, probability, seed=draw),
        f"random graphs of {n} nodes with edge probability {probability}",
        f"raise it above ln(n)/n, about {threshold:.2g}",
    )


def small_world(n: int, draw: np.random.Generator, degree: int = 4, probability: float = 0.1) -> nx.Graph:
    """A ring of nodes with their nearest neighbours, of whose edges some get another end; connected.

    Source: D. J. Watts, S. H. Strogatz, Collective dynamics of small-world networks, Nature 393 (1998).
    """
    if n < 3:
        raise PlanError(f"a small world needs three nodes or more, not {n}: take more, or another family.")
    if degree % 2 or not 2 <= degree < n:
        most = (n - 1) // 2 * 2
        raise PlanError(f"the degree of a small world of {n} can't be {degree}: choose an even one from 2 to {most}.")
    if not 0 <= probability <= 1:
        raise PlanError(f"an edge can't be rewired with probability {probability}: choose one from 0 to 1.")
    return _first_connected(
        lambda: nx.watts_strogatz_graph(n, degree, probability, seed=draw),
        f"small worlds of {n} nodes with degree {degree} and rewiring probability {probability}",
        f"raise the degree to {degree + 2}, or lower the probability",
    )


def geometric(n: int, draw: np.random.Generator, radius: float | None = None) -> nx.Graph:
    """Random places in the unit square, joined up to a distance of ``radius``.

    Without one it is 1.3·√(ln(n)/πn), or the least that connects the graph where that is more.
    Source: P. Gupta, P. R. Kumar, Critical power for asymptotic connectivity in wireless networks, 1998: from
    √(ln(n)/πn) on, large ones are connected.
    """
    if radius is not None and not 0 < radius < math.inf:
        raise PlanError(f"the radius is {radius}: write a finite number above 0.")
    spots = dict(enumerate(draw.random((n, 2))))  # as in geometric_positions: nothing is drawn before or again
    usual = 1.3 * math.sqrt(math.log(n) / (math.pi * n))
    graph = nx.random_geometric_graph(n, usual if radius is None else radius, pos=spots)
    if nx.is_connected(graph):
        return graph
    least = _connecting_radius(np.array(list(spots.values())))
    if radius is not None:
        raise PlanError(f"{n} nodes of this seed are not connected at radius {radius}: take {least:.4f} or more.")
    return nx.random_geometric_graph(n, least, pos=spots)


def geometric_positions(n: int, seed: int) -> Reals:
    """Where the nodes of the geometric graph of this size and seed lie in the unit square, shape (n, 2)."""
    return np.random.default_rng(seed).random((n, 2))


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
        raise PlanError(f"a {family} is a rectangle and {n} is prime: take {_even_near(n)}.")
    graph = nx.grid_2d_graph(rows, columns, periodic=periodic)
    return nx.relabel_nodes(graph, {(row, column): row * columns + column for row, column in graph})


def _even_near(n: int) -> str:
    """The even numbers of nodes next to a small or odd one, from 4 on."""
    return "4 nodes" if n <= 4 else f"{n - 1} or {n + 1} nodes"


def _first_connected(once: Callable[[], nx.Graph], kind: str, cure: str) -> nx.Graph:
    for _ in range(DRAWS):
        if nx.is_connected(graph := once()):
            return graph
    raise PlanError(f"none of {DRAWS} {kind} was connected: {cure}.")


def _connecting_radius(spots: Reals) -> float:
    """The least radius that connects these places, with four digits: the longest edge of their shortest tree."""
    longest = float(minimum_spanning_tree(squareform(pdist(spots))).max())
    return (math.floor(longest * 1e4) + 1) / 1e4  # a little above, so that it is true as it is printed


FAMILIES: dict[str, Family] = {
    "complete": Family(complete),
    "ring": Family(ring),
    "line": Family(line),
    "star": Family(star),
    "grid": Family(grid),
    "torus": Family(torus),
    "exponential": Family(exponential),
    "hypercube": Family(hypercube),
    "tree": Family(tree),
    "barbell": Family(barbell),
    "lollipop": Family(lollipop),
    "regular": Family(regular, ("degree",)),
    "erdos-renyi": Family(erdos_renyi, ("probability",)),
    "small-world": Family(small_world, ("degree", "probability")),
    "geometric": Family(geometric, ("radius",)),
}
