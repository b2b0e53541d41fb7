"""Graphs from files: edge lists, GraphML and plans. Whatever is wrong with one is said in a sentence.

What a file holds is seen by its ending or else by its first character: no name of a node begins with ``<`` or ``{``.
Of GraphML only nodes and edges are read, strictly; its attributes are not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from reprlib import repr as shown
from typing import NamedTuple
from xml.etree import ElementTree

import networkx as nx

from topology.plan import NAME, plan_from_json
from topology.records import PlanError, unknown

LARGEST_MIB = 32


class Link(NamedTuple):
    """Two nodes that are joined, and where the file says so."""

    where: str
    a: str
    b: str


class Node(NamedTuple):
    """A node's name, and where the file has it."""

    where: str
    name: str


def load_graph(path: Path | str) -> nx.Graph:
    """A connected simple graph from a file; its nodes are named as they are there.

    Edges have a ``delay`` and a ``bandwidth`` where a plan says so of them.

    Parameters
    ----------
    path : str or Path
        An edge list (the names of two nodes a line, blanks or a comma between, ``#`` before comments), GraphML
        (``.graphml``) or a plan (``.json``).

    Raises
    ------
    PlanError
        When the file can't be read, its graph is not undirected, simple and connected with two nodes or more, or
        its nodes have names that a plan can't have.
    """
    text = load_text(path, "graph")
    start, ending = text.lstrip()[:1], Path(path).suffix.lower()
    try:
        if ending == ".json" or start == "{":
            return _read_plan(text)
        if ending == ".graphml" or start == "<":
            nodes, links = _read_graphml(text)
        else:
            nodes, links = _read_edge_list(text)
        return _join(nodes, links)
    except PlanError as error:
        raise PlanError(f"the graph {path} can't be used: {error}") from None


def load_text(path: Path | str, what: str) -> str:
    """The text of a file, which must be UTF-8, not empty and not huge; else a :class:`PlanError`."""
    try:
        with open(path, "rb") as file:
            data = file.read((LARGEST_MIB << 20) + 1)
    except (OSError, ValueError) as error:
        raise PlanError(f"the {what} {path} can't be read: {getattr(error, 'strerror', None) or error}.") from None
    if len(data) > LARGEST_MIB << 20:
        raise PlanError(f"the {what} {path} can't be read: it has more than {LARGEST_MIB} MiB, give a smaller file.")
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")  # which some editors write in front
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PlanError(f"the {what} {path} can't be read: line {line} is not UTF-8, save it as that.") from None
    if not text.strip():
        raise PlanError(f"the {what} {path} is empty: write something into it, or leave it out.")
    return text


def node_order(graph: nx.Graph) -> list[str]:
    """The names of a graph's nodes in natural order, which is the plan's: n2 before n10.

    >>> node_order(nx.Graph([("n10", "n2"), ("n2", "hub")]))
    ['hub', 'n2', 'n10']
    """
    return sorted(graph, key=_natural)


def _natural(name: str) -> tuple[list[str | int], str]:
    # Splitting puts text at even places and digits at odd ones, so that only like is compared with like.
    return [int(part) if k % 2 else part for k, part in enumerate(re.split("([0-9]+)", name))], name


# ----------------------------------------------------------------------------------------- formats


def _read_edge_list(text: str) -> tuple[list[Node], list[Link]]:
    links = []
    for k, line in enumerate(text.split("\n"), start=1):
        content = line.partition("#")[0].strip()
        names = [name.strip() for name in content.split(",")] if "," in content else content.split()
        if len(names) not in (0, 2):
            raise PlanError(f"line {k} is {shown(content)}: write the names of two nodes.")
        links += [Link(f"line {k}", *names)] if names else []
    return [Node(link.where, name) for link in links for name in link[1:]], links


def _read_plan(text: str) -> nx.Graph:
    plan = plan_from_json(text)
    nodes = [Node(f"nodes[{k}]", node.name) for k, node in enumerate(plan.nodes)]
    graph = _join(nodes, [Link(f"edges[{k}]", edge.a, edge.b) for k, edge in enumerate(plan.edges)])
    for edge in plan.edges:
        said = {"delay": edge.delay, "bandwidth": edge.bandwidth}
        graph.edges[edge.a, edge.b].update({key: value for key, value in said.items() if value is not None})
    return graph


def _read_graphml(text: str) -> tuple[list[Node], list[Link]]:
    graph = _graph_element(text)
    nodes = [Node(f"node {k}", node.get("id", "")) for k, node in enumerate(graph.findall("{*}node"), start=1)]
    known: set[str] = set()
    for where, name in nodes:
        if name in known:
            raise PlanError(f"{where} has the id {shown(name)} of another: give every node its own.")
        known.add(name)
    default = str(graph.get("edgedefault") == "directed").lower()
    links = []
    for k, edge in enumerate(graph.findall("{*}edge"), start=1):
        link = Link(f"edge {k}", edge.get("source", ""), edge.get("target", ""))
        if edge.get("directed", default) != "false":
            raise PlanError(f"{link.where} is directed: make the graph undirected, since peers exchange both ways.")
        for end in link[1:]:
            if end not in known:
                raise PlanError(f"{link.where} ends nowhere: {unknown('node', end, known)}")
        links.append(link)
    return nodes, links


def _graph_element(text: str) -> ElementTree.Element:
    # Declared entities could grow without end, or stand for another file.
    if found := re.search("<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise PlanError(f"it has a declaration {found[0]}, which is not read here: take it out.")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise PlanError(f"this is not XML: {error}.") from None
    if (kind := root.tag.rpartition("}")[2]) != "graphml":
        raise PlanError(f"it holds {shown(kind)}: save it as GraphML.")
    graphs = root.findall(".//{*}graph")
    if len(graphs) != 1 or graphs[0] not in list(root):
        raise PlanError(f"it has {len(graphs)} graphs: write one, with no graph inside of a node.")
    if graphs[0].find("{*}hyperedge") is not None:
        raise PlanError("it has hyperedges: write an edge for each two nodes that are joined.")
    return graphs[0]


# ------------------------------------------------------------------------------------------ checks


def _join(nodes: Iterable[Node], links: Iterable[Link]) -> nx.Graph:
    graph = nx.Graph()
    for where, name in nodes:
        if not NAME.fullmatch(name):
            raise PlanError(f"{where} has the name {shown(name)}: write 1 to 63 of a-z, 0-9 and '-'.")
        graph.add_node(name)
    for where, a, b in links:
        if a == b:
            raise PlanError(f"{where} joins {shown(a)} to itself: join two different nodes.")
        if graph.has_edge(a, b):
            raise PlanError(f"{where} joins {a} and {b} again, after {graph.edges[a, b]['where']}: keep one of them.")
        graph.add_edge(a, b, where=where)
    _check_connected(graph)
    plain = nx.Graph()
    plain.add_nodes_from(node_order(graph))
    plain.add_edges_from(graph.edges)
    return plain


def _check_connected(graph: nx.Graph) -> None:
    if len(graph) < 2:
        raise PlanError(f"it has {'one node' if len(graph) else 'no nodes'}: a plan needs at least two, joined.")
    first, *others = node_order(graph)
    reached = nx.node_connected_component(graph, first)
    if len(reached) < len(graph):
        parts = nx.number_connected_components(graph)
        stranded = next(name for name in others if name not in reached)
        raise PlanError(f"it is in {parts} parts, {stranded} can't be reached from {first}: join them with edges.")
