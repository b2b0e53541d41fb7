"""``gradvine show``: what a plan promises."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from node.cli.planner import AsJson, ModelSize, check_picture, model_bytes, planning
from node.cli.promises import print_promises
from topology.plan import load_plan


def show(
    path: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan that 'gradvine plan -o' has written.")],
    draw: Annotated[Path | None, typer.Option(help="Draw the plan here: .png, .svg or .pdf.")] = None,
    model_size: ModelSize = "1MiB",
    as_json: AsJson = False,
) -> None:
    """Print what a plan promises: rates, bounds, spectral gap, and what each peer sends per unit of time.

    One unit of time is the time of one local gradient.
    """
    size = model_bytes(model_size)
    check_picture(draw)
    with planning():
        plan = load_plan(path)
        if draw:
            from topology.draw import draw_plan

            draw_plan(plan, draw)
        print_promises(plan, size, as_json)
