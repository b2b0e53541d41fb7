"""The record of a run: a folder that both drivers and every daemon write in the same form, and its summary.

::

    RUN/  config.toml  plan.json  peers/NAME.jsonl  events.jsonl  states/NAME.safetensors  merged/NAME.safetensors
          merged.safetensors or averaged.safetensors  summary.json

``states/`` holds, for each peer, its final model, its ledger and the differences that its neighbours may not have
applied yet, so that anyone can recompute the ledger error and the accuracy of the averaged model from the folder.
``merged/`` holds what the final merge made of these models; see ``merged.py``.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from safetensors.torch import save, save_file

from algorithms import ALGORITHMS
from algorithms.layout import Layout
from algorithms.merging.mean import mean
from algorithms.protocol import Algorithm, Vector
from node.errors import StorageError
from node.keeping_up import EXPECTED_MIN
from node.place import is_open
from node.testbed.merged import Evaluate, save_slots, sum_up_merge
from node.testbed.milestones import (
    Lines,
    newest_model,
    root_mean_square,
    rounds_done,
    spread,
    spread_of_load,
    start_distance,
    to_accuracy,
    to_distance,
    total,
)
from node.testbed.rates import edge_rates, sum_rates

VERSION = 1
TOTALS = ("gradients", "samples", "exchanges", "messages_sent", "bytes_sent", "view_bytes_sent", "lost_exchanges")
MERGE = ("members", "peers", "identical")
LOAD = ("gradients", "bytes_sent")
"""What peers may have to do unequally much of."""


@dataclass(frozen=True, slots=True)
class State:
    """A peer's last word: its model, its ledger (None where nothing is conserved), and what may be half-applied.

    ``differences`` maps a neighbour to the last difference applied with it, ``numbers`` are those of the algorithm's
    snapshot.
    """

    model: Vector
    ledger: Vector | None
    differences: Mapping[str, Vector]
    numbers: Mapping[str, int | float | str]


def write_line(run_dir: Path, name: str, values: Mapping[str, Any]) -> None:
    """Append one report of a peer to ``peers/NAME.jsonl``."""
    append(run_dir / "peers" / f"{name}.jsonl", values)


def write_event(run_dir: Path, values: Mapping[str, Any]) -> None:
    """Append one event of the run to ``events.jsonl``."""
    append(run_dir / "events.jsonl", values)


def read_events(run_dir: Path) -> list[dict[str, Any]]:
    """All events of a run, but for what was being written when it was killed.

    Raises
    ------
    StorageError
        When the file holds anything else.
    """
    return read_all(run_dir / "events.jsonl", "a run's events")


def read_all(path: Path, what: str) -> list[dict[str, Any]]:
    """All lines of a file, but for one that was being written; none where there is no file.

    Raises
    ------
    StorageError
        When the file holds anything else.
    """
    try:
        return _whole_lines(path) if path.exists() else []
    except (OSError, ValueError) as error:
        raise StorageError(f"{path} can't be read as {what}: {error}.") from None


def append(path: Path, values: Mapping[str, Any]) -> None:
    """Append one line to a file of the record, which has one writer at a time and is made where it is not there yet.

    Half a line that a crash of its writer or a loss of power has left at the end is taken away first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        _drop_half_line(file)
        file.write(json.dumps(_plain(values), allow_nan=False).encode() + b"\n")


def _drop_half_line(file: BinaryIO) -> None:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 1))
    if file.read() not in (b"", b"\n"):
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    whole, _, _ = path.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def _plain(value: Any) -> Any:
    """JSON has no NaN; a figure that does not exist is null."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def state_of(algorithm: Algorithm, now: float) -> State:
    """What :func:`write_state` would write and :func:`read_states` would read again."""
    snapshot = algorithm.snapshot()
    differences = {key.removeprefix("w."): w for key, w in snapshot.vectors.items() if key.startswith("w.")}
    return State(algorithm.model(now), algorithm.ledger(), differences, snapshot.numbers)


def write_state(run_dir: Path, name: str, algorithm: Algorithm, now: float) -> None:
    """Write a peer's final state to ``states/NAME.safetensors``."""
    state = state_of(algorithm, now)
    tensors = {"model": state.model} | {f"w.{other}": w for other, w in state.differences.items()}
    if state.ledger is not None:
        tensors["ledger"] = state.ledger
    path = run_dir / "states" / f"{name}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")  # a peer that is killed while it writes leaves no half state
    save_file(tensors, partial, {"version": str(VERSION), "numbers": json.dumps(dict(state.numbers))})
    partial.replace(path)


