"""From the start of a daemon's process until it says that it is ready, beside ``import torch`` in the same run.

    python -m benchmarks.startup [--repeats 5]

Aim: no more than a second above ``import torch``. The two take turns, and the best of each counts: on a busy machine
everything else measures the others. The processor's time is what is left of that when even the best was disturbed.
"""

from __future__ import annotations

import argparse
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from node.shards import prepare
from node.tasks import load_task
from node.testbed.testbed import place_here
from node.wire.authority import make_certificates
from topology.plan import save_plan
from topology.planning import build_plan

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plan = place_here(build_plan("line", 2))
        save_plan(plan, folder / "plan.json")
        prepare(load_task("digits"), ["n0", "n1"], "iid", 1.0, 0, folder / "data")
        make_certificates(["n0", "n1"], folder / "certs")
        torch_s, ready_s = [], []
        for k in range(repeats):
            torch_s.append(time_torch())
            ready_s.append(time_daemon(folder, plan.node("n0").http, folder / f"state{k}"))
    best = [[min(times) for times in zip(*measured, strict=True)] for measured in (torch_s, ready_s)]
    print(f"{repeats} times each, the best        seconds   of a processor")
    for what, (wall_s, cpu_s) in zip(("import torch", "daemon ready"), best, strict=True):
        print(f"{what:28} {wall_s:8.2f} {cpu_s:16.2f}")
    print(f"{'above import torch (aim 1)':28} {best[1][0] - best[0][0]:8.2f} {best[1][1] - best[0][1]:16.2f}")


def cpu_s() -> float:
    """Seconds of a processor that the children that have ended took."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def time_torch() -> tuple[float, float]:
    """Seconds, and those of a processor, of a process that only imports torch."""
    begun, spent = time.perf_counter(), cpu_s()
    subprocess.run([sys.executable, "-c", "import torch"], check=True, env=ENVIRONMENT)
    return time.perf_counter() - begun, cpu_s() - spent


def time_daemon(folder: Path, http: str, state: Path) -> tuple[float, float]:
    """Seconds, and those of a processor, from the start of a daemon to its first 200 on ``/readyz``."""
    command = [sys.executable, "-c", "from node.cli import main; main()", "run", "--name", "n0"]
    command += ["--plan", f"{folder}/plan.json", "--data", f"{folder}/data", "--certs", f"{folder}/certs/n0"]
    command += ["--state", str(state), "--log-level", "error"]
    begun, spent = time.perf_counter(), cpu_s()
    with subprocess.Popen(command, env=ENVIRONMENT) as daemon:
        while not is_ready(http):
            assert daemon.poll() is None, "the daemon has ended"
            time.sleep(0.02)
        taken_s = time.perf_counter() - begun
        daemon.send_signal(signal.SIGKILL)
    return taken_s, cpu_s() - spent


def is_ready(http: str) -> bool:
    """Whether the daemon says so."""
    try:
        with urllib.request.urlopen(f"http://{http}/readyz", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    main()
