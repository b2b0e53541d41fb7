"""What a peer is told at birth: rates in the run's measure, its side of each edge, and which run it is."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from algorithms import ALGORITHMS
from algorithms.layout import Layout, Slot
from node.config import RunConfig
from node.draws import Draws
from node.errors import TaskError
from node.learning import read_recipe
from node.place import find_algorithm, limits_of, make_place, rate_scale, run_id, split_options
from node.tasks import load_task
from topology.plan import PlanError
from topology.planning import build_plan

LAYOUT = Layout((Slot("x", (3,), "weight", 0),), "float64")


def place(plan, name="n0", config=RunConfig(), layout=LAYOUT, **where):
    start = torch.zeros(layout.size, dtype=layout.torch_dtype)
    draws = Draws(0, name)
    return make_place(plan, name, config, start=start, layout=layout, draws=draws, unit_s=0.05, constants={}, **where)


@pytest.fixture
def plan():
    return build_plan("star", 9)


@pytest.mark.parametrize(("wanted", "per_peer"), [(None, 1.0), (0.25, 0.25), (3.0, 3.0)])
@pytest.mark.parametrize("family", ["star", "ring", "exponential"])
def test_rates_give_so_many_exchanges_a_peer_and_unit(family, wanted, per_peer):
    made = build_plan(family, 16)
    config = RunConfig(exchanges_per_step=wanted)
    told = [place(made, node.name, config) for node in made.nodes]
    # each exchange is one of each of its two ends, so that n peers with X each make n X / 2
    assert sum(rate for _, _, rate in told[0].edges) == pytest.approx(16 * per_peer / 2)
    assert sum(edge.rate for each in told for edge in each.neighbours.values()) == pytest.approx(16 * per_peer)
    assert sum(edge.rate for each in told for edge in each.neighbours.values() if edge.owned) == pytest.approx(
        8 * per_peer
    )


def test_spectral_constants_follow_the_rates(plan):
    slow, fast = (place(plan, config=RunConfig(exchanges_per_step=x)) for x in (1.0, 4.0))
    assert slow.chi1 == pytest.approx(4 * fast.chi1)
    assert slow.chi2 == pytest.approx(4 * fast.chi2)
    # at the plan's own rates, chi1 chi2 = 1/2
    own = RunConfig(exchanges_per_step=2 * plan.rates.total_rate / len(plan.nodes))
    assert rate_scale(plan, own) == pytest.approx(1.0)
    assert place(plan, config=own).chi1 * place(plan, config=own).chi2 == pytest.approx(0.5)


def test_each_edge_of_a_star_has_one_owner_and_nobody_owns_two(plan):
    told = {node.name: place(plan, node.name) for node in plan.nodes}
    for a, b, rate in told["n0"].edges:
        mine, theirs = told[a].neighbours[b], told[b].neighbours[a]
        assert (mine.owned, theirs.owned) == (True, False)
        assert mine.rate == theirs.rate == rate
        assert mine.weight == theirs.weight
    assert all(sum(edge.owned for edge in each.neighbours.values()) <= 1 for each in told.values())
    assert told["n0"].nodes == tuple(f"n{i}" for i in range(9))


def test_who_joins_has_no_edges_and_knows_whom_to_turn_to(plan):
    founder, joiner = place(plan, "n3"), place(plan, "x", address="10.0.0.5:7712", contact="n3")
    assert (founder.address, founder.contact) == (plan.node("n3").address, "")
    assert (joiner.address, joiner.contact, joiner.neighbours) == ("10.0.0.5:7712", "n3", {})
    assert joiner.nodes == founder.nodes
    assert joiner.edges == founder.edges
    with pytest.raises(PlanError, match="unknown node 'x'"):
        place(plan, "x", address="10.0.0.5:7712")


def test_the_run_id_changes_with_all_that_peers_must_agree_on(plan):
    config = RunConfig()
    ids = {
        "same": run_id(plan, LAYOUT, config, {}),
        "plan": run_id(build_plan("star", 10), LAYOUT, config, {}),
        "layout": run_id(plan, Layout((Slot("x", (4,), "weight", 0),), "float64"), config, {}),
        "dtype": run_id(plan, Layout((Slot("x", (3,), "weight", 0),), "float32"), config, {}),
        "codec": run_id(plan, LAYOUT, config.model_copy(update={"codec": "half"}), {}),
        "merging": run_id(plan, LAYOUT, config.model_copy(update={"merging": "other"}), {}),
        "options": run_id(plan, LAYOUT, config.model_copy(update={"options": {"hidden": "3"}}), {}),
        "constants": run_id(plan, LAYOUT, config, {"L": 2.0, "mu": 1.0}),
        "rates": run_id(plan, LAYOUT, config.model_copy(update={"exchanges_per_step": 2.0}), {}),
    }
    assert len(set(ids.values())) == len(ids)
    assert all(identity.startswith("run-") and len(identity) == 20 for identity in ids.values())


def test_the_run_id_does_not_change_with_what_is_a_peers_own_business(plan):
    same = run_id(plan, LAYOUT, RunConfig(), {})
    for own in ({"lr": 0.5}, {"seed": 3}, {"batch_size": 1}, {"duration": 1.0}, {"durability": "exact"}):
        assert run_id(plan, LAYOUT, RunConfig(**own), {}) == same
    ordered = [RunConfig(options=dict(pairs)) for pairs in ([("a", "1"), ("b", "2")], [("b", "2"), ("a", "1")])]
    assert run_id(plan, LAYOUT, ordered[0], {}) == run_id(plan, LAYOUT, ordered[1], {})
    moved = dataclasses.replace(plan, nodes=tuple(dataclasses.replace(n, address=f"{n.name}:7") for n in plan.nodes))
    assert run_id(moved, LAYOUT, RunConfig(), {}) == same
    assert run_id(plan, LAYOUT, RunConfig(run="mine"), {}) == "mine"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (RunConfig(algorithm="gosip"), "unknown algorithm 'gosip': did you mean 'gossip'?"),
        (RunConfig(codec="hlaf"), "unknown codec 'hlaf': did you mean 'half'?"),
        (RunConfig(merging="means"), "unknown merging rule 'means': did you mean 'mean'?"),
    ],
)
def test_names_that_do_not_exist(plan, config, words):
    with pytest.raises(TaskError) as caught:
        place(plan, config=config)
    assert words in str(caught.value)
    assert caught.value.exit_code == 20


def test_options_are_divided_and_converted():
    class Rule(find_algorithm("gossip")):
        options = {"rho": 0.1, "samples": 2, "order": "up"}

    own, rest = split_options({"rho": "0.3", "samples": "5", "hidden": "64"}, Rule)
    assert own == {"rho": 0.3, "samples": 5, "order": "up"}
    assert rest == {"hidden": "64"}
    with pytest.raises(TaskError, match=r"--set samples=2\.5 can't be used: write int instead"):
        split_options({"samples": "2.5"}, Rule)
    assert Rule.options["rho"] == 0.1


@pytest.mark.parametrize(
    ("wanted", "said", "used"),
    [
        ({}, {}, (1, 0.0)),
        ({"local_steps": 5, "momentum": 0.9}, {}, (5, 0.9)),
        ({"local_steps": 5, "momentum": 0.9}, {"local_steps": 2, "momentum": 0.0}, (2, 0.0)),
    ],
)
def test_users_before_the_algorithm_before_the_default(plan, monkeypatch, wanted, said, used):
    rule = type("Rule", (find_algorithm("gossip"),), {"defaults": wanted})
    monkeypatch.setitem(ALGORITHMS, "rule", rule)
    config = RunConfig(algorithm="rule", **said)
    recipe = read_recipe(config, load_task("digits"), rule)
    assert (place(plan, config=config).local_steps, recipe.momentum) == used


def test_waits_are_seconds_in_units():
    daemon, coarse = limits_of(0.05), limits_of(100.0)
    assert (daemon.retry_first, daemon.retry_max, daemon.linger) == pytest.approx((0.2, 40.0, 80.0))
    assert (coarse.retry_first, coarse.retry_max, coarse.linger) == (0.02, 1.0, 1.0)
    assert math.isclose(limits_of(1.0).reply_first, 2.0)
