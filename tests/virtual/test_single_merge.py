"""Sparse merging in virtual time: a plain loop, how often pairs merge, the ledger, and networks that lose and crash."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from algorithms.protocol import Algorithm, Place
from algorithms.single_merge import SingleMerge
from node.draws import Draws
from node.testbed.simulated import Physics
from node.testbed.virtual import World
from node.wire.memory import Faults

ROUGH = Faults(loss=0.2, duplicate=0.2, delay=0.1, reorder=0.3)


def born(rounds: float, apart: float = 1.0, **options: float | str) -> Callable[[Place], Algorithm]:
    """Peers that end after so many rounds of three local steps, and start ``apart`` from each other."""

    def birth(place: Place) -> Algorithm:
        k = int(place.name.removeprefix("n"))
        start = place.start + apart * torch.from_numpy(np.random.default_rng(k).normal(size=len(place.start)))
        options_ = {**SingleMerge.options, **options}
        return SingleMerge(replace(place, start=start, rounds=rounds, local_steps=3, options=options_))

    return birth


def complete(n: int) -> list[tuple[str, str]]:
    return list(combinations([f"n{i}" for i in range(n)], 2))


def models(world: World) -> np.ndarray:
    return np.array([peer.algorithm.x.numpy() for peer in world.peers.values()])


def targets_of(world: World) -> np.ndarray:
    return torch.stack(list(world._workbench.targets.values())).numpy()


def total(world: World, counter: str) -> float:
    return sum(peer.algorithm.counters()[counter] for peer in world.peers.values())


@pytest.mark.parametrize("when", [0, 4, 9])
def test_pulling_goes_the_way_of_a_plain_loop(make_world, when):
    """All take their steps, a part 1 - 0.9³ of the way to their targets; in one round, all who draw move half-way.

    Messages take a moment, so that the steps of all have ended before anybody is asked.
    """
    n, rounds, r, seed = 7, 10, 0.6, 5
    rule = born(rounds, probability=r, window=f"{when / rounds}:{(when + 1) / rounds}", pairing="pull")
    world = make_world(complete(n), seed=seed, algorithm=rule, physics=Physics(Faults(delay=0.1)))
    x, targets, pulls = models(world), targets_of(world), 0
    draws = [Draws(seed, name)("pairing") for name in world.peers]
    for t in range(rounds):
        x = x + (targets - x) * (1 - 0.9**3)
        merged = x.copy()
        for i, draw in enumerate(draws):
            if draw.random() < r and t == when:
                others = [j for j in range(n) if j != i]
                merged[i] = (x[i] + x[others[draw.integers(n - 1)]]) / 2
                pulls += 1
        x = merged
    world.start()
    world.run(float("inf"))
    np.testing.assert_allclose(models(world), x, rtol=0, atol=1e-12)
    assert (total(world, "rounds"), total(world, "exchanges")) == (n * rounds, pulls)


@pytest.mark.parametrize(("r", "pairing"), [(0.2, "symmetric"), (0.8, "symmetric"), (0.2, "pull")])
def test_pairs_merge_as_often_as_asked(make_world, r, pairing):
    """Pulls: r a peer and round. Exchanges: of each pair in a round, unless neither end draws the other."""
    n, rounds = 6, 400
    world = make_world(complete(n), algorithm=born(rounds, probability=r, pairing=pairing))
    world.start()
    world.run(float("inf"))
    pair = 1 - (1 - r / (n - 1)) ** 2
    expected, each = (n * rounds * r, r) if pairing == "pull" else (15 * rounds * pair, pair)
    assert total(world, "exchanges") == pytest.approx(expected, abs=5 * np.sqrt(expected * (1 - each)))


@pytest.mark.parametrize("codec", ["none", "half"])
@pytest.mark.parametrize("faults", [Faults(), ROUGH, Faults(delay=8.0)], ids=["calm", "rough", "slow"])
def test_the_ledger_holds(make_world, ledger_of, codec, faults):
    make_world.codec = codec
    physics = Physics(faults, step_jitter=0.2)
    world = make_world(complete(6), physics=physics, algorithm=born(np.inf, probability=0.5))
    world.start()
    world.run(150.0)
    assert ledger_of(world) <= 1e-12
    world.finish()
    assert ledger_of(world) <= 1e-12
    assert total(world, "exchanges") > 50
    assert all(peer.done is not None for peer in world.peers.values())


@pytest.mark.parametrize("pairing", ["symmetric", "pull"])
def test_it_survives_crashes(make_world, ledger_of, crash_schedule, pairing):
    physics = Physics(ROUGH, crashes=True, exact=True)
    world = make_world(complete(8), physics=physics, algorithm=born(60.0, probability=0.5, pairing=pairing))
    crash_schedule(world, 2, 150.0)
    world.start()
    world.run(2000.0)
    assert all(peer.done is not None for peer in world.peers.values())
    assert total(world, "rounds") == 8 * 60
    if pairing == "symmetric":
        assert total(world, "lost_exchanges") == 0
        assert ledger_of(world) <= 1e-12
    targets = targets_of(world)
    alone = np.linalg.norm(targets - targets.mean(0))
    assert np.linalg.norm(models(world) - targets.mean(0)) < 0.8 * alone


@pytest.mark.parametrize("pairing", ["symmetric", "pull"])
def test_nobody_hangs_when_nearly_everything_is_lost(make_world, pairing):
    faults = Physics(Faults(loss=0.9))
    world = make_world(complete(5), physics=faults, algorithm=born(30.0, probability=1.0, pairing=pairing))
    world.start()
    world.run(3000.0)
    assert total(world, "rounds") == 5 * 30
    assert all(peer.done is not None for peer in world.peers.values())


@pytest.mark.parametrize("pairing", ["symmetric", "pull"])
def test_merges_of_the_last_round_are_made(make_world, pairing):
    """A window of the last of ten rounds, with certainty, on one edge: both end half-way, or swap halves."""
    rule = born(10.0, probability=1.0, window="0.9:1", pairing=pairing)
    world = make_world(complete(2), algorithm=rule, physics=Physics(Faults(delay=0.1)))
    targets = targets_of(world)
    apart = (models(world) - targets) * 0.9**30 + targets
    world.start()
    world.run(float("inf"))
    np.testing.assert_allclose(models(world), np.tile(apart.mean(0), (2, 1)), rtol=0, atol=1e-12)


def test_same_seed_same_bits(make_world):
    def final(seed: int) -> list[float]:
        physics = Physics(ROUGH, step_jitter=0.3)
        world = make_world(complete(5), seed=seed, physics=physics, algorithm=born(15.0, probability=0.6))
        world.start()
        world.run(float("inf"))
        return [*models(world).ravel().tolist(), world.now]

    assert final(3) == final(3)
    assert final(3) != final(4)
