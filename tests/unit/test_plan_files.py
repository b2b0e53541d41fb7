"""Graphs from files: what is written comes back, and whatever is wrong with a file is one sentence."""

from __future__ import annotations

from pathlib import Path

import networkx as nx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from topology.families import make_graph
from topology.files import LARGEST_MIB, load_graph, node_order
from topology.plan import save_plan
from topology.planning import build_plan
from topology.records import PlanError

NAMES = st.from_regex(r"[a-z0-9-]{1,8}", fullmatch=True)
HEAD = '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'


def pairs(graph: nx.Graph) -> set[frozenset[str]]:
    return {frozenset(edge) for edge in graph.edges}


@pytest.fixture
def written(tmp_path):
    """Writes a text, or bytes, and gives the path."""

    def write(content: str | bytes, name: str = "graph.txt") -> Path:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / name

    return write


def graphml(inside: str, default: str = "undirected") -> str:
    return f'{HEAD}<graph edgedefault="{default}">{inside}</graph></graphml>'


# --------------------------------------------------------------------------------------- round trips


@st.composite
def connected_graphs(draw) -> nx.Graph:
    """A random tree on random names, and some more edges."""
    names = draw(st.lists(NAMES, min_size=2, max_size=12, unique=True))
    graph = nx.Graph((name, names[draw(st.integers(0, k - 1))]) for k, name in enumerate(names) if k)
    more = draw(st.lists(st.tuples(st.sampled_from(names), st.sampled_from(names)), max_size=15))
    graph.add_edges_from((a, b) for a, b in more if a != b)
    return graph


FORMS = ["{} {}", "{}\t {}", "{},{}", " {} , {} ", "\t{},\t{} # x, y z", "{}  {}\r", "\n# é, too\n{} {}", " \n{} {}#"]


@given(
    graph=connected_graphs(), forms=st.lists(st.sampled_from(FORMS), min_size=1), mark=st.sampled_from(["", "\ufeff"])
)
def test_edge_lists_come_back_however_they_are_written(graph, forms, mark, tmp_path_factory) -> None:
    lines = [forms[k % len(forms)].format(*sorted(edge)[:: (-1) ** k]) for k, edge in enumerate(graph.edges)]
    path = tmp_path_factory.mktemp("lists") / "edges.txt"
    path.write_text(mark + "\n".join(lines), encoding="utf-8", newline="")
    found = load_graph(path)
    assert pairs(found) == pairs(graph)
    assert list(found) == node_order(graph)


@given(graph=connected_graphs())
def test_graphml_comes_back(graph: nx.Graph, tmp_path_factory) -> None:
    path = tmp_path_factory.mktemp("graphs") / "mine.graphml"
    nx.write_graphml(graph, path)
    found = load_graph(path)
    assert pairs(found) == pairs(graph)
    assert list(found) == node_order(graph)


@pytest.mark.parametrize("family", ["grid", "geometric", "lollipop"])
def test_plans_and_what_networkx_writes_come_back(family: str, tmp_path) -> None:
    graph = make_graph(family, 12)
    save_plan(build_plan(family, 12), tmp_path / "plan.json")
    nx.write_edgelist(graph, tmp_path / "edges.txt", data=False)
    for a, b in graph.edges:
        graph.edges[a, b].update(weight=0.5, fast=True)
    plain = nx.Graph(graph.edges(data=True))  # places are no GraphML
    nx.write_graphml(plain, tmp_path / "mine.graphml")
    nx.write_graphml_xml(plain, tmp_path / "mine.xml", encoding="utf-8")
    for name in ("plan.json", "edges.txt", "mine.graphml", "mine.xml"):
        found = load_graph(tmp_path / name)
        assert pairs(found) == pairs(graph)
        assert list(found) == [f"n{k}" for k in range(12)]


def test_content_tells_where_the_ending_does_not(written) -> None:
    save_plan(build_plan("ring", 5), path := written("", "plan"))
    assert pairs(load_graph(path)) == pairs(nx.relabel_nodes(nx.cycle_graph(5), lambda k: f"n{k}"))
    text = graphml('<node id="a"/><node id="b"/><edge source="a" target="b"/>')
    declared = "<?xml version='1.0' encoding='latin-1'?>\n" + text.replace(HEAD, "<graphml>")
    assert pairs(load_graph(written(declared))) == {frozenset("ab")}


