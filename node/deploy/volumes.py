"""Fills the volumes of peers in containers, once: ``python -m node.deploy.volumes SETTINGS PLAN...``.

Theory of operation
-------------------
The service ``data`` of a compose file is this program. Its arguments are the text of a configuration file and that of
a plan, the latter in parts. It opens the run as a testbed does, so that what can't run is refused here, once and in
one sentence, and then hands out: to each peer plan, settings, test data and its own shard, to the record all that it
takes to judge the peers' models. ``GRADVINE_*`` in the environment wins over the settings.

Invariants
----------
* A peer's volume holds no other peer's shard. Volumes that were filled keep their data: another plan or other data than
  theirs are refused, other settings are handed out.
* In the record peers may write to three folders; what the report goes by belongs to root.
* Peers may run meanwhile, and write what they like to their volumes: nothing is done to files that they made, and no
  link of theirs is followed.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from node.config import load_config
from node.deploy import USER, telling_mistakes
from node.deploy.observe import write_prometheus
from node.deploy.reporting import RUNNING
from node.errors import StorageError, TaskError
from node.testbed.experiment import Experiment, open_experiment
from topology.plan import Plan, load_plan, plan_from_json

PEERS, RECORD, PROMETHEUS = Path("/peers"), Path("/record"), Path("/prometheus")

DOWN = "docker compose --profile observe down --volumes"
"""Takes away volumes, with Prometheus', which Compose leaves, and whatever it uses, when its profile is not named."""

WRITTEN = ("peers", "states", "merged")
"""What of the record is written by peers."""

DESCRIBED = ("task", "options", "partition", "alpha", "seed", "dtype")
"""What of a data set's description a setting can change; the rest follows from it."""


def fill_volumes(experiment: Experiment, peers: Path, record: Path) -> str:
    """Hand out what peers and record need; what was done, as a sentence.

    Parameters
    ----------
    experiment : Experiment
        A run that was opened in a folder of its own.
    peers : Path
        Holds a folder for each peer.
    record : Path
        The folder of the run's record.

    Raises
    ------
    StorageError
        When the volumes hold another plan or other data.
    """
    opened, names = experiment.run_dir, [node.name for node in experiment.plan.nodes]
    filled = (record / "plan.json").exists()
    if filled:
        _check_same(experiment, record)
    for folder, shards in {record: [], **{peers / name: [name] for name in names}}.items():
        (folder / "data").mkdir(parents=True, exist_ok=True)
        files = [f"data/{shard}.safetensors" for shard in [*shards, "test"]] + ["data/task.json"]
        for file in [*([] if filled else files), "config.toml"]:
            _replace(opened / file, folder / file)
    for folder in [*(peers / name for name in names), record]:  # with a plan, the record says that all is there
        _replace(opened / "plan.json", folder / "plan.json")
    for kind in WRITTEN:
        (record / kind).mkdir(exist_ok=True)
    (record / RUNNING).touch()
    return "settings renewed; plan and data are as they were" if filled else f"plan and data for {len(names)} peers"


def _check_same(experiment: Experiment, record: Path) -> None:
    if load_plan(record / "plan.json").digest != experiment.plan.digest:
        raise StorageError(f"these volumes are of another plan: begin anew with {DOWN}.")
    kept, given = (json.loads((folder / "data" / "task.json").read_text()) for folder in (record, experiment.run_dir))
    for key in (*DESCRIBED, *given):
        if kept.get(key) != given[key]:
            raise StorageError(
                f"these volumes hold the data of a run with {key} {kept.get(key)}, not {given[key]}: "
                f"begin anew with {DOWN}."
            )


def _replace(source: Path, target: Path) -> None:
    """Copy a file so that a peer that starts meanwhile reads the old or the new one."""
    fresh = target.with_name(f".{target.name}.new")
    fresh.unlink(missing_ok=True)
    with source.open("rb") as read, fresh.open("xb") as written:  # x: not what a link points to
        shutil.copyfileobj(read, written)
    fresh.replace(target)


def _open(settings: str, plan: Plan, folder: Path) -> Experiment:
    file = folder / "settings.toml"
    file.write_text(settings)
    config = load_config({}, file)
    experiment = open_experiment(plan, config, folder / "run")
    if experiment.reference:
        raise TaskError(f"{config.algorithm} exists in virtual time only: choose another algorithm for containers.")
    return experiment


def give_away(peers: Path, record: Path, names: list[str]) -> None:
    """Let the peers write to their volumes, and to their folders in the record; the files in there they only read."""
    for folder in [*(peers / name for name in names), *(record / kind for kind in WRITTEN)]:
        os.chown(folder, USER, USER, follow_symlinks=False)


def main() -> None:
    """Fill the volumes that are mounted; a user's mistake is one sentence on stderr and an exit code."""
    settings, *parts = sys.argv[1:]
    with telling_mistakes():
        plan = plan_from_json("".join(parts))
        with tempfile.TemporaryDirectory() as folder:
            done = fill_volumes(_open(settings, plan, Path(folder)), PEERS, RECORD)
        write_prometheus(plan, PROMETHEUS, replace=True)
        give_away(PEERS, RECORD, [node.name for node in plan.nodes])
    print(done)  # noqa: T201


if __name__ == "__main__":
    main()
