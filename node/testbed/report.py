"""What is shown of runs: a table in the terminal, pictures, and a page that needs nothing else to be read."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node.errors import StorageError
from node.testbed.charts import draw_comparison, draw_run
from node.testbed.milestones import DISTANCES
from node.testbed.page import compose_comparison, compose_report
from node.testbed.rates import tempo_of
from node.testbed.runs import Run, load_run

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

CURVES, PAGE, COMPARISON = "curves.png", "report.html", "comparison"
NONE = "–"


def _reached(summary: Mapping[str, Any], level: str) -> Mapping[str, float]:
    found: Mapping[str, float] = summary.get("to_distance", {}).get(level, {})
    return found


def _time_to(level: str, summary: Mapping[str, Any]) -> str:
    return _units(_reached(summary, level).get("time"), 4)


Read = Callable[[Mapping[str, Any]], str]
"""A figure of a summary, as it is read."""

ROWS: Mapping[str, Read] = {
    "task": lambda summary: str(summary["task"]),
    "peers": lambda summary: str(summary["nodes"]),
    "transport": lambda summary: summary["transport"] or NONE,
    "time": lambda summary: _time(summary),
    "rounds": lambda summary: _count(summary.get("rounds")),
    "local steps": lambda summary: _count(summary["gradients"]),
    "samples": lambda summary: _count(summary.get("samples")),
    "exchanges": lambda summary: _count(summary["exchanges"]),
    "lost exchanges": lambda summary: _count(summary.get("lost_exchanges") or None),
    "exchange rate": lambda summary: _rates(summary),
    "exchange time, p99": lambda summary: _units(summary.get("exchange_p99_units")),
    "χ1·χ2": lambda summary: _chis(summary),
    "sent": lambda summary: size(summary["bytes_sent"]),
    "views sent": lambda summary: size(summary.get("view_bytes_sent") or None),
    "sent by a median peer": lambda summary: _load("bytes_sent", size, summary),
    "steps of a median peer": lambda summary: _load("gradients", _count, summary),
    "newest model": lambda summary: _newest(summary.get("newest")),
    "local accuracy": lambda summary: spread(summary["local_accuracy"]),
    "merged accuracy": lambda summary: _merged(summary),
    "averaged accuracy": lambda summary: _averaged(summary),
    "if merged now": lambda summary: _if_merged(summary.get("mergeability")),
    "cost of looking": lambda summary: _looking(summary.get("mergeability")),
    "distance to optimum": lambda summary: short(summary.get("distance")),
    **{f"time to {level}": partial(_time_to, level) for level in DISTANCES},
    f"samples to {DISTANCES[-1]}": lambda summary: _count(_reached(summary, DISTANCES[-1]).get("samples")),
    f"exchanges to {DISTANCES[-1]}": lambda summary: _count(_reached(summary, DISTANCES[-1]).get("exchanges")),
    "consensus distance": lambda summary: short(summary["consensus_distance"]),
    "ledger error": lambda summary: short(summary["ledger_error"]),
}
"""The figures of a run, as they are read."""

ALWAYS = {
    "task",
    "peers",
    "transport",
    "time",
    "local steps",
    "exchanges",
    "sent",
    "consensus distance",
    "ledger error",
}
"""The rows that are there even where no run has a figure to put into them."""


def present(folder: Path, out: Path | None = None) -> None:
    """Print the figures of a run on stdout, and write its picture and page, by default into its own folder."""
    from rich.console import Console

    run = load_run(folder)
    out = out or folder
    write_run(run, out)
    console = Console()
    _print_figures(console, [run])
    if run.summary["lost_peers"]:
        console.print(f"lost: {', '.join(run.summary['lost_peers'])}", style="bold", highlight=False)
    for remark in run.remarks:
        console.print(remark, style="bold", highlight=False, markup=False)
    console.print(f"{out}: {PAGE}, {CURVES}", soft_wrap=True, highlight=False, markup=False)


def present_several(folders: Sequence[Path], out: Path) -> None:
    """Print the figures of several runs side by side, and write their picture and page into the folder ``out``."""
    from rich.console import Console

    runs = [load_run(folder) for folder in folders]
    picture, page = write_comparison(runs, out)
    console = Console()
    _print_figures(console, runs)
    for run, label in zip(runs, labels(runs), strict=True):
        for remark in run.remarks:
            console.print(f"{label}: {remark}", style="bold", highlight=False, markup=False)
    console.print(f"{page}, {picture}", soft_wrap=True, highlight=False, markup=False)


def write_run(run: Run, out: Path) -> None:
    """Write ``curves.png`` and ``report.html`` of one run into the folder ``out``."""
    _make(out)
    figures = run.figures()
    draw_run(figures, out / CURVES)
    dark = _drawn(lambda path: draw_run(figures, path, dark=True))
    page = compose_report(run, figures_of([run]), (out / CURVES).read_bytes(), dark)
    (out / PAGE).write_text(page, encoding="utf-8")


def write_comparison(runs: Sequence[Run], out: Path) -> tuple[Path, Path]:
    """Write ``comparison.png`` and ``comparison.html`` of several runs into the folder ``out``."""
    _make(out)
    figures = [run.figures(label) for run, label in zip(runs, labels(runs), strict=True)]
    picture, page = out / f"{COMPARISON}.png", out / f"{COMPARISON}.html"
    draw_comparison(figures, picture)
    dark = _drawn(lambda path: draw_comparison(figures, path, dark=True))
    text = compose_comparison(f"{len(runs)} runs side by side", figures_of(runs), runs, picture.read_bytes(), dark)
    page.write_text(text, encoding="utf-8")
    return picture, page


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{folder} can't be written to: {error.strerror}.") from None


def _drawn(draw: Callable[[Path], None]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder) / "picture.png")
        return (Path(folder) / "picture.png").read_bytes()


# ------------------------------------------------------------------------------------------------ the figures


def labels(runs: Sequence[Run]) -> list[str]:
    """What tells the runs apart: the algorithm, what else differs, options, and the folder where nothing else does."""
    if len(runs) == 1:
        return [runs[0].title]
    forms: dict[str, str] = {"task": "{}", "nodes": "{} peers", "transport": "{}", "seed": "seed {}"}
    differing = [key for key in forms if len({str(run.summary[key]) for run in runs}) > 1]
    names = [
        ", ".join([str(run.summary["algorithm"]), *(forms[key].format(run.summary[key]) for key in differing)])
        for run in runs
    ]
    names = [_with_options(k, names, runs) for k in range(len(runs))]
    return [
        name if names.count(name) == 1 else f"{name}, {run.folder.resolve().name}"
        for name, run in zip(names, runs, strict=True)
    ]


def _with_options(k: int, names: Sequence[str], runs: Sequence[Run]) -> str:
    """The k-th name, and those of its options in which another run of this name differs."""
    given = [run.config.options if run.config else {} for run in runs]
    others = [options for name, options in zip(names, given, strict=True) if name == names[k]]
    differing = [key for key, value in given[k].items() if any(options.get(key) != value for options in others)]
    return ", ".join([names[k], *(f"{key}={given[k][key]}" for key in differing)])


def figures_of(runs: Sequence[Run]) -> list[list[str]]:
    """A table as text: a header, then a row for each figure with one value a run."""
    head = ["", *labels(runs)]
    summaries = [run.summary for run in runs]
    rows = [[name, *map(read, summaries)] for name, read in {**ROWS, **_until_accurate(summaries)}.items()]
    return [head, *(row for row in rows if row[0] in ALWAYS or set(row[1:]) != {NONE})]


def _until_accurate(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Read]:
    """What several runs took to the highest accuracy that all reached which reached any that is worth a line.

    Nothing of runs that are told by their distance to an optimum.
    """
    if all(summary.get("distance") is not None for summary in summaries):
        return {}
    reached = [set(summary["to_accuracy"]) for summary in summaries if summary.get("to_accuracy")]
    common = set.intersection(*reached) if len(reached) > 1 else set()
    if not common:
        return {}
    level = max(common, key=float)

    def took(key: str, show: Callable[[float | None], str]) -> Read:
        return lambda summary: show(summary.get("to_accuracy", {}).get(level, {}).get(key))

    until = f"to {100 * float(level):.0f} %"
    return {
        f"rounds {until}": took("rounds", _count),
        f"samples {until}": took("samples", _count),
        f"sent {until}": took("bytes_sent", size),
    }


def _print_figures(console: Console, runs: Sequence[Run]) -> None:
    """The table, in as many parts as the terminal is too narrow for."""
    head, *rows = figures_of(runs)
    widths = [max(map(len, column)) + 4 for column in zip(head, *rows, strict=True)]
    shown = 1
    while shown < len(head):
        end = shown + 1
        while end < len(head) and widths[0] + sum(widths[shown : end + 1]) <= console.width:
            end += 1
        part = [0, *range(shown, end)]
        console.print(table([[row[k] for k in part] for row in (head, *rows)]))
        shown = end


def table(figures: Sequence[Sequence[str]]) -> Table:
    """A header and rows for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    head, *rows = figures
    made = Table(box=SIMPLE_HEAD)
    for name in head:
        made.add_column(escape(name), justify="right" if name else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(escape, row))
    return made


