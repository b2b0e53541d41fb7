"""A graph on paper: where its lines and nodes are in points (1/72 inch), and how wide and dark they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from topology.drawing.places import place_nodes, trace_edges
from topology.drawing.scales import Scale, edge_rates, idle_edges, load_colours, node_loads, rate_colours
from topology.plan import Plan
from topology.problem import Ends, Reals

INK, FAINT = "#22303c", "#66727e"
SPACING_MAX = 110.0
NODE_MAX, DOT_MAX = 26.0, 9.0
FONT_MAX, FONT_MIN, FONT_BELOW, BELOW_MAX = 9.5, 5.5, 7.5, 60.0
WIDEST, THINNEST, PALE_MAX = 7.0, 0.5, 0.7
POWERS = (0.5, 0.75, 1.0)
COVER = 0.18
CELL, SAMPLES = 12.0, 24
LINES_MAX, RASTER_FROM = 40_000, 5_000


class Sketch(NamedTuple):
    """A graph, seen from its picture's lower left corner.

    Parameters
    ----------
    spots : ndarray, shape (n, 2)
        Where the nodes are.
    lines : ndarray, shape (k, p, 2)
        The course of the lines, those of frequent edges last.
    edges : ndarray of int, shape (k,)
        The edge that each line is of.
    palest : ndarray, shape (k,)
        The least opacity of each line: less where many lines are.
    size : tuple
        Width and height of the picture.
    spacing : float
        From a node to its nearest, for all but the closest.
    """

    spots: Reals
    lines: Reals
    edges: Ends
    palest: Reals
    size: tuple[float, float]
    spacing: float


class Pen(NamedTuple):
    """How wide edges are: by a power of their rate's part of the highest.

    Parameters
    ----------
    widest : float
        Width of the most frequent edge.
    power : float
        Below 1, since few edges would be seen if widths were in proportion to rates.
    """

    widest: float
    power: float


def sketch_plan(plan: Plan, side: float) -> Sketch:
    """The graph as large as fits into a square, or smaller when its nodes are far apart all the same."""
    spots = place_nodes(plan)
    lines, edges = trace_edges(plan, spots)
    drawn = np.vstack([spots, lines.reshape(-1, 2)])
    low, span = drawn.min(axis=0), np.ptp(drawn, axis=0)
    nearest = float(np.percentile(cKDTree(spots).query(spots, k=2)[0][:, 1], 10))
    rim = NODE_MAX / 2 + 2
    scale = min(SPACING_MAX / nearest, (side - 2 * rim) / span.max())
    width, height = span * scale + 2 * rim
    spots, lines = (spots - low) * scale + rim, (lines - low) * scale + rim
    palest = _palest(lines)
    shown = _shown(edge_rates(plan)[edges], palest == PALE_MAX)
    return Sketch(spots, lines[shown], edges[shown], palest[shown], (width, height), nearest * scale)


def _palest(lines: Reals) -> Reals:
    """The opacity with which thin lines as close together as those around each would cover a certain part."""
    along = np.linspace(0, lines.shape[1] - 1, SAMPLES)
    before = np.minimum(along.astype(int), lines.shape[1] - 2)
    part = (along - before)[:, None]
    column, row = ((lines[:, before] * (1 - part) + lines[:, before + 1] * part) / CELL).astype(int).T
    cell = row * (column.max() + 1) + column  # shape (SAMPLES, k)
    lengths = _lengths(lines)
    crowd = np.bincount(cell.ravel(), weights=np.tile(lengths / SAMPLES, SAMPLES)) / CELL**2
    palest: Reals = np.minimum(PALE_MAX, COVER / (THINNEST * np.median(crowd[cell], axis=0)))
    return palest


def _lengths(lines: Reals) -> Reals:
    lengths: Reals = np.linalg.norm(np.diff(lines, axis=1), axis=2).sum(axis=1)
    return lengths


def _shown(rates: Reals, lone: NDArray[np.bool_]) -> Ends:
    """The lines to draw, frequent ones last so that they are on top.

    Of too many, those that are frequent or have space around them, and some of the others.
    """
    order = np.random.default_rng(0).permutation(len(rates))  # among equals, not the first ones
    order = order[np.argsort(rates[order], kind="stable")]
    if len(order) <= LINES_MAX:
        return order
    chosen = lone[order]
    chosen[-LINES_MAX // 2 :] = True
    chosen[:: math.ceil(2 * len(order) / LINES_MAX)] = True
    return order[chosen]


def cut_pen(plan: Plan, sketch: Sketch, scale: Scale, powers: Sequence[float] = POWERS) -> Pen:
    """One with which all lines together cover a certain part of the picture, however many they are.

    If need be frequent edges stand out more, so that a bridge is seen beside thousands of rare ones.
    """
    limit = min(WIDEST, max(2.5, 0.3 * sketch.spacing))
    lengths = _lengths(sketch.lines)
    ink = COVER * sketch.size[0] * sketch.size[1]
    for power in powers:
        shares = (edge_rates(plan)[sketch.edges] / scale.rates.high) ** power
        widest = min(limit, float(0.3 * sketch.spacing / np.median(shares)), ink / float(lengths @ shares))
        if widest == limit:
            break
    return Pen(widest, power)


def line_looks(plan: Plan, sketch: Sketch, scale: Scale, pen: Pen) -> tuple[Reals, Reals]:
    """Widths, shape (k,), and colours, shape (k, 4), of the lines; a line that would be too thin is pale instead."""
    rates = edge_rates(plan)[sketch.edges]
    widths = pen.widest * (rates / scale.rates.high) ** pen.power
    colours = rate_colours()(scale.rates.place(rates))
    colours[:, 3] = np.clip(widths / THINNEST, sketch.palest, 1)
    return np.maximum(widths, THINNEST), colours


def draw_edges(axes: Axes, plan: Plan, sketch: Sketch, scale: Scale, pen: Pen) -> None:
    """All lines, in their colours and widths; those of idle edges dotted, below the others."""
    widths, colours = line_looks(plan, sketch, scale, pen)
    idle = idle_edges(plan)[sketch.edges]
    raster = len(idle) > RASTER_FROM  # an .svg or .pdf of so many lines would hardly open
    faint = [to_rgba(FAINT, 0.8 * palest) for palest in sketch.palest[idle]]
    dotted = LineCollection(list(sketch.lines[idle]), colors=faint, linewidths=THINNEST, linestyles=[(0, (1, 3))])
    solid = LineCollection(list(sketch.lines[~idle]), colors=colours[~idle], linewidths=widths[~idle], capstyle="round")
    for level, lines in enumerate((dotted, solid)):
        lines.set(zorder=1 + level, rasterized=raster)
        axes.add_collection(lines)


def draw_nodes(axes: Axes, plan: Plan, sketch: Sketch, scale: Scale) -> None:
    """Circles with names in them or below, or dots where names would not fit; shaded by load."""
    longest = max(2, *(len(node.name) for node in plan.nodes))
    size = min(NODE_MAX, 0.62 * sketch.spacing)
    font = min(FONT_MAX, 1.4 * size / longest)
    inside = font >= FONT_MIN
    below = not inside and 0.6 * FONT_BELOW * longest <= min(BELOW_MAX, sketch.spacing - 20)
    if not inside:
        size = min(DOT_MAX, 0.8 * size)
    x, y = sketch.spots.T
    fills = _fills(plan, scale, plain="white" if inside else INK)
    axes.scatter(x, y, s=size**2, c=fills, edgecolors=INK, linewidths=min(1.1, size / 10), zorder=3)
    for node, spot in zip(plan.nodes, sketch.spots, strict=True):
        if inside:
            axes.annotate(node.name, spot, ha="center", va="center_baseline", fontsize=font, color=INK, zorder=4)
        elif below:
            place = (spot[0], spot[1] - size / 2 - 2)
            text = axes.annotate(node.name, place, ha="center", va="top", fontsize=FONT_BELOW, color=INK, zorder=4)
            text.set_path_effects([withStroke(linewidth=3, foreground="white")])


def _fills(plan: Plan, scale: Scale, plain: str) -> NDArray[np.float64] | str:
    return load_colours()(scale.loads.place(node_loads(plan))) if scale.loads.differ else plain
