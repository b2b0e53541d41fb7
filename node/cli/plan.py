"""``gradvine plan``: make a plan, write it, draw it, print what it promises."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from node.cli.show import AsJson, ModelSize, planning, print_promises
from topology.plan import save_plan


def plan(
    family: Annotated[
        str, typer.Argument(help="complete, ring, line, star, grid, torus, exponential or regular.", show_default=False)
    ],
    nodes: Annotated[int, typer.Option("--nodes", "-n", help="Number of peers, 2 or more.", show_default=False)],
    degree: Annotated[
        int | None, typer.Option(help="Neighbours of each peer (regular).", show_default="4 where one can choose")
    ] = None,
    seed: Annotated[int, typer.Option(help="What random families draw from; the same seed, the same plan.")] = 0,
    rates: Annotated[str, typer.Option(help="How often each edge exchanges: uniform.")] = "uniform",
    weights: Annotated[str, typer.Option(help="Mixing matrix of synchronous rounds: metropolis.")] = "metropolis",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the plan here, as JSON.")] = None,
    draw: Annotated[Path | None, typer.Option(help="Draw the plan here: .png, .svg or .pdf.")] = None,
    host: Annotated[str, typer.Option(help="Host of all peers.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the first peer; the others' follow.")] = 7700,
    http_port: Annotated[
        int | None,
        typer.Option(
            help="Port of the first peer's health and metrics page.", show_default="9700, or after the peers'"
        ),
    ] = None,
    named_hosts: Annotated[
        bool,
        typer.Option("--named-hosts", help="Every peer on a host of its own name, with the same ports: containers."),
    ] = False,
    model_size: ModelSize = "1MiB",
    as_json: AsJson = False,
) -> None:
    """Plan who exchanges models with whom, and how often.

    Rates are exchanges per unit of time; one unit is the time of one local gradient.
    """
    with planning():
        from topology.planning import build_plan

        with Console(stderr=True).status(f"planning {nodes} peers"):
            made = build_plan(
                family,
                nodes,
                seed=seed,
                degree=degree,
                rates=rates,
                weights=weights,
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
        print_promises(made, model_size, as_json)
