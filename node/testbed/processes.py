"""Child processes of this one that never outlive it.

Theory of operation
-------------------
Every child has a log file of its own, a process group of its own, so that Ctrl-C reaches this process alone, and a
pipe as its standard input, by which it learns that this process has ended (see :mod:`node.testbed.tether`).

Invariant
---------
When the ``with`` block is left, for whatever reason, all children have ended and are reaped. They are given time to
drain unless it is left by an exception.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from node.errors import StorageError
from node.testbed.tether import DRAIN_S


class Processes:
    """Named children.

    Parameters
    ----------
    commands : mapping of str to sequence of str
        What each is to run.
    logs : Path
        Folder of ``NAME.log``; made if need be.
    environ : mapping of str to str
        Their environment.

    Attributes
    ----------
    codes : dict of str to int
        The exit codes of those that have ended; minus the signal's number for one that was killed.
    """

    def __init__(self, commands: Mapping[str, Sequence[str]], logs: Path, environ: Mapping[str, str]) -> None:
        self.codes: dict[str, int] = {}
        self._commands, self._logs, self._environ = commands, logs, environ
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Processes:
        try:
            self._logs.mkdir(parents=True, exist_ok=True)
            for name, command in self._commands.items():
                self._start(name, command)
        except OSError as error:
            self.kill()
            raise StorageError(f"the peers can't be started: {error}.") from None
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.stop()
        finally:
            self.kill()

    def _start(self, name: str, command: Sequence[str]) -> None:
        with self.log(name).open("ab") as log:
            self._children[name] = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self._environ),
                start_new_session=True,
            )

    def log(self, name: str) -> Path:
        """Where a child's output goes."""
        return self._logs / f"{name}.log"

    @property
    def running(self) -> list[str]:
        """Who has not ended, as of the last :meth:`wait`."""
        return [name for name in self._children if name not in self.codes]

    def pid(self, name: str) -> int:
        """A child's process id."""
        return self._children[name].pid

    def wait(self, seconds: float) -> dict[str, int]:
        """Wait until the first of those that run ends, or so long; the exit codes of those that ended meanwhile."""
        for name in self.running[:1]:
            with suppress(subprocess.TimeoutExpired):
                self._children[name].wait(seconds)
        ended = {name: code for name in self.running if (code := self._children[name].poll()) is not None}
        self.codes |= ended
        return ended

    def stop(self, names: Iterable[str] | None = None) -> None:
        """Ask children, by default all, to end, and wait until they have; who takes too long is killed."""
        wanted = self.running if names is None else list(names)
        for name in wanted:
            self._children[name].terminate()
        deadline = time.monotonic() + DRAIN_S
        for name in wanted:
            try:
                self._children[name].wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self._children[name].kill()
                self._children[name].wait()

    def kill(self) -> None:
        """End whoever is left, at once."""
        for name, child in self._children.items():
            child.kill()  # does nothing to one that has been reaped
            self.codes[name] = child.wait()
            if child.stdin:
                child.stdin.close()


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a log file, from its last few kilobytes."""
    try:
        with path.open("rb") as file:
            return _tail(file, 8192).decode(errors="replace").splitlines()[-count:]
    except OSError:
        return []


def _tail(file: BinaryIO, size: int) -> bytes:
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - size))
    return file.read()