def test_graphml_that_says_of_every_edge_that_it_is_undirected(written) -> None:
    text = graphml('<node id="a"/><node id="b"/><edge source="a" target="b" directed="false"/>', "directed")
    assert pairs(load_graph(written(text))) == {frozenset("ab")}


@given(st.lists(NAMES, unique=True, min_size=1))
def test_natural_order_is_an_order_of_all_names(names: list[str]) -> None:
    graph = nx.Graph()
    graph.add_nodes_from(names)
    order = node_order(graph)
    assert sorted(order) == sorted(names)
    graph = nx.Graph()
    graph.add_nodes_from(reversed(names))
    assert node_order(graph) == order


def test_names_of_equal_numbers_have_an_order_too() -> None:
    for names in (["n1", "n01", "n001"], ["n001", "n01", "n1"]):
        graph = nx.Graph()
        graph.add_nodes_from(names)
        assert node_order(graph) == ["n001", "n01", "n1"]


@given(st.sets(st.integers(0, 10**6), min_size=1), NAMES, NAMES)
def test_numbers_within_names_count_as_numbers(numbers: set[int], before: str, after: str) -> None:
    assume(not before[-1].isdigit() and not after[0].isdigit())
    graph = nx.Graph()
    graph.add_nodes_from(f"{before}{k}{after}" for k in numbers)
    assert node_order(graph) == [f"{before}{k}{after}" for k in sorted(numbers)]


def test_file_as_a_family(written) -> None:
    path = written("hub n10\nhub n2\n")
    for n in (None, 3):
        graph = make_graph(f"file:{path}", n, seed=4)
        assert pairs(graph) == {frozenset(("hub", "n10")), frozenset(("hub", "n2"))}
        assert node_order(graph) == ["hub", "n2", "n10"]


# ------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("n", "options", "says"),
    [
        (4, {}, "has 3 nodes, not 4: leave the number out"),
        (0, {}, "has 3 nodes, not 0"),
        (None, {"degree": 2}, "from a file has no degree to choose"),
        (None, {"radius": 2.0}, "from a file has no radius to choose"),
        (None, {"seed": -1}, "write 0 or more"),
    ],
)
def test_what_a_file_does_not_take(written, n, options, says) -> None:
    path = written("a b\nb c\n")
    with pytest.raises(PlanError, match=says):
        make_graph(f"file:{path}", n, **options)


