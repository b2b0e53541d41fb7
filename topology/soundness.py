"""Whether a plan's nodes, edges and rates fit together; the complaints are one sentence each."""

from __future__ import annotations

import math
from collections import Counter, deque
from typing import TYPE_CHECKING

from topology.records import PlanError, unknown

if TYPE_CHECKING:
    from topology.plan import Plan

ROW_TOLERANCE = 1e-9
RATE_TOLERANCE = 1e-6


def check_nodes(plan: Plan) -> None:
    """Two nodes or more, each with a name and an address of its own; else a :class:`PlanError`."""
    if len(plan.nodes) < 2:
        raise PlanError(f"a plan needs at least two nodes, this one has {len(plan.nodes)}.")
    for key in ("name", "address"):
        value, times = Counter(getattr(node, key) for node in plan.nodes).most_common(1)[0]
        if times > 1:
            raise PlanError(f"{times} nodes have the {key} {value}: give every node its own.")


def check_edges(plan: Plan) -> None:
    """A simple connected graph on the nodes; else a :class:`PlanError`."""
    seen, names = set(), {node.name for node in plan.nodes}
    for edge in plan.edges:
        for end in (edge.a, edge.b):
            if end not in names:
                raise PlanError("an edge ends nowhere: " + unknown("node", end, names))
        pair = frozenset((edge.a, edge.b))
        if pair in seen:
            raise PlanError(f"the edge {edge.a} – {edge.b} is there twice: keep one of them.")
        seen.add(pair)
    stranded = len(plan.nodes) - _reached(plan)
    if stranded:
        raise PlanError(f"the plan is not connected: {stranded} nodes can't be reached from {plan.nodes[0].name}.")


def _reached(plan: Plan) -> int:
    start = plan.nodes[0].name
    reached, queue = {start}, deque([start])
    while queue:
        new = plan.edges_of(queue.popleft()).keys() - reached
        reached |= new
        queue.extend(new)
    return len(reached)


def check_rates(plan: Plan) -> None:
    """Rates that sum to what is promised, and rows of the mixing matrix that can be; else a :class:`PlanError`."""
    total = sum(edge.rate for edge in plan.edges)
    if not math.isclose(total, plan.rates.total_rate, rel_tol=RATE_TOLERANCE):
        raise PlanError(
            f"the edges' rates sum to {total:.9g}, but total_rate is {plan.rates.total_rate:.9g}: make the plan anew."
        )
    for name in (node.name for node in plan.nodes):
        row = sum(edge.weight for edge in plan.edges_of(name).values())
        # What is left is the node's own weight, 1 − row, an entry like the others: from −1 to 1.
        if not -ROW_TOLERANCE <= row <= 2 + ROW_TOLERANCE:
            raise PlanError(f"the weights of {name}'s edges sum to {row:.9g}: write ones that sum to 0 to 2.")
