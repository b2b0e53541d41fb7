"""``gradvine finish``: end a run, and have its peers merge their models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from node.errors import ConfigError, NetworkError


def finish(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="where the neighbours of any peer reach it")],
    certs: Annotated[
        Path | None, typer.Option(help="the operator's folder out of those that gradvine certs wrote")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="plaintext, of a run in plaintext")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """End a run that has a final merge: any peer tells all others, and the models of all are merged.

    Returns at once; gradvine status shows the phase "merging" until a peer has the merged model and ends.
    """
    import trio

    from node.wire.finishing import finish_run
    from node.wire.tls import Identity
    from topology.plan import is_address

    if not is_address(address):
        raise ConfigError(f"{address} is no address: write HOST:PORT, such as 10.0.0.7:7700.")
    if insecure == (certs is not None):
        raise NetworkError("write --certs with the operator's folder, or --insecure for a run in plaintext.")
    peer, neighbours = trio.run(finish_run, address, Identity.load(certs) if certs else None)
    if as_json:
        typer.echo(json.dumps({"address": address, "peer": peer or None, "neighbours": neighbours}))
    else:
        typer.echo(f"the run ends: {peer or address} tells {neighbours} neighbours, and they all others")
