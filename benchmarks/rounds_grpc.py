"""Rounds between real daemons: how fast they go, and what a peer that dies in the middle costs.

    python -m benchmarks.rounds_grpc pace [--values 100000 9750000] [--repeats 3]
    python -m benchmarks.rounds_grpc crash [--seeds 3]

*pace*: D-PSGD among four daemons, each the neighbour of all others, with a model that takes next to no time to train;
float32, so that 100 000 values are 0.4 MB. A round is a message of each peer to each other one. Seconds are those of
the daemons' own clocks, medians over several runs; beside them is the processors' time that a round takes of all four
together, which other work on the machine hardly changes.

*crash*: DFedSAM on handwritten digits among eight daemons in a ring, one of which is killed with SIGKILL at its round 5
and started again with ``--resume`` when the others are at round 15. For comparison, the same in virtual time with
nobody killed, for the same seeds.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from node.cli.status import read_status
from node.config import RunConfig
from node.errors import NetworkError
from node.shards import prepare
from node.tasks import load_task
from node.testbed.experiment import choose_plan, open_experiment
from node.testbed.processes import Processes
from node.testbed.record import read_lines
from node.testbed.runs import sum_up
from node.testbed.simulate import simulate
from node.testbed.simulated import Physics
from node.testbed.testbed import place_here
from node.wire.authority import make_certificates
from topology.plan import save_plan
from topology.planning import build_plan

WAIT_S = 120.0
WARM_UP = 20
"""Rounds before the first that counts."""

IDLE = """
import torch
from torch import nn

options = {"values": "100000"}
unit_s = 0.001


class Idle(nn.Module):
    def __init__(self, values):
        super().__init__()
        self.used = nn.Parameter(torch.zeros(1))
        self.rest = nn.Parameter(torch.randn(values - 1))

    def forward(self, x):
        return x * self.used


def model():
    return Idle(int(options["values"]))


def data():
    return torch.randn(64, 1), torch.randn(64, 1), torch.randn(1, 1), torch.randn(1, 1)


def loss(outputs, targets):
    return (outputs - targets).square().mean()


def score(outputs, targets):
    return torch.zeros(())
"""
"""A task whose local steps are the copies and sums that any has, and one multiplication."""


class Network:
    """Daemons in processes of their own, all in one folder."""

    def __init__(self, folder: Path, family: str, peers: int, task: str, flags: Sequence[str]) -> None:
        self.folder, self.plan = folder, place_here(build_plan(family, peers))
        self.names = [node.name for node in self.plan.nodes]
        self.insecure = "--insecure" in flags
        save_plan(self.plan, folder / "plan.json")
        if not self.insecure:
            make_certificates(self.names, folder / "certs")
        self._flags = ["--task", task, *flags]
        self.running: dict[str, Processes] = {}

    def start(self, name: str) -> None:
        """Start a daemon, or one that was killed again from its snapshot."""
        self.start_with(name, [f"--plan={self.folder / 'plan.json'}"])

    def start_with(self, name: str, how: Sequence[str]) -> None:
        """Start a daemon that gets to know its run in the way that these flags say."""
        where = {"data": "data", "out": ".", "state": f"state/{name}"}
        where |= {} if self.insecure else {"certs": f"certs/{name}"}
        paths = [f"--{flag}={self.folder / path}" for flag, path in where.items()]
        command = [sys.executable, "-m", "node.testbed.tether", "run", "--name", name, "--resume"]
        command += [*self._flags, *paths, *how]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.running[name] = Processes({name: command}, self.folder / "logs", environment)
        self.running[name].__enter__()

    def kill(self, name: str) -> None:
        """SIGKILL."""
        os.kill(self.running[name].pid(name), signal.SIGKILL)
        wait_until(lambda: bool(self.running[name].wait(1)), f"the end of {name}")

    def status(self, name: str) -> dict[str, Any]:
        """What a daemon says of itself; round 0 of one that does not answer."""
        try:
            return read_status(self.plan.node(name).http)
        except NetworkError:
            return {"round": 0, "seconds": 0.0}

    def round(self, name: str) -> int:
        """Rounds that a daemon has done."""
        return int(self.status(name)["round"] or 0)

    def processor_s(self) -> float:
        """Seconds that all daemons have spent on a processor."""
        ticks = 0
        for name, processes in self.running.items():
            words = Path(f"/proc/{processes.pid(name)}/stat").read_text().rpartition(")")[2].split()
            ticks += int(words[11]) + int(words[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        """Nothing is left behind."""
        for processes in self.running.values():
            processes.kill()


@contextmanager
def opened(family: str, peers: int, task: str, flags: Sequence[str]) -> Iterator[Network]:
    """A network in a folder of its own, with a task of the file ``idle.py`` if that is what ``task`` names."""
    with tempfile.TemporaryDirectory() as folder:
        network = Network(Path(folder), family, peers, task.format(folder=folder), flags)
        (Path(folder) / "idle.py").write_text(IDLE)
        try:
            yield network
        finally:
            network.end()


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Look again and again."""
    begun = time.monotonic()
    while not holds():
        if time.monotonic() - begun > WAIT_S:
            sys.exit(f"waited {WAIT_S:.0f} s in vain for {what}")
        time.sleep(0.05)


# ------------------------------------------------------------------------------------------------------- pace


