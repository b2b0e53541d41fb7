"""What the planner's commands share: their flags, the progress of a search, and complaints as sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from node.config import duration_s, size_bytes
from node.errors import ConfigError, UserError
from topology.records import PlanError

if TYPE_CHECKING:
    from topology.problem import Step, Stop, Watch

GRAPH = "The graph"
RATES = "The rates"
ADDRESSES = "The addresses"
PICTURES = (".png", ".svg", ".pdf")

Nodes = Annotated[
    int | None, typer.Option("--nodes", "-n", help="Number of peers, 2 or more.", show_default="as many as a file has")
]
Degree = Annotated[
    int | None,
    typer.Option(help="Neighbours of each peer: regular, small-world.", show_default="4", rich_help_panel=GRAPH),
]
Seed = Annotated[
    int, typer.Option(help="What random families draw from; the same seed, the same graph.", rich_help_panel=GRAPH)
]
Probability = Annotated[
    float | None,
    typer.Option(
        help="Of an edge to be there (erdos-renyi), or to be rewired (small-world).",
        show_default="2·ln N/N; 0.1",
        rich_help_panel=GRAPH,
    ),
]
Radius = Annotated[
    float | None,
    typer.Option(
        help="Up to which distance peers in the unit square are joined: geometric.",
        show_default="1.3·√(ln N/(π·N)), or what connects them",
        rich_help_panel=GRAPH,
    ),
]
LinkCosts = Annotated[
    Path | None,
    typer.Option(
        "--link-costs",
        metavar="CSV",
        help="What an exchange costs: lines 'a,b,cost'; 1 where there is none.",
        show_default=False,
        rich_help_panel=RATES,
    ),
]
Capacities = Annotated[
    Path | None,
    typer.Option(
        metavar="CSV",
        help="The most exchanges per unit of time on a link: lines 'a,b,capacity'.",
        show_default=False,
        rich_help_panel=RATES,
    ),
]
Budgets = Annotated[
    Path | None,
    typer.Option(
        metavar="CSV",
        help="The most exchanges per unit of time that a peer takes part in: lines 'name,budget'.",
        show_default=False,
        rich_help_panel=RATES,
    ),
]
LinkNatures = Annotated[
    Path | None,
    typer.Option(
        "--links",
        metavar="CSV",
        help="What links are like, in virtual time and behind 'gradvine links': lines 'a,b,delay,bandwidth'.",
        show_default=False,
        rich_help_panel=GRAPH,
    ),
]
MaxGap = Annotated[
    float,
    typer.Option(
        help="Search until the cost is proved to be at most this part above the best possible.", rich_help_panel=RATES
    ),
]
TimeLimit = Annotated[
    str,
    typer.Option(
        metavar="DURATION",
        help="Search no longer than this, such as 30s or 5m; what is found is used.",
        rich_help_panel=RATES,
    ),
]
Solver = Annotated[
    str,
    typer.Option(
        help="What searches: auto, interior-point, first-order, or cvxpy (a reference for small graphs).",
        rich_help_panel=RATES,
    ),
]
ModelSize = Annotated[
    str, typer.Option("--model-size", metavar="SIZE", help="Size of one model on the wire, such as 400KB or 40MiB.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


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


def stop_rule(max_gap: float, time_limit: str) -> Stop:
    """``--max-gap`` and ``--time-limit`` together; a :class:`ConfigError` for what they can't be."""
    from topology.problem import Stop

    try:
        limit_s = float(duration_s(time_limit))
    except ValueError as error:
        raise ConfigError(f"--time-limit {time_limit} can't be used: {error}.") from None
    if not 0 < limit_s < math.inf:
        raise ConfigError(f"--time-limit {time_limit} can't be used: write a duration above zero.")
    if not 0 <= max_gap < math.inf:
        raise ConfigError(f"--max-gap {max_gap} can't be used: write a part such as 0.001, for 0.1 %.")
    return Stop(max_gap, limit_s)


def need_nodes(families: list[str], nodes: int | None) -> None:
    """Refuse to guess a number of peers: only files have one of their own."""
    if nodes is None and not all(family.startswith("file:") for family in families):
        raise typer.BadParameter("say how many peers, such as --nodes 8.", param_hint="--nodes")


def model_bytes(text: str) -> int:
    """``--model-size`` in bytes; a :class:`ConfigError` when it is no size."""
    try:
        return int(size_bytes(text))
    except ValueError as error:
        raise ConfigError(f"--model-size {text} can't be used: {error}.") from None


def check_picture(path: Path | None) -> None:
    """Refuse a picture whose name has no ending that can be drawn, before any work is done for it."""
    if path and path.suffix.lower() not in PICTURES:
        raise ConfigError(f"--draw {path} can't be used: write a name that ends in {', '.join(PICTURES)}.")
    check_target(path)


def check_target(path: Path | None) -> None:
    """Refuse a file that can't be written since its folder is missing, before any work is done for it."""
    if path and not path.absolute().parent.is_dir():
        raise ConfigError(f"{path} can't be written: there is no folder {path.parent}.")
    if path and path.is_dir():
        raise ConfigError(f"{path} can't be written: it is a folder.")


@contextmanager
def closing_gap(what: str, max_gap: float) -> Iterator[Watch]:
    """Show on stderr how far above the best possible a search still may be; nothing when that is no terminal.

    Yields what to tell about every step.
    """
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=None)

        def watch(step: Step) -> None:
            if math.isfinite(step.gap):
                # Each tenfold smaller gap is the same piece of the way from 100 % to what was asked for.
                way = -math.log10(max(min(step.gap, 1.0), 1e-12)) / -math.log10(min(max(max_gap, 1e-12), 0.5))
                progress.update(
                    task,
                    total=1.0,
                    completed=min(1.0, way),
                    description=f"{what}: at most {step.gap:.2%} above the best possible",
                )

        yield watch
