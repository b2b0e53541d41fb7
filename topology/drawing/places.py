"""Where the nodes of a plan are drawn, and the course of its edges between them.

Every family has its shape; a graph that has none, such as one from a file, is laid out by its distances. The places
depend on the graph only, not on its rates, so that plans of one graph can be laid side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import networkx as nx
import numpy as np
from scipy.linalg import eigh
from scipy.sparse import coo_array
from scipy.sparse.csgraph import shortest_path
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from topology.families import geometric_positions, sides
from topology.measures import edge_ends
from topology.plan import Plan
from topology.problem import Ends, Reals

STRESS_STEPS = 80
ROW_MAX = 12
LAYERED_MAX = 40
TAIL_MAX = 40
CURVED_MAX = 40_000
CURVE_POINTS = 16


def place_nodes(plan: Plan) -> Reals:
    """Where each node is drawn, shape (n, 2), in a unit of its own: y grows upwards, and no two places are the same."""
    n, ends = len(plan.nodes), edge_ends(plan)
    if plan.family in SHAPES:
        return SHAPES[plan.family](n)
    if plan.family in ("barbell", "lollipop"):
        return _in_beads(n, ends)
    if plan.family == "geometric":
        return _apart(geometric_positions(n, plan.seed))
    if len(ends) == n - 1:
        return _as_tree(n, ends, rooted=plan.family == "tree")
    return _by_distance(n, ends)


def trace_edges(plan: Plan, spots: Reals) -> tuple[Reals, Ends]:
    """The lines that the edges are drawn as.

    Returns
    -------
    lines : ndarray, shape (k, p, 2)
        Lines of p points each.
    edges : ndarray of int, shape (k,)
        The position in ``plan.edges`` of each line; an edge around a torus has two.
    """
    ends = edge_ends(plan)
    each = np.arange(len(ends))
    start, end = spots[ends[:, 0]], spots[ends[:, 1]]
    straight = np.stack([start, end], axis=1)
    if plan.family == "torus":
        step = end - start
        around = np.abs(step).max(axis=1) > 1
        # An edge around the torus leaves the picture at one side and comes back at the other.
        stub = 0.6 * np.sign(step[around])
        start, end = start[around], end[around]
        stubs = [np.stack([start, start - stub], axis=1), np.stack([end, end + stub], axis=1)]
        return np.concatenate([straight[~around], *stubs]), np.concatenate([each[~around], each[around], each[around]])
    if plan.family in ROUND and len(spots) > ROW_MAX and len(ends) <= CURVED_MAX:
        return _arcs(start, end), each
    return straight, each


def _arcs(start: Reals, end: Reals) -> Reals:
    """Curves between points of the unit circle that leave it at right angles, as far as a parabola can.

    A straight chord to the next node but one would be hidden behind the node that it passes.
    """
    middle = (start + end) / 2
    cosine = np.linalg.norm(middle, axis=1)
    sine = np.linalg.norm(end - start, axis=1) / 2
    nearest = cosine / (1 + sine)  # how close the arc at right angles to the circle comes to its centre
    pull = np.divide(2 * nearest - cosine, cosine, out=np.zeros_like(cosine), where=cosine > 1e-9)
    neighbours = sine < 1.5 * sine.min()  # the circle's own sides stay straight
    knee = np.where(neighbours, 1, (1 + pull) / 2)[:, None] * middle
    t = np.linspace(0, 1, CURVE_POINTS)[:, None]
    curves: Reals = (1 - t) ** 2 * start[:, None] + 2 * t * (1 - t) * knee[:, None] + t**2 * end[:, None]
    return curves


# -------------------------------------------------------------------------------- from the number of nodes alone


def _on_circle(n: int) -> Reals:
    angles = (math.pi if n == 2 else math.pi / 2) - 2 * math.pi * np.arange(n) / n  # clockwise, as on a clock
    return np.column_stack([np.cos(angles), np.sin(angles)])


def _around_hub(n: int) -> Reals:
    return np.vstack([np.zeros((1, 2)), _on_circle(n - 1) if n > 2 else np.array([[1.0, 0.0]])])


def _in_rows(n: int) -> Reals:
    columns = n if n <= ROW_MAX else math.ceil(math.sqrt(2 * n))
    row, column = np.divmod(np.arange(n), columns)
    # Every other row runs backwards, so that neighbours on the line are neighbours in the picture.
    return np.column_stack([np.where(row % 2, columns - 1 - column, column), -1.5 * row]).astype(float)


def _in_rectangle(n: int) -> Reals:
    row, column = np.divmod(np.arange(n), sides(n)[1])
    return np.column_stack([column, -row]).astype(float)


def _as_cubes(n: int) -> Reals:
    """A square, its shifted copy, the copy of both, …: each bit of a node's number is a step in a direction."""
    bit = np.arange(max(1, (n - 1).bit_length()))
    # Found by trial: with these steps the nodes keep their distance up to ten dimensions.
    length, angle = 0.7**bit, math.radians(111) * bit
    steps = np.column_stack([length * np.cos(angle), length * np.sin(angle)])
    places: Reals = (np.arange(n)[:, None] >> bit & 1) @ steps
    return places


