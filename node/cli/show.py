"""``gradvine show``: what a plan promises."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from node.config import size_bytes
from node.errors import ConfigError, UserError
from topology.plan import load_plan
from topology.records import PlanError

if TYPE_CHECKING:
    from topology.plan import Plan

ModelSize = Annotated[
    str, typer.Option("--model-size", metavar="SIZE", help="Size of one model on the wire, such as 400KB or 40MiB.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


def show(
    path: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan that 'gradvine plan -o' has written.")],
    model_size: ModelSize = "1MiB",
    as_json: AsJson = False,
) -> None:
    """Print what a plan promises: rates, bounds, spectral gap, and what each peer sends per unit of time.

    One unit of time is the time of one local gradient.
    """
    with planning():
        print_promises(load_plan(path), model_size, as_json)


@contextmanager
def planning() -> Iterator[None]:
    """Turn the planner's complaints into sentences that the command line ends with.

    Raises
    ------
    ConfigError
        For a plan that can't be made, read or written.
    UserError
        When the planner's packages are not installed.
    """
    try:
        yield
    except PlanError as error:
        raise ConfigError(str(error)) from None
    except ModuleNotFoundError as error:
        raise UserError(f"this needs the package {error.name}: pip install 'gradvine[plan]'.") from None


def print_promises(plan: Plan, model_size: str, as_json: bool) -> None:
    """Print a plan's figures to stdout, as JSON or as a table for people."""
    from topology.measures import promises

    figures = promises(plan, _model_bytes(model_size))
    if as_json:
        typer.echo(json.dumps(figures, indent=2))
    else:
        Console().print(_table(figures))


def _model_bytes(text: str) -> int:
    try:
        return int(size_bytes(text))
    except ValueError as error:
        raise ConfigError(f"--model-size {text} can't be used: {error}.") from None


def _table(figures: dict[str, Any]) -> Table:
    degree, messages, sent = figures["degree"], figures["messages_sent"], figures["bytes_sent"]
    model = _size(figures["model_bytes"])
    table = Table(title=f"{figures['family']}, {figures['nodes']} peers", title_justify="left", show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    rows = [
        (
            "edges",
            str(figures["edges"]),
            f"a peer has {degree['min']} to {degree['max']}, {degree['mean']:.3g} on average",
        ),
        ("edges owned", str(figures["edges_owned_max"]), "the most by one peer, who starts their exchanges"),
        ("diameter", str(figures["diameter"]), "hops"),
        ("spectral gap", f"{figures['spectral_gap']:.4g}", "part of disagreement that one round removes"),
        ("chi1", f"{figures['chi1']:.6g}", "of rates that sum to 1: how slowly all agree"),
        ("chi2", f"{figures['chi2']:.6g}", "of rates that sum to 1: the worst edge"),
        ("total rate", f"{figures['total_rate']:.6g}", f"exchanges per unit of time, {figures['policy']} rates"),
        ("lower bound", f"{figures['lower_bound']:.6g}", "no choice of rates gets by with less"),
        ("certified gap", f"{figures['certified_gap']:.2%}", "total rate above the lower bound, at most"),
        ("messages sent", f"{messages['mean']:.4g}", f"per peer and unit; {messages['max']:.4g} by the busiest peer"),
        ("bytes sent", _size(sent["mean"]), f"per peer and unit; {_size(sent['max'])} by the busiest, model {model}"),
    ]
    for row in rows:
        table.add_row(*row)
    return table


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB"
