"""Makes a plan: a graph of a family, an owner, a rate and a weight for every edge, an address for every node."""

from __future__ import annotations

import numpy as np

from topology.families import make_graph
from topology.orientation import orient
from topology.plan import VERSION, Node, Plan, PlanEdge
from topology.rates import choose_rates
from topology.records import PlanError
from topology.weights import choose_weights

HTTP_PORT = 9700


def build_plan(
    family: str,
    n: int,
    *,
    seed: int = 0,
    degree: int | None = None,
    rates: str = "uniform",
    weights: str = "metropolis",
    host: str = "127.0.0.1",
    port: int = 7700,
    http_port: int | None = None,
    named_hosts: bool = False,
) -> Plan:
    """Plan a network.

    Parameters
    ----------
    family : str
        A graph family, see ``topology.families.FAMILIES``.
    n : int
        Number of nodes.
    seed : int
        What a random family draws from.
    degree : int, optional
        Neighbours of each node, where the family lets one choose.
    rates, weights : str
        Policies for edge rates and mixing weights, see ``topology.rates`` and ``topology.weights``.
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
    graph = make_graph(family, n, degree=degree, seed=seed)
    nodes = _place(n, host, port, http_port, named_hosts)
    pairs = sorted(tuple(sorted((int(a[1:]), int(b[1:])))) for a, b in graph.edges)
    owned = orient([(nodes[i].name, nodes[j].name) for i, j in pairs])
    position = {node.name: k for k, node in enumerate(nodes)}
    ends = np.array([(position[a], position[b]) for a, b in owned], dtype=np.int64)
    edge_rates, record = choose_rates(rates, n, ends)
    edge_weights = choose_weights(weights, n, ends)
    edges = (
        PlanEdge(a, b, float(rate), float(weight))
        for (a, b), rate, weight in zip(owned, edge_rates, edge_weights, strict=True)
    )
    return Plan(VERSION, family, seed, nodes, tuple(edges), record)


def _place(n: int, host: str, port: int, http_port: int | None, named_hosts: bool) -> tuple[Node, ...]:
    step, span = (0, 1) if named_hosts else (1, n)  # ports per node, and of all nodes
    if http_port is None:
        http_port = max(HTTP_PORT, port + span)
    for first in (port, http_port):
        if not 1 <= first <= 65536 - span:
            raise PlanError(f"{n} nodes from port {first} on leave the range 1 to 65535: choose another first port.")
    if abs(port - http_port) < span:
        raise PlanError(f"{n} nodes from ports {port} and {http_port} on would share ports: move one range away.")
    names = [f"n{k}" for k in range(n)]
    return tuple(
        Node(
            name,
            f"{name if named_hosts else host}:{port + step * k}",
            f"{name if named_hosts else host}:{http_port + step * k}",
        )
        for k, name in enumerate(names)
    )
