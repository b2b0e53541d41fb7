"""Peak memory of a peer, in models: three daemons in a ring exchange a large one over real sockets.

    python -m benchmarks.memory [--width 5000] [--seconds 60]

Momentum SGD, degree 2, snapshots every ten seconds. The base is a process that has imported gRPC and torch and has
taken one small step, measured in the same run. Aim: base + 7 models.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from node.cli.status import read_status
from node.errors import NetworkError
from node.shards import prepare
from node.tasks import load_task
from node.testbed.processes import Processes
from node.testbed.testbed import place_here
from topology.plan import Plan, save_plan
from topology.planning import build_plan

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
EXCHANGES_MIN = 5
START_S = 300.0

BASE = """
import torch, grpc.aio, node.daemon
from torch import nn
model = nn.Linear(8, 8)
optimiser = torch.optim.SGD(model.parameters(), lr=.1, momentum=.9)
model(torch.zeros(1, 8)).sum().backward()
optimiser.step()
from benchmarks.memory import peak_bytes
import os
print(peak_bytes(os.getpid()))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=5000, help="of the two hidden layers")
    parser.add_argument("--seconds", type=float, default=60, help="how long they run")
    given = parser.parse_args()
    base = int(subprocess.check_output([sys.executable, "-c", BASE], env=ENVIRONMENT))
    print(f"base {base / 2**20:.0f} MiB")
    with tempfile.TemporaryDirectory() as name:
        folder, plan = Path(name), place_here(build_plan("ring", 3))
        options = {"hidden": f"{given.width},{given.width}"}
        save_plan(plan, folder / "plan.json")
        record = prepare(load_task("digits", options), [node.name for node in plan.nodes], "iid", 1, 0, folder / "data")
        model = record.size * 4
        print(f"model {model / 2**20:.0f} MiB, {record.size} values; peers in a ring of 3; (peak - base) / model:")
        for ledger in ("--ledger", "--no-ledger"):
            peaks, exchanges = measure(folder, plan, options["hidden"], ledger, given.seconds)
            models = [(peak - base) / model for peak in peaks]
            each = " ".join(f"{m:.2f}" for m in models)
            print(f"{ledger:12} max {max(models):.2f}   each {each}   exchanges {exchanges}   aim 7")


def measure(folder: Path, plan: Plan, hidden: str, ledger: str, seconds: float) -> tuple[list[int], list[int]]:
    """Peak bytes and exchanges of each peer."""
    fixed = [sys.executable, "-m", "node.testbed.tether", "run", "--insecure", "--set", f"hidden={hidden}", ledger]
    fixed += ["--plan", f"{folder}/plan.json", "--data", f"{folder}/data", "--momentum", "0.9", "--time-unit", "1s"]
    fixed += ["--snapshot-every", "10s", "--report-every", "10s", "--duration", "1h", "--lr", "0.001"]
    names = [node.name for node in plan.nodes]
    commands = {name: [*fixed, "--name", name, "--state", f"{folder}/{ledger}/{name}"] for name in names}
    with Processes(commands, folder / "logs", ENVIRONMENT) as processes:
        deadline = time.monotonic() + START_S
        while min(exchanges(plan, name) for name in names) < EXCHANGES_MIN:
            assert processes.wait(1) == {}, "a peer has ended"
            assert time.monotonic() < deadline, "they don't exchange"
        processes.wait(seconds)
        made = [exchanges(plan, name) for name in names]
        peaks = [peak_bytes(processes.pid(name)) for name in names]
        processes.kill()
    return peaks, made


def exchanges(plan: Plan, name: str) -> int:
    """How many a peer has made or answered."""
    try:
        peers = read_status(plan.node(name).http)["peers"]
    except NetworkError:
        return 0
    return sum(peer["exchanges"] for peer in peers.values())


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had, resident."""
    (line,) = (s for s in Path(f"/proc/{pid}/status").read_text().splitlines() if s.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
