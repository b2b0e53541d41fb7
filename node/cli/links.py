"""``gradvine links``: a proxy between peers that delays, limits and cuts their links."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from node.errors import ConfigError


def links(
    plan: Annotated[Path, typer.Option(help="plan file, which says how links are")],
    listen: Annotated[str, typer.Option(metavar="HOST", help="where to listen")] = "0.0.0.0",
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="port of the plan's first peer; the others' follow", show_default="20000"),
    ] = None,
    target_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="where every peer listens, on the host of its name", show_default="7700"),
    ] = None,
    targets: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV", help="instead of these: lines 'listen,source,target,address', each for one direction"
        ),
    ] = None,
    control: Annotated[
        Path | None,
        typer.Option(help="file by which gradvine link reaches this proxy", show_default="gradvine-links in /tmp"),
    ] = None,
) -> None:
    """Carry the peers' connections, and shape their links as the plan says, until SIGTERM.

    The k-th peer of the plan is behind port 20000 + k; who calls is told by the address it comes from. gradvine link
    changes a link while this runs.
    """
    from node.links.control import CONTROL
    from node.links.doors import FIRST_PORT, PEER_PORT, doors_of, read_doors
    from node.links.serve import serve
    from node.logs import start_logging
    from topology.plan import PlanError, load_plan

    start_logging("info", "text", "links")
    try:
        read = load_plan(plan)
    except PlanError as error:
        raise ConfigError(str(error)) from None
    if targets and (port or target_port):
        raise ConfigError("--targets says it all: leave out --port and --target-port.")
    doors = (
        read_doors(targets, read)
        if targets
        else doors_of(read, listen, FIRST_PORT if port is None else port, target_port or PEER_PORT)
    )
    sys.exit(serve(read, doors, control or CONTROL))
