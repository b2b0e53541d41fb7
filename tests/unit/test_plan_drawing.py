"""Pictures of plans: every family finds its places, and colours and widths mean the same all over a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from topology.draw import comparison_figure, draw_comparison, draw_plan, plan_figure
from topology.drawing.places import place_nodes, trace_edges
from topology.drawing.scales import Span, idle_edges, shared_scale
from topology.drawing.sketch import LINES_MAX, cut_pen, line_looks, sketch_plan
from topology.families import FAMILIES, geometric_positions, make_graph
from topology.measures import chi1, chi2, edge_ends, laplacian, total_rate
from topology.plan import Node, Plan, PlanEdge, PlanError, Rates

SIZES = {"barbell": (4, 10, 200), "lollipop": (2, 20, 200), "hypercube": (2, 64, 1024), "small-world": (5, 40, 200)}


def plan_of(graph: nx.Graph, family: str, parts: Sequence[float] | None = None, policy: str = "uniform") -> Plan:
    """A plan of a graph on n0, n1, …, whose edges' rates have these ratios; the gap to the best is 0.1234 %."""
    n, pairs = len(graph), sorted(graph.edges)
    nodes = tuple(Node(f"n{k}", f"h:{1000 + k}", f"h:{9000 + k}") for k in range(n))
    ends = np.array([(int(a[1:]), int(b[1:])) for a, b in pairs])
    p = np.ones(len(ends)) if parts is None else np.array(parts)
    matrix = laplacian(n, ends, p / p.sum())
    one, two = chi1(matrix), chi2(matrix, ends)
    total = total_rate(one, two)
    edges = (PlanEdge(a, b, total * part, 0.0) for (a, b), part in zip(pairs, p / p.sum(), strict=True))
    return Plan(1, family, 0, nodes, tuple(edges), Rates(policy, one, two, total, total / 1.001234, 1.234e-3, "", 0.0))


def family_plan(family: str, n: int) -> Plan:
    return plan_of(make_graph(family, n), family)


def numbered(graph: nx.Graph) -> nx.Graph:
    return nx.relabel_nodes(graph, {k: f"n{k}" for k in graph})


def solid(axes: Axes) -> LineCollection:
    """The lines of the edges that are not idle."""
    return [each for each in axes.collections if isinstance(each, LineCollection)][1]


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.texts)


# ------------------------------------------------------------------------------------------ places


@pytest.mark.parametrize(("family", "n"), [(family, n) for family in FAMILIES for n in SIZES.get(family, (6, 40, 200))])
def test_nodes_stand_apart_and_stay(family: str, n: int) -> None:
    plan = family_plan(family, n)
    spots = place_nodes(plan)
    apart = np.linalg.norm(spots[:, None] - spots[None], axis=2)[np.triu_indices(n, 1)]
    assert spots.shape == (n, 2)
    assert np.isfinite(spots).all()
    assert apart.min() > 0.002 * apart.max()
    np.testing.assert_array_equal(spots, place_nodes(plan))


@pytest.mark.parametrize(
    "graph",
    [
        nx.karate_club_graph(),
        nx.random_labeled_tree(120, seed=1),
        nx.path_graph(30),
        nx.star_graph(60),
        nx.complete_multipartite_graph(1, 9, 9),
        nx.path_graph(2),
    ],
    ids=["club", "tree", "path", "star", "twins", "pair"],
)
def test_a_graph_of_no_family_finds_its_places(graph: nx.Graph) -> None:
    spots = place_nodes(plan_of(numbered(graph), "file:mine.txt"))
    apart = np.linalg.norm(spots[:, None] - spots[None], axis=2)[np.triu_indices(len(graph), 1)]
    assert apart.min() > 0.005 * apart.max()


@pytest.mark.parametrize("family", ["barbell", "lollipop", "tree", "torus", "hypercube", "star", "geometric"])
def test_a_name_that_does_not_fit_the_graph_does_no_harm(family: str) -> None:
    assert np.isfinite(place_nodes(plan_of(make_graph("ring", 7), family))).all()


def test_a_path_from_a_file_lies_straight() -> None:
    spots = place_nodes(plan_of(numbered(nx.path_graph(30)), "file:path.txt"))
    step = np.diff(spots, axis=0)
    turns = np.arctan2(step[:, 1], step[:, 0])
    assert np.ptp(turns) < 0.1


