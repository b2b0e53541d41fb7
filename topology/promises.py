"""What a plan promises, in figures and in words: what it costs, what was gained, how far from the best it may be."""

from __future__ import annotations

from typing import Any

import numpy as np

from topology.measures import chis, diameter, edge_ends, messages_sent, mixing_gap, total_rate
from topology.plan import Plan
from topology.problem import Ends, Reals

IDLE = 1e-3
SAME = 1e-3
FAR = 0.1


def promises(plan: Plan, model_bytes: int) -> dict[str, Any]:
    """All figures of a plan by name: what ``gradvine show --json`` prints.

    Parameters
    ----------
    plan : Plan
    model_bytes : int
        Size of one model on the wire, in bytes.

    Returns
    -------
    dict
        The plan's rates record, and beside it: counts of nodes and edges, degrees, the most edges owned by one
        node, edges that hardly ever exchange, diameter (hops), spectral gap of one round, the cost of all exchanges
        per unit of time and that of uniform rates, and messages and bytes sent per node and unit of time.
    """
    n, ends = len(plan.nodes), edge_ends(plan)
    rates = np.array([edge.rate for edge in plan.edges])
    costs = np.array([edge.cost for edge in plan.edges])
    degrees = np.bincount(ends.ravel(), minlength=n)
    sent = messages_sent(n, ends, rates)
    weights = np.array([edge.weight for edge in plan.edges])
    return {
        "family": plan.family,
        "nodes": n,
        "edges": len(ends),
        **vars(plan.rates),
        "total_cost": float(costs @ rates),
        "uniform_cost": uniform_cost(n, ends, costs),
        "idle_edges": int(np.sum(rates < IDLE * rates.mean())),
        "diameter": diameter(n, ends),
        "spectral_gap": mixing_gap(n, ends, weights),
        "degree": {"min": int(degrees.min()), "mean": float(degrees.mean()), "max": int(degrees.max())},
        "edges_owned_max": int(np.bincount(ends[:, 0]).max()),
        "messages_sent": {"mean": float(sent.mean()), "max": float(sent.max())},
        "bytes_sent": {"mean": float(sent.mean() * model_bytes), "max": float(sent.max() * model_bytes)},
        "model_bytes": model_bytes,
        "digest": plan.digest,
        **_links(plan),
    }


def _links(plan: Plan) -> dict[str, Any]:
    """Least and most of what is said of links, and of how many; nothing where nothing is."""
    figures = {}
    for key in ("delay", "bandwidth"):
        if said := [value for edge in plan.edges if (value := getattr(edge, key)) is not None]:
            figures[f"link_{key}"] = {"min": min(said), "max": max(said), "edges": len(said)}
    return figures


def uniform_cost(n: int, ends: Ends, costs: Reals) -> float:
    """What exchanges cost per unit of time when every edge has them equally often, just stably."""
    return total_rate(*chis(n, ends, np.full(len(ends), 1 / len(ends)))) * float(costs.mean())


def verdict(figures: dict[str, Any]) -> str:
    """One sentence on what a policy has gained over uniform rates, also when that is nothing or less.

    Parameters
    ----------
    figures : dict
        As :func:`promises` gives them.
    """
    policy, cost, uniform = figures["policy"], figures["total_cost"], figures["uniform_cost"]
    gap, least = figures["certified_gap"], f"no rates need less than {figures['lower_bound']:.4g}"
    best = f"within {upward(gap)} of the best possible"
    if policy == "uniform":
        if gap <= SAME:
            return "Uniform rates are the best there are for this graph."
        return "Uniform rates know nothing of the graph: '--rates optimal' says what better ones would save."
    said = f"{policy.capitalize()} rates need"
    if cost > uniform * (1 + SAME):
        why = (
            "which break the limits that were set"
            if policy == "optimal"
            else "as they mend chi1 at the expense of chi2"
        )
        return f"{said} {cost / uniform - 1:.1%} more than uniform ones, {why}."
    if cost >= uniform * (1 - SAME):
        if gap > FAR:
            return f"Nothing better than uniform rates was found; {least}."
        return f"Nothing was gained: uniform rates do as well on this graph; these are {best}."
    known = f"and are {best}" if gap <= FAR else least
    return f"{said} {1 - cost / uniform:.1%} less than uniform ones{',' if gap <= FAR else ';'} {known}."


def upward(part: float) -> str:
    """A part in per cent with two digits, rounded up, so that what is said is true."""
    part = max(part, 1e-5)
    unit = 10.0 ** np.floor(np.log10(part * 100) - 1)
    return f"{np.ceil(part * 100 / unit * (1 - 1e-9)) * unit:.3g} %"
