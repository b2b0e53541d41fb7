"""Rounds compute what a plain loop computes, wait for nobody for ever, and use each model at most once."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from algorithms.dfedavg import Dfedavg
from algorithms.dpsgd import Dpsgd
from benchmarks.quadratics import Quadratics, build_world, conditioned
from node.errors import TaskError
from node.testbed.simulated import Physics
from node.testbed.virtual import World
from node.wire.memory import Faults, Partition, halves
from topology.plan import Plan
from topology.planning import build_plan

LR = 0.02


def models(world: World) -> np.ndarray:
    return torch.stack([peer.algorithm.x for peer in world.peers.values()]).numpy()


def matrix_of(plan: Plan) -> np.ndarray:
    """The mixing matrix, from the plan's file alone."""
    position = {node.name: k for k, node in enumerate(plan.nodes)}
    matrix = np.eye(len(plan.nodes))
    for edge in plan.edges:
        i, j = position[edge.a], position[edge.b]
        matrix[[i, j], [j, i]] += edge.weight
        matrix[[i, j], [i, j]] -= edge.weight
    return matrix


def plain(task: Quadratics, x: np.ndarray, matrix: np.ndarray, rounds: int, local: int, steps: int, decay: float):
    for t in range(rounds):
        z = x.copy()
        for _ in range(local):
            z -= LR * decay**t * (np.einsum("nij,nj->ni", task.hessians, z) - task.offsets)
        x = np.linalg.matrix_power(matrix, steps) @ z
    return x


def started(plan, task, *, rule=Dfedavg, options=None, rounds=12, local=3, physics=Physics(), seed=0, lr=LR):
    """A world of one rule that ends after so many rounds."""
    task.lr = lr

    def born(place):
        chosen = {**rule.options, **(options or {})}
        return rule(dataclasses.replace(place, rounds=rounds, local_steps=local, options=chosen))

    world = build_world(plan, task, seed, algorithm="dpsgd", born=born, physics=physics)
    world.start()
    return world


@pytest.mark.parametrize("weights", ["metropolis", "best-constant", "fdla"])
@pytest.mark.parametrize(("local", "steps", "decay"), [(1, 1, 1.0), (3, 1, 0.9), (2, 4, 1.0)])
def test_a_plain_loop_goes_the_same_way(weights, local, steps, decay):
    plan, task = build_plan("grid", 9, weights=weights), conditioned(9, 4, 8, seed=1)
    options = {"gossip_steps": steps, "decay": decay}
    world = started(plan, task, options=options, local=local, physics=Physics(Faults(delay=0.1), step_jitter=0.4))
    starts = models(world)
    world.run(float("inf"))
    assert {peer.algorithm.round for peer in world.peers.values()} == {12}
    wanted = plain(task, starts, matrix_of(plan), 12, local, steps, decay)
    np.testing.assert_allclose(models(world), wanted, rtol=1e-12, atol=1e-12)


def test_neighbours_models_are_as_far_apart_as_before_the_mixing_of_every_fourth_round():
    plan, task = build_plan("ring", 5), conditioned(5, 4, 8, seed=1)
    world = started(plan, task, rounds=11)
    starts = models(world)
    world.run(float("inf"))
    before = plain(task, starts, matrix_of(plan), 8, 3, 1, 1.0)
    z = dict(zip(world.peers, plain(task, before, np.eye(5), 1, 3, 1, 1.0), strict=True))
    for name, peer in world.peers.items():
        wanted = {f"distance/{other}": np.linalg.norm(z[name] - z[other]) for other in plan.edges_of(name)}
        counters = peer.algorithm.counters()
        assert {key: value for key, value in counters.items() if "/" in key} == pytest.approx(wanted, rel=1e-9)


# ---------------------------------------------------------------------------------------------- acceleration