def _time(summary: Mapping[str, Any]) -> str:
    if summary["virtual_seconds"] is not None:
        return f"{summary['virtual_seconds']:.4g} virtual s"
    return NONE if summary["seconds"] is None else f"{summary['seconds']:.4g} s"


def _rates(summary: Mapping[str, Any]) -> str:
    """Asked for and achieved."""
    rates = summary.get("rates")
    return f"{rates['asked']:.3g} → {rates['achieved']:.3g} a unit" if rates else NONE


def _chis(summary: Mapping[str, Any]) -> str:
    """Of the accelerated algorithm, which needs them to be small."""
    rates = summary.get("rates")
    if not rates or math.isinf(tempo_of(str(summary["algorithm"])).chi1_chi2_max):
        return NONE
    return f"{rates['chi1_chi2_asked']:.3g} → {short(rates['chi1_chi2_achieved'])}"


def _merged(summary: Mapping[str, Any]) -> str:
    """How good it is, and how many models are in it."""
    merged, accuracy = summary.get("merged"), summary["merged_accuracy"]
    if not merged or accuracy is None:
        return percent(accuracy)
    return f"{percent(accuracy)} (of {_count(merged['members'])} peers)"


def _averaged(summary: Mapping[str, Any]) -> str:
    """Where there is no merged model."""
    return percent(summary.get("averaged_accuracy")) if summary["merged_accuracy"] is None else NONE