def read_states(run_dir: Path) -> dict[str, State]:
    """All final states of a run by the peers' names.

    Raises
    ------
    StorageError
        When a file is not one of this format.
    """
    return {path.stem: _read_state(path) for path in sorted((run_dir / "states").glob("*.safetensors"))}


def _read_state(path: Path) -> State:
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        if metadata.get("version") != str(VERSION):
            raise StorageError(f"{path} has format version {metadata.get('version')}: this is gradvine's {VERSION}.")
        differences = {key.removeprefix("w."): w for key, w in tensors.items() if key.startswith("w.")}
        return State(tensors["model"], tensors.get("ledger"), differences, json.loads(metadata["numbers"]))
    except StorageError:
        raise
    except Exception as error:  # safetensors raises its own type for whatever is wrong with a file
        raise StorageError(f"{path} can't be read as a peer's state: {error}.") from None


def ledger_error(states: Mapping[str, State]) -> float | None:
    """How far the sum over peers is from what must be conserved, relative to what was moved; None without ledgers.

    A difference that only its responder has applied, because the run ended in between, is taken off: it is one whose
    number the responder has done and the initiator still has pending. When the state of a peer is missing with which
    another has exchanged, or what was moved is not finite, there is no error to speak of.
    """
    ledgers = {name: state.ledger.double() for name, state in states.items() if state.ledger is not None}
    if not ledgers or len(ledgers) < len(states) or not _partners(states) <= states.keys():
        return None
    total = torch.stack(list(ledgers.values())).sum(0)
    for name, state in states.items():
        share = float(state.numbers["ledger_share"])
        for other, w in state.differences.items():
            done = state.numbers[f"edge.{other}.done"]
            if other in states and done and states[other].numbers[f"edge.{name}.pending"] == done:
                total -= share * w.double()
    moved = sum(float(ledger.norm()) for ledger in ledgers.values())
    if not math.isfinite(moved):
        return None
    return float(total.norm()) / moved if moved else float(total.norm())


def _partners(states: Mapping[str, State]) -> set[str]:
    return {key.split(".")[1] for state in states.values() for key in state.numbers if key.startswith("edge.")}


def consensus_distance(states: Mapping[str, State]) -> float:
    """The sum over peers of the squared distance between a model and the mean of all."""
    models = torch.stack([state.model.double() for state in states.values()])
    return float(((models - models.mean(0)) ** 2).sum())


def digest_of(states: Mapping[str, State]) -> str:
    """The sha256 of the final states of all peers."""
    digest = hashlib.sha256()
    for name in sorted(states):
        state = states[name]
        digest.update(name.encode() + json.dumps(dict(sorted(state.numbers.items()))).encode())
        digest.update(save({"model": state.model}))
    return "sha256:" + digest.hexdigest()


