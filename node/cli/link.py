"""``gradvine link``: how the links of a proxy are, and orders to change one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from node.errors import ConfigError


def link(
    a: Annotated[str | None, typer.Argument(help="peer at one end", show_default="all links")] = None,
    b: Annotated[str | None, typer.Argument(help="peer at the other")] = None,
    cut: Annotated[
        bool | None, typer.Option("--cut/--heal", help="let nothing through, or everything again", show_default=False)
    ] = None,
    delay: Annotated[str | None, typer.Option(metavar="DURATION", help="one way, such as 50ms")] = None,
    bandwidth: Annotated[
        str | None, typer.Option(metavar="SIZE", help="a second and way, such as 1MiB; none for no limit")
    ] = None,
    control: Annotated[
        Path | None, typer.Option(help="the proxy's --control", show_default="gradvine-links in /tmp")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """Show how links are, or change one, while gradvine links carries them on this machine or in this container."""
    from node.links.control import CONTROL, command
    from node.links.table import say

    changes = _changes(cut, delay, bandwidth)
    if a and b is None:
        raise ConfigError(f"a link has two ends: write gradvine link {a} and another peer.")
    if changes and not a:
        raise ConfigError("which link is to change? write the peers at its ends, such as gradvine link n0 n3 --cut.")
    found = command(control or CONTROL, {"a": a, "b": b, **changes} if a else {})
    if as_json:
        typer.echo(json.dumps(found))
    elif a:
        typer.echo(say(found[0]))
    else:
        _show(found)


def _changes(cut: bool | None, delay: str | None, bandwidth: str | None) -> dict[str, Any]:
    from topology.quantities import duration_s, size_bytes

    changes: dict[str, Any] = {} if cut is None else {"cut": cut}
    for what, text, read in (("delay", delay, duration_s), ("bandwidth", bandwidth, size_bytes)):
        try:
            if text is not None:
                changes[what] = None if (what, text) == ("bandwidth", "none") else read(text)
        except ValueError as error:
            raise ConfigError(f"--{what} {text} can't be used: {error}.") from None
    return changes


def _show(found: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from topology.quantities import duration_text, rate_text, size_text

    table = Table("link", "state", "delay", "bandwidth", "carried", "connections")
    for each in found:
        limit = "–" if each["bandwidth"] is None else rate_text(each["bandwidth"])
        figures = (duration_text(each["delay"]), limit, size_text(each["bytes"]), str(each["connections"]))
        table.add_row(f"{each['a']} – {each['b']}", each["state"], *figures)
    Console().print(table)