def _if_merged(look: Mapping[str, Any] | None) -> str:
    """How good the mean of all models was when it was last looked at, and what was on the way to it."""
    if not look:
        return NONE
    barriers = f"{short(look['barrier_mean'])} (max {short(look['barrier_max'])})"
    accuracy, loss = look["merged_accuracy"], look["merged_loss"]
    return f"{f'loss {short(loss)}' if accuracy is None else percent(accuracy)}, barrier {barriers}"


def _looking(look: Mapping[str, Any] | None) -> str:
    return f"{_count(look['looks'])} looks, {percent(look['cost_share'])} of the time" if look else NONE


def _newest(newest: Mapping[str, float] | None) -> str:
    """How good it is, how new, and how many hold it."""
    if not newest:
        return NONE
    return f"{percent(newest['accuracy'])}, of round {_count(newest['round'])}, {_count(newest['peers'])} peers"


def _load(key: str, show: Callable[[float | None], str], summary: Mapping[str, Any]) -> str:
    """What was asked of the median peer, and of who had to do the least and the most."""
    load = (summary.get("load") or {}).get(key)
    return f"{show(load['median'])} ({show(load['min'])} to {show(load['max'])})" if load else NONE


def _units(value: float | None, digits: int = 2) -> str:
    return NONE if value is None else f"{value:.{digits}g} units"


def _count(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}".replace(",", " ")


def percent(value: float | None) -> str:
    """A fraction as ``93.1 %``."""
    return NONE if value is None else f"{100 * value:.1f} %"


def spread(value: Mapping[str, float] | None) -> str:
    """A mean, with worst and best."""
    return NONE if value is None else f"{percent(value['mean'])} ({100 * value['min']:.1f} to {100 * value['max']:.1f})"


def short(value: float | None) -> str:
    """A number with three digits."""
    return NONE if value is None else f"{value:.3g}"


def size(value: float | None) -> str:
    """Bytes as ``61.5 MB``."""
    if value is None:
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
