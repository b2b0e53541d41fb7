"""A hub of many edges: why the leaves own the edges, and why at most two own offers are out.

Messages take a tenth of a unit. Peers gossip once a unit on every edge and pull towards their own targets; the star of
64 settles near the mean of the targets when the leaves start the exchanges. A hub that starts them all, at most two at
a time, can't serve its edges' clocks; with all of them out at once, each reply is applied to a model that has moved on
since it was offered, and the hub overshoots without bound.
"""

from __future__ import annotations

import dataclasses

from node.testbed.simulated import Physics
from node.testbed.virtual import World
from node.wire.memory import Faults

N = 64


def hub_distance(world: World) -> float:
    """How far the hub ends from the best mean, relative to how far the targets lie from it."""
    targets = world._workbench.targets
    best = sum(targets.values()) / len(targets)
    spread = max(float((target - best).norm()) for target in targets.values())
    return float((world.peers["n0"].algorithm.x - best).norm()) / spread


def run_star(make_world, edges: list[tuple[str, str]], offers_out_max: int) -> World:
    make_world.limits = dataclasses.replace(make_world.limits, offers_out_max=offers_out_max)
    world = make_world(edges, physics=Physics(Faults(delay=0.1)))
    world.start()
    world.run(60.0)
    return world


def served(world: World) -> float:
    """Exchanges done, as a share of those that the clocks ask for."""
    exchanges = sum(peer.algorithm.counters()["exchanges"] for peer in world.peers.values())
    return exchanges / (60.0 * (N - 1))


def test_star_converges_when_leaves_own_the_edges(make_world, star, ledger_of):
    world = run_star(make_world, star(N), offers_out_max=2)
    assert hub_distance(world) < 0.2
    assert served(world) > 0.9
    assert ledger_of(world) <= 1e-9


def test_star_starves_when_its_hub_owns_them(make_world, star):
    world = run_star(make_world, [(hub, leaf) for leaf, hub in star(N)], offers_out_max=2)
    assert served(world) < 0.3
    assert hub_distance(world) > 0.3


def test_star_diverges_when_its_hub_offers_all_at_once(make_world, star):
    world = run_star(make_world, [(hub, leaf) for leaf, hub in star(N)], offers_out_max=N)
    assert not hub_distance(world) < 1e6
