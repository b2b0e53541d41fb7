"""Plans: what is refused, what peers agree on, and that JSON brings back what was written."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topology.plan import Node, Plan, PlanEdge, PlanError, load_plan, plan_from_json, plan_to_json, save_plan
from topology.planning import build_plan

RING = build_plan("ring", 4)


def edited(**changes: object) -> str:
    return json.dumps({**json.loads(plan_to_json(RING)), **changes})


def test_reading_a_plan_imports_no_planner() -> None:
    code = (
        "import sys, topology.plan; "
        "print(sorted({name.split('.')[0] for name in sys.modules} & "
        "{'networkx', 'cvxpy', 'numpy', 'scipy', 'matplotlib', 'torch', 'grpc', 'trio', 'pydantic'}))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_the_file_has_the_documented_form() -> None:
    value = json.loads(plan_to_json(RING))
    assert list(value) == ["version", "family", "seed", "digest", "nodes", "edges", "rates"]
    assert value["version"] == 1
    assert value["nodes"][1] == {"name": "n1", "address": "127.0.0.1:7701", "http": "127.0.0.1:9701"}
    assert set(value["edges"][0]) == {"a", "b", "rate", "weight", "cost"}
    assert {(edge["a"], edge["b"]) for edge in value["edges"]} in (
        {("n1", "n0"), ("n2", "n1"), ("n3", "n2"), ("n0", "n3")},
        {("n0", "n1"), ("n1", "n2"), ("n2", "n3"), ("n3", "n0")},
    )
    assert list(value["rates"])[:5] == ["policy", "chi1", "chi2", "total_rate", "lower_bound"]


def test_a_file_brings_back_the_plan(tmp_path) -> None:
    save_plan(RING, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == RING


def test_peers_find_their_edges() -> None:
    star = build_plan("star", 5)
    assert sorted(star.edges_of("n0")) == ["n1", "n2", "n3", "n4"]
    assert list(star.edges_of("n3")) == ["n0"]
    assert star.edges_of("n3")["n0"].a == "n3"
    assert star.node("n3").address == "127.0.0.1:7703"
    with pytest.raises(PlanError, match="did you mean 'n3'"):
        star.edges_of("n3x")


def test_the_digest_is_of_what_peers_must_agree_on() -> None:
    moved = replace(RING, nodes=tuple(replace(node, address=f"{node.name}:1", http="x:2") for node in RING.nodes))
    slower = replace(RING, rates=replace(RING.rates, seconds=99.0, solver="by hand"))
    first, second, *others = RING.edges
    turned = replace(RING, edges=(replace(first, a=first.b, b=first.a), second, *others))
    shifted = replace(
        RING, edges=(replace(first, rate=first.rate * 1.01), replace(second, rate=second.rate * 0.99), *others)
    )
    assert moved.digest == slower.digest == RING.digest
    renamed = json.loads(edited(digest=None).replace('"n0"', '"m0"'))
    del renamed["digest"]
    changed = [
        turned,
        shifted,
        plan_from_json(json.dumps(renamed)),
        replace(RING, seed=1),
        replace(RING, family="file:ring.txt"),
        replace(RING, edges=(replace(first, weight=0.1), second, *others)),
        replace(RING, edges=(replace(first, cost=2.0), second, *others)),
        replace(RING, rates=replace(RING.rates, chi1=RING.rates.chi1 * 2, chi2=RING.rates.chi2 / 2)),
    ]
    assert len({RING.digest, *(plan.digest for plan in changed)}) == 1 + len(changed)
    assert plan_from_json(edited(digest=RING.digest)).digest == RING.digest


def test_a_plan_without_a_digest_is_read() -> None:
    value = json.loads(plan_to_json(RING))
    del value["digest"]
    assert plan_from_json(json.dumps(value)) == RING


NODES = json.loads(plan_to_json(RING))["nodes"]
EDGES = json.loads(plan_to_json(RING))["edges"]
RATES = json.loads(plan_to_json(RING))["rates"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 2}, "version 2.*version 1 is read here"),
        ({"version": 2, "colour": 1}, "version 2"),
        ({"version": True}, "version True"),
        ({"version": 1.0}, "version 1.0"),
        ({"node": []}, "did you mean 'nodes'"),
        ({"digest": "sha256:0"}, "digest does not fit"),
        ({"digest": None}, "digest does not fit"),
        ({"family": ""}, "family in the plan"),
        ({"family": "ring2"}, "digest does not fit"),
        ({"seed": -1}, "0 or more"),
        ({"seed": 1.5}, "whole number"),
        ({"nodes": NODES[:3]}, "did you mean 'n2'|ends nowhere"),
        ({"nodes": NODES[:1], "edges": []}, "at least two"),
        ({"nodes": [*NODES, {**NODES[0], "address": "x:1"}]}, "2 nodes have the name n0"),
        ({"nodes": [*NODES, {**NODES[0], "name": "n9"}]}, "2 nodes have the address"),
        ({"nodes": [*NODES, {"name": "n9", "address": "x:1", "http": "x:2"}]}, "not connected: 1 nodes"),
        ({"nodes": [{**NODES[0], "name": "N0"}, *NODES[1:]]}, "'N0'.*a-z"),
        ({"nodes": [{**NODES[0], "name": "n" * 64}, *NODES[1:]]}, "1 to 63"),
        ({"nodes": [{**NODES[0], "address": "n0"}, *NODES[1:]]}, "host:port"),
        ({"nodes": [{**NODES[0], "address": "n0:0"}, *NODES[1:]]}, "host:port"),
        ({"nodes": [{**NODES[0], "address": "n0:65536"}, *NODES[1:]]}, "host:port"),
        ({"nodes": [{**NODES[0], "address": "n0:7700\n"}, *NODES[1:]]}, "host:port"),
        ({"nodes": [{**NODES[0], "adress": "n0:1"}, *NODES[1:]]}, "did you mean 'address'"),
        ({"nodes": [{"name": "n0", "address": "n0:1"}, *NODES[1:]]}, "no key 'http'"),
        ({"nodes": "n0"}, "list"),
        ({"nodes": ["n0", "n1"]}, "object"),
        ({"edges": [*EDGES, {**EDGES[0], "b": EDGES[0]["a"]}]}, "to itself"),
        ({"edges": [*EDGES, EDGES[0]]}, "there twice"),
        ({"edges": [*EDGES, {**EDGES[0], "a": EDGES[0]["b"], "b": EDGES[0]["a"]}]}, "there twice"),
        ({"edges": [{**EDGES[0], "a": "n7"}, *EDGES[1:]]}, "unknown node 'n7'"),
        ({"edges": [{**EDGES[0], "rate": 0}, *EDGES[1:]]}, "above zero"),
        ({"edges": [{**EDGES[0], "rate": math.nan}, *EDGES[1:]]}, "finite"),
        ({"edges": [{**EDGES[0], "rate": math.inf}, *EDGES[1:]]}, "finite"),
        ({"edges": [{**EDGES[0], "rate": "1"}, *EDGES[1:]]}, "finite number"),
        ({"edges": [{**EDGES[0], "rate": True}, *EDGES[1:]]}, "finite number"),
        ({"edges": [{**EDGES[0], "rate": 10**400}, *EDGES[1:]]}, "finite number"),
        ({"edges": [{**EDGES[0], "rate": 1.1 * EDGES[0]["rate"]}, *EDGES[1:]]}, "rates sum to"),
        ({"edges": [{**EDGES[0], "weight": -1.1}, *EDGES[1:]]}, "from -1 to 1"),
        ({"edges": [{**EDGES[0], "weight": 1.1}, *EDGES[1:]]}, "from -1 to 1"),
        ({"edges": [{**EDGES[0], "weight": math.nan}, *EDGES[1:]]}, "finite"),
        ({"edges": [{**EDGES[0], "weight": -0.5}, *EDGES[1:]]}, "sum to -0.166666667: write ones that sum to 0 to 2"),
        ({"edges": [{**EDGES[0], "cost": 0}, *EDGES[1:]]}, "cost"),
        ({"rates": {**RATES, "chi1": 2 * RATES["chi1"]}}, "total_rate is"),
        ({"rates": {**RATES, "certified_gap": -1}}, "not negative"),
        ({"rates": []}, "object"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(changes, says) -> None:
    with pytest.raises(PlanError, match=says) as refused:
        plan_from_json(edited(**changes))
    assert "\n" not in str(refused.value)


def test_weights_may_be_negative_and_a_node_may_have_a_negative_weight_of_its_own() -> None:
    star = build_plan("star", 5)
    hub_below_0 = replace(star, edges=tuple(replace(edge, weight=0.4) for edge in star.edges))  # 1 − 4 · 0.4
    assert plan_from_json(plan_to_json(hub_below_0)) == hub_below_0
    first, *others = RING.edges
    assert replace(RING, edges=(replace(first, weight=-0.25), *others)).edges[0].weight == -0.25
    with pytest.raises(PlanError, match=r"n0.s edges sum to 2\.4: write ones that sum to 0 to 2"):
        replace(star, edges=tuple(replace(edge, weight=0.6) for edge in star.edges))


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "1" * 5000, "[" * 100000, '{"version": 1, "version": 1}', "\ud800", '{"version": 1e999}'],
)
def test_what_is_not_a_plan_at_all(text) -> None:
    with pytest.raises(PlanError):
        plan_from_json(text)


def test_files_that_cannot_be_read(tmp_path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").write_text("{}")
    for name, says in (
        ("absent", "No such file"),
        ("binary", "can't be read"),
        ("empty", "no key 'version'"),
        ("", "dir"),
    ):
        with pytest.raises(PlanError, match=says):
            load_plan(tmp_path / name)
    with pytest.raises(PlanError, match="can't be written"):
        save_plan(RING, tmp_path / "absent" / "plan.json")


# --------------------------------------------------------------------------------------- properties


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """A sound plan: a random tree with random rates and costs, its figures scaled so that they fit together."""
    names = draw(st.lists(st.from_regex(r"[a-z0-9-]{1,63}", fullmatch=True), min_size=2, max_size=8, unique=True))
    n = len(names)
    nodes = tuple(
        Node(name, f"{name}:{7700 + k}", f"[::1]:{draw(st.integers(1, 65535))}") for k, name in enumerate(names)
    )
    number = st.floats(1e-6, 1e6)
    edges = tuple(
        PlanEdge(names[k], names[draw(st.integers(0, k - 1))], draw(number), draw(st.floats(0, 1 / n)), draw(number))
        for k in range(1, n)
    )
    total, chi1 = sum(edge.rate for edge in edges), draw(number)
    rates = replace(RING.rates, chi1=chi1, chi2=total**2 / (2 * chi1), total_rate=total, seconds=draw(number))
    return Plan(1, draw(st.text(min_size=1)), draw(st.integers(0, 2**63)), nodes, edges, rates)


@given(plans())
def test_json_brings_back_every_plan(plan: Plan) -> None:
    again = plan_from_json(plan_to_json(plan))
    assert again == plan
    assert again.digest == plan.digest


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["n0", "n1", 1, 0, -1, 1e308]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def places(value: object) -> list[tuple[object, object]]:
    """Every (container, key) of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [pair for key, inner in items for pair in [(value, key), *places(inner)]]


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_mutated_values_are_refused_with_a_plan_error_or_read(data: st.DataObject) -> None:
    value = json.loads(plan_to_json(RING))
    if data.draw(st.booleans()):
        del value["digest"]
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(value)))
        if data.draw(st.booleans()):
            container[key] = data.draw(JSON_VALUES)
        else:
            del container[key]
        if not places(value):
            break
    try:
        plan = plan_from_json(json.dumps(value))
    except PlanError:
        return
    assert plan_from_json(plan_to_json(plan)) == plan


@given(st.integers(0, len(plan_to_json(RING)) - 1), st.characters())
def test_a_changed_character_is_refused_with_a_plan_error_or_changes_nothing_agreed(at: int, character: str) -> None:
    text = plan_to_json(RING)
    try:
        plan = plan_from_json(text[:at] + character + text[at + 1 :])
    except PlanError:
        return
    assert plan.digest == RING.digest