def pace(values: int, insecure: bool, seconds: float) -> tuple[float, float, float]:
    """Seconds and processor seconds of a round, and how many of the neighbours' models were missing."""
    flags = ["--algorithm", "dpsgd", "--set", f"values={values}", "--duration", "1h", "--lr", "1e-6"]
    flags += ["--weight-decay", "0", "--batch-size", "1", "--report-every", "1s", *(["--insecure"] if insecure else [])]
    with opened("complete", 4, "file:{folder}/idle.py", flags) as network:
        task = load_task(f"file:{network.folder}/idle.py", {"values": str(values)})
        prepare(task, network.names, "iid", 1.0, 0, network.folder / "data")
        (network.folder / "data" / "test.safetensors").unlink()  # nothing is to be evaluated meanwhile
        for name in network.names:
            network.start(name)
        first = network.names[0]
        wait_until(lambda: network.round(first) >= WARM_UP, "the first rounds")
        before, spent_s = network.status(first), network.processor_s()
        time.sleep(seconds)
        after, spent_s = network.status(first), network.processor_s() - spent_s
        lasted_s, rounds = after["seconds"] - before["seconds"], after["round"] - before["round"]
        expected = after["round"] * (len(network.names) - 1)
        return lasted_s / rounds, spent_s / seconds * lasted_s / rounds, 1 - after["exchanges"] / expected


def show_pace(sizes: list[int], repeats: int, seconds: float) -> None:
    """Print one line a case."""
    print("model      transport  ms a round  (all runs)  processor ms a round  MB a round  missing at most")
    for values in sizes:
        for insecure in (True, False):
            runs = [pace(values, insecure, seconds) for _ in range(repeats)]
            round_s, spent_s, _ = (statistics.median(column) for column in zip(*runs, strict=True))
            missing = max(run[2] for run in runs)
            every = " ".join(f"{1e3 * run[0]:.1f}" for run in runs)
            sent = 12 * 4 * values / 1e6
            print(
                f"{4 * values / 1e6:5.1f} MB   {'plaintext' if insecure else 'mTLS':9} {1e3 * round_s:11.1f}  ({every})"
                f"{1e3 * spent_s:14.1f} {sent:12.1f} {missing:8.1%}",
                flush=True,
            )


# ------------------------------------------------------------------------------------------------------ crash

DFEDSAM = ["--algorithm=dfedsam", "--set=rho=0.2", "--set=decay=0.998"]
PEERS, ROUNDS, LOCAL_STEPS, KILLED_AT, BACK_AT = 8, 100, 5, 5, 15
UNLUCKY = "n3"


def crash(seed: int) -> tuple[dict[str, Any], list[str]]:
    """The summary of a run in which a peer is killed and started again, and what happened."""
    said: list[str] = []
    flags = [*DFEDSAM, f"--rounds={ROUNDS}", f"--seed={seed}", "--snapshot-every=500ms", "--report-every=1s"]
    with opened("ring", PEERS, "digits", flags) as network:
        prepare(load_task("digits"), network.names, "dirichlet", 0.1, seed, network.folder / "data")
        for name in network.names:
            network.start(name)
        wait_until(lambda: network.round(UNLUCKY) >= KILLED_AT, f"round {KILLED_AT}")
        said.append(f"killed at its round {network.round(UNLUCKY)}")
        network.kill(UNLUCKY)
        others = [name for name in network.names if name != UNLUCKY]
        wait_until(lambda: max(map(network.round, others)) >= BACK_AT, f"round {BACK_AT}")
        network.start(UNLUCKY)
        wait_until(lambda: network.round(UNLUCKY) > 0, "the return")
        rounds = [network.round(name) for name in others]
        said.append(f"back at its round {network.round(UNLUCKY)}, the others at {min(rounds)} to {max(rounds)}")
        for name in network.names:
            wait_until(lambda name=name: bool(network.running[name].wait(1)), f"the end of {name}")
        summary, last = sum_up(network.folder, plan=network.plan), read_lines(network.folder)
        skipped = ROUNDS - last[UNLUCKY][-1]["gradients"] // LOCAL_STEPS
        missed = {name: last[name][-1]["missed_models"] for name in network.names}
        said.append(f"it skipped {skipped} rounds, models missing at {missed}")
        return {**summary, "rounds": min(last[name][-1]["rounds"] for name in network.names)}, said


def undisturbed(seed: int) -> dict[str, Any]:
    """The summary of the same run in virtual time, with nobody killed."""
    options = {"rho": "0.2", "decay": "0.998"}
    config = RunConfig(algorithm="dfedsam", options=options, seed=seed, rounds=ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        experiment = open_experiment(choose_plan(None, "ring", PEERS, None, seed), config, Path(folder) / "run")
        return simulate(experiment, Physics())


def show_crash(seeds: int) -> None:
    """Print two lines a seed."""
    print("seed  local, worst, averaged accuracy  rounds of the slowest")
    for seed in range(seeds):
        calm = undisturbed(seed)
        summary, said = crash(seed)
        for what, one in (("virtual", calm), ("killed", summary)):
            local, averaged = one["local_accuracy"], one["averaged_accuracy"]
            figures = " ".join(f"{100 * value:6.1f}" for value in (local["mean"], local["min"], averaged))
            print(f"{seed:4}  {figures}  {one['rounds']:4}  {what}", flush=True)
        print(f"      {summary['seconds']:.1f} s; {'; '.join(said)}", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("pace")
    one.add_argument("--values", type=int, nargs="+", default=[100_000, 9_750_000])
    one.add_argument("--repeats", type=int, default=3)
    one.add_argument("--seconds", type=float, default=15.0)
    other = parts.add_parser("crash")
    other.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    if given.part == "pace":
        show_pace(given.values, given.repeats, given.seconds)
    else:
        show_crash(given.seeds)


if __name__ == "__main__":
    main()