ROUND = ("ring", "complete", "exponential", "small-world")
SHAPES: dict[str, Callable[[int], Reals]] = {
    **dict.fromkeys(ROUND, _on_circle),
    "star": _around_hub,
    "line": _in_rows,
    "grid": _in_rectangle,
    "torus": _in_rectangle,
    "hypercube": _as_cubes,
}


# ------------------------------------------------------------------------------------------------ from its edges


def _in_beads(n: int, ends: Ends) -> Reals:
    """Along a line, what bridges separate: a part of several nodes is a circle, entered and left at its sides."""
    parts, doors = _string(ends)
    tail = [k for part in parts[1:] for k in part]
    if TAIL_MAX < len(tail) == len(parts) - 1:
        return _with_folded_tail(n, parts[0], tail)
    spots, x, before = np.zeros((n, 2)), 0.0, 0.0
    for part in parts:
        radius = len(part) / (2 * math.pi) if len(part) > 1 else 0.0
        turn = -math.pi / 2 if part is parts[0] else math.pi / 2  # its door looks at the next part
        x += max(1.0, 0.8 * min(before, radius)) + radius
        spots[sorted(part, key=lambda k: (k not in doors, k))] = _on_circle(len(part)) @ _rotation(turn) * radius + (
            x,
            0,
        )
        x, before = x + radius, radius
    return spots


def _string(ends: Ends) -> tuple[list[list[int]], set[int]]:
    """The parts that bridges separate, as they follow each other from the larger end on, and the bridges' ends."""
    graph = nx.Graph(ends.tolist())
    bridges = list(nx.bridges(graph))
    graph.remove_edges_from(bridges)
    part_of = {k: tuple(sorted(part)) for part in nx.connected_components(graph) for k in part}
    string = nx.Graph([(part_of[a], part_of[b]) for a, b in bridges])
    string.add_nodes_from(part_of.values())
    tip = max((part for part in string if string.degree[part] <= 1), key=lambda part: (len(part), -part[0]))
    order = nx.dfs_preorder_nodes(string, tip, sort_neighbors=sorted)
    return [list(part) for part in order], {k for bridge in bridges for k in bridge}


def _with_folded_tail(n: int, head: list[int], tail: list[int]) -> Reals:
    """A circle and, at its side, a long line up and down; the last of the head is the one that the tail hangs on."""
    spots = np.zeros((n, 2))
    radius = len(head) / (2 * math.pi)
    spots[head[::-1]] = radius * _on_circle(len(head)) @ _rotation(-math.pi / 4)
    rows = max(2, math.ceil(radius))
    column, row = np.divmod(np.arange(len(tail)), rows)
    down = np.where(column % 2, rows - 1 - row, row) * 2 * radius / (rows - 1)
    spots[tail] = np.column_stack([radius + 3 + 2.5 * column, radius - down])
    return spots


