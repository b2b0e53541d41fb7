"""Delays and bandwidths of links in plans: what is read, what is refused, and that no digest knows of them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from topology.plan import PlanEdge, PlanError, plan_from_json, plan_to_json

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