def summarise(
    run_dir: Path,
    evaluate: Evaluate,
    layout: Layout,
    facts: Mapping[str, Any],
    *,
    optimum: Vector | None = None,
    asked: Mapping[tuple[str, str], float] | None = None,
) -> dict[str, Any]:
    """Work out ``summary.json`` and the run's model from what the peers have written, and write them.

    The model is the merged one where there was a final merge, else the plain mean of all final models.

    Parameters
    ----------
    evaluate : callable
        The task's test.
    layout : Layout
        By which the merged model is taken apart into named tensors.
    facts : mapping
        What only the driver knows: algorithm, task, nodes, seed, transport, seconds, virtual_seconds, lost_peers.
    optimum : Vector, optional
        Of a convex task, shape ``(d,)``.
    asked : mapping of (str, str) to float, optional
        Exchanges a unit that the run asks of each edge, by its owner and its other end.
    """
    states = read_states(run_dir)
    if not states:
        raise StorageError(f"{run_dir} holds no final state of any peer: nothing can be summed up.")
    average = mean(state.model for state in states.values())
    merge = sum_up_merge(run_dir, evaluate, layout)
    if merge is None:
        save_slots(run_dir / "averaged.safetensors", average, layout.slots, {"layout": layout.digest})
    losses, accuracies = zip(*(evaluate(state.model) for state in states.values()), strict=True)
    averaged_loss, averaged_accuracy = evaluate(average)
    lines = read_lines(run_dir)
    last = [peer[-1] for peer in lines.values() if peer]
    waves = max((line.get("merge_waves") or 0 for line in last), default=0)
    judged = [line for line in last if line.get("exchanges", 0) >= EXPECTED_MIN]
    times = [line["exchange_p99_units"] for line in judged if line.get("exchange_p99_units") is not None]
    ended: Lines = {name: peer for name, peer in lines.items() if name in states}
    rule = ALGORITHMS.get(str(facts.get("algorithm")))
    if sampled := rule is not None and is_open(rule):
        ended = {"newest": newest_model(lines)}
    lost = facts.get("lost_peers", ())
    there = {name: peer[-1] for name, peer in lines.items() if peer and name in states and name not in lost}
    summary = {
        "version": VERSION,
        **facts,
        "rounds": rounds_done(last),
        **{key: total(last, key) for key in TOTALS},
        "local_accuracy": spread(accuracies),
        "merged_accuracy": merge.accuracy if merge else None,
        "averaged_accuracy": averaged_accuracy,
        "merged": merge and {key: getattr(merge, key) for key in MERGE} | {"waves": waves},
        "newest": newest_held(states, there, evaluate) if sampled else None,
        "load": {key: spread_of_load(last, key) for key in LOAD} if sampled else None,
        "local_loss": spread(losses),
        "merged_loss": merge.loss if merge else None,
        "averaged_loss": averaged_loss,
        "consensus_distance": consensus_distance(states),
        "ledger_error": ledger_error(states),
        "distance": None if optimum is None else relative_distance(states, optimum, start_distance(ended)),
        "to_accuracy": to_accuracy(ended),
        "to_distance": to_distance(ended),
        "rates": sum_rates(edge_rates(asked or {}, lines), asked or {}),
        "exchange_p99_units": max(times, default=None),
        "digest": digest_of(states),
    }
    summary = _plain(summary)
    (run_dir / "summary.json").write_text(json.dumps(summary, indent=1, allow_nan=False) + "\n")
    return summary


def newest_held(
    states: Mapping[str, State], last: Mapping[str, Mapping[str, Any]], evaluate: Evaluate
) -> dict[str, float] | None:
    """How the final models of the highest round do, by each peer's last report; None where there are no rounds."""
    rounds = rounds_done(list(last.values()))
    holders = [name for name, line in last.items() if line.get("rounds") == rounds]
    if rounds is None:
        return None
    losses, accuracies = zip(*(evaluate(states[name].model) for name in holders), strict=True)
    means = {"accuracy": sum(accuracies) / len(holders), "loss": sum(losses) / len(holders)}
    return {"round": rounds, **means, "peers": len(holders)}


def relative_distance(states: Mapping[str, State], optimum: Vector, start: float | None) -> float | None:
    """The root mean square of the models' distances to the optimum, as a part of what it was at the start."""
    distances = [float((state.model.double() - optimum).norm()) for state in states.values()]
    return root_mean_square(distances) / start if start else None


def read_lines(run_dir: Path) -> dict[str, list[dict[str, Any]]]:
    """All reports of a run by the peers' names, in the order of time.

    What a peer was writing when it was killed is left out, and so is what it had reported before it fell back to a
    snapshot and lived through again.

    Raises
    ------
    StorageError
        When a file holds anything but reports.
    """
    return {path.stem: _read_lines(path) for path in sorted((run_dir / "peers").glob("*.jsonl"))}


def _read_lines(path: Path) -> list[dict[str, Any]]:
    try:
        kept: list[dict[str, Any]] = []
        first_s = math.inf
        for line in reversed(_whole_lines(path)):
            if line["seconds"] < first_s:
                first_s = line["seconds"]
                kept.append(line)
        return kept[::-1]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path} can't be read as a peer's reports: {error}.") from None
