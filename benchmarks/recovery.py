"""How fast a killed peer is back: eight daemons with mTLS, each killed in turn and resumed.

    python -m benchmarks.recovery [--peers 8]

For each peer: ``kill -9``, two seconds in which the others must go on exchanging, then ``--resume`` from its latest
snapshot, or, for every other peer, from one that is at least ten exchanges old. Seconds are from the start of the new
process to its first exchange, as one of its neighbours sees it; the time that importing torch takes is part of it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from node.cli.status import read_status
from node.errors import NetworkError
from node.shards import prepare
from node.tasks import load_task
from node.testbed.processes import Processes
from node.testbed.testbed import place_here
from node.wire.authority import make_certificates
from topology.plan import save_plan
from topology.planning import build_plan

WAIT_S = 120.0
ALONE_S = 2.0


class Network:
    """Daemons in processes of their own, all in one folder."""

    def __init__(self, peers: int, folder: Path) -> None:
        self.folder, self.plan = folder, place_here(build_plan("exponential", peers))
        self.names = [node.name for node in self.plan.nodes]
        save_plan(self.plan, folder / "plan.json")
        make_certificates(self.names, folder / "certs")
        prepare(load_task("digits"), self.names, "dirichlet", 0.1, 0, folder / "data")
        self.running: dict[str, Processes] = {}

    def start(self, name: str) -> None:
        begin = [sys.executable, "-m", "node.testbed.tether", "run", "--name", name, "--resume", "--duration", "1h"]
        where = {"plan": "plan.json", "data": "data", "certs": f"certs/{name}", "state": f"state/{name}"}
        flags = [f"--{flag}={self.folder / path}" for flag, path in where.items()]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = {name: [*begin, *flags, "--snapshot-every=1s"]}
        self.running[name] = Processes(command, self.folder / "logs", environment)
        self.running[name].__enter__()

    def kill(self, name: str) -> None:
        os.kill(self.running[name].pid(name), signal.SIGKILL)
        wait_until(lambda: bool(self.running[name].wait(1)), f"the end of {name}")

    def exchanges(self, name: str, other: str | None = None) -> int:
        """Those that a peer took part in, whoever started them; with ``other``, or with all its neighbours."""
        try:
            peers = read_status(self.plan.node(name).http)["peers"]
        except NetworkError:
            return 0
        return sum(peer["exchanges"] for neighbour, peer in peers.items() if other in (None, neighbour))

    def end(self) -> None:
        for processes in self.running.values():
            processes.kill()


def wait_until(holds: Callable[[], bool], what: str) -> float:
    """Seconds until it holds."""
    begun = time.monotonic()
    while not holds():
        if time.monotonic() - begun > WAIT_S:
            sys.exit(f"waited {WAIT_S:.0f} s in vain for {what}")
        time.sleep(0.05)
    return time.monotonic() - begun


def recover(network: Network, name: str, old: bool) -> tuple[float, int]:
    """Seconds from the new process to its first exchange, and how many exchanges the others did while it was gone."""
    state, copy = network.folder / "state" / name, network.folder / "copy" / name
    wait_until(lambda: len(list(state.glob("snapshot-*"))) > 1, f"snapshots of {name}")
    if old:
        begun = network.exchanges(name)
        shutil.copytree(state, copy)
        wait_until(lambda: network.exchanges(name) > begun + 10, f"exchanges of {name}")
    network.kill(name)
    if old:
        shutil.rmtree(state)
        copy.rename(state)
    others = [other for other in network.names if other != name]
    before = sum(map(network.exchanges, others))
    time.sleep(ALONE_S)
    meanwhile = sum(map(network.exchanges, others)) - before
    neighbour = min(network.plan.edges_of(name))
    with_it = network.exchanges(neighbour, name)
    network.start(name)
    return wait_until(lambda: network.exchanges(neighbour, name) > with_it, f"{name} to exchange"), meanwhile


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peers", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        network = Network(given.peers, Path(folder))
        try:
            for name in network.names:
                network.start(name)
            for name in network.names:
                wait_until(lambda name=name: network.exchanges(name) > 10, f"exchanges of {name}")
            print(f"{given.peers} daemons, mTLS, exponential graph, digits")
            print("killed   resumed from    exchanges of others in 2 s  seconds to first exchange")
            for index, name in enumerate(network.names):
                seconds, meanwhile = recover(network, name, old=index % 2 == 1)
                kind = "an old one" if index % 2 else "the latest"
                print(f"{name:8} {kind:14} {meanwhile:26} {seconds:26.1f}", flush=True)
        finally:
            network.end()


if __name__ == "__main__":
    main()
