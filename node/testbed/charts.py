"""Pictures of runs: the curves of one, and several side by side on equal terms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from node.testbed.curves import Array, Figures, fit_decay, growth, mean_distance, on_grid, relative_distances, time_grid
from node.testbed.look import DASHES, GREY, ON_DARK, ON_LIGHT, label_ends, open_figure, set_title

DISTANCE = "distance to the optimum"
BROKEN = (0, (5, 2))

Panel = Callable[[Any, Figures, Sequence[str]], None]


def draw_run(run: Figures, path: Path, *, dark: bool = False) -> None:
    """Draw one run against time, as PNG: what it aimed at, and its exchanges."""
    panels = _panels(run)
    heights = [height for _, height in panels]
    with open_figure(path, dark, 7.6, 0.6 + 2 * sum(heights)) as figure:
        parts = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
        for axes, (draw, _) in zip(parts, panels, strict=True):
            draw(axes, run, ON_DARK if dark else ON_LIGHT)
        parts[-1].set_xlabel(_time_label(run))
        grid = time_grid(run.lines, clock=run.clock)
        if len(grid) and grid[-1] > grid[0]:
            parts[-1].set_xlim(grid[0], grid[-1])
        figure.align_ylabels()
        set_title(figure, run.label)


def _panels(run: Figures) -> list[tuple[Panel, float]]:
    """What there is to draw of a run, and how high."""
    converges, scores = run.measured("distance"), run.measured("accuracy") or run.merged_accuracy is not None
    chosen: list[tuple[Panel, float]] = [(_draw_distance, 1.5)] if converges else []
    if scores:
        chosen.append((_draw_accuracy, 1.0 if converges else 1.5))
    if not converges:
        chosen.append((_draw_loss, 1.0))
    if run.looks:
        chosen.append((_draw_barrier, 0.8))
    return [*chosen, (_draw_rounds if run.peers else _draw_exchanges, 0.8)]


def _time_label(run: Figures) -> str:
    if run.clock == "seconds":
        return "time (virtual s)" if run.virtual else "time (s)"
    return f"time (units of {run.unit_s:.3g} s)" if run.unit_s else "time (units)"


def _draw_distance(axes: Any, run: Figures, colours: Sequence[str]) -> None:
    grid = time_grid(run.lines, clock="units")
    each, mean = relative_distances(run.lines, grid), mean_distance(run.lines, grid)
    axes.fill_between(grid, each.min(0), each.max(0), color=colours[0], alpha=0.2, linewidth=0)
    axes.plot(grid, mean, color=colours[0], label="root mean square (band: worst to best)")
    if fit := fit_decay(grid, mean):
        times, rate, start = fit
        axes.plot(
            times, start * np.exp(-rate * times), color=colours[1], linestyle=BROKEN, label=f"fit: {_power(rate)}"
        )
    if run.bound and len(grid):
        bound = mean[0] * np.exp(-run.bound * (grid - grid[0]))
        axes.plot(grid, bound, color=GREY, linestyle=BROKEN, linewidth=1, label=f"guaranteed: {_power(run.bound)}")
    axes.set_yscale("log")
    axes.set_ylabel(f"{DISTANCE}\n(relative)")
    axes.legend(loc="best")


def _power(rate: float) -> str:
    return f"e^(−{rate:.2g} t)"


def _draw_accuracy(axes: Any, run: Figures, colours: Sequence[str]) -> None:
    grid = time_grid(run.lines, clock=run.clock)
    values = 100 * on_grid(run.lines, "accuracy", grid, run.clock)
    labels = []
    if values.size:
        axes.fill_between(grid, values.min(0), values.max(0), color=colours[0], alpha=0.2, linewidth=0)
        axes.plot(grid, values.mean(0), color=colours[0])
        text = "newest model" if run.peers else "local, mean\n(band: worst to best)"
        labels.append((values.mean(0)[-1], text, colours[0]))
    labels += _draw_looks(axes, run, "merged_accuracy", 100, colours[1])
    if run.merged_accuracy is not None:
        axes.axhline(100 * run.merged_accuracy, color=colours[1], linestyle=BROKEN, linewidth=1.4)
        word = "averaged" if run.averaged else "merged"
        labels.append((100 * run.merged_accuracy, f"{word} {run.merged_accuracy:.1%}", colours[1]))
    axes.set_ylabel("test accuracy (%)")
    axes.set_ylim(0, 102)
    label_ends(axes, labels)


def _draw_loss(axes: Any, run: Figures, colours: Sequence[str]) -> None:
    grid = time_grid(run.lines, clock=run.clock)
    labels = []
    for key, text, colour in (
        ("test_loss", "on the test data", colours[0]),
        ("loss", "on a peer's own data", colours[2]),
    ):
        mean = _means(run, key, grid)
        if np.isfinite(mean).any():
            axes.plot(grid, mean, color=colour)
            labels.append((mean[-1], text, colour))
    labels += _draw_looks(axes, run, "merged_loss", 1, colours[1])
    axes.set_ylabel("loss (mean)")
    axes.set_ylim(bottom=0)
    label_ends(axes, labels)


def _draw_looks(axes: Any, run: Figures, key: str, factor: float, colour: str) -> list[tuple[float, str, str]]:
    """How good the mean of all models was, where it was looked at; the line's label."""
    times, values = run.looked(key)
    if not len(values):
        return []
    axes.plot(times, factor * values, color=colour, marker=".")
    return [(factor * values[-1], "if merged then", colour)]


