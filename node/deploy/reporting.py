"""Waits for the end of a run in containers, and reports it: ``python -m node.deploy.reporting``.

Theory of operation
-------------------
The service ``report`` of a compose file is this program. It looks at the record alone, as no container engine is at
hand: a peer has ended when it has written a final state since the run began, which is when the file ``running`` was
written. Where some have ended and nothing comes from the others any more, they are lost, and the run is reported
without them. The record is copied to the host, summed up there, and ``running`` is taken away.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

from node.config import load_config
from node.deploy import telling_mistakes
from node.errors import StorageError
from topology.plan import load_plan

RECORD, RUNS = Path("/record"), Path("/runs")

RUNNING = "running"
"""In the record from before the first peer starts until there is a report."""

LOOK_EVERY_S = 1.0

SILENCE_S = 60.0
"""When a peer has ended, others from which nothing comes for this much longer than it should are lost."""


def ended_peers(record: Path, names: list[str]) -> list[str]:
    """Who has written a final state since the run began."""
    begun = (record / RUNNING).stat().st_mtime_ns
    states = {name: record / "states" / f"{name}.safetensors" for name in names}
    return [name for name, state in states.items() if state.exists() and state.stat().st_mtime_ns >= begun]


def quiet_s(record: Path, now: float) -> float:
    """For how long nothing has been written to the record by any peer, in seconds.

    Parameters
    ----------
    now : float
        As :func:`time.time` tells it.
    """
    written = [path.stat().st_mtime for folder in ("peers", "states") for path in (record / folder).glob("*")]
    return now - max(written, default=now)


def is_over(record: Path, names: list[str], now: float) -> bool:
    """Whether all peers have ended, or some have and the others are lost.

    Raises
    ------
    UserError
        When the record's configuration can't be read.
    """
    ended = ended_peers(record, names)
    patience_s = SILENCE_S + 2 * load_config({}, record / "config.toml", {}).report_every
    return len(ended) == len(names) or (bool(ended) and quiet_s(record, now) > patience_s)


def hand_over(record: Path, runs: Path) -> Path:
    """Copy the record to a new folder ``compose-K`` on the host, and sum it up and draw it there.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    StorageError
        When the folder can't be written, or there is not enough to sum up.
    """
    from node.testbed.report import present

    k = 1
    while (folder := runs / f"compose-{k}").exists():
        k += 1
    try:
        shutil.copytree(record, folder, ignore=shutil.ignore_patterns(RUNNING))
    except (OSError, shutil.Error) as error:
        raise StorageError(f"the record can't be copied to {folder}: {error}.") from None
    present(folder)
    return folder


def _own_as(folder: Path, model: Path) -> None:
    """Let a folder and all in it belong to whom another one does."""
    owner = model.stat()
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, owner.st_uid, owner.st_gid)


def main() -> None:
    """Wait, report and let the proxy between peers end; a mistake is one sentence on stderr and an exit code."""
    with telling_mistakes():
        try:
            names = [node.name for node in load_plan(RECORD / "plan.json").nodes]
            pause = threading.Event()
            while not is_over(RECORD, names, time.time()):
                pause.wait(LOOK_EVERY_S)
            _own_as(hand_over(RECORD, RUNS), RUNS)
        finally:
            (RECORD / RUNNING).unlink(missing_ok=True)


if __name__ == "__main__":
    main()
