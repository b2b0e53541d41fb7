"""The merged model in the record: what each peer writes of it, and what the run's summary says of all that.

::

    RUN/  merged/NAME.safetensors  merged/NAME.statistics.safetensors  merged.safetensors

``NAME.safetensors`` holds the learnable parameters and nothing of the peer itself, so that it is the same file for all
peers that have the same merged model. A peer's own statistics, such as those of a batch normalisation, lie beside it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from algorithms.final_merge import FinalMerge
from algorithms.layout import Layout, Slot
from algorithms.protocol import Algorithm, Vector
from node.config import RunConfig
from node.errors import StorageError

FOLDER, SUFFIX, STATISTICS = "merged", ".safetensors", ".statistics.safetensors"
LENGTH, LENGTHS = f"{FOLDER}.length.json", {"duration", "steps", "rounds"}

Evaluate = Callable[[Vector], tuple[float, float]]
"""Mean loss and accuracy of a model on the test data."""


@dataclass(frozen=True)
class Merge:
    """What came out of a run's final merge.

    Parameters
    ----------
    members : int
        How many models are in the merged one.
    peers : int
        How many peers have it.
    identical : bool
        Whether no peer has another one.
    loss, accuracy : float
        On the test data: the mean over the peers that have it, each with its own statistics.
    """

    members: int
    peers: int
    identical: bool
    loss: float
    accuracy: float


def write_merged(folder: Path, name: str, algorithm: Algorithm, layout: Layout) -> bool:
    """Write a peer's merged model, if it has one, to ``NAME.safetensors`` and ``NAME.statistics.safetensors``.

    Tells whether it has one.
    """
    if not isinstance(algorithm, FinalMerge) or algorithm.merged is None:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    statistics = [slot for slot in layout.slots if slot.kind == "statistic"]
    learnt = [slot for slot in layout.slots if slot.kind != "statistic"]
    # One entry, since safetensors writes several in an order that differs from file to file.
    about = {"merged": json.dumps({"layout": layout.digest, "members": list(algorithm.members)})}
    save_slots(folder / f"{name}{SUFFIX}", algorithm.merged, learnt, about)
    if statistics:
        save_slots(folder / f"{name}{STATISTICS}", algorithm.merged, statistics, {"layout": layout.digest})
    return True


def keep_length(state: Path, config: RunConfig) -> None:
    """Write down beside a peer's merged model how long the run was to last."""
    (state / LENGTH).write_text(config.model_dump_json(include=LENGTHS) + "\n")


def is_as_long(state: Path, config: RunConfig) -> bool:
    """Whether the run is to last as long as it was to when its models were merged, which may have been before."""
    return (state / LENGTH).exists() and (state / LENGTH).read_text() == config.model_dump_json(include=LENGTHS) + "\n"


def save_slots(path: Path, vector: Vector, slots: Iterable[Slot], about: Mapping[str, str]) -> None:
    """Write these of a model's tensors, each under its own name, as safetensors."""
    tensors = {s.name: vector[s.offset : s.offset + s.size].reshape(s.shape).clone() for s in slots}
    partial = path.with_suffix(".partial")  # a peer that is killed while it writes leaves no half model
    save_file(tensors, partial, dict(about))
    partial.replace(path)


def sum_up_merge(run_dir: Path, evaluate: Evaluate, layout: Layout) -> Merge | None:
    """Put the merged model into ``RUN/merged.safetensors``; what came out of the merge, None where there was none.

    Where peers have different ones, as when the network was in two parts, it is the one of the most models.

    Raises
    ------
    StorageError
        When a file is not a merged model of this layout.
    """
    holders: dict[str, list[str]] = defaultdict(list)
    for path in sorted((run_dir / FOLDER).glob(f"*{SUFFIX}")):
        if not path.name.endswith(STATISTICS):
            holders[hashlib.sha256(path.read_bytes()).hexdigest()].append(path.name.removesuffix(SUFFIX))
    if not holders:
        return None
    members = {key: _members(_path(run_dir, names[0]), layout) for key, names in holders.items()}
    best = max(holders, key=lambda key: (members[key], len(holders[key]), key))
    names = holders[best]
    shutil.copyfile(_path(run_dir, names[0]), run_dir / f"merged{SUFFIX}")
    distinct = names if any(slot.kind == "statistic" for slot in layout.slots) else names[:1]
    losses, accuracies = zip(*(evaluate(read_merged(run_dir, name, layout)) for name in distinct), strict=True)
    means = sum(losses) / len(losses), sum(accuracies) / len(accuracies)
    return Merge(members[best], len(names), len(holders) == 1, *means)


def read_merged(run_dir: Path, name: str, layout: Layout) -> Vector:
    """A peer's merged model with its own statistics, shape ``(d,)``.

    Raises
    ------
    StorageError
        When its files do not hold one of this layout.
    """
    vector = torch.empty(layout.size, dtype=layout.torch_dtype)
    path = _path(run_dir, name)
    tensors: dict[str, torch.Tensor] = {}
    try:
        for file in (path, path.with_name(f"{name}{STATISTICS}")):
            if file.exists():
                with safe_open(file, "pt") as opened:
                    tensors |= {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        for slot in layout.slots:
            vector[slot.offset : slot.offset + slot.size] = tensors[slot.name].reshape(-1)
    except Exception as error:  # safetensors raises its own type for whatever is wrong with a file
        raise StorageError(f"{path} can't be read as a merged model: {error}.") from None
    return vector


def _path(run_dir: Path, name: str) -> Path:
    return run_dir / FOLDER / f"{name}{SUFFIX}"


def _members(path: Path, layout: Layout) -> int:
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["merged"])
        if about["layout"] == layout.digest:
            return len(about["members"])
    except Exception as error:
        raise StorageError(f"{path} can't be read as a merged model: {error}.") from None
    raise StorageError(f"{path} is of a model with another layout: leave it out.")
