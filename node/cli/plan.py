"""``gradvine plan``: make a plan, write it, draw it, print what it promises."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from node.cli import planner
from node.cli.planner import check_picture, check_target, closing_gap, model_bytes, need_nodes, planning, stop_rule
from node.cli.promises import print_promises
from topology.plan import save_plan

FAMILIES = (
    "complete, ring, line, star, grid, torus, hypercube, exponential, regular, erdos-renyi, geometric, small-world, "
    "tree, barbell, lollipop, or file:PATH for a graph of your own (edge list, GraphML or plan)."
)


def plan(
    family: Annotated[str, typer.Argument(help=FAMILIES, show_default=False)],
    nodes: planner.Nodes = None,
    degree: planner.Degree = None,
    seed: planner.Seed = 0,
    probability: planner.Probability = None,
    radius: planner.Radius = None,
    rates: Annotated[
        str,
        typer.Option(
            help="How often each edge exchanges: optimal, connectivity or uniform.", rich_help_panel=planner.RATES
        ),
    ] = "optimal",
    weights: Annotated[
        str, typer.Option(help="Mixing matrix of synchronous rounds: metropolis, best-constant, fdla or fmmc.")
    ] = "metropolis",
    link_costs: planner.LinkCosts = None,
    capacities: planner.Capacities = None,
    budgets: planner.Budgets = None,
    links: planner.LinkNatures = None,
    max_gap: planner.MaxGap = 0.001,
    time_limit: planner.TimeLimit = "60s",
    solver: planner.Solver = "auto",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the plan here, as JSON.")] = None,
    draw: Annotated[Path | None, typer.Option(help="Draw the plan here: .png, .svg or .pdf.")] = None,
    host: Annotated[str, typer.Option(help="Host of all peers.", rich_help_panel=planner.ADDRESSES)] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port of the first peer; the others' follow.", rich_help_panel=planner.ADDRESSES)
    ] = 7700,
    http_port: Annotated[
        int | None,
        typer.Option(
            help="Port of the first peer's health and metrics page.",
            show_default="9700, or after the peers'",
            rich_help_panel=planner.ADDRESSES,
        ),
    ] = None,
    named_hosts: Annotated[
        bool,
        typer.Option(
            "--named-hosts",
            help="Every peer on a host of its own name, with the same ports: containers.",
            rich_help_panel=planner.ADDRESSES,
        ),
    ] = False,
    model_size: planner.ModelSize = "1MiB",
    as_json: planner.AsJson = False,
) -> None:
    """Plan who exchanges models with whom, and how often.

    Rates are exchanges per unit of time; one unit is the time of one local gradient.
    """
    size, stop = model_bytes(model_size), stop_rule(max_gap, time_limit)
    need_nodes([family], nodes)
    check_picture(draw)
    check_target(output)
    with planning():
        from topology.planning import Demands, build_plan

        with closing_gap(f"planning {family}", max_gap) as watch:
            made = build_plan(
                family,
                nodes,
                seed=seed,
                degree=degree,
                probability=probability,
                radius=radius,
                rates=rates,
                weights=weights,
                demands=Demands(link_costs, capacities, budgets, links),
                stop=stop,
                watch=watch,
                solver=solver,
                host=host,
                port=port,
                http_port=http_port,
                named_hosts=named_hosts,
            )
        if output:
            save_plan(made, output)
        if draw:
            from topology.draw import draw_plan

            draw_plan(made, draw)
        print_promises(made, size, as_json)
