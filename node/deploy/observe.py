"""Configuration of Prometheus and Grafana for the peers of a plan.

The rules and the dashboard are the same for every plan, and lie beside this file as they are read; what differs is whom
to ask, which Prometheus reads from a file of its own.
"""

from __future__ import annotations

import json
from pathlib import Path

from node.errors import ConfigError, StorageError
from topology.plan import Plan

FIXED = ("prometheus.yml", "alerts.yml", "dashboard.json")
"""What does not depend on the plan."""

PEERS = "peers.json"
"""Whom Prometheus asks; it reads the file again when it changes."""


def peers_json(plan: Plan) -> str:
    """Where each peer of a plan serves its metrics, as Prometheus reads it from a file (``file_sd_configs``)."""
    targets = [{"targets": [node.http], "labels": {"peer": node.name}} for node in plan.nodes]
    return "[\n" + ",\n".join("  " + json.dumps(target) for target in targets) + "\n]\n"


def write_prometheus(plan: Plan, folder: Path, *, replace: bool = False) -> None:
    """Write ``prometheus.yml``, ``alerts.yml``, ``peers.json`` and Grafana's ``dashboard.json`` to a folder.

    Parameters
    ----------
    plan : Plan
        Whose peers are to be watched, each at its ``http`` address.
    folder : Path
        Made if it is not there.
    replace : bool
        Whether files that are there and say something else are replaced.

    Raises
    ------
    ConfigError
        When there are such files, and they are not to be replaced; nothing is written then.
    StorageError
        When the folder can't be written.
    """
    texts = {name: (Path(__file__).parent / "prometheus" / name).read_bytes() for name in FIXED}
    texts[PEERS] = peers_json(plan).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = [
            name for name, text in texts.items() if (path := folder / name).exists() and path.read_bytes() != text
        ]
        if others and not replace:
            raise ConfigError(
                f"{folder} holds {', '.join(others)} with something else: move that away, or name another folder."
            )
        for name, text in texts.items():
            (folder / name).write_bytes(text)
    except OSError as error:
        raise StorageError(f"Prometheus' configuration can't be written to {folder}: {error.strerror}.") from None
