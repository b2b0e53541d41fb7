"""``gradvine run``: one peer, as a daemon."""

from __future__ import annotations

import math
import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from node.cli.options import with_run_flags
from node.config import RunConfig, duration_s
from node.errors import ConfigError

PEER = "This peer"


@with_run_flags
def run(
    settings: RunConfig,
    name: Annotated[str, typer.Option(help="which node of the plan this is, or who joins", rich_help_panel=PEER)],
    data: Annotated[Path, typer.Option(help="folder that gradvine data wrote", rich_help_panel=PEER)],
    plan: Annotated[Path | None, typer.Option(help="plan file, the same on all peers", rich_help_panel=PEER)] = None,
    join: Annotated[
        str | None,
        typer.Option(help="instead of a plan, HOST:PORT of any member of a run to join", rich_help_panel=PEER),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="with --join: HOST:PORT where others reach this peer", rich_help_panel=PEER)
    ] = None,
    certs: Annotated[
        Path | None,
        typer.Option(help="this peer's folder out of those that gradvine certs wrote", rich_help_panel=PEER),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="plaintext, names unproven", rich_help_panel=PEER)
    ] = False,
    denied: Annotated[
        Path | None, typer.Option(help="file of names and serials that are not let in", rich_help_panel=PEER)
    ] = None,
    state: Annotated[Path | None, typer.Option(help="folder of this peer's snapshots", rich_help_panel=PEER)] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on from the snapshot, if there is one", rich_help_panel=PEER)
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="folder of the run record that this peer adds to", rich_help_panel=PEER)
    ] = None,
    http: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT of status and metrics", show_default="the plan's; a free port", rich_help_panel=PEER
        ),
    ] = None,
    bind: Annotated[
        str | None,
        typer.Option(help="HOST:PORT to listen on", show_default="where others reach it", rich_help_panel=PEER),
    ] = None,
    wait_for_neighbours: Annotated[
        str, typer.Option(help="longest wait for them before the clock starts", rich_help_panel=PEER)
    ] = "30s",
) -> None:
    """Run one peer, of a plan or one that joins, until its duration is over or it is told to stop.

    SIGTERM drains and exits with 0 in under 8 s. SIGHUP reads certificates and --denied again.
    """
    from node.logs import start_logging

    try:
        wait_s = float(duration_s(wait_for_neighbours))
        if not 0 <= wait_s < math.inf:
            raise ValueError("write a duration such as 30s, or 0s to wait for nobody")
    except ValueError as error:
        raise ConfigError(f"--wait-for-neighbours {wait_for_neighbours} can't be used: {error}.") from None
    start_logging(settings.log_level, settings.log_format, name)
    _end_at_once_on_signals()
    # One thread a peer: many peers share a machine, and sums then have the same order everywhere.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # What gRPC has to say of connections that end is said by who misses the peer.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    from node.daemon import run_daemon
    from node.orders import Orders

    orders = Orders(name, data, plan, join, address, certs, insecure, denied, state, resume, out, http, bind, wait_s)
    sys.exit(run_daemon(orders, settings))


def _end_at_once_on_signals() -> None:
    """Until the daemon runs and heeds signals itself: nothing has begun that would have to be ended in order."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