def _draw_barrier(axes: Any, run: Figures, colours: Sequence[str]) -> None:
    axes.axhline(0, color=GREY, linewidth=1)
    labels = []
    for key, text, colour in (("barrier_max", "worst", colours[3]), ("barrier_mean", "mean", colours[0])):
        times, values = run.looked(key)
        axes.plot(times, values, color=colour, marker=".")
        labels += [(values[-1], text, colour)] if len(values) else []
    axes.set_ylabel("loss barrier\n(peers to mean)")
    label_ends(axes, labels)


def _draw_exchanges(axes: Any, run: Figures, colours: Sequence[str]) -> None:
    middles, achieved = growth(run.lines, "exchanges", run.clock)
    unit = 1.0 if run.clock == "units" else run.unit_s
    asked = run.rate_asked / unit if run.rate_asked and unit else None
    labels = []
    if len(middles):
        axes.plot(middles, achieved, color=colours[3])
        labels.append((achieved[-1], "achieved", colours[3]))
    if asked:
        axes.axhline(asked, color=GREY, linestyle=BROKEN, linewidth=1.2)
        labels.append((asked, "asked", GREY))
    axes.set_ylabel("exchanges (1/unit)" if run.clock == "units" else "exchanges (1/s)")
    axes.set_ylim(0, 1.3 * max([*achieved, asked or 0, 1e-9]))
    label_ends(axes, labels)


def _draw_rounds(axes: Any, run: Figures, colours: Sequence[str]) -> None:
    middles, pace = growth(run.lines, "rounds", run.clock)
    axes.plot(middles, pace, color=colours[3])
    axes.set_ylabel("rounds (1/unit)" if run.clock == "units" else "rounds (1/s)")
    axes.set_ylim(0, 1.3 * max([*pace, 1e-9]))


def _means(run: Figures, key: str, grid: Array) -> Array:
    return on_grid(run.lines, key, grid, run.clock).mean(0) if run.lines else np.zeros(len(grid))


# ---------------------------------------------------------------------------------------------- several runs


class Cost(NamedTuple):
    """What runs are held against: a figure of the reports, how it is brought to one curve, and if it is of one peer."""

    key: str
    label: str
    read: Callable[[Array], Array]
    each: bool = False


class Terms(NamedTuple):
    """On which terms runs are compared: what is read off, and what it is held against."""

    figure: str
    factor: float
    ylabel: str
    costs: tuple[Cost, ...]
    title: str
    key: str


def _mean(values: Array) -> Array:
    return values.mean(0)


def _sum(values: Array) -> Array:
    return values.sum(0)


