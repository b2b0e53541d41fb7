"""``gradvine testbed``: a whole network of real daemons on this machine."""

# ruff: noqa: PT028 - the command's name begins like a test's
from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from node.cli.options import with_run_flags
from node.config import RunConfig

NETWORK = "The network"


@with_run_flags
def testbed(
    settings: RunConfig,
    plan: Annotated[Path | None, typer.Option(help="plan file", rich_help_panel=NETWORK)] = None,
    topology: Annotated[
        str | None, typer.Option(help="family", show_default="exponential", rich_help_panel=NETWORK)
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(help="number of peers", show_default="8", rich_help_panel=NETWORK)
    ] = None,
    degree: Annotated[int | None, typer.Option(help="neighbours a peer", rich_help_panel=NETWORK)] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="plaintext instead of mTLS", rich_help_panel=NETWORK)
    ] = False,
    data: Annotated[Path | None, typer.Option(help="shards made by gradvine data (default: the task's own)")] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder of the run record", show_default="a new one in runs/")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="serve a page on which the run can be followed")] = False,
    http: Annotated[str, typer.Option(metavar="HOST:PORT", help="where that page is served")] = "127.0.0.1:9600",
    json_: Annotated[bool, typer.Option("--json", help="print summary.json instead of a table")] = False,
) -> None:
    """Run a whole network of real daemons on this machine, one process a peer."""
    import logging
    import signal
    from contextlib import nullcontext

    from rich.console import Console
    from rich.logging import RichHandler

    from node.testbed.experiment import choose_plan, open_experiment
    from node.testbed.testbed import place_here, run_testbed
    from node.watch.watch import watched

    console = Console(stderr=True)
    above_table = RichHandler(console=console, show_time=False, show_level=False, show_path=False)
    handler = above_table if console.is_terminal else logging.StreamHandler()
    logging.basicConfig(format="%(message)s", level=settings.log_level.upper(), handlers=[handler])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    here = place_here(choose_plan(plan, topology, nodes, degree, settings.seed))
    with watched(here, http) if watch else nullcontext() as url:
        experiment = open_experiment(here, settings, out, data)
        at = f", to be watched at {url}" if url else ""
        typer.echo(f"{len(here.nodes)} peers, record in {experiment.run_dir}{at}", err=True)
        summary = run_testbed(experiment, console=console, insecure=insecure)
    if json_:
        typer.echo(json.dumps(summary))
        return
    from node.testbed.report import present

    present(experiment.run_dir)
