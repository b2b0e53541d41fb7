"""What a configuration says of local learning: the task, how steps are taken and where, and the initial model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from algorithms.protocol import Algorithm, Layout, Vector
from node.config import RunConfig
from node.errors import TaskError
from node.flat import initial_vector
from node.place import split_options
from node.recipe import Recipe
from node.shards import load_task_json
from node.tasks import Task, load_task


def open_task(config: RunConfig, algorithm: type[Algorithm]) -> Task:
    """The task, with those of ``--set``'s options that are not the algorithm's.

    Raises
    ------
    TaskError
        When there is no such task or option.
    """
    _, options = split_options(config.options, algorithm)
    return load_task(config.task, options, config.dtype)


def read_recipe(config: RunConfig) -> Recipe:
    """How local steps are taken."""
    return Recipe(config.optimiser, config.lr, config.momentum, config.weight_decay, config.batch_size)


def choose_device(config: RunConfig) -> str:
    """Where local steps are computed.

    Raises
    ------
    TaskError
        When that is a GPU and there is none.
    """
    if config.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if config.device == "cuda" and not torch.cuda.is_available():
        raise TaskError("--device cuda can't be used: torch sees no GPU here; write --device cpu.")
    return config.device


def start_of(name: str, names: Sequence[str], task: Task, config: RunConfig) -> Vector:
    """The initial model of one of the plan's peers: the same for all, or its own (``--init``)."""
    return initial_vector(task, config.seed + (0 if config.init == "common" else 1 + names.index(name)))


def check_data(folder: Path, layout: Layout, config: RunConfig) -> None:
    """Make sure that the shards in a folder were made for the model that is to learn from them.

    Raises
    ------
    TaskError
        When they were not, or there are none.
    """
    record = load_task_json(folder)
    if record.layout != layout.digest:
        raise TaskError(
            f"the data in {folder} was made for task {record.task} and a model of {record.size} values, not for "
            f"{config.task} and {layout.size}: give --task, --set and --dtype as for gradvine data."
        )
