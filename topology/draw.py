"""Pictures of plans: how often an edge exchanges is its colour and its width, what a node sends is its shade.

Where the nodes sit is the graph's (``topology.drawing.places``). The same plan gives the same picture. All lengths
here are in points, 1/72 inch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure

from topology.drawing.scales import (
    Scale,
    Span,
    edge_rates,
    idle_edges,
    load_colours,
    node_loads,
    rate_colours,
    shared_scale,
)
from topology.drawing.sketch import FAINT, INK, Pen, Sketch, cut_pen, draw_edges, draw_nodes, sketch_plan
from topology.plan import Plan
from topology.problem import Reals
from topology.records import PlanError

SIDE, PANEL = 576.0, 330.0
NARROWEST = 450.0
RIM = 18.0
HEAD, LEGEND, CAPTION = 60.0, 84.0, 20.0
COLUMNS = 3
BINS = 60
TICK_ROOM = 25.0


def draw_plan(plan: Plan, path: Path | str) -> None:
    """Draw a plan into a file; its ending (.png, .svg, .pdf) is the format.

    Raises
    ------
    PlanError
        When the file can't be written.
    """
    _save(plan_figure(plan), path)


def draw_comparison(plans: Sequence[Plan], path: Path | str) -> None:
    """Draw plans of one graph side by side, on one scale of rates, into a file; its ending is the format.

    Raises
    ------
    PlanError
        When the plans are not of one graph, or the file can't be written.
    """
    _save(comparison_figure(plans), path)


def plan_figure(plan: Plan) -> Figure:
    """The picture of a plan, as a figure that belongs to no window."""
    sketch, scale = sketch_plan(plan, SIDE), shared_scale([plan])
    width = max(NARROWEST, sketch.size[0])
    figure = _figure(width + 2 * RIM, HEAD + sketch.size[1] + _foot([(plan, sketch)], scale))
    _write(figure, RIM, RIM, _what(plan), size=15, weight="bold")
    _write(figure, RIM, RIM + 22, f"{plan.rates.policy} rates: {_promise(plan)}", size=10, color=FAINT)
    _draw_panel(figure, (RIM, HEAD, width), plan, sketch, scale, cut_pen(plan, sketch, scale))
    return figure


def comparison_figure(plans: Sequence[Plan]) -> Figure:
    """Plans of one graph side by side, as a figure that belongs to no window.

    Raises
    ------
    PlanError
        When the plans are not of one graph.
    """
    _check_comparable(plans)
    scale = shared_scale(plans)
    panels = [(plan, sketch_plan(plan, PANEL)) for plan in plans]
    power = max(cut_pen(plan, sketch, scale).power for plan, sketch in panels)
    pen = min(cut_pen(plan, sketch, scale, [power]) for plan, sketch in panels)
    columns = min(len(plans), COLUMNS)
    wide, tall = PANEL + 2 * RIM, HEAD + panels[0][1].size[1] + _foot(panels, scale)
    figure = _figure(columns * wide, HEAD - RIM + tall * math.ceil(len(plans) / columns))
    _write(figure, RIM, RIM, _what(plans[0]), size=15, weight="bold")
    for k, (plan, sketch) in enumerate(panels):
        left, top = k % columns * wide + RIM, HEAD - RIM + k // columns * tall
        _write(figure, left, top + 8, f"{plan.rates.policy} rates", size=12, weight="bold")
        _write(figure, left, top + 26, _promise(plan), size=9, color=FAINT)
        _draw_panel(figure, (left, top + HEAD - 8, PANEL), plan, sketch, scale, pen)
    return figure


def _check_comparable(plans: Sequence[Plan]) -> None:
    if not plans:
        raise PlanError("there is no plan to draw: give one or more.")
    graphs = {(tuple(n.name for n in p.nodes), frozenset(frozenset((e.a, e.b)) for e in p.edges)) for p in plans}
    if len(graphs) > 1:
        raise PlanError("these plans are not of one graph: draw plans side by side that differ in their rates only.")


def _save(figure: Figure, path: Path | str) -> None:
    # Else an .svg or .pdf would say when it was made, and its parts would have other names every time.
    undated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(Path(path).suffix.lower())
    try:
        with rc_context({"svg.hashsalt": "gradvine"}):
            figure.savefig(path, dpi=144, metadata=undated)
    except (OSError, ValueError) as error:
        raise PlanError(
            f"the picture can't be written to {path}: {getattr(error, 'strerror', None) or error}."
        ) from None


# ------------------------------------------------------------------------------------------ words


def _what(plan: Plan) -> str:
    name = Path(plan.family.removeprefix("file:")).name
    name = name if len(name) <= 32 else name[:31] + "…"
    return f"{name}, {len(plan.nodes):,} peers, {_count(len(plan.edges), 'edge')}"


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _promise(plan: Plan) -> str:
    """The total rate, and how good it is known to be."""
    total, per_cent = plan.rates.total_rate, 100 * plan.rates.certified_gap
    text = f"{f'{total:,.0f}' if total >= 1000 else f'{total:.4g}'} exchanges per unit of time"
    if plan.rates.policy != "optimal" or per_cent >= 100:
        return text
    digits = 0 if per_cent >= 10 else 1 if per_cent >= 1 else 2
    rounded_up = max(0.01, math.ceil(per_cent * 10**digits) / 10**digits)
    return f"{text}, within {rounded_up:g} % of the best possible"


def _caption(plan: Plan, sketch: Sketch) -> str:
    """What the picture does not show, or hardly."""
    idle, drawn = int(idle_edges(plan).sum()), len(np.unique(sketch.edges))
    parts = [f"dotted: {_count(idle, 'idle edge')}, with less than 1/1000 of the average rate"] if idle else []
    if drawn < len(plan.edges):
        parts.append(f"drawn: {drawn:,} edges, the most frequent among them")
    return "; ".join(parts)


# ------------------------------------------------------------------------------------- arrangement


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width / 72, height / 72), facecolor="white")


def _write(
    figure: Figure, left: float, top: float, text: str, *, size: float, weight: str = "normal", color: str = INK
) -> None:
    width, height = 72 * figure.get_size_inches()
    figure.text(left / width, 1 - top / height, text, fontsize=size, va="top", weight=weight, color=color)


def _axes(figure: Figure, left: float, top: float, wide: float, tall: float) -> Axes:
    width, height = 72 * figure.get_size_inches()
    return figure.add_axes((left / width, 1 - (top + tall) / height, wide / width, tall / height))


def _foot(panels: Sequence[tuple[Plan, Sketch]], scale: Scale) -> float:
    """What is below a picture: legends, a caption, and room."""
    return _legends(scale) + CAPTION * any(_caption(plan, sketch) for plan, sketch in panels) + RIM


def _legends(scale: Scale) -> float:
    return LEGEND if scale.rates.differ or scale.loads.differ else 0


def _draw_panel(
    figure: Figure, box: tuple[float, float, float], plan: Plan, sketch: Sketch, scale: Scale, pen: Pen
) -> None:
    """One plan's picture, legends and caption, from a left and top corner on, in the middle of a width."""
    left, top, room = box
    wide, tall = sketch.size
    axes = _axes(figure, left + (room - wide) / 2, top, wide, tall)
    axes.set(xlim=(0, wide), ylim=(0, tall))
    axes.set_axis_off()
    draw_edges(axes, plan, sketch, scale, pen)
    draw_nodes(axes, plan, sketch, scale)
    below = top + tall + 20
    if scale.rates.differ:
        rates = edge_rates(plan)[~idle_edges(plan)]
        legend = _axes(figure, left, below, 0.62 * room, 32)
        _draw_legend(legend, rates, scale.rates, rate_colours(), "edge", 0.62 * room / TICK_ROOM)
        _name(legend, "exchanges of an edge per unit of time")
    if scale.loads.differ:
        legend = _axes(figure, left + 0.7 * room * scale.rates.differ, below, 0.3 * room, 32)
        _draw_legend(legend, node_loads(plan), scale.loads, load_colours(), "peer", 0.3 * room / TICK_ROOM)
        _name(legend, "messages of a peer")
    _write(figure, left, top + tall + _legends(scale) + 6, _caption(plan, sketch), size=8.5, color=FAINT)