def test_a_family_that_names_no_file() -> None:
    with pytest.raises(PlanError, match="file: names no file: write file:PATH"):
        make_graph("file:", 4)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("# only a comment\n", "no nodes: a plan needs at least two"),
        ("a b\nb c d\n", "line 2 is 'b c d': write the names of two nodes"),
        ("a b\n\nb # c\n", "line 3 is 'b'"),
        ("a,b,\n", "line 1 is 'a,b,'"),
        ("a b, c\n", "line 1 has the name 'a b'"),
        ("a,\n", "line 1 has the name ''"),
        ("a b\nb C\nD e", "line 2 has the name 'C': write 1 to 63 of a-z, 0-9 and '-'"),
        ("a " + 64 * "b", "line 1 has the name 'bbbb"),
        ("a b\nb é", "line 2 has the name 'é'"),
        ("a b\nb b\n", "line 2 joins 'b' to itself"),
        ("a b\nb c\na b\n", "line 3 joins a and b again, after line 1: keep one"),
        ("a b\nb c\n# x\nb a\n", "line 4 joins b and a again, after line 1: keep one"),
        ("n1 n10\nn2 n3\nn4 n5\n", "in 3 parts, n2 can't be reached from n1: join them"),
        (b"a b\nb \xff\n", "line 2 is not UTF-8"),
        ("a b\n".encode("utf-16"), "line 1 is not UTF-8"),
        ("a b\0\n", r"line 1 has the name 'b\\x00'"),
    ],
)
def test_wrong_edge_lists(written, text, says) -> None:
    path = written(text)
    with pytest.raises(PlanError, match=says) as refusal:
        load_graph(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


TWO = '<node id="a"/><node id="b"/>'
BOMB = '<!DOCTYPE g [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>' + graphml('<node id="&b;"/>')
OUTSIDE = '<!DOCTYPE g [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + graphml('<node id="a">&a;</node>')


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "has a declaration <!DOCTYPE, which is not read here: take it out"),
        (OUTSIDE, "has a declaration <!DOCTYPE"),
        ('<?xml version="1.0"?>\n<!doctype x>' + graphml(TWO), "has a declaration <!doctype"),
        (graphml(TWO)[:-5], "not XML: .*line 1"),
        ("no xml", "not XML"),
        (graphml('<node id="&nothing;"/>'), "not XML: undefined entity"),
        ("<svg/>", "holds 'svg': save it as GraphML"),
        (HEAD + "</graphml>", "has 0 graphs: write one"),
        (HEAD + "<graph/><graph/></graphml>", "has 2 graphs: write one"),
        (graphml(f'<node id="a"><graph>{TWO}</graph></node>'), "has 2 graphs: .*no graph inside"),
        (f"{HEAD}<data><graph>{TWO}</graph></data></graphml>", "has 1 graphs: .*no graph inside"),
        (graphml(TWO + '<hyperedge><endpoint node="a"/></hyperedge>'), "hyperedges"),
        (graphml(TWO + '<edge source="a" target="b"/>', "directed"), "edge 1 is directed: make the graph undirected"),
        (graphml(TWO + '<edge source="a" target="b" directed="true"/>'), "edge 1 is directed"),
        (graphml(TWO + 2 * '<edge source="a" target="b"/>'), "edge 2 joins a and b again, after edge 1"),
        (graphml(TWO + '<edge source="b" target="b"/>'), "edge 1 joins 'b' to itself"),
        (graphml(TWO + '<edge source="a" target="bb"/>'), "edge 1 ends nowhere: unknown node 'bb': did you mean 'b'"),
        (graphml(TWO + '<edge source="a"/>'), "edge 1 ends nowhere: unknown node ''"),
        (graphml(TWO), "in 2 parts, b can't be reached from a"),
        (graphml(TWO + '<node id="a"/>'), "node 3 has the id 'a' of another"),
        (graphml('<node id="a"/><node/>'), "node 2 has the name ''"),
        (graphml('<node id="a"/><node id="Big"/>'), "node 2 has the name 'Big'"),
        (graphml('<node id="a"/>'), "one node: a plan needs at least two"),
        (graphml(""), "no nodes: a plan needs at least two"),
    ],
)
def test_wrong_graphml(written, text, says) -> None:
    path = written(text, "mine.graphml")
    with pytest.raises(PlanError, match=says) as refusal:
        load_graph(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("graph", [nx.MultiGraph([("a", "b"), ("b", "a")]), nx.DiGraph([("a", "b"), ("b", "a")])])
def test_networkx_graphs_that_are_not_simple(graph, tmp_path) -> None:
    nx.write_graphml(graph, tmp_path / "mine.graphml")
    with pytest.raises(
        PlanError, match="edge 2 joins a and b again" if graph.is_multigraph() else "edge 1 is directed"
    ):
        load_graph(tmp_path / "mine.graphml")


@pytest.mark.parametrize(
    ("text", "says"),
    [("a b\n", "not JSON"), ("{}", "has no key 'version'"), ('{"version": 7}', "version 7"), (9**5 * "[", "not JSON")],
)
def test_wrong_plans(written, text, says) -> None:
    with pytest.raises(PlanError, match=f"plan.json can't be used: .*{says}"):
        load_graph(written(text, "plan.json"))


def test_files_that_cannot_be_read(tmp_path) -> None:
    with pytest.raises(PlanError, match=r"absent\.txt can't be read: No such file"):
        load_graph(tmp_path / "absent.txt")
    with pytest.raises(PlanError, match="can't be read: Is a directory"):
        load_graph(str(tmp_path))
    with pytest.raises(PlanError, match="can't be read: embedded null byte"):
        load_graph("graph\0.txt")
    with open(tmp_path / "huge.txt", "wb") as file:
        file.truncate((LARGEST_MIB << 20) + 1)
    with pytest.raises(PlanError, match=f"more than {LARGEST_MIB} MiB"):
        load_graph(tmp_path / "huge.txt")
