"""``gradvine version``."""

from __future__ import annotations

from importlib import metadata

import typer


def version() -> None:
    """Print the versions of gradvine and of its formats."""
    from node.testbed import record
    from topology import plan

    typer.echo(f"gradvine {metadata.version('gradvine')}")
    typer.echo(f"plan format {plan.VERSION}, run record {record.VERSION}")
