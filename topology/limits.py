"""What exchanges cost and how much edges and nodes can bear, from CSV files of one line for each.

``a,b,value`` for an edge, either end first; ``name,value`` for a node; ``#`` before comments. A first line of other
words is a header. What has no line gets the default.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from reprlib import repr as shown
from typing import NamedTuple

import numpy as np

from topology.files import load_text
from topology.problem import Ends, Reals
from topology.records import PlanError, unknown

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
LEAST, MOST = 1e-6, 1e6


class Entry(NamedTuple):
    """One line: where it is, whom it is about, and the number."""

    where: str
    names: tuple[str, ...]
    value: float


def read_link_values(path: Path | str, nodes: Sequence[str], ends: Ends, what: str, default: float) -> Reals:
    """A number for every edge.

    Parameters
    ----------
    path : str or Path
        A CSV file of lines ``a,b,value``.
    nodes : sequence of str
        The names of the nodes, in the plan's order.
    ends : ndarray of int, shape (m, 2)
        The two ends of every edge, as positions in ``nodes``.
    what : str
        What the numbers are, such as "cost" or "capacity".
    default : float
        The number of an edge that is not in the file.

    Returns
    -------
    ndarray, shape (m,)
        In the order of ``ends``.

    Raises
    ------
    PlanError
        When the file can't be read, or a line names no edge of the graph, repeats one or has no number above 0.
    """
    edges = {frozenset((nodes[a], nodes[b])): k for k, (a, b) in enumerate(ends)}
    values = np.full(len(ends), default)
    for where, (a, b), value in _entries(path, nodes, 2, what):
        if (pair := frozenset((a, b))) not in edges:
            raise PlanError(f"{where}: {a} and {b} are not joined in this graph, take the line out or join them.")
        values[edges[pair]] = value
    return values


def read_node_values(path: Path | str, nodes: Sequence[str], what: str, default: float) -> Reals:
    """A number for every node.

    Parameters
    ----------
    path : str or Path
        A CSV file of lines ``name,value``.
    nodes : sequence of str
        The names of the nodes, in the plan's order.
    what : str
        What the numbers are, such as "budget".
    default : float
        The number of a node that is not in the file.

    Returns
    -------
    ndarray, shape (n,)
        In the order of ``nodes``.

    Raises
    ------
    PlanError
        When the file can't be read, or a line names no node, repeats one or has no number above 0.
    """
    position = {name: k for k, name in enumerate(nodes)}
    values = np.full(len(nodes), default)
    for _, (name,), value in _entries(path, nodes, 1, what):
        values[position[name]] = value
    return values


def _entries(path: Path | str, nodes: Sequence[str], count: int, what: str) -> Iterator[Entry]:
    known, form = set(nodes), ("name," if count == 1 else "a,b,") + what
    seen: dict[frozenset[str], int] = {}
    for k, (line, cells) in enumerate(read_rows(path, what)):
        where = f"{path}, line {line}"
        if len(cells) != count + 1:
            raise PlanError(f"{where}: it is {shown(','.join(cells))}, write {form} with commas between.")
        *names, text = cells
        value = _number(text)
        if k == 0 and value is None and (text.lower() == what or not known & set(names)):
            continue  # the header
        for name in names:
            if name not in known:
                raise PlanError(f"{where}: {unknown('node', name, known)}")
        if value is None or not LEAST <= value <= MOST:
            raise PlanError(f"{where}: the {what} is {shown(text)}, write a number from 1e-6 to 1e6.")
        if (whom := frozenset(names)) in seen:
            raise PlanError(f"{where}: {' – '.join(names)} is in line {seen[whom]} already, keep one of them.")
        seen[whom] = line
        yield Entry(where, tuple(names), value)
    if not seen:
        raise PlanError(f"{path} has no {what} in it: write a line {form}, or leave the file out.")


def read_rows(path: Path | str, what: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file that are not empty, each with its line; a :class:`PlanError` when it is none."""
    lines = load_text(path, f"{what} file").split("\n")
    reader = csv.reader((line.partition("#")[0].strip() for line in lines), strict=True, skipinitialspace=True)
    try:
        for row in reader:
            if row:
                yield reader.line_num, [cell.strip() for cell in row]
    except csv.Error as error:
        raise PlanError(f"{path}, line {reader.line_num}: this is not CSV, {error}.") from None


def _number(text: str) -> float | None:
    return float(text) if NUMBER.fullmatch(text.strip()) else None
