"""What both drivers do before a run: open its folder, split the data, write down plan and configuration.

``local`` and ``centralised`` are reference points, not ways to learn together: they change the experiment, not the
algorithm. ``local`` takes away all edges; ``centralised`` gives all data to one peer. They exist in virtual time only.
"""

from __future__ import annotations

import datetime
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from algorithms import ALGORITHMS
from algorithms.layout import Layout
from algorithms.protocol import Algorithm, Place
from node.config import UNIT_MIN_S, RunConfig, dump_toml
from node.draws import Draws
from node.errors import ConfigError, StorageError, TaskError, UserError, unknown
from node.flat import FlatModel
from node.learning import check_data, choose_device, open_task, read_recipe, start_of
from node.place import ends_in_merge, find_algorithm, local_steps_of, make_algorithm, make_place
from node.shards import Shard, load_shard, load_task_json, load_test, pool_shards, prepare
from node.tasks import Task
from node.trainer import Trainer
from node.training import BATCHES
from node.unit import measure_step_s
from topology.families import FILE
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
    data_dir: Path
    """The shards: those that the user brought, or the run's own."""
    late: Mapping[str, str] = field(default_factory=dict)
    """Peers that join while the run is under way, each with the one through which it does."""

    @property
    def unit_s(self) -> float:
        """Seconds of one plan unit; the task's as long as the peers have not agreed on one."""
        unit = self.config.time_unit
        return unit if isinstance(unit, float) else self.task.unit_s

    def with_unit(self) -> Experiment:
        """The same with a unit that is known: ``auto`` becomes what a local step takes on this machine."""
        config = self.config
        if config.time_unit != "auto":
            return self
        name, shard = next(iter(self.learners().items()))
        recipe = read_recipe(config, self.task, find_algorithm(self.algorithm))
        draws = Draws(config.seed, name)(BATCHES)
        with undone_if_refused(self.run_dir):
            trainer = Trainer(self.task, shard, recipe, draws, choose_device(config))
            unit_s = max(UNIT_MIN_S, measure_step_s(trainer, start_of(name, [name], self.task, config)))
        config = config.model_copy(update={"time_unit": unit_s})
        (self.run_dir / "config.toml").write_text(dump_toml(config))
        return replace(self, config=config)

    @property
    def duration_units(self) -> float:
        """Length of the run; infinite where rounds end it."""
        if self.config.rounds:
            return math.inf
        return self.config.steps or self.config.units(self.config.duration, self.unit_s)

    @property
    def expected_units(self) -> float:
        """About how long the run will be: a round takes at least its local steps."""
        steps = local_steps_of(self.config, find_algorithm(self.algorithm))
        return self.config.rounds * steps if self.config.rounds else self.duration_units

    @property
    def reference(self) -> str | None:
        """``local``, ``centralised``, or None for a real algorithm."""
        return self.config.algorithm if self.config.algorithm in REFERENCES else None

    @property
    def algorithm(self) -> str:
        """The algorithm that runs."""
        return UNDERLYING if self.reference else self.config.algorithm

    def learners(self) -> dict[str, Shard]:
        """Who learns from what: every peer from its own shard, or one from all of them."""
        names = [node.name for node in self.plan.nodes]
        shards = pool_shards([load_shard(self.data_dir, name) for name in names])
        if self.reference == "centralised":
            return {names[0]: Shard(torch.cat([s.x for s in shards]), torch.cat([s.y for s in shards]))}
        return dict(zip(names, shards, strict=True))

    def be_born(self, name: str, layout: Layout, constants: Mapping[str, float], draws: Draws) -> Algorithm:
        """The algorithm of one peer, in its place.

        Raises
        ------
        TaskError
            When it can't run there.
        """
        config = self.config.model_copy(update={"algorithm": self.algorithm})
        place = make_place(
            self.plan,
            name,
            config,
            start=start_of(name, [node.name for node in self.plan.nodes], self.task, self.config),
            layout=layout,
            draws=draws,
            unit_s=self.unit_s,
            constants=constants,
        )
        if self.late:
            place = self._among_founders(place)
        if self.reference:
            return make_algorithm(self.algorithm, replace(place, neighbours={}))
        return make_algorithm(self.algorithm, place, ends_in_merge(config))

    def _among_founders(self, place: Place) -> Place:
        """The same where nobody knows of the late ones, and these of no neighbours."""
        late = self.late
        return replace(
            place,
            nodes=tuple(name for name in place.nodes if name not in late),
            edges=tuple(edge for edge in place.edges if edge[0] not in late and edge[1] not in late),
            neighbours={
                name: edge for name, edge in place.neighbours.items() if name not in late and place.name not in late
            },
            contact=late.get(place.name, ""),
        )


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
        family = topology or "exponential"
        size = 8 if nodes is None and not family.startswith(FILE) else nodes
        return build_plan(family, size, degree=degree, seed=seed)
    except PlanError as error:
        raise ConfigError(str(error)) from None


def open_experiment(plan: Plan, config: RunConfig, out: Path | None, data: Path | None = None) -> Experiment:
    """Make the run's folder and write down everything that the run depends on.

    Parameters
    ----------
    plan, config : Plan, RunConfig
        Who learns, and how.
    out : Path, optional
        The folder; by default a new one in ``runs/``.
    data : Path, optional
        Shards that ``gradvine data`` has made; by default the task's own data is split into ``data/`` in the folder.

    Raises
    ------
    UserError
        When the folder is in use, the configuration names something that does not exist, or the algorithm can't run
        with these rates or this task. Nothing is left behind then.
    """
    if config.algorithm not in (*ALGORITHMS, *REFERENCES):
        raise TaskError(unknown("algorithm", config.algorithm, (*ALGORITHMS, *REFERENCES)) + ".")
    if config.final_merge and config.algorithm in REFERENCES:
        name = config.algorithm
        raise ConfigError(f"--final-merge can't be used with {name}, where nobody talks to anybody: leave it out.")
    algorithm = find_algorithm(UNDERLYING if config.algorithm in REFERENCES else config.algorithm)
    task = open_task(config, algorithm)
    names, layout = [node.name for node in plan.nodes], FlatModel(task.build(0), task.dtype).layout
    if data:
        check_data(data, task, layout, names)
        load_test(data)
    run_dir = _new_folder(out, config, len(plan.nodes))
    with undone_if_refused(run_dir):
        (run_dir / "config.toml").write_text(dump_toml(config))
        save_plan(plan, run_dir / "plan.json")
        own = run_dir / "data"
        if data is None:
            prepare(task, names, config.partition, config.alpha, config.seed, own, spec=config.task)
        else:  # the record holds what it takes to judge the models, not the shards
            own.mkdir()
            for name in ("task.json", "test.safetensors"):
                shutil.copy(data / name, own)
        experiment = Experiment(plan, config, task, run_dir, data or own)
        constants = load_task_json(own).constants
        experiment.be_born(names[0], layout, constants, Draws(config.seed, names[0]))  # what can't run is refused here
        return experiment


@contextmanager
def undone_if_refused(run_dir: Path) -> Iterator[None]:
    """Take away the folder of a run that is refused before anything has happened.

    What the refusal advises can then be done in the same folder.
    """
    try:
        yield
    except UserError:
        if not any((run_dir / name).exists() for name in ("events.jsonl", "peers")):
            shutil.rmtree(run_dir, ignore_errors=True)  # one that can't be removed, such as a mount, is left empty
        raise


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
