"""``gradvine status``: one peer, now."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from node.errors import NetworkError

TIMEOUT_S = 5.0
SIZE_BYTES_MAX = 2**24


def status(
    address: Annotated[str, typer.Argument(metavar="HOST:PORT", help="where the peer serves status and metrics")],
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="print nothing; the exit code says whether it is ready")
    ] = False,
) -> None:
    """Show how one peer is doing. Exits with 0 if it answers (--quiet: and is ready), else with 30."""
    now = read_status(address)
    if quiet:
        sys.exit(0 if now["ready"] else NetworkError.exit_code)
    if as_json:
        typer.echo(json.dumps(now))
    else:
        _show(now)


def read_status(address: str) -> dict[str, Any]:
    """What the peer that serves its status on ``address`` says of itself.

    Raises
    ------
    NetworkError
        When none answers, or something else does.
    """
    import urllib.request
    from http.client import HTTPException, InvalidURL

    # Straight to the peer: a proxy of the environment has no business here.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{address}/status", timeout=TIMEOUT_S) as answer:
            now = json.loads(answer.read(SIZE_BYTES_MAX))
            if {"name", "ready", "peers"} <= now.keys():
                return dict(now)
    except (InvalidURL, OverflowError):
        raise NetworkError(f"{address} is no address: write host:port, such as 127.0.0.1:9700.") from None
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise NetworkError(f"no peer answers on {address}: {reason}.") from None
    except (ValueError, AttributeError, HTTPException):
        pass
    raise NetworkError(f"what answers on {address} is no peer: give the address that gradvine run serves status on.")


def _show(now: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    facts = Table(title=f"{now['name']} in {now['run']}", show_header=False, title_justify="left")
    for key, value in now.items():
        if not isinstance(value, dict) and key not in ("name", "run"):
            facts.add_row(key.replace("_", " "), _text(value))
    peers = Table("neighbour", "state", "asked /s", "achieved /s", "exchanges", "undelivered")
    for name, peer in now["peers"].items():
        figures = (peer["rate_asked_hz"], peer["rate_achieved_hz"], peer["exchanges"])
        undelivered = now["undelivered"].get(name, 0)
        peers.add_row(name, peer["state"], *map(_text, figures), _text(undelivered))
    Console().print(facts, peers)


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e6 else str(value)