def _name(legend: Axes, text: str) -> None:
    legend.set_xlabel(text, fontsize=9, color=INK, labelpad=3, loc="left")


def _draw_legend(axes: Axes, values: Reals, span: Span, colours: Colormap, thing: str, ticks_max: float) -> None:
    """The colours' meaning, and above them how many edges or peers have each."""
    axes.imshow(colours(np.linspace(0, 1, 256))[None], extent=(0, 1, -0.3, -0.08), aspect="auto")
    axes.axhspan(-0.3, -0.08, facecolor="none", edgecolor=FAINT, linewidth=0.5)
    counts, bounds = np.histogram(span.place(values), BINS, (0, 1))
    most, middles = int(counts.argmax()), (bounds[1:] + bounds[:-1]) / 2
    some = counts > 0
    look = {"color": colours(middles[some]), "edgecolor": FAINT, "linewidth": 0.3}
    axes.bar(middles[some], counts[some] / counts.max(), 0.8 / BINS, **look)
    axes.set(xlim=(0, 1), ylim=(-0.3, 1.05), yticks=[])
    side = "left" if most < BINS / 2 else "right"
    text = _count(int(counts[most]), thing)
    axes.annotate(text, (middles[most], 1), (0, 2), textcoords="offset points", ha=side, fontsize=8, color=FAINT)
    _set_ticks(axes, span, int(ticks_max), beyond=bool(values.min() < 0.999 * span.low))
    axes.tick_params(labelsize=8.5, labelcolor=INK, length=3, color=FAINT)
    axes.spines[:].set_visible(False)


def _set_ticks(axes: Axes, span: Span, most: int, *, beyond: bool) -> None:
    ticks = span.round_values(most)
    texts = [f"{tick / 1000:g}k" if tick >= 10_000 else f"{tick:g}" for tick in ticks]
    if beyond:  # the lowest colour is also that of lower figures
        clear = span.place(ticks) > 1 / most
        ticks = np.append(span.low, ticks[clear])
        texts = [f"≤ {span.low:.2g}", *(text for text, kept in zip(texts, clear, strict=True) if kept)]
    axes.set_xticks(span.place(ticks), texts)
