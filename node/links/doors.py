"""Where a proxy listens, and for whom."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from node.errors import ConfigError, NetworkError, unknown
from topology.plan import Plan, is_address

FIRST_PORT = 20000
"""Of the plan's first node; the others' follow in the plan's order."""

PEER_PORT = 7700
"""Where peers listen."""

COLUMNS = ("listen", "source", "target", "address")


@dataclass(frozen=True, slots=True)
class Door:
    """A listener.

    Parameters
    ----------
    listen : str
        ``HOST:PORT``.
    target : str
        The peer that is behind it.
    address : str
        ``HOST:PORT`` of that peer.
    source : str or None
        The peer that alone comes here; None where the caller's address tells who it is.
    """

    listen: str
    target: str
    address: str
    source: str | None = None


def doors_of(plan: Plan, host: str, first_port: int, peer_port: int) -> list[Door]:
    """One for each node, which is the host of its own name.

    Raises
    ------
    NetworkError
        When there are not enough ports.
    """
    if not 1 <= first_port <= 65536 - len(plan.nodes):
        raise NetworkError(f"{len(plan.nodes)} ports from {first_port} on leave the range 1 to 65535: choose a --port.")
    shown = f"[{host}]" if ":" in host else host
    return [
        Door(f"{shown}:{first_port + k}", node.name, f"{node.name}:{peer_port}") for k, node in enumerate(plan.nodes)
    ]


def read_doors(path: Path, plan: Plan) -> list[Door]:
    """One for each line ``listen,source,target,address`` of a CSV file.

    Raises
    ------
    ConfigError
        When the file can't be read or a line can't be used.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the targets {path} can't be read: {error}.") from None
    names, doors = [node.name for node in plan.nodes], []
    for k, row in enumerate(csv.reader(text.splitlines()), start=1):
        cells = [cell.strip() for cell in row]
        if any(cells) and tuple(cells) != COLUMNS:
            doors.append(_door(cells, names, f"{path}, line {k}"))
    if not doors:
        raise ConfigError(f"{path} has no targets in it: write lines {','.join(COLUMNS)}.")
    return doors


def _door(cells: Sequence[str], names: Sequence[str], where: str) -> Door:
    if len(cells) != len(COLUMNS):
        raise ConfigError(f"{where}: it has {len(cells)} columns, write {','.join(COLUMNS)}.")
    listen, source, target, address = cells
    for name in (source, target):
        if name not in names:
            raise ConfigError(f"{where}: {unknown('peer', name, names)}.")
    for place in (listen, address):
        if not is_address(place):
            raise ConfigError(f"{where}: {place} is no address, write HOST:PORT.")
    return Door(listen, target, address, source)
