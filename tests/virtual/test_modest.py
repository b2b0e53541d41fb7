"""MoDeST in virtual time: against a plain loop, in a divided network, and when those who hold a round fall out."""

from __future__ import annotations

import hashlib
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from node.config import RunConfig
from node.draws import Draws
from node.shards import load_shard
from node.testbed.experiment import open_experiment
from node.testbed.record import read_states
from node.testbed.simulate import simulate
from node.testbed.simulated import Physics
from node.wire.memory import Faults, Partition
from tests.virtual.counting import OpenWorld
from topology.planning import build_plan

N, SAMPLES, ROUNDS, LOCAL, LR, DECAY, WEIGHT_DECAY, BATCH = 8, 3, 6, 3, 0.1, 0.9, 0.01, 8


def first_by_lot(names: list[str], number: int, samples: int) -> list[str]:
    return sorted(names, key=lambda name: hashlib.md5(f"{name}-{number}".encode()).digest())[:samples]


# ----------------------------------------------------------------------------------------- the plain loop


def plain(experiment) -> np.ndarray:
    """FedAvg with the samples of the hash, by torch's own optimiser."""
    names = [node.name for node in experiment.plan.nodes]
    shards = {name: load_shard(experiment.data_dir, name) for name in names}
    draws = {name: Draws(experiment.config.seed, name)("batches") for name in names}
    module = experiment.task.build(experiment.config.seed).double()
    x = parameters_to_vector(module.parameters()).detach()
    for number in range(1, ROUNDS + 1):
        trained = []
        for name in first_by_lot(names, number, SAMPLES):
            vector_to_parameters(x.clone(), module.parameters())
            lr = LR * DECAY ** (number - 1)
            optimiser = torch.optim.SGD(module.parameters(), lr=lr, weight_decay=WEIGHT_DECAY)
            rows_of = torch.from_numpy(draws[name].integers(len(shards[name]), size=LOCAL * BATCH))
            for rows in rows_of.view(-1, BATCH):
                optimiser.zero_grad()
                cross_entropy(module(shards[name].x[rows]), shards[name].y[rows]).backward()
                optimiser.step()
            trained.append(parameters_to_vector(module.parameters()).detach().clone())
        x = torch.stack(trained).mean(0)
    return x.numpy()


@pytest.mark.parametrize("aggregators", [1, 2])
@pytest.mark.parametrize("batched", [True, False])
def test_it_is_fedavg_with_the_samples_of_the_hash(aggregators, batched, tmp_path):
    options = {"samples": str(SAMPLES), "aggregators": str(aggregators), "decay": str(DECAY), "hidden": "6"}
    config = RunConfig(
        seed=3,
        algorithm="modest",
        lr=LR,
        weight_decay=WEIGHT_DECAY,
        batch_size=BATCH,
        dtype="float64",
        rounds=ROUNDS,
        local_steps=LOCAL,
        options=options,
    )
    experiment = open_experiment(build_plan("ring", N, seed=0), config, tmp_path / "run")
    simulate(experiment, Physics(Faults(delay=0.05), step_jitter=0.2), batched=batched)
    wanted = plain(experiment)
    states = read_states(tmp_path / "run")
    assert len(states) == N
    for state in states.values():
        np.testing.assert_allclose(state.model.numpy(), wanted, rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------------------------- a divided network

LEFT, RIGHT = frozenset({"n0", "n1", "n2", "n3"}), frozenset({"n4", "n5", "n6", "n7"})
CUT, HEALED, END = 30.0, 130.0, 400.0


def divided(side: frozenset[str], seed: int, **changes) -> OpenWorld:
    faults = Faults(delay=0.1, partitions=(Partition(CUT, HEALED, side),))
    open_world = OpenWorld(N, SAMPLES, 1, seed, Physics(faults, step_jitter=0.2), **changes)
    open_world.world.start()
    return open_world


def newest(open_world: OpenWorld, side: frozenset[str]) -> int:
    return max(open_world.world.peers[name].algorithm.held for name in side)


@pytest.mark.parametrize("seed", range(5))
def test_halves_go_on_alone_and_the_further_one_takes_the_other_in(seed):
    open_world = divided(LEFT, seed)
    world, log = open_world.world, open_world.log
    world.run(CUT)
    before = newest(open_world, LEFT | RIGHT)
    world.run(HEALED - 0.01)
    held = {side: newest(open_world, side) for side in (LEFT, RIGHT)}
    assert min(held.values()) > before + 10
    further = max(held, key=held.__getitem__)
    model = world.peers[max(further, key=lambda name: world.peers[name].algorithm.held)].algorithm.x.clone()
    world.run(END)
    # from a few rounds after healing on there is one model a round, and it goes back to the side that was further
    start = max(held.values()) + 3
    rounds = {number: bits for number, bits in log.models(since=HEALED).items() if number >= start}
    assert len(rounds) > 50
    assert {len(bits) for bits in rounds.values()} == {1}
    assert {work.name for work in log.trained if work.number >= start} == LEFT | RIGHT
    lost = held[further] - 1 - float(model[0])
    assert all(work.number - 1 - work.value <= lost + 1 for work in log.trained if work.number >= start)


@pytest.mark.parametrize("seed", range(3))
def test_a_side_with_too_few_peers_is_slow_and_comes_back(seed):
    few = frozenset({"n0", "n5"})
    open_world = divided(few, seed)
    world = open_world.world
    world.run(CUT)
    before = newest(open_world, LEFT | RIGHT)
    world.run(HEALED - 0.01)
    few_rounds, many_rounds = (newest(open_world, side) - before for side in (few, (LEFT | RIGHT) - few))
    assert few_rounds < many_rounds / 2
    assert many_rounds > 20
    world.run(END)
    late = {work.name for work in open_world.log.trained if work.time > HEALED and work.number > before + many_rounds}
    assert late == LEFT | RIGHT
    assert all(len(bits) == 1 for bits in open_world.log.models(since=HEALED + 50.0).values())


@pytest.mark.parametrize("seed", range(5))
def test_several_aggregators_do_not_part_for_more_than_a_round(seed):
    """With loss their sets differ, and their means; whoever trains takes the first that comes, and means mix again."""
    physics = Physics(Faults(delay=0.1, loss=0.2), step_jitter=0.2)
    open_world = OpenWorld(N, SAMPLES, 3, seed, physics)
    world, log = open_world.world, open_world.log
    world.start()
    world.run(300.0)
    models = log.models()
    assert any(len(bits) > 1 for bits in models.values())
    # nobody goes on from a mean that has missed a round: all of a round's models have the same number of rounds in them
    values = {number: {w.value for w in log.trained if w.number == number} for number in models}
    assert all(values[number] == {number - 1.0} for number in values)
