"""MoDeST among real daemons, a third of which are killed while two more join.

    python -m benchmarks.modest_grpc [--seeds 3] [--rounds 100] [--peers 12] [--killed 4] [--joining 2]

Handwritten digits, Dirichlet split with α = 0.1, four peers sampled a round, mTLS, a process each. When a third of
the rounds is over, some are killed with SIGKILL, and as many others as are to join are started with ``--join`` and the
address of one that lives. For comparison, the same seeds with nobody killed and nobody joining. *Accuracy* is that of
the last model on the test data, *ms a round* are means before and after the third, *longest* is the longest time
without a new round after it. Beside that: who reached the end, with how many different last models, and how many
rounds those who joined have trained.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from benchmarks.rounds_grpc import WAIT_S, Network, wait_until
from node.shards import prepare
from node.tasks import load_task
from node.testbed.record import read_lines, read_states
from node.testbed.testbed import place_here
from node.wire.authority import add_certificates
from topology.planning import build_plan

LOOK_S = 0.1


class OpenNetwork(Network):
    """Daemons of a plan, and some that the plan does not know."""

    def __init__(self, folder: Path, peers: int, joining: int, flags: list[str]) -> None:
        super().__init__(folder, "exponential", peers, "digits", flags)
        self.joiners = [f"n{peers + index}" for index in range(joining)]
        add_certificates(self.joiners, folder / "certs")

    def join(self, contact: str) -> None:
        """Start those that join."""
        spare = place_here(build_plan("line", max(2, len(self.joiners)))).nodes
        for name, place in zip(self.joiners, spare, strict=False):
            where = ["--join", self.plan.node(contact).address, "--address", place.address, "--http", place.http]
            self.start_with(name, where)

    @property
    def ended(self) -> bool:
        """Whether all processes are over."""
        for one in self.running.values():
            one.wait(0.0)
        return not any(one.running for one in self.running.values())


@dataclass(slots=True)
class Pace:
    """When each round was first heard of."""

    at_s: dict[int, float] = field(default_factory=dict)

    def look(self, network: Network, names: list[str]) -> int:
        """The newest round that any of these peers has done."""
        number = max(map(network.round, names))
        if number > max(self.at_s, default=0):
            self.at_s[number] = time.monotonic()
        return max(self.at_s, default=0)

    def round_s(self, first: int, last: int) -> float:
        """Mean seconds of a round in between."""
        return (self.at_s[last] - self.at_s[first]) / (last - first)

    def longest_s(self, first: int) -> float:
        """Longest time without a new round from then on."""
        times = [at_s for number, at_s in self.at_s.items() if number >= first]
        return max(later - earlier for earlier, later in pairwise(times))


def run(seed: int, given: argparse.Namespace, disturbed: bool) -> str:
    """One line of the table."""
    flags = ["--algorithm=modest", "--set=samples=4", f"--rounds={given.rounds}", f"--seed={seed}", "--report-every=1s"]
    with tempfile.TemporaryDirectory() as name:
        network = OpenNetwork(Path(name), given.peers, given.joining, flags)
        everybody = [*network.names, *network.joiners]
        prepare(load_task("digits"), everybody, "dirichlet", 0.1, seed, Path(name) / "data")
        try:
            for founder in network.names:
                network.start(founder)
            pace, third = follow(network, given, disturbed)
        finally:
            network.end()
        return line(Path(name), network, pace, third)


def follow(network: OpenNetwork, given: argparse.Namespace, disturbed: bool) -> tuple[Pace, int]:
    """Look on until all have ended, and do the damage when it is time; the pace, and the round of the damage."""
    pace, lives = Pace(), list(network.names)
    wait_until(lambda: pace.look(network, lives) > 0, "the first round")
    third, deadline_s = 0, time.monotonic() + 3 * WAIT_S
    while not network.ended:
        number = pace.look(network, lives)
        if not third and number >= given.rounds // 3:
            third = number
            if disturbed:
                lives = lives[given.killed :]
                for name in network.names[: given.killed]:
                    network.kill(name)
                network.join(lives[0])
        if time.monotonic() > deadline_s:
            sys.exit(f"waited in vain for the end, at round {number}")
        time.sleep(LOOK_S)
    return pace, third


def line(folder: Path, network: OpenNetwork, pace: Pace, third: int) -> str:
    """What came of it."""
    states, last = read_states(folder), {name: lines[-1] for name, lines in read_lines(folder).items()}
    models = {state.model.numpy().tobytes() for state in states.values()}
    accuracy = sum(last[name]["accuracy"] for name in states) / len(states)
    first, newest = min(pace.at_s), max(pace.at_s)
    before_s, after_s = pace.round_s(first, third), pace.round_s(third, newest)
    trained = " ".join(str(last[name]["trained_rounds"]) for name in network.joiners if name in last) or "–"
    done = max(last[name]["rounds"] for name in states)
    codes = sum(code == 0 for one in network.running.values() for code in one.codes.values())
    return (
        f"{100 * accuracy:8.1f} {done:7} {1e3 * before_s:7.0f} {1e3 * after_s:6.0f} {1e3 * pace.longest_s(third):8.0f}"
        f"{codes:7} {len(models):7}  {trained}"
    )


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for flag, default in (("--seeds", 3), ("--rounds", 100), ("--peers", 12), ("--killed", 4), ("--joining", 2)):
        parser.add_argument(flag, type=int, default=default)
    given = parser.parse_args()
    print("                             ms a round")
    print("seed  run     accuracy  rounds  before  after  longest  ended  models  joiners trained")
    for seed in range(given.seeds):
        for disturbed in (False, True):
            print(f"{seed:4}  {'damaged' if disturbed else 'calm':7}{run(seed, given, disturbed)}", flush=True)


if __name__ == "__main__":
    main()