def _rotation(angle: float) -> Reals:
    """What a row vector is multiplied by to turn it counter-clockwise."""
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])


def _as_tree(n: int, ends: Ends, *, rooted: bool) -> Reals:
    """From the root down, or around it when there are many leaves; the root is the first node or else the centre."""
    tree = nx.Graph(ends.tolist())
    hops = _hops(n, ends)
    root = 0 if rooted else int(hops.max(axis=1).argmin())
    depth = hops[root]
    along = np.zeros(n)
    leaves = 0
    for node in nx.dfs_postorder_nodes(tree, root, sort_neighbors=sorted):
        below = [along[k] for k in tree[node] if depth[k] > depth[node]]
        along[node] = (min(below) + max(below)) / 2 if below else leaves
        leaves += not below
    if depth.max() > 2 * leaves:
        return _by_distance(n, ends)  # nearly a line
    if leaves <= LAYERED_MAX:
        return np.column_stack([along, -depth * max(1.0, leaves / (1.6 * depth.max()))])
    angles = math.pi / 2 - 2 * math.pi * along / leaves
    return depth[:, None] * np.column_stack([np.cos(angles), np.sin(angles)])


def _by_distance(n: int, ends: Ends) -> Reals:
    """As far apart in the picture as in the graph, the near ones above all.

    Stress majorisation: E. Gansner, Y. Koren, S. North. Graph Drawing by Stress Majorization. Graph Drawing 2004,
    eq. (6), with weights d⁻².
    """
    hops = _hops(n, ends)
    spots = _scaled_hops(hops)
    np.fill_diagonal(hops, np.inf)
    pull = hops**-2
    solve = np.linalg.inv(np.diag(pull.sum(axis=1)) - pull + 1 / n)
    for _ in range(STRESS_STEPS):
        apart = cdist(spots, spots)
        np.fill_diagonal(apart, 1)
        push = 1 / (hops * np.maximum(apart, 1e-9))
        spots = solve @ (push.sum(axis=1)[:, None] * spots - push @ spots)
    return _apart(_upright(spots))


def _hops(n: int, ends: Ends) -> Reals:
    graph = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n, n)).tocsr()
    hops: Reals = shortest_path(graph, directed=False, unweighted=True)
    return hops


def _scaled_hops(hops: Reals) -> Reals:
    """Classical scaling to two dimensions; nodes that it can't tell apart are moved a little."""
    n = len(hops)
    inner = hops**2
    inner = -(inner - inner.mean(axis=0) - inner.mean(axis=1)[:, None] + inner.mean()) / 2
    values, vectors = eigh(inner, subset_by_index=[n - 2, n - 1])
    spots: Reals = vectors * np.sqrt(np.maximum(values, 0)) + 0.01 * np.random.default_rng(0).standard_normal((n, 2))
    return spots


def _upright(spots: Reals) -> Reals:
    """Turned so that the picture is wider than tall, with the first node at the upper left."""
    centred = spots - spots.mean(axis=0)
    turned = centred @ eigh(centred.T @ centred)[1][:, ::-1]
    upright: Reals = turned * np.where(turned[0] * (-1, 1) < 0, -1, 1)
    return upright


def _apart(spots: Reals) -> Reals:
    """Nodes that would hide each other, moved apart."""
    gap = 0.5 * math.sqrt(np.ptp(spots, axis=0).prod() / len(spots))
    spots = spots.copy()
    for _ in range(50):
        i, j = cKDTree(spots).query_pairs(gap, output_type="ndarray").T
        step = spots[i] - spots[j]
        distance = np.maximum(np.linalg.norm(step, axis=1), 1e-9)[:, None]
        step *= 0.5 * (gap - distance) / distance
        np.add.at(spots, i, step)
        np.add.at(spots, j, -step)
    return spots
