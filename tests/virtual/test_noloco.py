"""NoLoCo in virtual time: a plain loop goes the same way, its disagreement is what theory says, and nobody hangs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import md5
from itertools import pairwise

import numpy as np
import pytest
import torch

from algorithms.noloco import Noloco
from algorithms.protocol import Algorithm, Place, Train, Trained
from node.testbed.simulated import Physics
from node.testbed.virtual import World
from node.wire.memory import Faults, Partition

ROUGH = Faults(loss=0.2, duplicate=0.2, delay=0.1, reorder=0.3)


def born(rounds: float, local_steps: int = 3, apart: float = 0.0, **options: float) -> Callable[[Place], Algorithm]:
    """Peers that end after so many outer steps, and start ``apart`` from each other."""

    def birth(place: Place) -> Algorithm:
        k = int(place.name.removeprefix("n"))
        start = place.start + apart * torch.from_numpy(np.random.default_rng(k).normal(size=len(place.start)))
        options_ = {**Noloco.options, **options}
        return Noloco(replace(place, start=start, rounds=rounds, local_steps=local_steps, options=options_))

    return birth


def line(n: int) -> list[tuple[str, str]]:
    """Edges play no part, but a plan has some."""
    return list(pairwise(f"n{i}" for i in range(n)))


def models(world: World) -> np.ndarray:
    return np.array([peer.algorithm.phi.numpy() for peer in world.peers.values()])


def groups(names: list[str], step: int, size: int) -> list[list[int]]:
    order = sorted(names, key=lambda name: md5(f"{name}-{step}".encode()).digest())
    return [[names.index(name) for name in order[k : k + size]] for k in range(0, len(names), size)]


@pytest.mark.parametrize("faults", [Faults(delay=0.1), Faults(delay=0.1, duplicate=0.3, reorder=0.3)])
@pytest.mark.parametrize(("n", "group"), [(8, 2), (7, 2), (9, 4), (5, 0)])
def test_a_plain_loop_goes_the_same_way(make_world, n, group, faults):
    """Local steps go a part 1 - 0.9³ of the way to each peer's target."""
    alpha, beta, gamma, rounds = 0.4, 0.8, 0.3, 12
    rule = born(rounds, apart=1.0, alpha=alpha, beta=beta, gamma=gamma, group=group)
    world = make_world(line(n), algorithm=rule, physics=Physics(faults, step_jitter=0.2))
    phi, delta = models(world), np.zeros((n, 5))
    names = list(world.peers)
    targets = np.array([world._workbench.targets[name].numpy() for name in names])
    for step in range(rounds):
        change = (targets - phi) * (1 - 0.9**3)
        mean_change, mean_phi = np.empty_like(phi), np.empty_like(phi)
        for members in groups(names, step, group or n):
            mean_change[members], mean_phi[members] = change[members].mean(0), phi[members].mean(0)
        delta = alpha * delta + beta * mean_change + gamma * (mean_phi - phi)
        phi = phi + delta
    world.start()
    world.run(float("inf"))
    assert {(p.algorithm.round, p.algorithm.counters()["missed_models"]) for p in world.peers.values()} == {(rounds, 0)}
    np.testing.assert_allclose(models(world), phi, rtol=0, atol=1e-12)


class Noise:
    """Local steps that go nowhere: each adds noise of variance 1 to every entry."""

    eager = False

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)

    def train(self, jobs: Mapping[str, Train]) -> dict[str, Trained]:
        return {
            name: Trained(job.key, torch.from_numpy(self._random.normal(size=len(job.at))), 0.0, 1)
            for name, job in jobs.items()
        }


def disagreement(n: int, alpha: float, beta: float, gamma: float, steps: int) -> float:
    """The mean square of φ minus its mean over peers after so many steps of pure noise.

    With P = E φ², C = E φδ and D = E δ², all centred, and a partner that is any other peer, whose correlation with the
    peer itself is -1/(n - 1) since centred values sum to zero, one step is linear in (P, C, D).
    """
    other = -1 / (n - 1)
    towards = gamma / 2 * (other - 1)  # E φ_i pull_i / P, and E δ_i pull_i / C, with pull_i = γ (φ_j - φ_i)/2
    to_d = np.array([gamma**2 / 2 * (1 - other), 2 * alpha * towards, alpha**2])
    to_c = np.array([towards, alpha, 0]) + to_d
    to_p = np.array([1, 0, 0]) + 2 * np.array([towards, alpha, 0]) + to_d
    moments, noise = np.zeros(3), beta**2 * (1 - 1 / n) * (1 + other) / 2
    for _ in range(steps):
        moments = np.array([to_p, to_c, to_d]) @ moments + noise
    return float(moments[0])


