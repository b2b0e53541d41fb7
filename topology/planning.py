"""Makes a plan: a graph of a family, an owner, a rate and a weight for every edge, an address for every node."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import networkx as nx
import numpy as np

from topology.families import FAMILIES, FILE, make_graph
from topology.files import node_order
from topology.limits import read_link_values, read_node_values
from topology.links import describe_links
from topology.orientation import orient
from topology.plan import VERSION, Node, Plan, PlanEdge
from topology.problem import Problem, Stop, Watch
from topology.rates import choose_rates
from topology.rates_large import AUTO
from topology.records import PlanError
from topology.weights import choose_weights

HTTP_PORT = 9700


class Demands(NamedTuple):
    """CSV files with what exchanges cost, how much links and peers can bear, and what links are like.

    See ``topology.limits`` and, for the last, ``topology.links``.
    """

    link_costs: Path | str | None = None
    capacities: Path | str | None = None
    budgets: Path | str | None = None
    links: Path | str | None = None


def build_plan(
    family: str,
    n: int | None = None,
    *,
    seed: int = 0,
    degree: int | None = None,
    probability: float | None = None,
    radius: float | None = None,
    rates: str = "uniform",
    weights: str = "metropolis",
    demands: Demands | None = None,
    stop: Stop | None = None,
    watch: Watch | None = None,
    solver: str = AUTO,
    host: str = "127.0.0.1",
    port: int = 7700,
    http_port: int | None = None,
    named_hosts: bool = False,
) -> Plan:
    """Plan a network.

    Parameters
    ----------
    family : str
        A graph family, see ``topology.families.FAMILIES``, or ``file:PATH``.
    n : int, optional
        Number of nodes; of a graph from a file it may be left out.
    seed : int
        What a random family draws from.
    degree, probability, radius : optional
        See :func:`topology.families.make_graph`.
    rates, weights : str
        Policies for edge rates and mixing weights, see ``topology.rates`` and ``topology.weights``.
    demands : Demands, optional
        Costs and limits; nothing is limited and every exchange costs 1 without them.
    stop : Stop, optional
        When the search for rates, and that for weights, may end.
    watch : callable, optional
        Is told how the gap of the rates closes.
    solver : str
        What finds the rates, see ``topology.rates_large.SOLVERS``.
    host, port, http_port : str, int, int
        All nodes on this host, with consecutive ports from these two. Without ``http_port``: from 9700 on, or
        behind the nodes' own ports where they reach that far.
    named_hosts : bool
        Instead of ``host``: every node on the host that has its name, all with the same two ports, as in
        containers.

    Raises
    ------
    PlanError
        When what is asked can't be planned.
    """
    graph = make_graph(family, n, degree=degree, probability=probability, radius=radius, seed=seed)
    names = node_order(graph)
    nodes = _place(names, host, port, http_port, named_hosts)
    if demands and demands.links:
        describe_links(demands.links, graph)
    problem = pose_problem(graph, names, demands or Demands())
    edge_rates, record = choose_rates(rates, problem, names=names, stop=stop, watch=watch, solver=solver)
    edge_weights = choose_weights(weights, problem.n, problem.ends, stop or Stop())
    edges = (
        _edge(names[a], names[b], float(rate), float(weight), float(cost), graph)
        for (a, b), rate, weight, cost in zip(problem.ends, edge_rates, edge_weights, problem.costs, strict=True)
    )
    kind = f"{FILE}{Path(family.removeprefix(FILE)).name}" if family.startswith(FILE) else family
    return Plan(VERSION, kind, seed, nodes, tuple(edges), record)


def _edge(a: str, b: str, rate: float, weight: float, cost: float, graph: nx.Graph) -> PlanEdge:
    said = graph.edges[a, b]
    return PlanEdge(a, b, rate, weight, cost, said.get("delay"), said.get("bandwidth"))


def options_of(family: str) -> tuple[str, ...]:
    """Which of degree, probability and radius a family takes; none of a graph from a file, or of no family."""
    return FAMILIES[family].options if family in FAMILIES else ()


def pose_problem(graph: nx.Graph, names: Sequence[str], demands: Demands) -> Problem:
    """The rate problem of a graph, whose edges' first ends own them.

    Raises
    ------
    PlanError
        When a file of costs or limits can't be used.
    """
    position = {name: k for k, name in enumerate(names)}
    pairs = sorted(tuple(sorted((position[a], position[b]))) for a, b in graph.edges)
    owned = orient([(names[i], names[j]) for i, j in pairs])
    ends = np.array([(position[a], position[b]) for a, b in owned], dtype=np.int64)
    costs, capacities, budgets, _ = demands
    return Problem.of(
        len(names),
        ends,
        costs=read_link_values(costs, names, ends, "cost", 1.0) if costs else None,
        capacities=read_link_values(capacities, names, ends, "capacity", math.inf) if capacities else None,
        budgets=read_node_values(budgets, names, "budget", math.inf) if budgets else None,
    )


def _place(names: Sequence[str], host: str, port: int, http_port: int | None, named_hosts: bool) -> tuple[Node, ...]:
    n = len(names)
    step, span = (0, 1) if named_hosts else (1, n)  # ports per node, and of all nodes
    if http_port is None:
        http_port = max(HTTP_PORT, port + span)
    for first in (port, http_port):
        if not 1 <= first <= 65536 - span:
            raise PlanError(f"{n} nodes from port {first} on leave the range 1 to 65535: choose another first port.")
    if abs(port - http_port) < span:
        raise PlanError(f"{n} nodes from ports {port} and {http_port} on would share ports: move one range away.")
    return tuple(
        Node(
            name,
            f"{name if named_hosts else host}:{port + step * k}",
            f"{name if named_hosts else host}:{http_port + step * k}",
        )
        for k, name in enumerate(names)
    )
