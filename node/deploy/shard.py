"""Makes one peer's own data in its container: ``python -m node.deploy.shard NAME``.

Reads ``config/plan.json`` and ``config/config.toml`` in the working folder, splits the task's data as every other peer
does, since the split follows from the settings, and keeps in ``data/`` this peer's shard, the test part and
``task.json``. Data that is there already, the user's own, stays as it is.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from node.config import RunConfig, load_config
from node.deploy import telling_mistakes
from node.errors import StorageError
from topology.plan import Plan, load_plan


def make_own_data(plan: Plan, config: RunConfig, name: str, folder: Path) -> str:
    """Put into ``folder`` what peer ``name`` learns from, unless it is there; what was done, as a sentence.

    Raises
    ------
    TaskError
        When task, data and peers do not go together.
    StorageError
        When the folder can't be written.
    """
    from node.learning import open_task
    from node.place import find_algorithm
    from node.shards import prepare

    plan.node(name)
    if (folder / "task.json").exists():
        return f"{folder} holds data already"
    task = open_task(config, find_algorithm(config.algorithm))
    with tempfile.TemporaryDirectory() as whole:
        names = [node.name for node in plan.nodes]
        prepare(task, names, config.partition, config.alpha, config.seed, Path(whole), spec=config.task)
        try:
            for file in (f"{name}.safetensors", "test.safetensors", "task.json"):  # the last says that all is there
                shutil.copyfile(Path(whole) / file, folder / file)
        except OSError as error:
            raise StorageError(f"the data can't be written to {folder}: {error.strerror}.") from None
    return f"the data of {name} is in {folder}"


def main() -> None:
    """Make the data; a user's mistake is one sentence on stderr and an exit code."""
    with telling_mistakes():
        config = load_config({}, Path("config/config.toml"))
        print(make_own_data(load_plan("config/plan.json"), config, sys.argv[1], Path("data")))  # noqa: T201


if __name__ == "__main__":
    main()
