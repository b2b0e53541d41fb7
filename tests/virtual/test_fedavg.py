"""FedAvg in virtual time: means over all peers, whatever the network does and who falls back."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from algorithms.fedavg import Fedavg
from benchmarks.quadratics import Quadratics, build_world, conditioned
from node.draws import Draws
from node.testbed.simulated import Physics
from node.testbed.virtual import World
from node.wire.memory import Faults, Partition
from topology.planning import build_plan

N, ROUNDS, LOCAL, DECAY, LR = 5, 12, 3, 0.9, 0.02
ROUGH = Faults(loss=0.3, duplicate=0.3, delay=0.2, reorder=0.3)


def started(task: Quadratics, physics: Physics, samples: int = 0, rounds: float = ROUNDS) -> World:
    """A line of peers that all begin at n0's start; n0 is the server, though it only has an edge with n1."""
    task.lr = LR

    def born(place):
        options = {"decay": DECAY, "samples": samples}
        start = torch.ones(task.size, dtype=torch.float64)
        limits = dataclasses.replace(place.limits, linger=100.0)  # the last mean may be lost many times, too
        changes = {"start": start, "rounds": rounds, "local_steps": LOCAL, "options": options, "limits": limits}
        return Fedavg(dataclasses.replace(place, **changes))

    world = build_world(build_plan("line", N), task, 0, algorithm="fedavg", born=born, physics=physics)
    world.start()
    return world


def drawn(samples: int) -> list[list[int]]:
    """Who takes part in each round."""
    random = Draws(0, "n0")("sample")
    return [list(random.choice(N, samples, replace=False)) if samples else list(range(N)) for _ in range(ROUNDS)]


def plain(task: Quadratics, samples: int) -> np.ndarray:
    x = np.ones(task.size)
    for t, chosen in enumerate(drawn(samples)):
        z = np.tile(x, (N, 1))
        for _ in range(LOCAL):
            z -= LR * DECAY**t * (np.einsum("nij,nj->ni", task.hessians, z) - task.offsets)
        x = z[chosen].mean(0)
    return x


def check(world: World, task: Quadratics, samples: int = 0) -> None:
    for peer in world.peers.values():
        assert peer.algorithm.counters()["rounds"] == ROUNDS
        np.testing.assert_allclose(peer.algorithm.x.numpy(), plain(task, samples), rtol=1e-12)


@pytest.mark.parametrize("samples", [0, 1, 3, N])
@pytest.mark.parametrize("faults", [Faults(), Faults(delay=0.5), ROUGH])
@pytest.mark.parametrize("jitter", [0.0, 0.8])
def test_losses_change_nothing_but_the_time(faults, jitter, samples):
    task = conditioned(N, 4, 8, seed=1)
    world = started(task, Physics(faults, step_jitter=jitter), samples)
    world.run(float("inf"))
    assert all(peer.done is not None for peer in world.peers.values())
    check(world, task, samples)


@pytest.mark.parametrize("samples", [1, 3, N])
def test_only_who_is_drawn_takes_steps(samples):
    world = started(conditioned(N, 4, 8, seed=1), Physics(Faults(delay=0.5)), samples)
    world.run(float("inf"))
    for i in range(N):
        asked = sum(i in chosen for chosen in drawn(samples))
        assert world.peers[f"n{i}"].steps_done == LOCAL * asked
    exchanges = world.peers["n0"].algorithm.counters()["exchanges"]
    assert exchanges == sum(len(set(chosen) - {0}) for chosen in drawn(samples))


def test_it_waits_for_a_peer_that_is_cut_off_and_for_nobody_else():
    task = conditioned(N, 4, 8, seed=1)
    cut = Partition(4.0, 1000.0, frozenset({"n3"}))
    world = started(task, Physics(Faults(partitions=(cut,))))
    world.run(999.0)
    assert {peer.algorithm.round for peer in world.peers.values()} == {1}
    world.run(float("inf"))
    check(world, task)


@pytest.mark.parametrize("samples", [0, 3])
@pytest.mark.parametrize("moment", [1.0, 3.2, 4.0, 6.5])
def test_a_client_that_falls_back_is_waited_for(moment, samples):
    """While it trains, while its update is under way, or while the mean is; snapshots are taken at every Save."""
    task = conditioned(N, 4, 8, seed=1)
    world = started(task, Physics(Faults(delay=0.3), crashes=True, exact=True), samples)
    world.at(moment, lambda: world.crash("n4"))
    world.at(moment + 5.0, lambda: world.restart("n4"))
    world.run(1e4)
    check(world, task, samples)
