"""What both drivers do before a run: open its folder, split the data, write down plan and configuration.

``local`` and ``centralised`` are reference points, not ways to learn together: they change the experiment, not the
algorithm. ``local`` takes away all edges; ``centralised`` gives all data to one peer. They exist in virtual time only.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from algorithms import ALGORITHMS
from algorithms.protocol import Vector
from node.config import RunConfig, dump_toml
from node.errors import ConfigError, StorageError, TaskError, unknown
from node.flat import initial_vector
from node.place import find_algorithm, split_options
from node.shards import Shard, load_shard, pool_shards, prepare
from node.tasks import Task, load_task
from node.trainer import Recipe
from topology.plan import Plan, PlanError, load_plan, save_plan
from topology.planning import build_plan

REFERENCES = ("local", "centralised")
UNDERLYING = "gossip"
"""The algorithm that the reference points run, without neighbours to exchange with."""


@dataclass(frozen=True)
class Experiment:
    """One run before it starts: everything is on disk in ``run_dir``."""

    plan: Plan
    config: RunConfig
    task: Task
    run_dir: Path

    @property
    def data_dir(self) -> Path:
        """The shards."""
        return self.run_dir / "data"

    @property
    def unit_s(self) -> float:
        """Seconds of one plan unit."""
        return self.config.time_unit or self.task.unit_s

    @property
    def duration_units(self) -> float:
        """Length of the run."""
        return self.config.steps or self.config.units(self.config.duration, self.unit_s)

    @property
    def reference(self) -> str | None:
        """``local``, ``centralised``, or None for a real algorithm."""
        return self.config.algorithm if self.config.algorithm in REFERENCES else None

    @property
    def algorithm(self) -> str:
        """The algorithm that runs."""
        return UNDERLYING if self.reference else self.config.algorithm

    @property
    def recipe(self) -> Recipe:
        """How local steps are taken."""
        config = self.config
        return Recipe(config.optimiser, config.lr, config.momentum, config.weight_decay, config.batch_size)

    def learners(self) -> dict[str, Shard]:
        """Who learns from what: every peer from its own shard, or one from all of them."""
        names = [node.name for node in self.plan.nodes]
        shards = pool_shards([load_shard(self.data_dir, name) for name in names])
        if self.reference == "centralised":
            return {names[0]: Shard(torch.cat([s.x for s in shards]), torch.cat([s.y for s in shards]))}
        return dict(zip(names, shards, strict=True))


def choose_plan(file: Path | None, topology: str | None, nodes: int | None, degree: int | None, seed: int) -> Plan:
    """The plan of ``--plan``, or one made from ``--topology``, ``--nodes`` and ``--degree``.

    Raises
    ------
    ConfigError
        When both or neither are given, or the plan can't be used.
    """
    if file and (topology or nodes or degree):
        raise ConfigError("--plan says it all: leave out --topology, --nodes and --degree.")
    try:
        if file:
            return load_plan(file)
        return build_plan(topology or "exponential", 8 if nodes is None else nodes, degree=degree, seed=seed)
    except PlanError as error:
        raise ConfigError(str(error)) from None


def open_experiment(plan: Plan, config: RunConfig, out: Path | None) -> Experiment:
    """Make the run's folder and write down everything that the run depends on.

    Raises
    ------
    UserError
        When the folder is in use, or the configuration names something that does not exist.
    """
    if config.algorithm not in (*ALGORITHMS, *REFERENCES):
        raise TaskError(unknown("algorithm", config.algorithm, (*ALGORITHMS, *REFERENCES)) + ".")
    algorithm = find_algorithm(UNDERLYING if config.algorithm in REFERENCES else config.algorithm)
    _, task_options = split_options(config.options, algorithm)
    task = load_task(config.task, task_options, config.dtype)
    run_dir = _new_folder(out, config, len(plan.nodes))
    (run_dir / "config.toml").write_text(dump_toml(config))
    save_plan(plan, run_dir / "plan.json")
    experiment = Experiment(plan, config, task, run_dir)
    names = [node.name for node in plan.nodes]
    prepare(task, names, config.partition, config.alpha, config.seed, experiment.data_dir, spec=config.task)
    return experiment


def _new_folder(out: Path | None, config: RunConfig, nodes: int) -> Path:
    task = config.task.removeprefix("file:").rsplit("/", 1)[-1].removesuffix(".py")
    moment = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    folder = out or Path("runs") / f"{config.algorithm}-{task}-{nodes}-{moment}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise StorageError(f"the folder {folder} holds something already: name another with --out.")
    except OSError as error:
        raise StorageError(f"the folder {folder} can't be used: {error}.") from None
    return folder


def initial_vectors(experiment: Experiment, names: list[str]) -> Mapping[str, Vector]:
    """Each peer's initial model: one for all, or one each (``--init``)."""
    task, seed = experiment.task, experiment.config.seed
    if experiment.config.init == "common":
        return dict.fromkeys(names, initial_vector(task, seed))
    return {name: initial_vector(task, seed + 1 + k) for k, name in enumerate(names)}