@pytest.mark.parametrize("steps", [1, 2, 4, 7])
@pytest.mark.parametrize(("family", "n"), [("ring", 32), ("grid", 16)])
def test_chebyshev_is_the_polynomial(family, n, steps):
    """No local steps: z becomes T_Q(W/λ)/T_Q(1/λ) z, against numpy's Chebyshev polynomials and dense eigenvectors."""
    plan, task = build_plan(family, n), conditioned(n, 3, 2, seed=0)
    world = started(plan, task, options={"gossip_steps": steps, "acceleration": "chebyshev"}, rounds=1, lr=0.0)
    starts = models(world)
    world.run(float("inf"))
    values, vectors = np.linalg.eigh(matrix_of(plan))
    second = np.sort(abs(values))[-2]
    polynomial = np.polynomial.chebyshev.Chebyshev.basis(steps)
    shrunk = polynomial(values / second) / polynomial(1 / second)
    np.testing.assert_allclose(models(world), vectors @ (shrunk[:, None] * (vectors.T @ starts)), atol=1e-10)
    off = np.sort(abs(shrunk))[-2] if steps > 1 else second
    assert off == pytest.approx(1 / polynomial(1 / second), rel=1e-9)


def test_chebyshev_beats_as_many_plain_steps_on_a_ring():
    """What is left of the disagreement that dies out last, after 20 rounds of 4 gossip steps."""
    plan, task = build_plan("ring", 32), conditioned(32, 5, 2, seed=0)
    values, vectors = np.linalg.eigh(matrix_of(plan))
    second, left = values[-2], {}
    for acceleration in ("chebyshev", "none"):
        options = {"gossip_steps": 4, "acceleration": acceleration}
        world = started(plan, task, options=options, rounds=20, lr=0.0)
        for peer, entry in zip(world.peers.values(), vectors[:, -2], strict=True):
            peer.algorithm.x.fill_(entry)
        world.run(float("inf"))
        left[acceleration] = np.linalg.norm(models(world) - models(world).mean(0))
    promised = (second**4 * np.polynomial.chebyshev.Chebyshev.basis(4)(1 / second)) ** 20
    assert promised > 10
    assert left["none"] / left["chebyshev"] == pytest.approx(promised, rel=1e-6)


