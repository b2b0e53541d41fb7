"""Configuration of Prometheus and Grafana for the peers of a plan.

The rules and the dashboard are the same for every plan, and lie beside this file as they are read; what differs is whom
to ask, which Prometheus reads from a file of its own.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from node.errors import StorageError
from topology.plan import Plan

FIXED = ("prometheus.yml", "alerts.yml", "dashboard.json")
"""What does not depend on the plan."""

PEERS = "peers.json"
"""Whom Prometheus asks; it reads the file again when it changes."""


def peers_json(plan: Plan) -> str:
    """Where each peer of a plan serves its metrics, as Prometheus reads it from a file (``file_sd_configs``)."""
    targets = [{"targets": [node.http], "labels": {"peer": node.name}} for node in plan.nodes]
    return "[\n" + ",\n".join("  " + json.dumps(target) for target in targets) + "\n]\n"


def write_prometheus(plan: Plan, folder: Path) -> None:
    """Write ``prometheus.yml``, ``alerts.yml``, ``peers.json`` and Grafana's ``dashboard.json`` to a folder.

    Parameters
    ----------
    plan : Plan
        Whose peers are to be watched, each at its ``http`` address.
    folder : Path
        Made if it is not there; files of an earlier call are replaced.

    Raises
    ------
    StorageError
        When it can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in FIXED:
            shutil.copyfile(Path(__file__).parent / "prometheus" / name, folder / name)
        (folder / PEERS).write_text(peers_json(plan))
    except OSError as error:
        raise StorageError(f"Prometheus' configuration can't be written to {folder}: {error.strerror}.") from None
