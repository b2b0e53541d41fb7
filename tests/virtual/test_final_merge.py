"""The final merge over whole networks: exact, cheap, and in one part of the network one model, whoever dies."""

from __future__ import annotations

from functools import partial

import networkx as nx
import numpy as np
import pytest

from algorithms.echo import Echo
from benchmarks.merges import LIMITS, Merge
from node.testbed.simulated import Physics
from node.wire.memory import Faults
from topology.families import FAMILIES, make_graph

DELAY = 0.1
SLOWEST = 1.5 * DELAY
"""No message takes longer one way."""
SIZES = {
    "torus": [9, 20, 48],
    "grid": [4, 20, 48],
    "hypercube": [2, 8, 32],
    "regular": [5, 20, 50],
    "small-world": [5, 20, 50],
    "barbell": [6, 20, 50],
    "lollipop": [5, 20, 50],
}
"""Where a family does not have graphs of all sizes."""
QUICK = Physics(Faults(delay=DELAY))
MORTAL = Physics(Faults(delay=DELAY), crashes=True, exact=True)


def graph_of(family: str, n: int, seed: int = 0) -> nx.Graph:
    return make_graph(family, n, seed=seed, **({"degree": 4} if family == "regular" else {}))


def time_of_wave(diameter: int) -> float:
    """The longest that a wave can take without faults: out, back, and out again with the mean, and the last receipts.

    It reaches everybody by the fastest way; a tree of fastest ways has no branch with more than three times as many
    edges as the diameter, as no message takes more than three times as long as another one.
    """
    return SLOWEST * (diameter + 3 * diameter + 3 * diameter + 4)


# ------------------------------------------------------------------------------------------- without faults


@pytest.mark.parametrize(
    ("family", "n"), [(family, n) for family in FAMILIES for n in SIZES.get(family, [2, 3, 20, 50])]
)
def test_the_mean_is_exact_on_every_family_and_costs_what_a_tree_costs(family, n):
    graph = graph_of(family, n)
    merge = Merge(graph, physics=QUICK).run()
    assert merge.wrongs() == []
    assert len({each.members for each in merge.ended().values()}) == 1
    assert all(each.merged.equal(merge.ended()["n0"].merged) for each in merge.ended().values())
    edges, sent = graph.number_of_edges(), merge.world.sent
    assert (sent["sum"], sent["mean"]) == (n - 1, n - 1)
    assert sent["wave"] == 2 * edges - (n - 1)  # both ways, but over a tree's edges only one
    assert sent["had"] == 2 * edges
    assert merge.world.last_end - 1.0 <= time_of_wave(nx.diameter(graph))


@pytest.mark.parametrize("family", ["star", "line", "exponential"])
def test_a_thousand_peers(family):
    graph = graph_of(family, 1000)
    merge = Merge(graph, size=2, physics=QUICK if family != "line" else Physics(Faults(delay=DELAY / 10))).run()
    assert merge.wrongs() == []
    assert (merge.world.sent["sum"], merge.world.sent["mean"]) == (999, 999)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_codec_takes_nothing_from_it(dtype):
    merge = Merge(graph_of("exponential", 12), physics=QUICK, dtype=dtype, codec="half").run()
    assert merge.wrongs() == []
    assert len(merge.ended()["n3"].members) == 12


def test_others_wait_for_a_peer_that_ends_much_later():
    merge = Merge(graph_of("ring", 8), physics=QUICK, ends={"n5": 2000.0}).run()
    assert merge.wrongs() == []
    assert len(merge.ended()["n0"].members) == 8
    assert 2000.0 < merge.world.last_end < 2000.0 + time_of_wave(4)
    assert max(each.counters()["merge_waves"] for each in merge.ended().values()) < 10


def test_who_comes_first_in_the_plan_may_end_last():
    merge = Merge(graph_of("tree", 9), physics=QUICK, ends={"n0": 2000.0}).run()
    assert merge.wrongs() == []
    assert len(merge.ended()["n0"].members) == 9


@pytest.mark.parametrize("after", [0.0, 0.05, 0.2, 0.5, 1.0])
def test_two_roots_at_once(after):
    merge = Merge(graph_of("ring", 9), physics=QUICK)
    merge.world.at(1.0 + after, partial(merge.order, "n5"))
    assert merge.run().wrongs() == []
    assert len(merge.ended()["n0"].members) == 9


def test_one_order_ends_the_run_of_all():
    merge = Merge(graph_of("grid", 12), physics=QUICK, ends=dict.fromkeys((f"n{i}" for i in range(12)), 500.0))
    merge.world.at(7.0, partial(merge.order, "n5"))
    merge.run()
    assert merge.wrongs() == []
    assert merge.world.last_end < 7.0 + time_of_wave(5)


# ------------------------------------------------------------------------------------------------- deaths