@pytest.mark.parametrize("options", [{"gossip_steps": 0}, {"acceleration": "heavy"}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(TaskError, match=f"--set {next(iter(options))}="):
        build_world(build_plan("ring", 4), conditioned(4, 2, 2, seed=0), 0, algorithm="dpsgd", options=options)


# ----------------------------------------------------------------------------------------------- bad networks


class Remembered(Dpsgd):
    """Writes down whose z it has mixed for which step."""

    def __init__(self, place) -> None:
        super().__init__(place)
        self.used = []

    def _mix(self):
        number = self.number
        self.used += [(name, number) for name, kept in self._inbox.items() if number in kept]
        return super()._mix()


ROUGH = Faults(loss=0.2, duplicate=0.2, delay=0.1, reorder=0.3)


def test_losses_and_repeats_cost_little_and_nothing_is_used_twice():
    plan, task = build_plan("grid", 9), conditioned(9, 4, 8, seed=1)
    world = started(plan, task, rule=Remembered, rounds=40, options={"gossip_steps": 2}, physics=Physics(ROUGH))
    world.run(float("inf"))
    peers = [peer.algorithm for peer in world.peers.values()]
    assert {peer.round for peer in peers} == {40}
    assert all(len(set(peer.used)) == len(peer.used) for peer in peers)
    assert sum(peer.counters()["missed_models"] for peer in peers) < 0.02 * sum(len(peer.used) for peer in peers)


def test_a_dead_neighbour_costs_one_deadline():
    """Nobody notices that it is gone but by its silence; its weight goes to the others' own models."""
    plan, task = build_plan("ring", 6), conditioned(6, 4, 5, seed=1)
    physics = Physics(Faults(delay=0.05), crashes=True, noticed_after=1e9)
    world = started(plan, task, rounds=60, physics=physics)
    world.at(20.0, lambda: world.crash("n2"))
    world.run(1e6)
    alive = [peer.algorithm for name, peer in world.peers.items() if name != "n2"]
    assert {peer.round for peer in alive} == {60}
    assert world.peers["n1"].algorithm.counters()["missed_models"] > 30
    # sixty rounds of three units and a bit, and the deadline once
    assert max(peer.steps_done for peer in world.peers.values()) == 180
    assert world.now == 1e6
    assert np.isfinite(models(world)).all()


def counted(world: World) -> tuple[float, float]:
    """Models of neighbours that were missing, and those that were there, so far."""
    counters = [peer.algorithm.counters() for peer in world.peers.values()]
    return sum(one["missed_models"] for one in counters), sum(one["exchanges"] for one in counters)


@pytest.mark.parametrize("delay", [10.0, 100.0])
def test_a_network_slower_than_the_first_deadline_is_waited_for_once_it_is_known(delay):
    plan, task = build_plan("grid", 9), conditioned(9, 4, 5, seed=1)
    world = started(plan, task, local=1, rounds=300, physics=Physics(Faults(delay=delay), step_jitter=0.2))
    world.run(150 * delay)
    missed, merged = counted(world)
    assert missed > 0, "if nothing is late at first, this shows nothing"
    world.run(1e6)
    missed_later, merged_later = counted(world)
    assert merged_later > merged + 1000
    assert missed_later - missed < 0.01 * (merged_later - merged)


@pytest.mark.parametrize("noticed_after", [1.0, 1e9])
def test_a_peer_that_comes_back_is_let_in_and_catches_up(noticed_after):
    plan, task = build_plan("ring", 6), conditioned(6, 4, 5, seed=1)
    physics = Physics(Faults(delay=0.05), crashes=True, noticed_after=noticed_after, exact=True)
    world = started(plan, task, rounds=100, physics=physics)
    world.at(20.0, lambda: world.crash("n2"))
    world.at(80.0, lambda: world.restart("n2"))
    world.run(79.0)
    behind = world.peers["n1"].algorithm.round - world.peers["n2"].algorithm.round
    world.run(130.0)
    assert behind > 10
    assert abs(world.peers["n1"].algorithm.round - world.peers["n2"].algorithm.round) <= 1
    before = world.peers["n1"].algorithm.counters()["missed_models"]
    world.run(1e5)
    assert world.peers["n1"].algorithm.counters()["missed_models"] <= before + 2
    assert {peer.algorithm.round for peer in world.peers.values()} == {100}


def test_round_numbers_reconcile_after_a_partition():
    plan, task = build_plan("ring", 8), conditioned(8, 4, 5, seed=1)
    faults = Faults(delay=0.05, partitions=(Partition(30.0, 90.0, halves(f"n{i}" for i in range(8))),))
    world = started(plan, task, rounds=100, physics=Physics(faults, step_jitter=0.3))
    world.run(85.0)
    apart = [peer.algorithm.round for peer in world.peers.values()]
    world.run(120.0)
    together = [peer.algorithm.round for peer in world.peers.values()]
    assert min(apart) > 15  # nobody stood still
    assert max(together) - min(together) <= 1
    world.run(1e5)
    assert {peer.algorithm.round for peer in world.peers.values()} == {100}


@pytest.mark.parametrize("seed", range(100))
def test_no_round_hangs_whatever_dies(seed, crash_schedule):
    plan, task = build_plan("small-world", 10, seed=1), conditioned(10, 3, 5, seed=1)
    physics = Physics(dataclasses.replace(ROUGH, loss=0.1), step_jitter=0.3, crashes=True, snapshot_every=5.0)
    world = started(plan, task, rule=Remembered, rounds=25, local=2, physics=physics, seed=seed)
    crash_schedule(world, seed, 60.0, count=8)
    world.run(1e4)
    assert {peer.algorithm.round for peer in world.peers.values()} == {25}
    assert all(peer.done is not None for peer in world.peers.values())
    assert all(len(set(peer.algorithm.used)) == len(peer.algorithm.used) for peer in world.peers.values())
