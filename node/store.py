"""Snapshots on disk that survive a crash at any instant.

Theory of operation
-------------------
A snapshot is one safetensors file: vectors as tensors; numbers as JSON in the metadata, beside the format's version,
whose snapshot it is, and a checksum over all of that. It is written under a temporary name, flushed to the disk,
renamed into place, and then the folder is flushed, so that a name that can be seen always stands for a whole file.
The ``keep`` newest generations stay. Loading takes the newest whose checksum holds.

The folder is locked while a store is open: two processes that lived on the same state would number their
exchanges twice.

Invariants
----------
* What :meth:`Store.load` returns is bit for bit what one :meth:`Store.save` was given, by this peer, in this run.
* A save that fails, whatever the reason, leaves every earlier generation as it was.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from algorithms.protocol import Snapshot
from node.errors import StorageError

FORMAT_VERSION = "1"
_NAME = re.compile(r"snapshot-(\d{10})\.safetensors")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose snapshot it is: another's is never loaded.

    Parameters
    ----------
    run, peer : str
        Run id and peer name.
    layout : str
        Digest of the layout of its vectors.
    """

    run: str
    peer: str
    layout: str


class Corrupt(Exception):
    """A file is not what was once written."""


class Store:
    """The snapshots of one peer in a folder of its own; close it, or use it as a context manager.

    Its methods block on the disk: call :meth:`save` from a worker thread, one call at a time.

    Parameters
    ----------
    folder : Path
        Made if need be.
    origin : Origin
        Whose snapshots these are.
    keep : int
        Generations kept.

    Raises
    ------
    StorageError
        When the folder can't be written or another process has it open.
    """

    def __init__(self, folder: Path, origin: Origin, keep: int = 2) -> None:
        self._folder, self._origin, self._keep = folder, origin, keep
        self._corrupt: set[Path] = set()
        with self._failing("made"):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise StorageError(
                f"the state folder {folder} is in use by another process: stop that one first."
            ) from None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Unlock the folder."""
        os.close(self._lock)

    @property
    def empty(self) -> bool:
        """Whether no snapshot, good or bad, is there."""
        return not self._generations()

    def save(self, snapshot: Snapshot) -> None:
        """Write a new generation; when this returns, it is on the disk.

        Raises
        ------
        StorageError
            When it could not be written; every earlier generation is intact.
        """
        generations = self._generations()
        number = 1 + (_number(generations[-1]) if generations else 0)
        final = self._folder / f"snapshot-{number:010d}.safetensors"
        partial = self._folder / "partial.safetensors"
        with self._failing("written"):
            try:
                save_file(snapshot.vectors, partial, self._metadata(snapshot))
                _flush(partial)
                partial.rename(final)
                _flush(self._folder)
            except BaseException:
                self._sweep()
                raise
        self._prune()

    def load(self) -> Snapshot | None:
        """The newest good snapshot, None when there never was one.

        Raises
        ------
        StorageError
            When there are snapshots and none is good, or they are another peer's or another run's.
        """
        self._sweep()
        generations = self._generations()
        for path in reversed(generations):
            try:
                return self._read(path)
            except Corrupt as error:
                log.error("the snapshot %s is damaged and passed over: %s", path, error)
                self._corrupt.add(path)
        if generations:
            raise StorageError(
                f"no snapshot in {self._folder} is whole: restore one from a copy, or start with an empty state folder."
            )
        return None

    # ------------------------------------------------------------------------------------------ one file

    def _metadata(self, snapshot: Snapshot) -> dict[str, str]:
        numbers = json.dumps(snapshot.numbers, sort_keys=True)
        metadata = {"version": FORMAT_VERSION, **asdict(self._origin), "numbers": numbers}
        return metadata | {"checksum": _checksum(metadata, snapshot.vectors)}

    def _read(self, path: Path) -> Snapshot:
        metadata, vectors = _open(path)
        version = metadata.get("version")
        if metadata.pop("checksum", None) != _checksum(metadata, vectors):
            raise Corrupt("its checksum does not hold")
        if version != FORMAT_VERSION:
            raise StorageError(f"{path} has format {version}, this gradvine reads {FORMAT_VERSION}: use that version.")
        for what, mine in asdict(self._origin).items():
            if metadata[what] != mine:
                raise StorageError(f"{path} is of {what} {metadata[what]}, not {mine}: name another state folder.")
        return Snapshot(vectors, json.loads(metadata["numbers"]))

    # -------------------------------------------------------------------------------------------- folder

    def _generations(self) -> list[Path]:
        """Snapshot files, oldest first."""
        with self._failing("read"):
            return sorted(path for path in self._folder.iterdir() if _NAME.fullmatch(path.name))

    def _prune(self) -> None:
        """Drop what the newest generation has made superfluous; no harm is done where that fails."""
        good = [path for path in self._generations() if path not in self._corrupt]
        for path in [*sorted(self._corrupt), *good[: -self._keep]]:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        self._corrupt.clear()

    def _sweep(self) -> None:
        """Drop what a save that was cut short has left."""
        for pattern in ("partial.safetensors", ".tmp*"):
            for path in sorted(self._folder.glob(pattern)):
                with contextlib.suppress(OSError):
                    path.unlink()

    @contextlib.contextmanager
    def _failing(self, verb: str) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError) as error:
            raise StorageError(f"the state folder {self._folder} can't be {verb}: {error}.") from None


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match
    return int(match[1])


def _open(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise Corrupt(f"it can't be read: {error}") from None
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise Corrupt(f"it is not a safetensors file: {error}") from None


def _checksum(metadata: dict[str, str], vectors: dict[str, torch.Tensor]) -> str:
    state = xxhash.xxh3_128()
    described: list[Any] = [sorted(metadata.items())]
    described += [[name, str(vectors[name].dtype), list(vectors[name].shape)] for name in sorted(vectors)]
    state.update(json.dumps(described).encode())
    for name in sorted(vectors):
        state.update(vectors[name].reshape(-1).view(torch.uint8).numpy().data)
    return state.hexdigest()


def _flush(path: Path) -> None:
    """Have the disk hold a file's or a folder's content before this returns."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
