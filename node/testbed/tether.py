"""Runs ``gradvine`` for as long as the process that started it lives: ``python -m node.testbed.tether run …``.

The starter holds the other end of this process's standard input and never writes. The kernel closes it when the starter
ends, however it ends, also by ``kill -9``; then this process drains as on SIGTERM, and is gone soon after in any case.
Unlike a parent-death signal this needs no Linux, has no race at the start, and doesn't take the end of the starter's
thread for the end of the starter.
"""

from __future__ import annotations

import os
import signal
import threading

DRAIN_S = 10.0
"""How long a process may take to end after SIGTERM; a daemon promises to need less than 8 s."""


def main() -> None:
    """Run the command line that follows, tethered."""
    tie()
    from node.cli import main as gradvine

    gradvine()


def tie() -> None:
    """From now on, end when the starter does."""
    threading.Thread(target=_end_with_starter, name="tether", daemon=True).start()


def _end_with_starter() -> None:
    # Not sys.stdin: a thread that is blocked in it holds a lock that the interpreter wants at exit.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(DRAIN_S)
    os._exit(1)


if __name__ == "__main__":
    main()
