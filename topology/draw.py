"""Pictures of a plan: where the nodes sit is the family's; how often an edge exchanges is its colour and width.

Rings, complete, exponential and regular graphs are drawn on a circle, stars around their hub, lines in rows like
text, grids and tori as rectangles; every other graph by a spring model. The same plan gives the same picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import matplotlib
import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from topology.families import sides
from topology.measures import edge_ends
from topology.plan import Plan
from topology.problem import Reals
from topology.records import PlanError

INK = "#22303c"
LABELS_MAX = 100
SPRINGS_MAX = 150
SIDE_IN = 8.0
COVER = 0.1
THINNEST = 0.4
MARGIN = 0.07


def draw_plan(plan: Plan, path: Path | str) -> None:
    """Draw a plan into a file; its ending (.png, .svg, .pdf) is the format.

    Raises
    ------
    PlanError
        When the file can't be written.
    """
    spots = place_nodes(plan)
    low, high = spots.min(axis=0), spots.max(axis=0)
    rim = MARGIN * np.max(high - low)
    wide, tall = high - low + 2 * rim
    figure = Figure(figsize=(SIDE_IN, SIDE_IN * min(1.3, tall / wide) + 1.7), layout="constrained", facecolor="white")
    axes = figure.add_subplot(xlim=(low[0] - rim, high[0] + rim), ylim=(low[1] - rim, high[1] + rim), aspect="equal")
    axes.set_axis_off()
    _draw_edges(axes, plan, spots)
    _draw_nodes(axes, plan, spots)
    rate = plan.rates
    axes.set_title(
        f"{rate.policy} rates: {rate.total_rate:.4g} exchanges per unit of time in all   "
        f"(χ₁ = {rate.chi1:.4g}, χ₂ = {rate.chi2:.4g})",
        color=INK,
        fontsize=10,
    )
    figure.suptitle(f"{plan.family}, {len(plan.nodes)} peers, {len(plan.edges)} edges", color=INK, fontsize=15)
    lines = axes.collections[0]
    scale = ScalarMappable(lines.norm, lines.cmap)
    bar = figure.colorbar(scale, ax=axes, location="bottom", shrink=0.6, aspect=40, pad=0.02)
    bar.set_label("exchanges per unit of time on one edge", color=INK)
    bar.outline.set_visible(False)
    try:
        figure.savefig(path, dpi=144)
    except (OSError, ValueError) as error:
        raise PlanError(
            f"the picture can't be written to {path}: {getattr(error, 'strerror', None) or error}."
        ) from None


# ------------------------------------------------------------------------------------------ places


def place_nodes(plan: Plan) -> Reals:
    """Where each node is drawn, shape (n, 2)."""
    if plan.family in PLACES:
        return PLACES[plan.family](len(plan.nodes))
    graph = nx.Graph([(edge.a, edge.b) for edge in plan.edges])
    spots = nx.circular_layout(graph)
    if len(graph) <= SPRINGS_MAX:
        spots = nx.kamada_kawai_layout(graph, pos=spots)
    else:
        spots = nx.spring_layout(graph, seed=0, iterations=200, k=2 / math.sqrt(len(graph)))
    return np.array([spots[node.name] for node in plan.nodes])


def _on_circle(n: int) -> Reals:
    angles = math.pi / 2 - 2 * math.pi * np.arange(n) / n  # clockwise from the top, as on a clock
    return np.column_stack([np.cos(angles), np.sin(angles)])


def _around_hub(n: int) -> Reals:
    return np.vstack([np.zeros((1, 2)), _on_circle(n - 1)])


def _in_rows(n: int) -> Reals:
    columns = n if n <= 12 else math.ceil(math.sqrt(2 * n))
    row, column = np.divmod(np.arange(n), columns)
    # Every other row runs backwards, so that neighbours on the line are neighbours in the picture.
    return np.column_stack([np.where(row % 2, columns - 1 - column, column), -1.5 * row]).astype(float)


def _in_rectangle(n: int) -> Reals:
    row, column = np.divmod(np.arange(n), sides(n)[1])
    return np.column_stack([column, -row]).astype(float)


PLACES: dict[str, Callable[[int], Reals]] = {
    "ring": _on_circle,
    "complete": _on_circle,
    "exponential": _on_circle,
    "regular": _on_circle,
    "star": _around_hub,
    "line": _in_rows,
    "grid": _in_rectangle,
    "torus": _in_rectangle,
}


# --------------------------------------------------------------------------------------------- ink


def _draw_edges(axes: Axes, plan: Plan, spots: Reals) -> None:
    rates, lines = [], []
    for edge, (a, b) in sorted(zip(plan.edges, edge_ends(plan), strict=True), key=lambda pair: pair[0].rate):
        for line in _lines(spots[a], spots[b], plan.family == "torus"):  # busy edges last, on top
            rates.append(edge.rate)
            lines.append(line)
    share = np.array(rates) / max(rates)
    # All lines together cover a fixed part of the picture, however many they are.
    drawn = sum(math.dist(*line) for line in lines) / np.ptp(spots, axis=0).max()
    widest = min(3.0, COVER * 72 * SIDE_IN / drawn)
    axes.add_collection(
        LineCollection(
            lines,
            array=rates,
            cmap=_colours(),
            norm=Normalize(0, max(rates)),
            linewidths=max(THINNEST, widest) * (0.15 + 0.85 * share),
            alpha=min(1.0, widest / THINNEST),
            capstyle="round",
            zorder=1,
        )
    )


def _lines(start: Reals, end: Reals, torus: bool) -> list[Reals]:
    step = end - start
    if not torus or np.abs(step).max() <= 1:
        return [np.array([start, end])]
    # An edge around the torus leaves the picture at one side and comes back at the other.
    stub = 0.6 * np.sign(step)
    return [np.array([start, start - stub]), np.array([end, end + stub])]


def _colours() -> Colormap:
    # The lightest shades would vanish on white, the darkest look black.
    return LinearSegmentedColormap.from_list("rates", matplotlib.colormaps["YlGnBu"](np.linspace(0.25, 0.88, 256)))


def _draw_nodes(axes: Axes, plan: Plan, spots: Reals) -> None:
    n = len(spots)
    labelled = n <= LABELS_MAX
    size_pt = 26 if n <= 24 else max(18, 130 / math.sqrt(n)) if labelled else max(2.5, 80 / math.sqrt(n))
    x, y = spots.T
    fill = "white" if labelled else INK
    axes.scatter(x, y, s=size_pt**2, c=fill, edgecolors=INK, linewidths=1.1, zorder=2, clip_on=False)
    if labelled:
        for node, spot in zip(plan.nodes, spots, strict=True):
            fit = min(10.0, 1.5 * size_pt / max(2, len(node.name)))
            axes.annotate(node.name, spot, ha="center", va="center", fontsize=fit, color=INK, zorder=3)
