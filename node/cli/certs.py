"""``gradvine certs``: an authority and one certificate a peer, or the same certificates anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from node.errors import ConfigError, UserError


def certs(
    plan: Annotated[
        Path | None, typer.Option(help="Make certificates for the peers of this plan.", show_default=False)
    ] = None,
    names: Annotated[
        str | None, typer.Option(help="Make them for these peers instead: a,b,c.", show_default=False)
    ] = None,
    add: Annotated[
        str | None, typer.Option(help="Make them for these peers as well: n12,n13.", show_default=False)
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")] = Path("certs"),
    days: Annotated[int, typer.Option(help="Days that the certificates are valid.", min=1, max=3650)] = 365,
    renew: Annotated[
        bool,
        typer.Option("--renew", help="Keep authority and keys, write new certificates; by default for all in OUTPUT."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a certificate authority and a certificate for every peer and the operator.

    OUTPUT/NAME holds all that peer NAME needs; OUTPUT/authority stays with you.
    """
    from node.wire.authority import add_certificates, make_certificates, names_in

    if len([each for each in (plan, names, add) if each is not None]) > 1:
        raise UserError("--plan, --names and --add don't go together: write one of them.")
    if add is not None:
        made = add_certificates(_split(add), output, days=days, renew=renew)
    elif plan is not None:
        made = make_certificates(_names_in_plan(plan), output, days=days, renew=renew)
    elif names is not None:
        made = make_certificates(_split(names), output, days=days, renew=renew)
    elif renew:
        made = make_certificates(names_in(output), output, days=days, renew=True)
    else:
        raise UserError("whom are the certificates for? write --plan plan.json or --names a,b,c.")
    if as_json:
        typer.echo(json.dumps({"folder": str(output), "names": made, "days": days}))
    else:
        typer.echo(f"{len(made)} certificates for {days} days in {output}: {', '.join(made)}")
        typer.echo(f"keep {output / 'authority'} to yourself: whoever has its key can make more of them")


def _split(names: str) -> list[str]:
    return [name.strip() for name in names.split(",")]


def _names_in_plan(file: Path) -> list[str]:
    from topology.plan import PlanError, load_plan

    try:
        return [node.name for node in load_plan(file).nodes]
    except PlanError as error:
        raise ConfigError(str(error)) from None
