"""A user's mistake: one sentence that says what was wrong and what to write instead, and an exit code.

The exit codes are listed in ``docs/commands.md``: 2 usage, 10-19 configuration and plan, 20-29 algorithm and
task, 30-39 network and TLS, 40-49 storage.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Carries the sentence that the user reads and the code that the command exits with."""

    exit_code = 2


class ConfigError(UserError):
    """The configuration or a plan can't be used."""

    exit_code = 10


class TaskError(UserError):
    """The algorithm, the task or its data can't be used."""

    exit_code = 20


class NetworkError(UserError):
    """An address, a port or a certificate can't be used."""

    exit_code = 30


class StorageError(UserError):
    """A folder or a snapshot can't be used."""

    exit_code = 40


def unknown(what: str, given: str, known: Iterable[str]) -> str:
    """The sentence for a name that does not exist, with the nearest one that does.

    Examples
    --------
    >>> unknown("algorithm", "gosip", ["gossip", "local"])
    "unknown algorithm 'gosip': did you mean 'gossip'? (known: gossip, local)"
    """
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1)
    hint = f": did you mean '{near[0]}'?" if near else ":"
    return f"unknown {what} '{given}'{hint} (known: {', '.join(names) or 'none'})"