@pytest.mark.parametrize(
    ("n", "gamma", "published"), [(64, 0.1, 5.0), (64, 0.5, 1.39), (64, 0.7, 1.24), (64, 1.45, 7.6)]
)
def test_the_theory_agrees_with_what_was_found_elsewhere(n, gamma, published):
    assert disagreement(n, 0.5, 0.7, gamma, 600) == pytest.approx(published, rel=0.04)


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.7, 1.45])
def test_disagreement_under_noise_is_that_of_theory(make_world, gamma):
    """The mean over 200 entries, 12 peers and the later half of the steps; γ = 0 is a random walk."""
    n, steps, looks = 12, 120, []
    make_world.size = 200
    world = make_world(line(n), algorithm=born(np.inf, local_steps=1, alpha=0.5, beta=0.7, gamma=gamma))
    world._workbench.train = Noise().train
    world.start()
    for step in range(1, steps + 1):
        world.run(step + 0.5)
        if step > steps / 2:
            looks.append(((models(world) - models(world).mean(0)) ** 2).mean())
    assert {peer.algorithm.round for peer in world.peers.values()} == {steps}
    wanted = np.mean([disagreement(n, 0.5, 0.7, gamma, step) for step in range(steps // 2 + 1, steps + 1)])
    assert np.mean(looks) == pytest.approx(wanted, rel=0.1)


@pytest.mark.parametrize("codec", ["none", "half"])
def test_the_mean_goes_as_if_all_had_met(make_world, codec):
    """Whatever pairs there are, and however much is rounded: δ̄ = α δ̄ + β mean Δ, φ̄ += δ̄."""
    make_world.codec, rounds = codec, 15
    world = make_world(line(6), algorithm=born(rounds, apart=1.0))
    phi, delta = models(world).mean(0), 0.0
    target = torch.stack(list(world._workbench.targets.values())).mean(0).numpy()
    for _ in range(rounds):
        delta = 0.5 * delta + 0.7 * (target - phi) * (1 - 0.9**3)
        phi = phi + delta
    world.start()
    world.run(float("inf"))
    np.testing.assert_allclose(models(world).mean(0), phi, rtol=0, atol=1e-12)


def test_nobody_hangs_when_nearly_everything_is_lost(make_world):
    world = make_world(line(6), algorithm=born(20.0), physics=Physics(Faults(loss=0.9)))
    world.start()
    world.run(3000.0)
    assert {peer.algorithm.round for peer in world.peers.values()} == {20}
    assert all(peer.done is not None for peer in world.peers.values())


def test_who_is_cut_off_steps_alone_and_then_catches_up(make_world):
    """Who is not reached is done without at once; afterwards all are in one step again."""
    faults = Faults(partitions=(Partition(30.0, 90.0, frozenset({"n0", "n1", "n2"})),))
    world = make_world(line(8), algorithm=born(np.inf, apart=1.0), physics=Physics(faults, step_jitter=0.1))
    world.start()
    for until in (30.0, 90.0, 300.0):
        world.run(until)
    rounds = [peer.algorithm.round for peer in world.peers.values()]
    assert min(rounds) > 70
    assert max(rounds) - min(rounds) <= 2
    assert 0 < sum(peer.algorithm.counters()["missed_models"] for peer in world.peers.values()) < 8 * 100 / 3


@pytest.mark.parametrize("exact", [True, False])
def test_it_survives_crashes(make_world, crash_schedule, exact):
    physics = Physics(ROUGH, crashes=True, exact=exact)
    world = make_world(line(8), physics=physics, algorithm=born(60.0, apart=1.0))
    crash_schedule(world, 1, 150.0)
    world.start()
    world.run(1500.0)
    assert all(peer.done is not None for peer in world.peers.values())
    best = torch.stack(list(world._workbench.targets.values())).mean(0).numpy()
    alone = torch.stack(list(world._workbench.targets.values())).numpy() - best
    assert np.linalg.norm(models(world) - best) < 0.6 * np.linalg.norm(alone)


def test_same_seed_same_bits(make_world):
    def final(seed: int) -> list[float]:
        world = make_world(line(5), seed=seed, algorithm=born(10.0), physics=Physics(ROUGH, step_jitter=0.3))
        world.start()
        world.run(float("inf"))
        return [*models(world).ravel().tolist(), world.now]

    assert final(3) == final(3)
    assert final(3) != final(4)
