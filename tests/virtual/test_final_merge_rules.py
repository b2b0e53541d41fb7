"""The final merge around every learning rule that it can end."""

from __future__ import annotations

import pytest
import torch

from algorithms import ALGORITHMS
from algorithms.protocol import Finish
from node.config import RunConfig
from node.place import find_algorithm, is_open
from node.testbed.experiment import open_experiment
from node.testbed.simulate import build_world
from node.testbed.simulated import Physics
from node.wire.memory import Faults
from topology.planning import build_plan

CLOSED = [name for name in ALGORITHMS if not is_open(find_algorithm(name))]
PHYSICS = Physics(Faults(delay=0.05), step_jitter=0.3)
CONVEX = {"dadao": {"task": "logistic"}}


def world_of(algorithm: str, folder, **settings):
    config = RunConfig(
        algorithm=algorithm, **{"dtype": "float64", "alpha": 1.0, **CONVEX.get(algorithm, {}), **settings}
    )
    family = "star" if algorithm.startswith("fed") else "ring"
    experiment = open_experiment(build_plan(family, 5), config, folder / "run")
    return build_world(experiment, PHYSICS, batched=False)


def check(world) -> None:
    """Everybody has the mean of all models as they were when each was done."""
    peers = [peer.algorithm for peer in world.peers.values()]
    exact = torch.stack([peer.model(world.now) for peer in peers]).mean(0)
    assert all(peer.members == tuple(sorted(world.peers)) for peer in peers)
    assert all(peer.merged.equal(peers[0].merged) for peer in peers)
    torch.testing.assert_close(peers[0].merged, exact, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("algorithm", CLOSED)
def test_the_models_that_a_rule_ends_with_are_merged(algorithm, tmp_path):
    world, _ = world_of(algorithm, tmp_path)
    world.start()
    world.run(8.3)
    world.finish()
    check(world)


@pytest.mark.parametrize("algorithm", CLOSED)
def test_a_peer_that_goes_on_longer_than_its_neighbours_is_waited_for(algorithm, tmp_path):
    world, _ = world_of(algorithm, tmp_path)
    world.start()
    world.run(8.3)
    for name in ("n0", "n1", "n2", "n4"):
        world._end(world.peers[name], Finish())
    world.run(120.0)
    assert world.peers["n3"].algorithm.learnt_until > 120.0
    world.finish()
    check(world)


@pytest.mark.parametrize("algorithm", [name for name in CLOSED if find_algorithm(name).tempo.rounds])
def test_rounds_that_are_over_end_in_a_merge(algorithm, tmp_path):
    world, _ = world_of(algorithm, tmp_path, rounds=3)
    world.start()
    world.run(600.0)
    check(world)


def test_an_order_ends_the_run_of_a_rule_that_has_to_settle(tmp_path):
    world, _ = world_of("gossip", tmp_path)
    world.start()
    world.run(8.3)
    world._feed(world.peers["n3"], Finish(lead=True))
    world.run(90.0)
    check(world)
    assert all(peer.learnt_until < 20.0 for peer in (peer.algorithm for peer in world.peers.values()))
