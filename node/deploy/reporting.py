"""Waits for the end of a run in containers, and reports it: ``python -m node.deploy.reporting``.

Theory of operation
-------------------
The service ``report`` of a compose file is this program. It looks at the record alone, as no container engine is at
hand: a peer has ended when it has written a final state since the run began, which is when the file ``running`` was
written. Where some have ended and the others' reports come no further, they are lost, and the run is reported without
them. Silence is counted in looks, not on a clock, which goes on while a machine sleeps.

Invariant
---------
Peers write to the record, so nothing in it is trusted: as root, files are copied by their names and no links are
followed. Whatever reads them runs as the user that the folder of reports belongs to.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import threading
from pathlib import Path

from node.config import load_config
from node.deploy import telling_mistakes
from node.errors import StorageError
from topology.plan import load_plan

RECORD, RUNS = Path("/record"), Path("/runs")

RUNNING = "running"
"""In the record from before the first peer starts until all that is to be reported is there."""

LOOK_EVERY_S = 1.0

SILENCE_S = 60.0
"""When a peer has ended, others that come no further for this much longer than they should are lost."""

HOPELESS_S = 1800.0
"""When none has ended; longer than all lives of a peer that fails as often as it is started again."""

END = ("states/{}.safetensors", "merged/{}.safetensors", "merged/{}.statistics.safetensors")
"""What a peer writes when it ends."""

TAIL_BYTES = 1 << 16
"""Longer than any report of a peer."""


class Wait:
    """For the end of a run.

    A peer that crashes again and again falls back to its snapshot each time: its reports come no further.

    Parameters
    ----------
    record : Path
        The run's record.
    names : list of str
        Of all peers.
    """

    def __init__(self, record: Path, names: list[str]) -> None:
        self._record, self._names = record, names
        self._begun_ns = (record / RUNNING).stat().st_mtime_ns
        self._reached = dict.fromkeys(names, -math.inf)
        self.ended: set[str] = set()
        self._silent = 0

    def look(self) -> bool:
        """Whether all peers have ended, or some have and the others are lost.

        Raises
        ------
        StorageError
            When none has ended, and none will.
        UserError
            When the record's configuration can't be read.
        """
        self._silent = 0 if self._is_news() else self._silent + 1
        if len(self.ended) == len(self._names):
            return True
        patience_s = SILENCE_S if self.ended else HOPELESS_S
        patience_s += 2 * load_config({}, self._record / "config.toml", {}).report_every
        if self._silent * LOOK_EVERY_S <= patience_s:
            return False
        if not self.ended:
            raise StorageError(
                f"no peer has ended, nor come further for {patience_s / 60:.0f} minutes: see docker compose logs."
            )
        return True

    def _is_news(self) -> bool:
        """Whether a peer has ended or come further than ever before."""
        news = False
        for name in self._names:
            if name in self.ended:
                continue
            if self._has_ended(name):
                self.ended.add(name)
                news = True
            elif (reached := _reached_s(self._record / "peers" / f"{name}.jsonl")) > self._reached[name]:
                self._reached[name] = reached
                news = True
        return news

    def _has_ended(self, name: str) -> bool:
        state = self._record / "states" / f"{name}.safetensors"
        return state.exists() and state.stat().st_mtime_ns >= self._begun_ns


def _reached_s(path: Path) -> float:
    """Up to which second of learning a peer has reported; -inf where it has not."""
    if not path.is_file():
        return -math.inf
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        whole, _, _ = file.read().rpartition(b"\n")  # the rest is being written
    try:
        return float(json.loads(whole.rpartition(b"\n")[2])["seconds"])
    except (ValueError, KeyError, TypeError):  # no news; the report that is made in the end says what is wrong
        return -math.inf


def hand_over(record: Path, runs: Path, ended: set[str]) -> Path:
    """Copy the record to a new folder ``compose-K`` on the host.

    Parameters
    ----------
    ended : set of str
        Who has ended in this run: what the others have left of their end is of an earlier one, and stays behind.

    Returns
    -------
    Path
        The folder; it belongs to whom ``runs`` does.

    Raises
    ------
    StorageError
        When it can't be written.
    """
    k = 1
    while (folder := runs / f"compose-{k}").exists():
        k += 1
    try:
        names = [node.name for node in load_plan(record / "plan.json").nodes]
        for file in ["plan.json", "config.toml", *_data_files(record), *(f"peers/{name}.jsonl" for name in names)]:
            _copy(record / file, folder / file)
        for name in sorted(ended):
            for file in (part.format(name) for part in END):
                _copy(record / file, folder / file)
        _own_as(folder, runs)
    except OSError as error:
        raise StorageError(f"the record can't be copied to {folder}: {error}.") from None
    return folder


def _data_files(record: Path) -> list[str]:
    return [f"data/{path.name}" for path in sorted((record / "data").glob("*"))]


def _copy(source: Path, target: Path) -> None:
    """Copy a file if there is one: no link, no pipe, nor what is swapped for one meanwhile."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink() or not source.is_file():
        return
    file = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(file, "rb") as read, target.open("xb") as written:
        shutil.copyfileobj(read, written)


def _own_as(folder: Path, model: Path) -> None:
    """Let a folder and all in it belong to whom another one does."""
    owner = model.stat()
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def become_owner(folder: Path) -> None:
    """Go on as the user that a folder belongs to, for good."""
    owner = folder.stat()
    os.setgroups([])
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)


def main() -> None:
    """Wait, let the proxy between peers end, and report; a mistake is one sentence on stderr and an exit code."""
    with telling_mistakes():
        try:
            wait = Wait(RECORD, [node.name for node in load_plan(RECORD / "plan.json").nodes])
            pause = threading.Event()
            while not wait.look():
                pause.wait(LOOK_EVERY_S)
            folder = hand_over(RECORD, RUNS, wait.ended)
        finally:
            (RECORD / RUNNING).unlink(missing_ok=True)
        become_owner(RUNS)

        from node.testbed.report import present  # and with it PyTorch, whose threads belong to whom they are started by

        present(folder)


if __name__ == "__main__":
    main()
