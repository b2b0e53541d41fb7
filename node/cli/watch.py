"""``gradvine watch``: a page on which a run can be followed."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.errors import ConfigError

if TYPE_CHECKING:
    from topology.plan import Plan

INTERRUPTED = 130


def watch(
    sources: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[SOURCE...]",
            help="A plan file, a RUN folder, or HOST:PORT of peers' status pages.",
            show_default="plan.json here, else the latest folder in runs/",
        ),
    ] = None,
    http: Annotated[str, typer.Option(metavar="HOST:PORT", help="Where the page is served.")] = "127.0.0.1:9600",
    every: Annotated[str, typer.Option(help="Time between two looks.")] = "1s",
    until_end: Annotated[
        bool, typer.Option("--until-end", help="End some seconds after the run, instead of on Ctrl-C.")
    ] = False,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Serve the page under this host name too; may be repeated.")
    ] = None,
) -> None:
    """Show a run while it goes on: topology, accuracy, exchanges and events, on a page of its own.

    Peers are only asked for their status pages. Of a run that is over, says where its report is.
    """
    from node.config import duration_s
    from node.watch.page import compose_page
    from node.watch.server import serve
    from node.watch.watch import Watch

    try:
        every_s = float(duration_s(every))
    except ValueError as error:
        raise ConfigError(f"--every {every} can't be used: {error}.") from None
    if not 0.1 <= every_s <= 3600:
        raise ConfigError(f"--every {every} can't be used: write a duration from 100ms to 1h, such as 1s.")
    given = [str(source) for source in sources or [_nearest()]]
    if len(given) == 1 and (over := _report_of(Path(given[0]))):
        typer.echo(over)
        return
    plan, addresses = _read(given)
    follower = Watch(addresses, plan, every_s)
    code = 0

    def stop(number: int, _: Any) -> None:
        nonlocal code
        code = INTERRUPTED if number == signal.SIGINT else 0
        follower.stopped.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    with serve(http, compose_page(), follower.audience, allow_host or ()) as url:
        typer.echo(f"{len(addresses)} peers at {url}", err=True)
        if open_:
            typer.launch(url)
        follower.follow(until_end)
    sys.exit(code)


def _nearest() -> Path:
    """What is watched where nothing is named."""
    runs = sorted(Path("runs").glob("*/plan.json"), key=lambda path: path.stat().st_mtime)
    for path in (Path("plan.json"), *(run.parent for run in runs[-1:])):
        if path.exists():
            return path
    raise ConfigError("there is no plan.json here and no run in runs/: name a plan, a RUN folder or HOST:PORT.")


def _report_of(run: Path) -> str | None:
    """Of a run that is over, where to read of it."""
    if not (run / "summary.json").exists():
        return None
    report = run / "report.html"
    return (
        f"the run in {run} is over: open {report}"
        if report.exists()
        else f"the run in {run} is over: write {report} with gradvine report {run}"
    )


def _read(sources: list[str]) -> tuple[Plan | None, dict[str, str]]:
    """The plan, if one is named, and where to ask, by name."""
    from topology.plan import PlanError, is_address, load_plan

    plan, addresses = None, {}
    for source in sources:
        path = Path(source) / "plan.json" if Path(source).is_dir() else Path(source)
        if not path.exists() and is_address(source):
            addresses[source] = source
        elif plan:
            raise ConfigError(f"{source} is a second plan: name one run at a time.")
        else:
            try:
                plan = load_plan(path)
            except PlanError as error:
                raise ConfigError(str(error)) from None
            addresses |= {node.name: node.http for node in plan.nodes}
    return plan, addresses
