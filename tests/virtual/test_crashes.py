"""Crashes, loss and partitions over a thousand seeds.

With exact durability every invariant holds; with periodic snapshots all but the ledger, and the exchanges that were
lost are counted exactly. A seed that fails is in the test's name: ``pytest tests/virtual/test_crashes.py -k SEED``.
"""

from __future__ import annotations

import pytest

from node.testbed.simulated import Physics
from node.testbed.virtual import World
from node.wire.memory import Faults, Partition, halves

SEEDS = 500
CHUNK = 50


def live_through(make_world, ring, crash_schedule, algorithm, seed: int, exact: bool) -> World:
    names = [f"n{i}" for i in range(5)]
    cut = Partition(5.0 + seed % 7, 9.0 + seed % 7, halves(names))
    faults = Faults(loss=0.2, duplicate=0.2, delay=0.1, reorder=0.2, partitions=(cut,))
    physics = Physics(faults, exact=exact, crashes=True, snapshot_every=3.0)
    world = make_world(ring(5), seed=seed, physics=physics, algorithm=algorithm)
    crash_schedule(world, seed, 20.0)
    world.start()
    world.run(50.0)
    world.finish()
    return world


def progress_after_the_storm(world: World) -> bool:
    """Every edge rings about fifty times in all, thirty of them in the calm at the end; no end is left behind."""
    histories = [h for peer in world.peers.values() for h in peer.algorithm.exchanges.applied.values()]
    return all(len(history) > 15 for history in histories)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_exact_durability_keeps_every_invariant(
    make_world, ring, crash_schedule, gossip_with, ledger_of, lost_in, once_in, first
):
    make_world.size = 3
    for seed in range(first, first + CHUNK):
        world = live_through(make_world, ring, crash_schedule, gossip_with("Remembered"), seed, exact=True)
        assert ledger_of(world) <= 1e-9, seed
        assert lost_in(world) == (0, 0), seed
        assert once_in(world), seed
        assert progress_after_the_storm(world), seed
        assert all(peer.done is not None for peer in world.peers.values()), seed


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_periodic_durability_counts_what_is_lost(
    make_world, ring, crash_schedule, gossip_with, lost_in, once_in, first
):
    make_world.size = 3
    injected = 0
    for seed in range(first, first + CHUNK):
        world = live_through(make_world, ring, crash_schedule, gossip_with("Remembered"), seed, exact=False)
        counted, true = lost_in(world)
        assert counted == true, seed
        assert once_in(world), seed
        assert progress_after_the_storm(world), seed
        assert all(peer.done is not None for peer in world.peers.values()), seed
        injected += true
    assert injected > 0


def test_save_dropped_before_send_is_caught(make_world, ring, crash_schedule, gossip_with, ledger_of):
    make_world.size = 3
    errors = [
        ledger_of(live_through(make_world, ring, crash_schedule, gossip_with("NoSave"), seed, exact=True))
        for seed in range(20)
    ]
    assert sum(error > 1e-6 for error in errors) >= 10


def test_who_would_come_back_after_the_end_stays_away(make_world, ring):
    world = make_world(ring(4), physics=Physics(Faults(delay=1.0), crashes=True))
    world.at(5.0, lambda: world.crash("n1"))
    world.at(10.01, lambda: world.restart("n1"))  # while the others still settle
    world.start()
    world.run(10.0)
    world.finish()
    assert [name for name, peer in world.peers.items() if peer.done is None] == ["n1"]
