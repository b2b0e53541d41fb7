"""MoDeST in virtual time: against a plain loop, in a divided network, and when those who hold a round fall out."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from algorithms.modest import Modest
from algorithms.protocol import Arrival, Effect, Event, Place, Tick
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


def test_a_peer_that_is_cut_off_for_long_never_gets_ahead_of_the_others():
    """Those who are quiet for longer than the window are not asked any more: that must not make it faster."""
    cut = Partition(CUT, 700.0, frozenset({"n0"}))
    open_world = OpenWorld(5, 2, 1, 0, Physics(Faults(delay=0.4, partitions=(cut,))), options={"window": 5})
    world, log = open_world.world, open_world.log
    world.start()
    world.run(699.0)
    alone, others = (newest(open_world, side) for side in ({"n0"}, {"n1", "n2", "n3", "n4"}))
    assert 20 < alone < others
    value = max((w.number, w.value) for w in log.averaged if w.name != "n0")[1]
    world.run(900.0)
    assert min(w.value for w in log.trained if w.number > others + 2) >= value
    assert max(w.number for w in log.trained if w.name == "n0") > others + 20


# ----------------------------------------------------------------------------------- those who fall out


def small(seed: int = 0, **changes) -> OpenWorld:
    physics = Physics(Faults(delay=0.1), step_jitter=0.2, silent=bool(seed % 2))
    open_world = OpenWorld(**{"n": N, "samples": SAMPLES, "seed": seed, "physics": physics, **changes})
    open_world.world.start()
    return open_world


def trains(open_world: OpenWorld) -> list[str]:
    return [name for name, peer in open_world.world.peers.items() if peer.job]


def averages(open_world: OpenWorld) -> list[str]:
    return [name for name, peer in open_world.live().items() if peer._average]


def revivals(open_world: OpenWorld) -> int:
    return sum(peer.counters()["revivals"] for peer in open_world.live().values())


def goes_on(open_world: OpenWorld, after: int, rounds: int = 15) -> bool:
    return open_world.run_until(lambda: any(w.number > after + rounds for w in open_world.log.averaged), 300.0)


def to_the_middle(open_world: OpenWorld, who, count: int) -> int:
    """Until so many work on a round after the fifth; returns the number of the last one."""
    world, log = open_world.world, open_world.log
    world.run(10.0)
    assert open_world.run_until(lambda: len(who(open_world)) == count, 100.0, step=0.02)
    return log.trained[-1].number


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("who", "count"), [(trains, SAMPLES), (averages, 1), (averages, 2)])
def test_a_round_outlives_all_who_work_on_it(who, count, seed):
    """What they had is still with those who had sent it to them, unless these are the same: nothing is done anew."""
    open_world = small(seed, aggregators=count if who is averages else 1)
    log, number = open_world.log, to_the_middle(open_world, who, count)
    open_world.world.run(open_world.world.now + 0.35)  # until the aggregator's givers have heard that others have it
    stopped = set(who(open_world))
    for name in stopped:
        open_world.world.stop(name)
    makers = log.averaged if who is trains else [work for work in log.trained if work.number == number]
    lost = {work.name for work in makers if work.number == number} <= stopped
    assert goes_on(open_world, number)
    assert (revivals(open_world) > 0) == lost
    assert lost or all(work.value == work.number - 1 for work in log.averaged)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("aggregators", [1, 2])
def test_when_a_round_is_lost_the_newest_model_that_is_left_goes_on(aggregators, seed):
    """Whoever trains, averages or keeps a model for others stops at once."""
    open_world = small(seed, aggregators=aggregators)
    number = to_the_middle(open_world, trains, SAMPLES)
    best = max(float(peer.x[0]) for peer in open_world.live().values())
    for name, peer in open_world.live().items():
        if open_world.world.peers[name].job or peer._average or len(peer._relay):
            open_world.world.stop(name)
    left, stopped = max(float(peer.x[0]) for peer in open_world.live().values()), open_world.world.now
    assert goes_on(open_world, number)
    after = [work for work in open_world.log.averaged if work.time > stopped]
    assert revivals(open_world) > 0
    assert min(work.value for work in after) == left + 1 >= best - 1


@pytest.mark.parametrize("seed", range(4))
def test_a_participant_that_leaves_finishes_its_round(seed):
    open_world = small(seed)
    number = to_the_middle(open_world, trains, SAMPLES)
    leaver = trains(open_world)[0]
    open_world.world.leave(leaver)
    assert goes_on(open_world, number)
    assert open_world.world.peers[leaver].done is not None
    assert any(leaver in work.givers for work in open_world.log.averaged if work.number == number + 1)
    assert max(work.number for work in open_world.log.trained if work.name == leaver) == number
    assert all(peer.members.view.of(leaver).left for peer in open_world.live().values())


@pytest.mark.parametrize("seed", range(4))
def test_an_only_aggregator_that_leaves_hands_its_mean_on(seed):
    open_world = small(seed)
    number = to_the_middle(open_world, averages, 1)
    (leaver,) = averages(open_world)
    open_world.world.leave(leaver)
    assert goes_on(open_world, number)
    assert open_world.world.peers[leaver].done is not None
    assert [work.name for work in open_world.log.averaged if work.number == number + 1] == [leaver]
    assert revivals(open_world) == 0
    assert all(work.value == work.number - 1 for work in open_world.log.averaged)


# ------------------------------------------------------------------------------------------- those who join


@pytest.mark.parametrize("trouble", ["none", "cut off", "gone", "gone after the welcome"])
@pytest.mark.parametrize("seed", range(3))
def test_a_peer_joins_whatever_becomes_of_its_contact(trouble, seed):
    cut = (Partition(5.0, 1000.0, frozenset({"n0"})),) if trouble == "cut off" else ()
    physics = Physics(Faults(delay=0.1, partitions=cut), step_jitter=0.2)
    open_world = OpenWorld(N, SAMPLES, 1, seed, physics, late={"n7": "n0"})
    world, log = open_world.world, open_world.log
    world.start()
    world.at(20.0, lambda: world.join("n7"))
    if "gone" in trouble:
        world.at(10.0 if trouble == "gone" else 20.4, lambda: world.stop("n0"))
    world.run(21.0)
    assert open_world.run_until(lambda: any(work.name == "n7" for work in log.trained), 200.0)
    peer = world.peers["n7"].algorithm
    assert not peer.members.newcomer
    assert min(work.number for work in log.trained if work.name == "n7") > 5
    knows = [other for other in open_world.live() if other != "n0" or trouble != "cut off"]
    assert open_world.run_until(
        lambda: all(world.peers[name].algorithm.members.view.of("n7").address == "host:n7" for name in knows), 100.0
    )


# ----------------------------------------------------------------------------------------- in the long run


@pytest.mark.parametrize("loss", [0.0, 0.2])
@pytest.mark.parametrize("aggregators", [1, 3])
@pytest.mark.parametrize("seed", range(4))
def test_a_run_ends_everywhere_with_the_same_bytes(seed, aggregators, loss):
    physics = Physics(Faults(delay=0.1, loss=loss), step_jitter=0.5)
    open_world = OpenWorld(N, SAMPLES, aggregators, seed, physics, rounds=8)
    open_world.world.start()
    open_world.world.run(2000.0)
    peers = open_world.world.peers.values()
    assert len({peer.done.numpy().tobytes() for peer in peers}) == 1
    assert {float(peer.done[0]) for peer in peers} == {8.0}


class DeafAtTimes(Modest):
    """``n0`` does not notice most of what it is sent."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._ears = place.draw("ears") if place.name == "n0" else None

    def step(self, event: Event, now: float) -> Iterable[Effect]:
        deaf = self._ears is not None and isinstance(event, Arrival) and self._ears.random() < 0.7
        return [] if deaf else super().step(event, now)


