"""Where the plan of a peer that joins comes from: a member that runs, or its own state folder when it comes back.

What the member told is kept beside the snapshots, so that a peer that has once joined comes back without it.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import trio

from node.errors import ConfigError, StorageError
from node.wire.introduction import Introduction
from node.wire.joining import find_run
from node.wire.tls import NAME, Identity
from topology.plan import is_address, plan_from_json, plan_to_json

FILE = "joined.json"
KEYS = ("contact", "address", "run", "plan")

log = logging.getLogger(__name__)


def check_joiner(name: str, join: str, address: str | None) -> None:
    """Make sure that a peer that joins says who it is, and where others reach it.

    Raises
    ------
    ConfigError
        When it does not.
    """
    if not NAME.match(name):
        raise ConfigError(f"--name {name} can't be used: write 1 to 63 of a-z, 0-9 and '-'.")
    if address is None:
        raise ConfigError("--join needs --address HOST:PORT: where do the others reach this peer?")
    for flag, value in (("--join", join), ("--address", address)):
        if not is_address(value):
            raise ConfigError(f"{flag} {value} can't be used: write HOST:PORT, such as 10.0.0.7:7700.")


def be_introduced(
    name: str, join: str, identity: Identity | None, wait_s: float, kept: Path | None = None
) -> Introduction:
    """What run there is at an address, and who says so.

    Parameters
    ----------
    name : str
        The peer that joins.
    join : str
        ``HOST:PORT`` of a member.
    identity : Identity or None
        Key and certificate; None in plaintext.
    wait_s : float
        How long to try.
    kept : Path, optional
        The state folder of a peer that comes back: what it kept of the same address is as good as an answer.

    Raises
    ------
    UserError
        When nobody says so, or the name is taken.
    """
    introduction = _load(kept / FILE, join) if kept else None
    if introduction is None:
        introduction = trio.run(find_run, join, name, identity, wait_s)
        log.info("%s at %s knows the way into %s", introduction.contact, join, introduction.run)
    if any(node.name == name for node in introduction.plan.nodes):
        raise ConfigError(
            f"{name} is a peer of the run's plan: start it with --plan instead of --join, or under another --name."
        )
    return introduction


def keep(introduction: Introduction, folder: Path) -> None:
    """Put what a member told into the state folder, in one step.

    Raises
    ------
    StorageError
        When that can't be done.
    """
    told = {key: getattr(introduction, key) for key in KEYS} | {"plan": json.loads(plan_to_json(introduction.plan))}
    text = json.dumps(told)
    file, fresh = folder / FILE, folder / f"{FILE}.new"
    try:
        if file.exists() and file.read_text(encoding="utf-8") == text:
            return
        with fresh.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(file)
    except OSError as error:
        raise StorageError(f"{file} can't be written: {error.strerror}.") from None


def _load(file: Path, join: str) -> Introduction | None:
    """What was kept, if it is there and of this address."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(value, dict) or value.keys() != {*KEYS}:
            raise ValueError
        plan = plan_from_json(json.dumps(value["plan"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):  # a PlanError is one, too
        raise StorageError(f"{file} can't be used: delete it, and the peer asks for the plan again.") from None
    return Introduction(**{**value, "plan": plan}) if value["address"] == join else None
