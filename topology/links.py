"""What links are like, from a CSV file of one line for each: ``a,b,delay,bandwidth``, either end first.

A delay is a duration such as ``20ms``, one way; a bandwidth is a size such as ``10MiB``, a second and way. Either may
be left empty; ``#`` before comments. A first line of other words is a header. A link without a line stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from reprlib import repr as shown
from typing import Any

import networkx as nx

from topology.limits import read_rows
from topology.plan import BANDWIDTH_MAX, DELAY_MAX_S
from topology.quantities import duration_s, size_bytes
from topology.records import PlanError, unknown

FORM = "a,b,delay,bandwidth"
READERS: dict[str, tuple[Callable[[str], Any], float, float, str]] = {
    "delay": (duration_s, 0.0, DELAY_MAX_S, "a duration from 0s to 1h, such as 20ms"),
    "bandwidth": (size_bytes, 1.0, BANDWIDTH_MAX, "a size from 1B on, such as 10MiB"),
}
"""How each is read, its least and most, and what to write instead."""


def describe_links(path: Path | str, graph: nx.Graph) -> None:
    """Set ``delay`` (seconds) and ``bandwidth`` (bytes a second) of a graph's edges from a file.

    Raises
    ------
    PlanError
        When the file can't be read, or a line names no edge of the graph, repeats one or can't be understood.
    """
    seen: dict[frozenset[str], int] = {}
    for k, (line, cells) in enumerate(read_rows(path, "link")):
        where = f"{path}, line {line}"
        if k == 0 and not set(cells[:2]) & set(graph) and not any(text[:1].isdigit() for text in cells[2:]):
            continue  # the header
        if len(cells) != 4:
            raise PlanError(f"{where}: it is {shown(','.join(cells))}, write {FORM} with commas between.")
        a, b, *texts = cells
        _check_edge(graph, a, b, where)
        if (pair := frozenset((a, b))) in seen:
            raise PlanError(f"{where}: {a} – {b} is in line {seen[pair]} already, keep one of them.")
        seen[pair] = line
        said = {key: _read(key, text, where) for key, text in zip(READERS, texts, strict=True) if text}
        if not said:
            raise PlanError(f"{where}: it says nothing of {a} – {b}, write a delay, a bandwidth or both.")
        graph.edges[a, b].update(said)
    if not seen:
        raise PlanError(f"{path} has no links in it: write a line {FORM}, or leave the file out.")


def _check_edge(graph: nx.Graph, a: str, b: str, where: str) -> None:
    for name in (a, b):
        if name not in graph:
            raise PlanError(f"{where}: {unknown('node', name, graph)}")
    if not graph.has_edge(a, b):
        raise PlanError(f"{where}: {a} and {b} are not joined in this graph, take the line out or join them.")


def _read(key: str, text: str, where: str) -> float:
    read, least, most, instead = READERS[key]
    try:
        value = float(read(text))
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise PlanError(f"{where}: the {key} is {shown(text)}, write {instead}.")
    return value