COSTS = (
    Cost("rounds", "rounds of a peer", _mean),
    Cost("samples", "samples seen by a peer", _mean, each=True),
    Cost("bytes_sent", "sent by a peer (MB)", lambda values: values.mean(0) / 1e6, each=True),
)
WHOLE_COSTS = (
    Cost("units", "time (units)", lambda values: values.max(0)),
    Cost("samples", "samples seen by all peers", _sum),
    Cost("exchanges", "exchanges of all peers", _sum),
)
SCORE_KEY = "lines: mean of the peers' own models    ◆ all of them as one    dotted: nothing is sent"
NEWEST_KEY = "    where few work at a time: their newest model"
DISTANCE_KEY = "root mean square over the peers, as a part of that at the start    dotted: nothing is sent"
EQUAL = "The same work, the same traffic"
TERMS = (
    Terms("distance", 1, f"{DISTANCE} (relative)", WHOLE_COSTS, "The same time, samples and exchanges", DISTANCE_KEY),
    Terms("accuracy", 100, "test accuracy, mean over peers (%)", COSTS, EQUAL, SCORE_KEY),
    Terms("test_loss", 1, "test loss, mean over peers", COSTS, EQUAL, SCORE_KEY),
)


def draw_comparison(runs: Sequence[Figures], path: Path, *, dark: bool = False) -> None:
    """Draw several runs on equal terms, as PNG.

    Where all have an optimum, their distance to it against time, against the samples that they have computed gradients
    of, and against exchanges; otherwise their accuracy where all have one, else their loss, against the rounds of a
    peer, its samples and what it has sent. Runs without rounds are not in the first of these parts, which is left out
    where no run has any. A run that sends nothing is a dotted line in the last part, at what it ended with.
    """
    terms = _choose_terms(runs)
    looks = cycle(product(DASHES, ON_DARK if dark else ON_LIGHT))
    with open_figure(path, dark, 6.4 + 2 * len(terms.costs), 4.8) as figure:
        parts = figure.subplots(1, len(terms.costs), sharey=True)
        if terms.figure == "distance":
            parts[0].set_yscale("log")
        handles = [_compare(parts, run, terms, colour, dash) for run, (dash, colour) in zip(runs, looks, strict=False)]
        if terms.figure == "accuracy":
            parts[0].set_ylim(0, 102)
        parts[0].set_ylabel(terms.ylabel)
        for axes, cost in zip(parts, terms.costs, strict=True):
            axes.set_xlabel(cost.label)
            axes.locator_params(axis="x", nbins=5)
        set_title(figure, terms.title)
        columns = min(len(runs), 3)
        key = terms.key + NEWEST_KEY * any(run.peers for run in runs)
        legend = figure.legend(handles=handles, loc="outside lower left", ncols=columns, title=key)
        legend.set_alignment("left")


def _choose_terms(runs: Sequence[Figures]) -> Terms:
    distance, accuracy, loss = TERMS
    if all(run.measured("distance") for run in runs):
        return distance
    chosen = accuracy if all(run.measured("accuracy") for run in runs) else loss
    optional = {"rounds"} if not any(run.measured("rounds") for run in runs) else set()
    return chosen._replace(costs=tuple(cost for cost in chosen.costs if cost.key not in optional))


def _compare(parts: Sequence[Any], run: Figures, terms: Terms, colour: str, dash: Any) -> Any:
    """Draw one run into all parts; its line, for the legend."""
    grid = time_grid(run.lines, clock=run.clock)
    if terms.figure == "distance":
        values = mean_distance(run.lines, grid)
    else:
        values = terms.factor * _means(run, terms.figure, grid)
    costs = [
        cost.read(on_grid(run.lines, cost.key, grid, run.clock)) / (run.peers or 1 if cost.each else 1)
        for cost in terms.costs
    ]
    silent = len(grid) > 0 and not costs[-1][-1] > 0
    lines = [
        axes.plot(cost, values, color=colour, linestyle=dash, label=run.label)[0]
        for axes, cost in zip(parts, costs[: -1 if silent else None], strict=False)
    ]
    if silent:
        parts[-1].axhline(values[-1], color=colour, linestyle=(0, (1, 2.5)), linewidth=1.4)
    if terms.figure == "accuracy":
        for line in lines:
            _mark_merged(line.axes, line.get_xdata(), run.merged_accuracy, colour)
    return lines[0]


def _mark_merged(axes: Any, along: Array, merged: float | None, colour: str) -> None:
    if merged is not None and len(along):
        axes.plot(along[-1], 100 * merged, marker="D", markersize=7, color=colour, clip_on=False, zorder=5)