def test_places_do_not_depend_on_rates() -> None:
    graph = make_graph("regular", 30)
    busy = plan_of(graph, "regular", np.arange(1.0, 61))
    np.testing.assert_array_equal(place_nodes(plan_of(graph, "regular")), place_nodes(busy))


@pytest.mark.parametrize("n", [12, 120])
def test_no_edges_of_a_tree_cross(n: int) -> None:
    plan = family_plan("tree", n)
    spots, ends = place_nodes(plan), edge_ends(plan)
    crossings = [
        (a, b, c, d)
        for k, (a, b) in enumerate(ends)
        for c, d in ends[:k]
        if len({a, b, c, d}) == 4 and cross(*spots[[a, b, c, d]])
    ]
    assert crossings == []


def cross(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> bool:
    """Whether the segments ab and cd cross."""

    def turn(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> float:
        return float(np.linalg.det([q - p, r - p]))

    return turn(a, b, c) * turn(a, b, d) < 0 and turn(c, d, a) * turn(c, d, b) < 0


@pytest.mark.parametrize(("family", "n"), [("barbell", 20), ("lollipop", 20), ("lollipop", 120)])
def test_cliques_are_circles(family: str, n: int) -> None:
    spots = place_nodes(family_plan(family, n))
    head = spots[: n // 2]
    radii = np.linalg.norm(head - head.mean(axis=0), axis=1)
    np.testing.assert_allclose(radii, radii[0])
    outside = np.linalg.norm(spots[n // 2 :] - head.mean(axis=0), axis=1)
    assert outside.min() > 1.05 * radii[0]


def test_a_geometric_graph_lies_where_it_was_drawn() -> None:
    spots = place_nodes(family_plan("geometric", 60))
    # Nodes that would hide each other are moved, but not far: half of 1/√60 is the least distance.
    assert np.abs(spots - geometric_positions(60, 0)).max() < 0.1


def test_an_edge_around_a_torus_leaves_and_comes_back() -> None:
    plan = family_plan("torus", 20)
    spots = place_nodes(plan)
    lines, edges = trace_edges(plan, spots)
    longest = np.linalg.norm(lines[:, 0] - lines[:, 1], axis=1).max()
    assert longest <= 1
    assert sorted(np.bincount(edges)) == [1] * 31 + [2] * 9  # 4 rows and 5 columns are closed


@pytest.mark.parametrize(("family", "n"), [("small-world", 50), ("exponential", 64), ("grid", 30)])
def test_lines_join_the_ends_of_their_edges(family: str, n: int) -> None:
    plan = family_plan(family, n)
    spots, ends = place_nodes(plan), edge_ends(plan)
    lines, edges = trace_edges(plan, spots)
    np.testing.assert_array_equal(edges, np.arange(len(ends)))
    np.testing.assert_allclose(lines[:, 0], spots[ends[:, 0]])
    np.testing.assert_allclose(lines[:, -1], spots[ends[:, 1]])


# ------------------------------------------------------------------------------------------ scales


def test_a_span_is_linear_or_logarithmic() -> None:
    near, far = Span.of(np.array([2.0, 3, 6])), Span.of(np.array([4.0, 20, 100]))
    np.testing.assert_allclose(near.place(np.array([2.0, 3, 4, 6])), [0, 0.25, 0.5, 1])
    np.testing.assert_allclose(far.place(np.array([4.0, 20, 100])), [0, 0.5, 1])
    assert not near.log
    assert far.log


def test_nearly_equal_figures_look_nearly_equal() -> None:
    span = Span.of(np.array([0.99, 1.0]))
    assert span.differ
    assert np.ptp(span.place(np.array([0.99, 1.0]))) == pytest.approx(0.02)
    assert not Span.of(np.array([1.0, 1.0])).differ


def test_low_figures_that_do_not_count_share_the_lowest_colour() -> None:
    span = Span.of(np.array([1e-4, 1e-3, 1.0, 50.0]))
    assert (span.low, span.high) == (1.0, 50.0)
    np.testing.assert_array_equal(span.place(np.array([1e-4, 1.0])), [0, 0])


@pytest.mark.parametrize("low", [1e-9, 0.003, 0.7, 1, 4, 99])
@pytest.mark.parametrize("ratio", [2, 3.3, 12, 1e3, 1e9])
@pytest.mark.parametrize("most", [3, 5, 13])
def test_ticks_are_round_inside_and_few(low: float, ratio: float, most: int) -> None:
    for log in (False, True):
        span = Span(low, low * ratio, log, True)
        ticks = span.round_values(most)
        assert len(ticks) <= most
        assert ((ticks >= span.low) & (ticks <= span.high)).all()
        assert all(len(f"{tick:e}".split("e")[0].rstrip("0")) <= 5 for tick in ticks)
    assert len(Span(low, low * ratio, False, True).round_values(most)) >= 1


# -------------------------------------------------------------------------------------------- ink


def test_widths_and_colours_grow_with_the_rate() -> None:
    parts = 10.0 ** np.linspace(-2, 1, 60)
    plan = plan_of(make_graph("regular", 30), "regular", parts, "optimal")
    scale, sketch = shared_scale([plan]), sketch_plan(plan, 500)
    rates = np.array([edge.rate for edge in plan.edges])[sketch.edges]
    widths, colours = line_looks(plan, sketch, scale, cut_pen(plan, sketch, scale))
    assert (np.diff(rates) > 0).all()  # so that frequent edges are drawn last
    assert (np.diff(widths) >= 0).all()
    assert widths[-1] > 3 * widths[0]
    assert (np.diff(scale.rates.place(rates)) >= 0).all()
    brightness = colours[:, :3] @ (0.299, 0.587, 0.114)
    assert (np.diff(brightness) <= 1e-9).all()
    assert brightness.max() < 0.8  # to be seen on white


def test_a_bridge_stands_out_of_thousands_of_edges() -> None:
    graph = make_graph("barbell", 120)
    parts = [1000.0 if edge == ("n59", "n60") else 1.0 for edge in sorted(graph.edges)]
    plan = plan_of(graph, "barbell", parts, "optimal")
    scale, sketch = shared_scale([plan]), sketch_plan(plan, 500)
    widths, _ = line_looks(plan, sketch, scale, cut_pen(plan, sketch, scale))
    assert widths[-1] == pytest.approx(max(widths))
    assert widths[-1] >= 4 * widths[-2]
    assert plan.edges[sketch.edges[-1]].a == "n59"


def test_a_lone_line_is_seen_beside_a_dense_part() -> None:
    graph = make_graph("barbell", 420)
    plan = plan_of(graph, "barbell")
    scale, sketch = shared_scale([plan]), sketch_plan(plan, 500)
    _, colours = line_looks(plan, sketch, scale, cut_pen(plan, sketch, scale))
    assert len(sketch.edges) < len(plan.edges)
    (bridge,) = [
        k for k, edge in enumerate(sketch.edges) if {plan.edges[edge].a, plan.edges[edge].b} == {"n209", "n210"}
    ]
    assert colours[bridge, 3] >= 0.5
    assert np.median(colours[:, 3]) < 0.1


def test_idle_edges_are_dotted_below_and_counted() -> None:
    parts = [1.0] * 9 + [1e-5] * 3
    plan = plan_of(make_graph("grid", 9), "grid", parts, "connectivity")
    assert idle_edges(plan).sum() == 3
    figure = plan_figure(plan)
    dotted, lines = [each for each in figure.axes[0].collections if isinstance(each, LineCollection)]
    assert (len(dotted.get_paths()), len(lines.get_paths())) == (3, 9)
    assert dotted.get_zorder() < lines.get_zorder()
    assert "dotted: 3 idle edges" in words(figure)


def test_of_very_many_edges_the_most_frequent_are_drawn() -> None:
    graph = make_graph("complete", 300)
    parts = np.ones(44850)
    parts[::4485] = 50
    plan = plan_of(graph, "complete", parts, "optimal")
    sketch = sketch_plan(plan, 500)
    assert LINES_MAX / 2 < len(sketch.edges) < 1.1 * LINES_MAX
    assert set(range(0, 44850, 4485)) <= set(sketch.edges.tolist())
    assert len(set(sketch.edges.tolist())) == len(sketch.edges)
    assert f"drawn: {len(sketch.edges):,} edges" in words(plan_figure(plan))


# ------------------------------------------------------------------------------------------- words


def test_the_title_says_what_it_is_and_how_good() -> None:
    graph = make_graph("ring", 8)
    optimal = words(plan_figure(plan_of(graph, "ring", policy="optimal")))
    assert "ring, 8 peers, 8 edges" in optimal
    assert "optimal rates: 9.777 exchanges per unit of time, within 0.13 % of the best possible" in optimal
    assert "best" not in words(plan_figure(plan_of(graph, "ring")))
    assert "graph.txt, 8 peers" in words(plan_figure(plan_of(graph, "file:some/where/graph.txt")))


def test_a_legend_only_where_something_differs() -> None:
    ring, star = make_graph("ring", 8), make_graph("star", 8)
    assert len(plan_figure(plan_of(ring, "ring")).axes) == 1
    assert [axes.get_xlabel() for axes in plan_figure(plan_of(star, "star")).axes[1:]] == ["messages of a peer"]
    assert len(plan_figure(plan_of(ring, "ring", range(1, 9))).axes) == 3


@pytest.mark.parametrize(("name", "shown"), [("n{}", True), ("berlin-{}", True), ("x" * 30 + "{}", False)])
def test_names_are_written_where_they_fit(name: str, shown: bool) -> None:
    plan = plan_of(make_graph("ring", 8), "ring")
    names = {node.name: name.format(k) for k, node in enumerate(plan.nodes)}
    nodes = tuple(replace(node, name=names[node.name]) for node in plan.nodes)
    edges = tuple(replace(edge, a=names[edge.a], b=names[edge.b]) for edge in plan.edges)
    figure = plan_figure(replace(plan, nodes=nodes, edges=edges))
    assert [text.get_text() for text in figure.axes[0].texts] == (list(names.values()) if shown else [])


# -------------------------------------------------------------------------------------- comparison


def test_compared_plans_share_colours_and_widths() -> None:
    graph = make_graph("ring", 8)
    even, uneven = plan_of(graph, "ring"), plan_of(graph, "ring", [1.0] * 4 + [3.0] * 4, "optimal")
    figure = comparison_figure([even, uneven, even])
    first, second, third = [solid(axes) for axes in figure.axes if axes.texts and axes.texts[0].get_text() == "n0"]
    np.testing.assert_array_equal(first.get_colors(), third.get_colors())
    np.testing.assert_array_equal(first.get_linewidths(), third.get_linewidths())
    rates = {plan.rates.policy: sorted(edge.rate for edge in plan.edges) for plan in (even, uneven)}
    high = max(map(max, rates.values()))
    widest = max(*first.get_linewidths(), *second.get_linewidths())
    ratio = first.get_linewidths()[0] / widest
    assert ratio == pytest.approx(math.sqrt(rates["uniform"][0] / high))
    assert "uniform rates" in words(figure)
    assert "optimal rates" in words(figure)


def test_only_plans_of_one_graph_are_compared(tmp_path) -> None:
    ring, line = (plan_of(make_graph(family, 6), family) for family in ("ring", "line"))
    with pytest.raises(PlanError, match="not of one graph"):
        draw_comparison([ring, line], tmp_path / "both.png")
    with pytest.raises(PlanError, match="no plan to draw"):
        draw_comparison([], tmp_path / "none.png")


# ------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_formats(ending: str, start: bytes, tmp_path) -> None:
    plan = plan_of(make_graph("line", 2), "line")
    draw_plan(plan, tmp_path / f"one.{ending}")
    draw_comparison([plan] * 4, tmp_path / f"four.{ending}")
    assert (tmp_path / f"one.{ending}").read_bytes().startswith(start)
    assert (tmp_path / f"four.{ending}").read_bytes().startswith(start)


def test_the_same_plan_gives_the_same_picture(tmp_path) -> None:
    graph = make_graph("erdos-renyi", 30)
    parts = np.arange(1.0, graph.number_of_edges() + 1)
    for name in ("a.png", "b.png", "a.svg", "b.svg"):
        draw_plan(plan_of(graph, "erdos-renyi", parts, "optimal"), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize("path", ["ring.nonsense", "nowhere/ring.png"])
def test_a_picture_that_cannot_be_written_is_said(path: str, tmp_path) -> None:
    with pytest.raises(PlanError, match="picture can't be written"):
        draw_plan(plan_of(make_graph("ring", 4), "ring"), tmp_path / path)
