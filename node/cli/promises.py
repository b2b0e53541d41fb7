"""Prints what plans promise: a table for people with a sentence on what was gained, or JSON."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from topology.quantities import duration_text, rate_text, size_text

if TYPE_CHECKING:
    from topology.plan import Plan


def print_promises(plan: Plan, model_bytes: int, as_json: bool) -> None:
    """Print a plan's figures to stdout, as JSON or as a table for people."""
    from topology.promises import promises, verdict

    figures = promises(plan, model_bytes)
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
        return
    console = Console()
    console.print(_table(figures))
    console.print(verdict(figures), highlight=False, markup=False)


def _table(figures: dict[str, Any]) -> Table:
    title = f"{escape(figures['family'])}, {figures['nodes']} peers"
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for row in (*_graph_rows(figures), *_rate_rows(figures)):
        table.add_row(*row)
    return table


def _graph_rows(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    degree = figures["degree"]
    span = f"{degree['min']} to {degree['max']}" if degree["min"] < degree["max"] else degree["min"]
    rows = [
        ("edges", str(figures["edges"]), f"a peer has {span}, {degree['mean']:.3g} on average"),
        ("edges owned", str(figures["edges_owned_max"]), "the most by one peer, who starts their exchanges"),
        ("diameter", str(figures["diameter"]), "hops"),
        ("spectral gap", f"{figures['spectral_gap']:.4g}", "part of disagreement that one round removes"),
    ]
    for key, what, text in (("link_delay", "delays", duration_text), ("link_bandwidth", "bandwidths", rate_text)):
        if said := figures.get(key):
            least_and_most = dict.fromkeys((text(said["min"]), text(said["max"])))
            rows.append((what, " to ".join(least_and_most), f"of {said['edges']} links, one way"))
    return rows


def _rate_rows(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    from topology.promises import upward

    messages, sent, policy = figures["messages_sent"], figures["bytes_sent"], figures["policy"]
    rows = [
        ("chi1", f"{figures['chi1']:.6g}", "of rates that sum to 1: how slowly all agree"),
        ("chi2", f"{figures['chi2']:.6g}", "of rates that sum to 1: the worst edge"),
        ("total rate", f"{figures['total_rate']:.6g}", f"exchanges per unit of time, {escape(policy)} rates"),
        ("lower bound", f"{figures['lower_bound']:.6g}", "no choice of rates gets by with less"),
        ("messages sent", f"{messages['mean']:.4g}", f"per peer and unit; {messages['max']:.4g} by the busiest peer"),
        (
            "bytes sent",
            size_text(sent["mean"]),
            f"per peer and unit; {size_text(sent['max'])} by the busiest, model {size_text(figures['model_bytes'])}",
        ),
        ("found by", escape(figures["solver"]), f"in {figures['seconds']:.3g} s"),
    ]
    if not math.isclose(figures["total_cost"], figures["total_rate"], rel_tol=1e-6):
        rows.insert(3, ("total cost", f"{figures['total_cost']:.6g}", "of all exchanges, per unit of time"))
    if policy == "optimal":
        rows.insert(-3, ("certified gap", upward(figures["certified_gap"]), "above the lower bound, at most"))
    if policy == "connectivity":
        rows.insert(-3, ("policy gap", upward(figures["policy_gap"]), "of 1/chi1, which this policy makes large"))
    if figures["idle_edges"]:
        rows.insert(3, ("idle edges", str(figures["idle_edges"]), "exchange a thousand times less than the mean edge"))
    return rows
