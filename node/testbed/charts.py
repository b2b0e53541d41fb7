"""Pictures of runs: the curves of one, and several side by side on equal terms.

Theory of operation
-------------------
Peers report at moments of their own. All their reports are brought onto one grid of times by linear interpolation, so
that a mean over peers is taken at equal times; a peer that is lost stays at its last value. What is drawn begins when
every peer has reported.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart, and lines are labelled where they end.

.. [1] M. Okabe and K. Ito, "Color Universal Design", 2008.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Lines = Mapping[str, Sequence[Mapping[str, Any]]]
"""The reports of every peer, by name."""

Array = NDArray[np.float64]

BLUE, VERMILION, GREEN, ORANGE, SKY, PURPLE = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7"
ON_LIGHT = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
ON_DARK = (SKY, ORANGE, GREEN, PURPLE, VERMILION, BLUE)
GREY = "0.5"
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))
GRID_POINTS = 240
RATE_WINDOWS = 30
DPI = 130
FONT_PT = 9.5
KEY = "lines: mean of the peers' own models    ◆ their merged model    dotted: nothing is sent"


@dataclass(frozen=True)
class Figures:
    """One run, ready to be drawn.

    Parameters
    ----------
    label : str
        What the run is called in the picture.
    lines : mapping
        Its reports.
    merged_accuracy : float or None
        Of the merged model.
    virtual : bool
        Whether its seconds are virtual ones.
    rate_asked_hz : float or None
        Exchanges a second that the plan asks of the whole network.
    """

    label: str
    lines: Lines
    merged_accuracy: float | None = None
    virtual: bool = False
    rate_asked_hz: float | None = None


# ------------------------------------------------------------------------------------------------ the numbers


def time_grid(lines: Lines, points: int = GRID_POINTS) -> Array:
    """Equally spaced seconds, shape ``(points,)``, from when all peers have reported to the last report."""
    spans = [(peer[0]["seconds"], peer[-1]["seconds"]) for peer in lines.values() if peer]
    if not spans or len(spans) < len(lines):
        return np.zeros(0)
    return np.linspace(max(first for first, _ in spans), max(last for _, last in spans), points)


def on_grid(lines: Lines, key: str, grid: Array) -> Array:
    """A figure of every peer at the grid's times, shape ``(peers, points)``; NaN before a peer's first value."""
    rows = []
    for peer in lines.values():
        pairs = [(line["seconds"], line[key]) for line in peer if line.get(key) is not None]
        seconds, values = np.array(pairs, dtype=float).reshape(-1, 2).T
        rows.append(np.interp(grid, seconds, values, left=np.nan) if len(pairs) else np.full(len(grid), np.nan))
    return np.array(rows).reshape(len(rows), len(grid))


def rates_hz(lines: Lines, key: str) -> tuple[Array, Array]:
    """The middles of equal stretches of time and by how much the peers' sum of ``key`` grew in each, a second."""
    reports = max((len(peer) for peer in lines.values()), default=0)
    edges = time_grid(lines, 1 + min(RATE_WINDOWS, max(1, reports // 2)))
    sums = on_grid(lines, key, edges).sum(0)
    if len(edges) < 2 or edges[-1] <= edges[0] or np.isnan(sums).any():
        return np.zeros(0), np.zeros(0)
    return (edges[1:] + edges[:-1]) / 2, np.diff(sums) / np.diff(edges)


def _means(lines: Lines, key: str, grid: Array) -> Array:
    return on_grid(lines, key, grid).mean(0) if lines else np.zeros(len(grid))


# ----------------------------------------------------------------------------------------------- the pictures


def draw_run(run: Figures, path: Path, *, dark: bool = False) -> None:
    """Draw accuracy, loss and exchanges of one run against time, as PNG."""
    with _figure(path, dark, 7.6, 7.2) as figure:
        accuracy, loss, exchanges = figure.subplots(3, 1, sharex=True, height_ratios=(1.5, 1, 0.8))
        grid = time_grid(run.lines)
        first, second, third, fourth, *_ = ON_DARK if dark else ON_LIGHT
        _draw_accuracy(accuracy, run, grid, first, second)
        _draw_loss(loss, run, grid, first, third)
        _draw_exchanges(exchanges, run, fourth)
        exchanges.set_xlabel("time (virtual s)" if run.virtual else "time (s)")
        if len(grid) and grid[-1] > grid[0]:
            exchanges.set_xlim(grid[0], grid[-1])
        figure.align_ylabels()
        _title(figure, run.label)


def _draw_accuracy(axes: Any, run: Figures, grid: Array, own: str, merged: str) -> None:
    values = 100 * on_grid(run.lines, "accuracy", grid)
    if values.size:
        axes.fill_between(grid, values.min(0), values.max(0), color=own, alpha=0.2, linewidth=0)
        axes.plot(grid, values.mean(0), color=own)
        labels = [(values.mean(0)[-1], "local, mean\n(band: worst to best)", own)]
    else:
        labels = []
    if run.merged_accuracy is not None:
        axes.axhline(100 * run.merged_accuracy, color=merged, linestyle=(0, (5, 2)), linewidth=1.4)
        labels.append((100 * run.merged_accuracy, f"merged {run.merged_accuracy:.1%}", merged))
    axes.set_ylabel("test accuracy (%)")
    axes.set_ylim(0, 102)
    _label_ends(axes, labels)


def _draw_loss(axes: Any, run: Figures, grid: Array, test: str, own: str) -> None:
    labels = []
    for key, text, colour in (("test_loss", "on the test data", test), ("loss", "on a peer's own data", own)):
        mean = _means(run.lines, key, grid)
        if np.isfinite(mean).any():
            axes.plot(grid, mean, color=colour)
            labels.append((mean[-1], text, colour))
    axes.set_ylabel("loss (mean)")
    axes.set_ylim(bottom=0)
    _label_ends(axes, labels)


def _draw_exchanges(axes: Any, run: Figures, colour: str) -> None:
    middles, achieved = rates_hz(run.lines, "exchanges")
    labels = []
    if len(middles):
        axes.plot(middles, achieved, color=colour)
        labels.append((achieved[-1], "achieved", colour))
    if run.rate_asked_hz:
        axes.axhline(run.rate_asked_hz, color=GREY, linestyle=(0, (5, 2)), linewidth=1.2)
        labels.append((run.rate_asked_hz, "asked", GREY))
    axes.set_ylabel("exchanges (1/s)")
    axes.set_ylim(0, 1.3 * max([*achieved, run.rate_asked_hz or 0, 1e-9]))
    _label_ends(axes, labels)


def draw_comparison(runs: Sequence[Figures], path: Path, *, dark: bool = False) -> None:
    """Draw the accuracy of several runs on equal terms, work done and bytes sent a peer, as PNG.

    A run that sends nothing is a dotted line in the second part, at the accuracy that it ended with.
    """
    with _figure(path, dark, 10.4, 4.8) as figure:
        work, sent = figure.subplots(1, 2, sharey=True)
        looks = cycle(product(DASHES, ON_DARK if dark else ON_LIGHT))
        handles = [
            _draw_one_of_several(work, sent, run, colour, dash)
            for run, (dash, colour) in zip(runs, looks, strict=False)
        ]
        work.set_ylabel("test accuracy, mean over peers (%)")
        work.set_ylim(0, 102)
        work.set_xlabel("local steps a peer")
        sent.set_xlabel("sent by a peer (MB)")
        _title(figure, "The same work, the same traffic")
        columns = min(len(runs), 3)
        legend = figure.legend(handles=handles, loc="outside lower left", ncols=columns, frameon=False, title=KEY)
        legend.set_alignment("left")


def _draw_one_of_several(work: Any, sent: Any, run: Figures, colour: str, dash: Any) -> Any:
    """Draw one run into both parts; its line, for the legend."""
    grid = time_grid(run.lines)
    accuracy = 100 * _means(run.lines, "accuracy", grid)
    steps, traffic = _means(run.lines, "gradients", grid), _means(run.lines, "bytes_sent", grid) / 1e6
    (line,) = work.plot(steps, accuracy, color=colour, linestyle=dash, label=run.label)
    _mark_merged(work, steps, run.merged_accuracy, colour)
    if len(traffic) and traffic[-1] > 0:
        sent.plot(traffic, accuracy, color=colour, linestyle=dash)
        _mark_merged(sent, traffic, run.merged_accuracy, colour)
    elif len(accuracy):
        sent.axhline(accuracy[-1], color=colour, linestyle=(0, (1, 2.5)), linewidth=1.4)
    return line


def _mark_merged(axes: Any, along: Array, merged: float | None, colour: str) -> None:
    if merged is not None and len(along):
        axes.plot(along[-1], 100 * merged, marker="D", markersize=7, color=colour, clip_on=False, zorder=5)


# --------------------------------------------------------------------------------------------------- the look


@contextmanager
def _figure(path: Path, dark: bool, width: float, height: float) -> Iterator[Any]:
    """A figure to draw in, which is saved at the end; it needs no display."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(_style(dark)):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure
        figure.savefig(path, format="png")


def _style(dark: bool) -> Any:
    ink, paper, faint = ("#e8e8e8", "#16181d", "#3a3f4a") if dark else ("#1c1c1c", "#ffffff", "#d9d9d9")
    return {
        "font.size": FONT_PT,
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": faint,
        "axes.facecolor": paper,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "grid.color": faint,
        "grid.linewidth": 0.6,
        "xtick.color": ink,
        "ytick.color": ink,
        "lines.linewidth": 1.8,
        "figure.facecolor": paper,
        "savefig.facecolor": paper,
    }


def _title(figure: Any, text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=11, fontweight="bold")


def _label_ends(axes: Any, labels: list[tuple[float, str, str]]) -> None:
    """Write each line's name, (end, text, colour), beside where it ends, moved apart where they would overlap."""
    labels = sorted(label for label in labels if np.isfinite(label[0]))
    low, high = axes.get_ylim()
    line = 1.5 * FONT_PT / 72 * DPI / axes.get_window_extent().height * (high - low)
    heights = [line * (1 + text.count("\n")) for _, text, _ in labels]
    for (_, text, colour), middle in zip(labels, apart([end for end, *_ in labels], heights, high), strict=True):
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate(text, (1, middle), (6, 0), color=colour, va="center", linespacing=1.4, **place)


def apart(middles: Sequence[float], heights: Sequence[float], high: float) -> list[float]:
    """Move the middles of boxes, given from the lowest up, so that none overlap and none reaches above ``high``."""
    placed: list[float] = []
    for middle, height in zip(middles, heights, strict=True):
        floor = placed[-1] + heights[len(placed) - 1] / 2 + height / 2 if placed else middle
        placed.append(max(middle, floor))
    ceiling = high
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], ceiling - heights[i] / 2)
        ceiling = placed[i] - heights[i] / 2
    return placed
