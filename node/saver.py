"""When snapshots reach the disk, and what the peer does when they don't.

A snapshot without which nothing may be said is tried again until it is on disk: the peer falls silent, its neighbours
find it busy, and its readiness says why. Any other is left out when the disk fails; the next one may do.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Protocol

import trio

from algorithms.protocol import Snapshot
from node.errors import StorageError
from node.figures import Figures
from node.training import Worker

log = logging.getLogger(__name__)

RETRY_S = 1.0
"""Wait between two attempts at a snapshot without which nothing may be said."""


class Keeps(Protocol):
    """What is asked of a store; see ``node/store.py``."""

    def save(self, snapshot: Snapshot) -> None:
        """Put a snapshot on disk, or raise StorageError."""


class Saver:
    """Puts snapshots on disk in the order in which they were taken.

    Parameters
    ----------
    store : Keeps, optional
        Where they go; without one, they are dropped.
    figures : Figures
        Told how it went.
    disk : Worker
        The thread that waits for the disk.
    """

    def __init__(self, store: Keeps | None, figures: Figures, disk: Worker) -> None:
        self._store, self._figures, self._disk = store, figures, disk

    @property
    def idle(self) -> bool:
        """Whether the disk has caught up: snapshots that wait for a slow one are a model's memory each."""
        return self._disk.idle

    async def save(self, snapshot: Snapshot, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> bool:
        """Try once; whether it is on disk now. As a task that has started, it has its place in line."""
        task_status.started()  # from here to the place in line no other task runs
        if self._store is None:
            return True
        taken_s, failed_before = trio.current_time(), self._figures.disk_fails
        try:
            await self._disk.call(self._store.save, snapshot)
        except StorageError as error:
            if not failed_before:
                log.error("no snapshot: %s", error)
            self._figures.disk_fails = True
            return False
        if failed_before:
            log.info("snapshots can be written again")
        self._figures.disk_fails = False
        self._figures.snapshot_s = taken_s
        return True

    async def save_for_certain(self, snapshot: Snapshot) -> None:
        """Return when it is on disk, however long that takes."""
        while not await self.save(snapshot):
            await trio.sleep(RETRY_S)


def join(parts: Mapping[str, Snapshot]) -> Snapshot:
    """One snapshot out of several, each filed under its name."""
    whole = Snapshot()
    for name, part in parts.items():
        whole.vectors |= {f"{name}.{key}": vector for key, vector in part.vectors.items()}
        whole.numbers |= {f"{name}.{key}": number for key, number in part.numbers.items()}
    return whole


def part_of(whole: Snapshot, name: str) -> Snapshot:
    """What :func:`join` filed under ``name``."""
    prefix = name + "."
    return Snapshot(
        {key.removeprefix(prefix): value for key, value in whole.vectors.items() if key.startswith(prefix)},
        {key.removeprefix(prefix): value for key, value in whole.numbers.items() if key.startswith(prefix)},
    )
