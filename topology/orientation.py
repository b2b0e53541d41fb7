"""Who owns which edge: the work of running clocks and starting exchanges, spread as evenly as a graph allows."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from itertools import pairwise


def orient(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Choose an owner for every edge, so that the most edges owned by one node are as few as possible.

    A first guess gives each edge to the end that expects to own fewer. Then, as long as some path of owned
    edges leads from a busiest node to one with at least two fewer, all edges of that path change hands. When no
    path is left, the nodes that a busiest one reaches hold so many edges among themselves that in every
    orientation one of them owns as many: the result is optimal.

    Parameters
    ----------
    pairs : sequence of (str, str)
        The edges of a simple graph, each once.

    Returns
    -------
    list of (str, str)
        The same edges in the same order, each with its owner first.
    """
    owned: dict[str, dict[str, None]] = {end: {} for pair in pairs for end in pair}
    degree = Counter(end for pair in pairs for end in pair)
    open_edges = degree.copy()
    for pair in pairs:
        # Twice what an end will own if it gets half of what is still open; then the end with fewer edges, as in a star.
        first, second = ((2 * len(owned[end]) + open_edges[end], degree[end]) for end in pair)
        a, b = pair if first < second else pair[::-1]
        owned[a][b] = None
        open_edges.subtract(pair)
    while path := _path_to_lighter(owned):
        for a, b in pairwise(path):
            del owned[a][b]
            owned[b][a] = None
    return [(a, b) if b in owned[a] else (b, a) for a, b in pairs]


def _path_to_lighter(owned: Mapping[str, Mapping[str, None]]) -> list[str]:
    busiest = max(owned, key=lambda end: len(owned[end]), default=None)
    if busiest is None:
        return []
    came_from: dict[str, str] = {busiest: busiest}
    queue = deque([busiest])
    while queue:
        end = queue.popleft()
        if len(owned[end]) <= len(owned[busiest]) - 2:
            path = [end]
            while path[-1] != busiest:
                path.append(came_from[path[-1]])
            return path[::-1]
        for other in owned[end]:
            if other not in came_from:
                came_from[other] = end
                queue.append(other)
    return []
