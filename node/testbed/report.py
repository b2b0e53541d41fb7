"""What is shown of runs: a table in the terminal, pictures, and a page that needs nothing else to be read."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node.errors import StorageError
from node.testbed.charts import draw_comparison, draw_run
from node.testbed.page import compose_page
from node.testbed.runs import Run, load_run

if TYPE_CHECKING:
    from rich.table import Table

CURVES, PAGE, COMPARISON = "curves.png", "report.html", "comparison"

ROWS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "task": lambda summary: str(summary["task"]),
    "peers": lambda summary: str(summary["nodes"]),
    "transport": lambda summary: summary["transport"] or "–",
    "time": lambda summary: _time(summary),
    "local steps": lambda summary: _count(summary["gradients"]),
    "exchanges": lambda summary: _count(summary["exchanges"]),
    "sent": lambda summary: size(summary["bytes_sent"]),
    "local accuracy": lambda summary: spread(summary["local_accuracy"]),
    "merged accuracy": lambda summary: percent(summary["merged_accuracy"]),
    "consensus distance": lambda summary: short(summary["consensus_distance"]),
    "ledger error": lambda summary: short(summary["ledger_error"]),
}
"""The figures of a run, as they are read."""


def present(folder: Path, out: Path | None = None) -> None:
    """Print the figures of a run on stdout, and write its picture and page, by default into its own folder."""
    from rich.console import Console

    run = load_run(folder)
    out = out or folder
    write_run(run, out)
    console = Console()
    console.print(table([run]))
    if run.summary["lost_peers"]:
        console.print(f"lost: {', '.join(run.summary['lost_peers'])}", style="bold", highlight=False)
    console.print(f"{out}: {PAGE}, {CURVES}", soft_wrap=True, highlight=False)


def present_several(folders: Sequence[Path], out: Path) -> None:
    """Print the figures of several runs side by side, and write their picture and page into the folder ``out``."""
    from rich.console import Console

    runs = [load_run(folder) for folder in folders]
    picture, page = write_comparison(runs, out)
    console = Console()
    console.print(table(runs))
    console.print(f"{page}, {picture}", soft_wrap=True, highlight=False)


def write_run(run: Run, out: Path) -> None:
    """Write ``curves.png`` and ``report.html`` of one run into the folder ``out``."""
    _make(out)
    figures = run.figures()
    draw_run(figures, out / CURVES)
    dark = _drawn(lambda path: draw_run(figures, path, dark=True))
    page = compose_page(run.title, figures_of([run]), [run], (out / CURVES).read_bytes(), dark)
    (out / PAGE).write_text(page, encoding="utf-8")


def write_comparison(runs: Sequence[Run], out: Path) -> tuple[Path, Path]:
    """Write ``comparison.png`` and ``comparison.html`` of several runs into the folder ``out``."""
    _make(out)
    figures = [run.figures(label) for run, label in zip(runs, labels(runs), strict=True)]
    picture, page = out / f"{COMPARISON}.png", out / f"{COMPARISON}.html"
    draw_comparison(figures, picture)
    dark = _drawn(lambda path: draw_comparison(figures, path, dark=True))
    text = compose_page(f"{len(runs)} runs side by side", figures_of(runs), runs, picture.read_bytes(), dark)
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
    """What tells the runs apart: the algorithm, whatever else differs, and the folder's name where nothing does."""
    if len(runs) == 1:
        return [runs[0].title]
    forms: dict[str, str] = {"task": "{}", "nodes": "{} peers", "transport": "{}", "seed": "seed {}"}
    differing = [key for key in forms if len({str(run.summary[key]) for run in runs}) > 1]
    names = [
        ", ".join([str(run.summary["algorithm"]), *(forms[key].format(run.summary[key]) for key in differing)])
        for run in runs
    ]
    return [
        name if names.count(name) == 1 else f"{name}, {run.folder.resolve().name}"
        for name, run in zip(names, runs, strict=True)
    ]


def figures_of(runs: Sequence[Run]) -> list[list[str]]:
    """A table as text: a header, then a row for each figure with one value a run."""
    head = ["", *labels(runs)]
    return [head, *([name, *(read(run.summary) for run in runs)] for name, read in ROWS.items())]


def table(runs: Sequence[Run]) -> Table:
    """The same for the terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    head, *rows = figures_of(runs)
    made = Table(box=SIMPLE_HEAD)
    for name in head:
        made.add_column(name, justify="right" if name else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def _time(summary: Mapping[str, Any]) -> str:
    if summary["virtual_seconds"] is not None:
        return f"{summary['virtual_seconds']:.4g} virtual s"
    return "–" if summary["seconds"] is None else f"{summary['seconds']:.4g} s"


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}".replace(",", " ")


def percent(value: float | None) -> str:
    """A fraction as ``93.1 %``."""
    return "–" if value is None else f"{100 * value:.1f} %"


def spread(value: Mapping[str, float] | None) -> str:
    """A mean, with worst and best."""
    return "–" if value is None else f"{percent(value['mean'])} ({100 * value['min']:.1f} to {100 * value['max']:.1f})"


def short(value: float | None) -> str:
    """A number with three digits."""
    return "–" if value is None else f"{value:.3g}"


def size(value: float | None) -> str:
    """Bytes as ``61.5 MB``."""
    if value is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"
