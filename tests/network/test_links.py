"""Real daemons behind the proxy: over mTLS, with a link that is slow, cut, and whole again."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from node.cli.status import read_status
from node.errors import NetworkError
from node.links.control import command
from node.shards import prepare
from node.tasks import load_task
from node.testbed.processes import Processes
from node.testbed.record import ledger_error, read_states
from node.testbed.testbed import place_here
from node.wire.authority import make_certificates
from topology.plan import Plan, save_plan
from topology.planning import build_plan

NAMES = ("n0", "n1", "n2")
HANG_S = 120.0
"""Longer than any test takes: only a hang waits for so long."""


def wait_until(holds: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + HANG_S
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.1)


@dataclass
class Network:
    """Three daemons that reach each other through a proxy only."""

    plan: Plan
    folder: Path
    processes: Processes

    @property
    def control(self) -> Path:
        return self.folder / "control"

    def link(self, **order: Any) -> dict[str, Any]:
        return command(self.control, {"a": "n0", "b": "n1", **order})[0]

    def seen_by(self, name: str, other: str) -> dict[str, Any]:
        """What a peer says of another; nothing while it does not answer."""
        try:
            return read_status(self.plan.node(name).http)["peers"][other]
        except NetworkError:
            return {"state": None, "exchanges": 0}

    def states(self, name: str, other: str) -> set[str | None]:
        """What two peers say of each other."""
        return {self.seen_by(name, other)["state"], self.seen_by(other, name)["state"]}


def behind_doors() -> tuple[Plan, dict[str, Plan], str]:
    """A plan; the same as each peer has it, where the others are at doors of the proxy; and the proxy's targets."""
    pairs = [(one, other) for one in NAMES for other in NAMES if one != other]
    free = place_here(build_plan("ring", len(NAMES) + len(pairs))).nodes
    plan = replace(build_plan("ring", len(NAMES)), nodes=free[: len(NAMES)])
    doors = {pair: node.address for pair, node in zip(pairs, free[len(NAMES) :], strict=True)}
    plans = {
        name: replace(plan, nodes=tuple(replace(n, address=doors.get((name, n.name), n.address)) for n in plan.nodes))
        for name in NAMES
    }
    lines = [f"{door},{one},{other},{plan.node(other).address}\n" for (one, other), door in doors.items()]
    return plan, plans, "".join(lines)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    plan, plans, targets = behind_doors()
    (tmp_path / "targets.csv").write_text(targets)
    save_plan(plan, tmp_path / "plan.json")
    prepare(load_task("digits", {"hidden": "4"}), list(NAMES), "iid", 1.0, 0, tmp_path / "data", spec="digits")
    make_certificates(NAMES, tmp_path / "certs")
    tethered = [sys.executable, "-m", "node.testbed.tether"]
    proxy = ["--plan", str(tmp_path / "plan.json"), "--targets", str(tmp_path / "targets.csv")]
    commands = {"links": [*tethered, "links", *proxy, "--control", str(tmp_path / "control")]}
    how = ["--time-unit", "20ms", "--duration", "10m", "--set", "hidden=4", "--no-final-merge"]
    for name in NAMES:
        save_plan(plans[name], tmp_path / f"{name}.json")
        own = ["--name", name, "--plan", str(tmp_path / f"{name}.json"), "--certs", str(tmp_path / "certs" / name)]
        shared = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
        commands[name] = [*tethered, "run", *own, *shared, *how]
    with Processes(commands, tmp_path / "logs", {**os.environ, "OMP_NUM_THREADS": "1"}) as processes:
        yield Network(plan, tmp_path, processes)


def test_a_link_is_cut_and_heals(network: Network) -> None:
    def exchanges() -> int:
        return int(network.seen_by("n0", "n1")["exchanges"])

    wait_until(lambda: exchanges() > 3, "exchanges through the proxy")
    assert network.link()["bytes"] > 0
    assert network.link()["connections"] > 0

    assert network.link(cut=True)["state"] == "cut"
    wait_until(lambda: network.states("n0", "n1") == {"gone"}, "a cut is seen from both ends")
    before, elsewhere = exchanges(), network.seen_by("n0", "n2")["exchanges"]
    wait_until(lambda: network.seen_by("n0", "n2")["exchanges"] > elsewhere + 3, "the others go on")
    assert exchanges() == before
    assert network.states("n0", "n2") == {"alive"}

    network.link(cut=False, delay=0.03, bandwidth=2**20)
    wait_until(lambda: network.states("n0", "n1") == {"alive"}, "a link that is whole again is seen from both ends")
    wait_until(lambda: exchanges() > before + 3, "exchanges over a link that is whole again")

    network.processes.stop(NAMES)
    states = read_states(network.folder / "run")
    assert set(states) == {*NAMES}
    error = ledger_error(states)
    assert error is not None
    assert error < 1e-5  # rounding of float32
