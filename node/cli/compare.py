"""``gradvine compare``: families side by side, each with every rates policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from node.cli import planner
from node.cli.planner import check_picture, closing_gap, model_bytes, need_nodes, planning, stop_rule
from node.errors import ConfigError
from topology.quantities import size_text

if TYPE_CHECKING:
    from topology.plan import Plan

POLICIES = ("uniform", "connectivity", "optimal")


def compare(
    families: Annotated[
        list[str], typer.Argument(metavar="FAMILY...", help="As of 'gradvine plan'.", show_default=False)
    ],
    nodes: planner.Nodes = None,
    degree: planner.Degree = None,
    seed: planner.Seed = 0,
    probability: planner.Probability = None,
    radius: planner.Radius = None,
    max_gap: planner.MaxGap = 0.001,
    time_limit: planner.TimeLimit = "60s",
    solver: planner.Solver = "auto",
    draw: Annotated[
        Path | None, typer.Option(help="Draw the policies side by side here, of one family: .png, .svg or .pdf.")
    ] = None,
    model_size: planner.ModelSize = "1MiB",
    as_json: planner.AsJson = False,
) -> None:
    """Compare families at one size: what each costs with every rates policy, and how fast it mixes.

    --degree, --probability and --radius are used by the families that have them. --time-limit is for each search.
    """
    size_bytes, stop = model_bytes(model_size), stop_rule(max_gap, time_limit)
    if draw and len(families) > 1:
        raise ConfigError("--draw shows the policies of one family: compare one, or leave it out.")
    need_nodes(families, nodes)
    check_picture(draw)
    given = {"degree": degree, "probability": probability, "radius": radius}
    with planning():
        from topology.families import make_graph
        from topology.planning import build_plan, options_of

        asked: list[tuple[str, dict[str, Any]]] = [(name, {k: given[k] for k in options_of(name)}) for name in families]
        for family, options in asked:
            make_graph(family, nodes, seed=seed, **options)  # what can't be is said before anything is planned
        rows: list[dict[str, Plan]] = []
        for family, options in asked:
            rows.append({})
            for policy in POLICIES:
                with closing_gap(f"planning {family}, {policy} rates", max_gap) as watch:
                    rows[-1][policy] = build_plan(
                        family, nodes, seed=seed, rates=policy, stop=stop, watch=watch, solver=solver, **options
                    )
        if draw:
            from topology.draw import draw_comparison

            draw_comparison([plan for plans in rows for plan in plans.values()], draw)
        _print(rows, size_bytes, as_json)


def _print(rows: list[dict[str, Plan]], size_bytes: int, as_json: bool) -> None:
    from topology.promises import promises

    each = [{policy: promises(plan, size_bytes) for policy, plan in plans.items()} for plans in rows]
    if as_json:
        typer.echo(json.dumps([figures for row in each for figures in row.values()], indent=2))
        return
    console = Console()
    console.print(_table(each))
    for line in _words(each):
        console.print(line, highlight=False, markup=False)


def _table(each: list[dict[str, dict[str, Any]]]) -> Table:
    first = each[0]["optimal"]
    table = Table(
        title=f"{first['nodes']} peers, {size_text(first['model_bytes'])} a model; exchanges per unit by rates policy",
        title_justify="left",
        header_style="bold",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("family", no_wrap=True, max_width=14)
    for head in ("degree", "hops", "gap", *POLICIES, "saves", "sends"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in each:
        best = row["optimal"]
        degree = best["degree"]
        table.add_row(
            escape(best["family"]),
            f"{degree['min']}–{degree['max']}" if degree["min"] < degree["max"] else str(degree["min"]),
            str(best["diameter"]),
            f"{best['spectral_gap']:.2g}",
            *(_rate(row, policy) for policy in POLICIES),
            f"{1 - best['total_rate'] / row['uniform']['total_rate']:.1%}",
            size_text(best["bytes_sent"]["mean"]),
        )
    return table


def _rate(row: dict[str, dict[str, Any]], policy: str) -> str:
    rate = row[policy]["total_rate"]
    shown = f"{rate:.5g}"
    if rate > row["uniform"]["total_rate"] * 1.001:
        return f"[red]{shown}[/red]"
    return f"[green]{shown}[/green]" if rate < row["uniform"]["total_rate"] * 0.999 else shown


def _words(each: list[dict[str, dict[str, Any]]]) -> list[str]:
    """What the table says, in sentences."""
    from topology.promises import verdict

    words = [
        "hops: the diameter; gap: the spectral gap; saves: optimal against uniform rates; sends: a peer on average, "
        "per unit of time, with optimal rates.",
        "",
    ]
    words += [f"{row['optimal']['family']}: {verdict(row['optimal'])}" for row in each]
    worse = [row["optimal"]["family"] for row in each if _is_worse(row)]
    if worse:
        words.append(f"Connectivity rates need more than uniform ones on: {', '.join(worse)}.")
    if len(each) > 1:
        least = min(each, key=lambda row: float(row["optimal"]["total_rate"]))["optimal"]
        words.append(
            f"The fewest exchanges: {least['family']}, {least['total_rate']:.5g} per unit of time, "
            f"{size_text(least['bytes_sent']['mean'])} by a peer on average."
        )
    return words


def _is_worse(row: dict[str, dict[str, Any]]) -> bool:
    return bool(row["connectivity"]["total_rate"] > 1.001 * row["uniform"]["total_rate"])
