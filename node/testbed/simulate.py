"""The driver for virtual time: the same plan, configuration, algorithms and record as with real daemons."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from algorithms import ALGORITHMS
from algorithms.final_merge import STATISTICS, STATISTICS_STEPS, time_learnt
from algorithms.layout import Layout
from algorithms.protocol import Compute, Gradient, Snapshot, Train, Trained, Vector
from node.draws import Draws
from node.errors import ConfigError
from node.flat import FlatModel
from node.learning import choose_device, read_recipe
from node.place import find_algorithm, is_open, wire_share
from node.shards import load_optimum, load_task_json, load_test
from node.testbed import record
from node.testbed.experiment import Experiment, undone_if_refused
from node.testbed.happenings import Event, Happening, Script
from node.testbed.mergeability import Looks, Mergeability
from node.testbed.merged import FOLDER, write_merged
from node.testbed.rates import asked_rates
from node.testbed.simulated import Physics, SimulatedPeer
from node.testbed.virtual import World
from node.trainer import Trainer, train_batch
from node.training import BATCHES
from node.wire.memory import Nature
from topology.plan import Plan

P99 = "exchange_units_p99"
"""The counter of the times that exchanges take, which the record holds under the name that daemons use."""


class Trainers:
    """The workbench of virtual time: one trainer a peer, all working in one model."""

    def __init__(self, experiment: Experiment, draws: Mapping[str, Draws], batched: bool) -> None:
        self.eager = batched
        config, task = experiment.config, experiment.task
        recipe, device = read_recipe(config, task, find_algorithm(experiment.algorithm)), choose_device(config)
        model = FlatModel(task.build(0), task.dtype, device)
        self._trainers = {
            name: Trainer(task, shard, recipe, draws[name](BATCHES), device, model)
            for name, shard in experiment.learners().items()
        }
        self.layout: Layout = model.layout
        self._test = load_test(experiment.data_dir)
        self._latest: dict[bytes, tuple[float, float]] = {}  # loss and accuracy by the model's hash
        self._before = self._latest
        self.evaluations = 0
        self.optimum = load_optimum(experiment.data_dir)

    def train(self, jobs: Mapping[str, Train]) -> dict[str, Trained]:
        if len(jobs) == 1:
            return {name: self._trainers[name].train(job) for name, job in jobs.items()}
        results = train_batch([self._trainers[name] for name in jobs], list(jobs.values()))
        return dict(zip(jobs, results, strict=True))

    def compute(self, name: str, job: Compute) -> Gradient:
        return self._trainers[name].gradient(job)

    def snapshot(self, name: str) -> Snapshot:
        return self._trainers[name].snapshot()

    def restore(self, name: str, snapshot: Snapshot) -> None:
        self._trainers[name].restore(snapshot)

    def evaluate(self, vector: Vector) -> tuple[float, float]:
        """Mean loss and accuracy on the test data; a model that was evaluated lately is not evaluated again."""
        key = hashlib.sha256(vector.numpy().data).digest()
        if key not in self._latest:
            self._latest[key] = self._before.get(key) or self._evaluate(vector)
        return self._latest[key]

    def _evaluate(self, vector: Vector) -> tuple[float, float]:
        self.evaluations += 1
        return next(iter(self._trainers.values())).evaluate(vector, self._test)

    def settle(self, name: str, vector: Vector) -> Vector:
        """A merged model as a peer has it after a final merge: with statistics of its own data, where there are any.

        The batches are the same each time, so that equal models stay equal, and none of the run's own.
        """
        peer = self._trainers[name]
        if peer.model.learnt == self.layout.size:
            return vector
        other = Trainer(peer.task, peer.shard, peer.recipe, Draws(0, name)("settle"), peer.device, peer.model)
        with torch.random.fork_rng(devices=[peer.device] if peer.device.type == "cuda" else []):
            trained = other.train(Train(STATISTICS, vector.clone(), STATISTICS_STEPS, lr_factor=0.0))
        return trained.change.add_(vector)

    def age(self) -> None:
        """Forget the models that have not been evaluated since this was called last."""
        self._before, self._latest = self._latest, {}

    def distance(self, vector: Vector) -> float | None:
        """The Euclidean distance to the optimum; None where the task has none."""
        return None if self.optimum is None else float((vector.double() - self.optimum).norm())


def simulate(
    experiment: Experiment,
    physics: Physics,
    script: Script = Script(),
    *,
    batched: bool = True,
    looks: Looks | None = None,
    progress: Callable[[float], None] = lambda units: None,
) -> dict[str, Any]:
    """Run an experiment in virtual time and write its record.

    Parameters
    ----------
    physics : Physics
        How the world behaves; times in plan units.
    script : Script
        What happens to peers.
    batched : bool
        Whether local steps of many peers are computed together, which is faster and rounds differently.
    looks : Looks, optional
        When to find out whether the models could be merged.
    progress : callable
        Called now and then with the units that have passed.

    Returns
    -------
    dict
        What was written to ``summary.json``.

    Raises
    ------
    UserError
        When a peer can't run where it is placed, or is to join where all have to be there from the start.
    """
    torch.set_num_threads(1)
    began = time.monotonic()
    config, plan, unit_s = experiment.config, experiment.plan, experiment.unit_s
    names = [node.name for node in plan.nodes]
    experiment = replace(experiment, late=script.contacts(names, config.seed))
    with undone_if_refused(experiment.run_dir):
        world, trainers = build_world(experiment, replace(physics, crashes=script.crashes), batched)
    _let_happen(world, experiment, script.play(list(experiment.learners()), config.seed))
    mergeability = None
    if looks:
        possible = [*world.peers, *experiment.late]
        mergeability = Mergeability(experiment.run_dir, looks, trainers, possible, config.seed, unit_s)
    _run(world, experiment, trainers, mergeability, progress)
    seconds = time.monotonic() - began
    facts = {
        "algorithm": config.algorithm,
        "task": config.task,
        "nodes": len(plan.nodes),
        "seed": config.seed,
        "transport": "virtual",
        "seconds": seconds,
        "virtual_seconds": world.now * unit_s,
        "lost_peers": sorted(name for name, peer in world.peers.items() if peer.done is None),
        **({"mergeability": mergeability.summary(seconds)} if mergeability else {}),
    }
    return record.summarise(
        experiment.run_dir,
        trainers.evaluate,
        trainers.layout,
        facts,
        optimum=trainers.optimum,
        asked=asked_rates(plan, config),
    )


def build_world(experiment: Experiment, physics: Physics, batched: bool) -> tuple[World, Trainers]:
    """The peers of an experiment, their work and their network, before the start."""
    config, plan = experiment.config, experiment.plan
    open_ = is_open(find_algorithm(experiment.algorithm))
    if experiment.late and not open_:
        possible = " or ".join(name for name, algorithm in ALGORITHMS.items() if is_open(algorithm))
        raise ConfigError(f"no peer can join {config.algorithm} late: write --algorithm {possible}, or no --late.")
    learners = list(experiment.learners())
    draws = {name: Draws(config.seed, name) for name in learners}
    trainers = Trainers(experiment, draws, batched)
    constants = load_task_json(experiment.data_dir).constants
    births = {name: partial(experiment.be_born, name, trainers.layout, constants) for name in learners}
    alone = experiment.reference or open_  # peers of an open run find out by themselves who is there
    neighbours: dict[str, list[str]] = {name: [] if alone else sorted(plan.edges_of(name)) for name in learners}
    physics = replace(
        physics,
        faults=replace(physics.faults, links=natures(plan, experiment.unit_s)),
        exact=config.durability == "exact",
        wire_share=wire_share(config, trainers.layout),
    )
    return World(births, neighbours, trainers, config.seed, physics, draws, experiment.late), trainers


def natures(plan: Plan, unit_s: float) -> dict[frozenset[str], Nature]:
    """What a plan says of its links, in plan units; those of which it says nothing are left out."""
    return {
        frozenset((edge.a, edge.b)): Nature(
            None if edge.delay is None else edge.delay / unit_s,
            None if edge.bandwidth is None else edge.bandwidth * unit_s,
        )
        for edge in plan.edges
        if edge.delay is not None or edge.bandwidth is not None
    }


ACTS: Mapping[Event, Callable[[World, str], bool]] = {
    "joined": World.join,
    "left": World.leave,
    "stopped": World.stop,
    "crashed": World.crash,
    "restarted": World.restart,
}
"""What brings it about that a peer has done so; each tells whether it has."""


def _let_happen(world: World, experiment: Experiment, happenings: Iterator[Happening]) -> None:
    """Have the next one happen when its time has come, write it down, and go on, until the run is over."""
    if (coming := next(happenings, None)) is None:
        return

    def happen() -> None:
        if world.finishing:
            return
        if ACTS[coming.event](world, coming.name):
            contact = {"contact": experiment.late[coming.name]} if coming.event == "joined" else {}
            values = {"units": world.now, "event": coming.event, "peer": coming.name, **contact}
            record.write_event(experiment.run_dir, values)
        _let_happen(world, experiment, happenings)

    world.at(coming.time, happen)


def _run(
    world: World,
    experiment: Experiment,
    trainers: Trainers,
    mergeability: Mergeability | None,
    progress: Callable[[float], None],
) -> None:
    duration, every = experiment.duration_units, experiment.config.report_every / experiment.unit_s
    ended: set[str] = set()
    world.start()
    while world.now < duration and not (math.isinf(duration) and _over(world)):
        _write_lines(world, experiment, trainers, ended)
        if mergeability and mergeability.due(world.now):
            mergeability.look(_mergeable(world), world.now)
        world.run(min(world.now + every, duration))
        progress(world.now)
    if mergeability:
        mergeability.look(_mergeable(world), world.now)
    world.finish()
    _write_lines(world, experiment, trainers, ended)
    for name, peer in world.peers.items():
        if not peer.stopped:
            record.write_state(experiment.run_dir, name, world.last_words(name), world.now)
        if peer.done is not None:
            write_merged(experiment.run_dir / FOLDER, name, peer.algorithm, trainers.layout)


def _mergeable(world: World) -> dict[str, Vector]:
    """The models of those who would take part in a final merge now."""
    there = [peer for peer in world.peers.values() if (peer.alive or peer.done is not None) and not peer.leaving]
    return {peer.name: peer.algorithm.model(world.now) for peer in there}


def _over(world: World) -> bool:
    """Whether a run that rounds end is over: all have had theirs or stopped, or nothing happens any more."""
    return world.idle or all(peer.done is not None or peer.stopped for peer in world.peers.values())


def _write_lines(world: World, experiment: Experiment, trainers: Trainers, ended: set[str]) -> None:
    """All peers report but those that are off; of an open run, those that have ended do so once more."""
    trainers.age()
    for peer in world.peers.values():
        off = world.physics.silent and not peer.alive and peer.done is None
        if off or peer.name in ended:
            continue
        record.write_line(experiment.run_dir, peer.name, _report(peer, world.now, experiment.unit_s, trainers))
        if peer.open and peer.done is not None:
            ended.add(peer.name)


def _report(peer: SimulatedPeer, now: float, unit_s: float, trainers: Trainers) -> dict[str, Any]:
    model, counters = peer.algorithm.model(now), peer.algorithm.counters()
    test_loss, accuracy = trainers.evaluate(model)
    learnt = time_learnt(peer.algorithm, now)
    with_each = {key.partition("/")[2]: int(n) for key, n in counters.items() if key.startswith("exchanges/")}
    apart = {key.partition("/")[2]: value for key, value in counters.items() if key.startswith("distance/")}
    return {
        "peer": peer.name,
        "seconds": learnt * unit_s,
        "units": learnt,
        "loss": peer.loss,
        "accuracy": accuracy,
        "test_loss": test_loss,
        "distance": trainers.distance(model),
        "gradients": peer.steps_done,
        "samples": peer.samples_seen,
        "messages_sent": peer.messages_sent,
        "bytes_sent": peer.bytes_sent,
        **({"view_bytes_sent": peer.view_bytes_sent, "refused": peer.refused} if peer.open else {}),
        **{key: value for key, value in counters.items() if "/" not in key and key != P99},
        "exchange_p99_units": counters.get(P99),
        **({"exchanges_with": with_each} if with_each else {}),
        **({"distance_to": apart} if apart else {}),
        **peer.reported,
    }
