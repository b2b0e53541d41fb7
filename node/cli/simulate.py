"""``gradvine simulate``: a whole network in virtual time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from node.cli.options import with_run_flags
from node.config import RunConfig, duration_s, size_bytes
from node.errors import ConfigError

PANEL = "What goes wrong"
NETWORK = "The network"


@with_run_flags
def simulate(
    settings: RunConfig,
    plan: Annotated[Path | None, typer.Option(help="plan file", rich_help_panel=NETWORK)] = None,
    topology: Annotated[str | None, typer.Option(help="family (default: exponential)", rich_help_panel=NETWORK)] = None,
    nodes: Annotated[int | None, typer.Option(help="number of peers (default: 8)", rich_help_panel=NETWORK)] = None,
    degree: Annotated[int | None, typer.Option(help="neighbours a peer", rich_help_panel=NETWORK)] = None,
    data: Annotated[Path | None, typer.Option(help="shards made by gradvine data (default: the task's own)")] = None,
    out: Annotated[Path | None, typer.Option(help="folder of the run record (default: a new one in runs/)")] = None,
    json_: Annotated[bool, typer.Option("--json", help="print summary.json instead of a table")] = False,
    loss: Annotated[float, typer.Option(help="probability that a message is lost", rich_help_panel=PANEL)] = 0.0,
    duplicate: Annotated[float, typer.Option(help="probability that it comes twice", rich_help_panel=PANEL)] = 0.0,
    reorder: Annotated[float, typer.Option(help="probability that it is overtaken", rich_help_panel=PANEL)] = 0.0,
    delay: Annotated[str, typer.Option(help="mean delay of one way, such as 20ms", rich_help_panel=PANEL)] = "0s",
    bandwidth: Annotated[
        str | None, typer.Option(help="per second and message, such as 10MB", rich_help_panel=PANEL)
    ] = None,
    partition_at: Annotated[
        str | None, typer.Option(help="cut the network in halves, such as 20s:30s", rich_help_panel=PANEL)
    ] = None,
    crash: Annotated[int, typer.Option(help="crashes of random peers", min=0, rich_help_panel=PANEL)] = 0,
    crash_down: Annotated[str, typer.Option(help="how long a crashed peer is gone", rich_help_panel=PANEL)] = "5s",
    late: Annotated[
        int, typer.Option(help="of the plan's last nodes, how many join later", min=0, rich_help_panel=PANEL)
    ] = 0,
    late_between: Annotated[str, typer.Option(help="from when to when they do", rich_help_panel=PANEL)] = "10s:30s",
    leave: Annotated[int, typer.Option(help="random peers that leave", min=0, rich_help_panel=PANEL)] = 0,
    leave_between: Annotated[str, typer.Option(help="from when to when they do", rich_help_panel=PANEL)] = "10s:30s",
    stop: Annotated[
        str | None, typer.Option(help="part of all peers that fall silent for good, such as 80%", rich_help_panel=PANEL)
    ] = None,
    stop_at: Annotated[str, typer.Option(help="when they do", rich_help_panel=PANEL)] = "20s",
    churn: Annotated[
        str | None,
        typer.Option(help="mean times that a peer is up and silent by turns, such as 60s:10s", rich_help_panel=PANEL),
    ] = None,
    step_jitter: Annotated[
        float, typer.Option(help="spread of a local step's time, as a fraction", min=0, max=0.99, rich_help_panel=PANEL)
    ] = 0.0,
    batched: Annotated[bool, typer.Option(help="compute local steps of many peers together")] = True,
    mergeability: Annotated[
        str | None, typer.Option(help="look this often whether the models could be merged, such as every 10s")
    ] = None,
    mergeability_sample: Annotated[int, typer.Option(help="peers from whose models to look at the mean", min=1)] = 8,
) -> None:
    """Run a whole network in virtual time."""
    from node.testbed.experiment import choose_plan, open_experiment
    from node.testbed.happenings import Churn, Script, draw_crashes, draw_leaves, draw_stops, join_between
    from node.testbed.mergeability import Looks
    from node.testbed.simulate import simulate as run
    from node.testbed.simulated import Physics
    from node.wire.memory import Faults, Partition, halves

    if settings.drop:
        raise ConfigError(f"--drop is for daemons: write --loss {settings.drop:g} to lose messages in virtual time.")
    for name, value in (("loss", loss), ("duplicate", duplicate), ("reorder", reorder)):
        if not 0 <= value < 1:
            raise ConfigError(f"--{name} {value} can't be used: write a probability from 0 to below 1.")
    delay_s, crash_down_s = _seconds("delay", delay), _seconds("crash-down", crash_down)
    bytes_per_s = _bytes(bandwidth) if bandwidth else math.inf
    cuts_s = [_start_and_end("partition-at", partition_at)] if partition_at else []
    late_s, leave_s = _start_and_end("late-between", late_between), _start_and_end("leave-between", leave_between)
    stop_share, stop_at_s = _share("stop", stop) if stop else 0.0, _seconds("stop-at", stop_at)
    up_down_s = _two_durations("churn", churn) if churn else None
    look_every_s = _look_every(mergeability, settings.report_every) if mergeability else None
    chosen = choose_plan(plan, topology, nodes, degree, settings.seed)
    names = [node.name for node in chosen.nodes]
    learning = names[:1] if settings.algorithm == "centralised" else names
    founders, newcomers = learning[: len(learning) - late], learning[len(learning) - late :]
    _check_count("late", late, len(learning) - 1)
    _check_count("leave", leave, len(founders) - 1)
    experiment = open_experiment(chosen, settings, out, data).with_unit()
    unit_s, duration = experiment.unit_s, experiment.expected_units
    faults = Faults(
        loss=loss,
        duplicate=duplicate,
        reorder=reorder,
        delay=delay_s / unit_s,
        bandwidth=bytes_per_s * unit_s,
        partitions=tuple(Partition(start / unit_s, end / unit_s, halves(names)) for start, end in cuts_s),
    )
    joins = join_between(newcomers, _in_units(late_s, unit_s))
    leaves = draw_leaves(founders, leave, _in_units(leave_s, unit_s), settings.seed)
    script = Script(
        [
            *draw_crashes(founders, crash, crash_down_s / unit_s, duration, settings.seed),
            *joins,
            *leaves,
            *draw_stops(learning, [*joins, *leaves], stop_share, stop_at_s / unit_s, settings.seed),
        ],
        Churn(*_in_units(up_down_s, unit_s)) if up_down_s else None,
    )
    silent = bool(stop_share or up_down_s)
    snapshot_every = settings.snapshot_every / unit_s
    physics = Physics(faults, step_jitter=step_jitter, snapshot_every=snapshot_every, silent=silent)
    looks = Looks(look_every_s / unit_s, mergeability_sample) if look_every_s else None
    with _progress(duration) as advance:
        summary = run(experiment, physics, script, batched=batched, looks=looks, progress=advance)
    if json_:
        typer.echo(json.dumps(summary))
        return
    from node.testbed.report import present

    present(experiment.run_dir)


def _seconds(flag: str, text: str) -> float:
    try:
        return float(duration_s(text))
    except ValueError as error:
        raise ConfigError(f"--{flag} {text} can't be used: {error}.") from None


def _look_every(text: str, report_every_s: float) -> float:
    seconds = _seconds("mergeability", text)
    if not seconds >= report_every_s:
        raise ConfigError(
            f"--mergeability {text} can't be used: models are looked at when peers report, so write "
            f"{report_every_s:g}s or more, or a shorter --report-every."
        )
    return seconds


def _bytes(text: str) -> int:
    try:
        size = int(size_bytes(text))
    except ValueError as error:
        raise ConfigError(f"--bandwidth {text} can't be used: {error}.") from None
    if size < 1:
        raise ConfigError(f"--bandwidth {text} can't be used: write 1B or more, or leave it out.")
    return size


def _in_units(seconds: tuple[float, float], unit_s: float) -> tuple[float, float]:
    return seconds[0] / unit_s, seconds[1] / unit_s


def _start_and_end(flag: str, text: str) -> tuple[float, float]:
    moments = [_seconds(flag, moment) for moment in text.split(":")]
    if len(moments) != 2 or moments[0] >= moments[1]:
        raise ConfigError(f"--{flag} {text} can't be used: write a start and a later end, such as 20s:30s.")
    return moments[0], moments[1]


def _two_durations(flag: str, text: str) -> tuple[float, float]:
    both = [_seconds(flag, duration) for duration in text.split(":")]
    if len(both) != 2 or min(both) <= 0:
        raise ConfigError(f"--{flag} {text} can't be used: write two durations above 0, such as 60s:10s.")
    return both[0], both[1]


def _share(flag: str, text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise ConfigError(f"--{flag} {text} can't be used: write more than 0% and less than 100%, such as 80%.")
    return share


def _check_count(flag: str, count: int, most: int) -> None:
    if count > most:
        raise ConfigError(f"--{flag} {count} can't be used: somebody has to be there all along; write {most} or less.")


@contextmanager
def _progress(total: float) -> Iterator[Callable[[float], None]]:
    """A progress bar on stderr where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("simulating"), BarColumn(), TextColumn("{task.completed:.0f} of {task.total:.0f} units"))
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=total)
        yield lambda units: progress.update(bar, completed=units)
