"""Delays and bandwidths of links in plans: what is read, what is refused, and that no digest knows of them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from node.cli import app
from topology.plan import Plan, PlanEdge, PlanError, load_plan, plan_from_json, plan_to_json, save_plan
from topology.planning import Demands, build_plan

TWO = """{"version": 1, "family": "line", "seed": 3,
 "nodes": [{"name": "n0", "address": "a:1", "http": "a:2"}, {"name": "n1", "address": "b:1", "http": "b:2"}],
 "edges": [{"a": "n1", "b": "n0", "rate": 0.5, "weight": 0.25, "cost": 2.0}],
 "rates": {"policy": "uniform", "chi1": 0.5, "chi2": 0.25, "total_rate": 0.5, "lower_bound": 0.5,
           "certified_gap": 0.0, "solver": "none", "seconds": 0.0}}"""
DIGEST = "sha256:544500ce8a98307837fbcbf88dc036d0151767a5c5eca01f0dbbcfad6744a3db"
"""Of the plan above, as it was before links could have delays: peers of that time are still agreed with."""


def with_link(**link: object) -> str:
    value = json.loads(TWO)
    value["edges"][0] |= link
    return json.dumps(value)


def test_links_are_none_of_the_digests_business() -> None:
    assert plan_from_json(TWO).digest == DIGEST
    assert plan_from_json(with_link(delay=0.02, bandwidth=1e6)).digest == DIGEST


def test_links_come_back_and_what_is_not_said_is_not_written() -> None:
    assert '"delay"' not in plan_to_json(plan_from_json(TWO))
    assert '"bandwidth"' not in plan_to_json(plan_from_json(with_link(delay=0)))
    plan = plan_from_json(with_link(delay=0.02, bandwidth=1_000_000))
    assert (plan.edges[0].delay, plan.edges[0].bandwidth) == (0.02, 1e6)
    assert plan_from_json(plan_to_json(plan)) == plan
    silent = replace(plan, edges=(replace(plan.edges[0], delay=None, bandwidth=None),))
    assert silent == plan_from_json(TWO)


@pytest.mark.parametrize(
    ("link", "says"),
    [
        ({"delay": -0.1}, "the delay of edge 'n1' – 'n0' is -0.1 s: write 0 to 3600"),
        ({"delay": 3601}, "write 0 to 3600"),
        ({"delay": "20ms"}, "delay in edges\\[0\\] is '20ms': write a finite number"),
        ({"delay": None}, "write a finite number"),
        ({"bandwidth": 0}, "the bandwidth of edge 'n1' – 'n0' is 0.0: write 1 byte a second or more, or leave it out"),
        ({"bandwidth": True}, "write a finite number"),
        ({"latency": 1}, "unknown key in edges"),
    ],
)
def test_what_no_link_can_have_is_refused(link: dict[str, object], says: str) -> None:
    with pytest.raises(PlanError, match=says) as caught:
        plan_from_json(with_link(**link))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("link", [{"delay": math.nan}, {"bandwidth": math.nan}, {"bandwidth": math.inf}])
def test_an_edge_checks_itself(link: dict[str, float]) -> None:
    with pytest.raises(PlanError, match="write"):
        PlanEdge("a", "b", 1.0, 0.1, **link)


# --------------------------------------------------------------------------------------- from a file


def ring_with(tmp_path: Path, text: str) -> dict[frozenset[str], tuple[float | None, float | None]]:
    """Delay and bandwidth by pair, of a ring of four with these links."""
    (tmp_path / "links.csv").write_text(text)
    return natures(build_plan("ring", 4, demands=Demands(links=tmp_path / "links.csv")))


def natures(plan: Plan) -> dict[frozenset[str], tuple[float | None, float | None]]:
    return {frozenset((edge.a, edge.b)): (edge.delay, edge.bandwidth) for edge in plan.edges}


def test_links_are_read_from_a_file(tmp_path: Path) -> None:
    text = "a,b,delay,bandwidth\n\nn0, n1, 20ms, 10MiB  # the office\nn3,n2,0s,\nn1,n2,,1e3\n".replace("1e3", "1000")
    assert ring_with(tmp_path, text) == {
        frozenset(("n0", "n1")): (0.02, 10 * 2**20),
        frozenset(("n2", "n3")): (0.0, None),
        frozenset(("n1", "n2")): (None, 1000.0),
        frozenset(("n0", "n3")): (None, None),
    }


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("n0,n1,20ms", "line 1: it is 'n0,n1,20ms', write a,b,delay,bandwidth"),
        ("n0,n1,20ms,1MB\nn1,n0,,1MB", "line 2: n1 – n0 is in line 1 already"),
        ("n0,n2,20ms,", "line 1: n0 and n2 are not joined"),
        ("n0,n7,20ms,", "line 1: unknown node 'n7'"),
        ("N0,N1,20ms,\nn0,n1,1s,", "line 1: unknown node 'N0'"),
        ("n0,n1,," + "9" * 400, "write a size from 1B on"),
        ("n0,n1,soon,", "line 1: the delay is 'soon', write a duration from 0s to 1h, such as 20ms"),
        ("n0,n1,2h,", "write a duration"),
        ("n0,n1,nan,", "write a duration"),
        ("n0,n1,,0", "line 1: the bandwidth is '0', write a size from 1B on, such as 10MiB"),
        ("n0,n1,,10Mbit", "write a size"),
        ("n0,n1,,", "line 1: it says nothing of n0 – n1"),
        ("a,b,delay,bandwidth", "no links in it"),
        ("", "is empty"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_sentence(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=says) as caught:
        ring_with(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_links_change_nothing_else_and_a_plan_of_a_plan_keeps_them(tmp_path: Path) -> None:
    bare = build_plan("ring", 4)
    edges = (replace(bare.edges[0], delay=0.5, bandwidth=2.0**20), *bare.edges[1:])
    save_plan(replace(bare, edges=edges), tmp_path / "slow.json")
    again = build_plan(f"file:{tmp_path / 'slow.json'}")
    assert natures(again) == natures(load_plan(tmp_path / "slow.json"))
    (tmp_path / "links.csv").write_text("n0,n1,7s,")
    changed = natures(build_plan(f"file:{tmp_path / 'slow.json'}", demands=Demands(links=tmp_path / "links.csv")))
    first = frozenset((edges[0].a, edges[0].b))
    assert changed[frozenset(("n0", "n1"))] == (7.0, 2.0**20 if first == {"n0", "n1"} else None)
    assert again.digest == build_plan(f"file:{tmp_path / 'slow.json'}").digest


def test_the_commands_write_and_show_them(tmp_path: Path) -> None:
    (tmp_path / "links.csv").write_text("n0,n1,20ms,10MiB\nn1,n2,1500ms,\n")
    plan = str(tmp_path / "plan.json")
    written = CliRunner().invoke(app, ["plan", "ring", "-n", "4", "--links", str(tmp_path / "links.csv"), "-o", plan])
    assert written.exit_code == 0, written.output
    shown = CliRunner().invoke(app, ["show", plan]).stdout
    assert "20 ms to 1.5 s" in shown
    assert "10 MiB/s" in shown
    figures = json.loads(CliRunner().invoke(app, ["show", plan, "--json"]).stdout)
    assert figures["link_delay"] == {"min": 0.02, "max": 1.5, "edges": 2}
    assert figures["link_bandwidth"] == {"min": 10 * 2**20, "max": 10 * 2**20, "edges": 1}
    save_plan(build_plan("ring", 4), plan)
    assert not [key for key in json.loads(CliRunner().invoke(app, ["show", plan, "--json"]).stdout) if "link_" in key]