def bound(merge: Merge, last_death: float) -> float:
    """When all must have ended: the death is noticed, a new wave goes around, and who was passed over is seen to.

    A part that no wave had reached when it was cut off begins one of its own, when its first peer's patience is over.
    """
    left = merge.graph.subgraph(merge.ended())
    parts = list(nx.connected_components(left))
    waves = 2 * time_of_wave(max(nx.diameter(left.subgraph(part)) for part in parts))
    patience = 2 * LIMITS.linger if len(parts) > 1 else 0.0
    return max(last_death, 1.0) + MORTAL.noticed_after + patience + waves + LIMITS.reply_first


@pytest.mark.parametrize("family", ["ring", "tree", "star", "exponential", "complete"])
def test_whoever_dies_at_whatever_moment(family):
    graph = graph_of(family, 10)
    lasting = Merge(graph, physics=MORTAL).run().world.last_end - 1.0
    for victim in graph:
        for share in range(8):
            moment = 1.001 + lasting * share / 8
            merge = Merge(graph, physics=MORTAL)
            merge.world.at(moment, partial(merge.world.crash, victim))
            merge.run()
            assert merge.wrongs() == [], (victim, moment)
            assert merge.world.last_end <= bound(merge, moment), (victim, moment)


@pytest.mark.parametrize("family", ["exponential", "grid", "small-world"])
def test_a_tenth_of_a_hundred_dies(family):
    random = np.random.default_rng(1)
    merge = Merge(graph_of(family, 100), physics=MORTAL)
    for name in ["n0", *random.choice(merge.names[1:], 9, replace=False)]:
        merge.world.at(1.0 + random.uniform(0, 2), partial(merge.world.crash, str(name)))
    merge.run()
    assert merge.wrongs() == []
    assert merge.world.last_end <= bound(merge, 3.0)


WEATHERS = [
    Faults(delay=0.2),
    Faults(delay=0.2, loss=0.2),
    Faults(delay=0.2, duplicate=0.5, reorder=0.3),
    Faults(delay=0.2, loss=0.2, duplicate=0.2, reorder=0.2),
]


def disaster(seed: int) -> Merge:
    """Some peers die while a small network merges."""
    random = np.random.default_rng(seed)
    family = ["ring", "star", "complete", "tree", "exponential", "line"][seed % 6]
    physics = Physics(WEATHERS[seed % 4], crashes=True, exact=True, silent=bool(seed % 3))
    merge = Merge(graph_of(family, int(random.integers(4, 16))), seed, physics, size=2)
    for name in random.choice(merge.names, max(1, len(merge.names) // 10), replace=False):
        merge.world.at(1.0 + random.uniform(0, 4), partial(merge.world.crash, str(name)))
    return merge


def test_a_thousand_disasters():
    wrong = {seed: found for seed in range(1000) if (found := disaster(seed).run().wrongs())}
    assert wrong == {}


def test_peers_that_come_back():
    for seed in range(60):
        random = np.random.default_rng(seed)
        physics = Physics(WEATHERS[seed % 4], crashes=True, exact=True, silent=bool(seed % 3))
        merge = Merge(graph_of(["ring", "exponential", "tree"][seed % 3], 10), seed, physics, size=2)
        for name in random.choice(merge.names, 3, replace=False):
            start = 1.0 + random.uniform(0, 4)
            merge.world.at(start, partial(merge.world.crash, str(name)))
            merge.world.at(start + random.exponential(2.0), partial(merge.world.restart, str(name)))
        merge.run()
        assert merge.error() <= 1e-7, seed


# --------------------------------------------------------------------------------------------- planted bugs


class AddsTwice(Echo):
    """Takes a sum for new that has come before."""

    def _take_sum(self, sender, message):
        self._waiting.add(sender)
        own, self._names = self._names, set()
        effects = super()._take_sum(sender, message)
        self._names |= own
        return effects


class NeverRestarts(Echo):
    """Goes on without whoever is lost."""

    def _misses(self, name):
        return False


class LeavesAtOnce(Echo):
    """Has no patience with who has not had the mean."""

    @property
    def settled(self):
        return self.mean is not None


class WaitsForNobody(Echo):
    """Divides as soon as it has anything."""

    def _join(self, wave, parent):
        effects = super()._join(wave, parent)
        self._waiting = set()
        return effects + self._go_on()


@pytest.mark.parametrize("bug", [AddsTwice, NeverRestarts, LeavesAtOnce, WaitsForNobody])
def test_planted_bugs_are_caught(bug, monkeypatch):
    monkeypatch.setattr("algorithms.final_merge.Echo", bug)
    assert any(goes_wrong(seed) for seed in range(200))


def goes_wrong(seed: int) -> bool:
    merge = disaster(seed)
    try:
        return bool(merge.run(3000.0).wrongs())
    except AssertionError:  # it does not come to an end
        return True