class Impatient(Modest):
    """``n0`` finds at each of its looks that the round is lost, and begins the next."""

    def _tick(self, event: Tick, now: float) -> list[Effect]:
        effects = super()._tick(event, now)
        if event.name == "look" and self._name == "n0":
            self._presence.silences, self._presence._behind = 100, False
            effects += self._revive_if_lost(now)
        return effects


@pytest.mark.parametrize("rule", [DeafAtTimes, Impatient])
def test_a_peer_that_claims_what_is_not_so_does_not_hold_the_others_up(rule):
    open_world = small(rule=rule)
    open_world.world.run(200.0)
    numbers = sorted({work.number: work.time for work in open_world.log.averaged}.items())
    assert max(b[1] - a[1] for a, b in pairwise(numbers)) < 20.0
    newest = max((work.number, work.value) for work in open_world.log.averaged)
    assert newest[0] > 50
    assert newest[1] > 0.8 * newest[0]
    assert rule is DeafAtTimes or open_world.world.peers["n0"].algorithm.counters()["revivals"] > 3


def test_a_peer_that_all_others_doubt_without_reason_is_soon_sampled_again():
    """Nobody tells it, and it would have nothing to say of its own accord."""
    open_world = small(n=20)
    world, log = open_world.world, open_world.log
    world.run(50.0)
    for name, peer in open_world.live().items():
        if name != "n7":
            peer.members.doubt("n7")
    assert open_world.run_until(lambda: world.peers["n7"].algorithm.counters()["refuted"] > 0, 30.0)
    assert open_world.run_until(lambda: any(w.name == "n7" and w.time > 50.0 for w in log.trained), 60.0)


def entries(thing: object, seen: set[int]) -> int:
    """Of all collections that an object of an algorithm holds, and those that they hold."""
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    if isinstance(thing, dict | list | tuple | set | deque):
        return len(thing) + sum(entries(one, seen) for one in (thing.values() if isinstance(thing, dict) else thing))
    if isinstance(thing, Modest) or type(thing).__module__.startswith("algorithms."):
        names = getattr(type(thing), "__slots__", None) or vars(thing)
        return sum(entries(getattr(thing, name), seen) for name in names)
    return 0


class Hoards(Modest):
    """Keeps a word on every round."""

    def step(self, event: Event, now: float) -> Iterable[Effect]:
        self.rounds = {**getattr(self, "rounds", {}), self.held: now}
        return super().step(event, now)


@pytest.mark.parametrize("rule", [Modest, Hoards])
def test_what_a_peer_remembers_does_not_grow_with_the_rounds(rule):
    """Under loss and crashes, which leave the most behind; ``n4`` never crashes."""
    physics = Physics(Faults(delay=0.05, loss=0.1), crashes=True, exact=True, silent=True)
    open_world = OpenWorld(5, 2, 2, 0, physics, rule=rule)
    world = open_world.world
    for time in range(20, 600, 20):
        world.at(float(time), lambda time=time: world.crash(f"n{time % 3}"))
        world.at(time + 5.0, lambda time=time: world.restart(f"n{time % 3}"))
    world.start()
    sizes = []
    for until in (200.0, 600.0):
        world.run(until)
        sizes.append(entries(open_world.live()["n4"], set()))
    assert sizes[0] > 100
    assert max(work.number for work in open_world.log.averaged) > 150
    assert (sizes[1] < 1.2 * sizes[0]) == (rule is Modest), sizes
