"""What does a round of few peers cost beside one of all, and who bears it?

    python -m benchmarks.modest [--table goal] [--seeds 5] [--rounds 1000] [--goal 0.9] [--only "FedAvg, 10 of 100"]
    python -m benchmarks.modest --table load --rounds 100
    python -m benchmarks.modest --table delay --seeds 3 --rounds 50

Virtual time, handwritten digits, 100 peers, Dirichlet split with α = 0.1, a perceptron 64-64-10, batches of 16, lr 0.1,
five local steps a round but for D-PSGD; messages take no time but where it says so. The graph, where there is one,
gives each peer ten neighbours. Runs are paired: for a seed, all methods have the same data, initial model and graph.

*goal*: after each round the newest model is looked at: the common one, or the mean of all models where there is none.
*Sent* counts all peers, then the one that has sent most; views count, and stand apart once more. *load*: what each
peer has sent and how many rounds it has trained after the same number of rounds. *delay*: units a round, by the mean
time of a message one way.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from algorithms.merging.mean import mean
from node.config import RunConfig
from node.place import find_algorithm, local_steps_of
from node.testbed.experiment import open_experiment
from node.testbed.simulate import Trainers, build_world
from node.testbed.simulated import Physics
from node.testbed.virtual import World
from node.wire.memory import Faults
from topology.planning import build_plan

PEERS, DEGREE = 100, 10

METHODS: dict[str, tuple[str, dict[str, str]]] = {
    "FedAvg, 10 of 100": ("fedavg", {"samples": "10"}),
    "FedAvg, all": ("fedavg", {}),
    "MoDeST, 10 of 100, a = 1": ("modest", {"samples": "10", "aggregators": "1"}),
    "MoDeST, 10 of 100, a = 2": ("modest", {"samples": "10"}),
    "D-PSGD, 10-regular": ("dpsgd", {}),
    "DFedAvg, 10-regular": ("dfedavg", {}),
}
ON_A_GRAPH = ("dpsgd", "dfedavg")
SAMPLING = [name for name in METHODS if "10 of 100" in name]
DELAYS = (0.0, 0.05, 0.2, 1.0)
GLANCE = 0.25
"""Units between two looks at how far a run is."""


@contextmanager
def opened(method: str, seed: int, physics: Physics = Physics()) -> Iterator[tuple[World, Trainers, int]]:
    """A world that has begun, its work, and the local steps of a round."""
    algorithm, options = METHODS[method]
    config = RunConfig(algorithm=algorithm, options=options, seed=seed, rounds=10**6)
    plan = build_plan("regular", PEERS, degree=DEGREE, seed=seed)
    with tempfile.TemporaryDirectory() as name:
        experiment = open_experiment(plan, config, Path(name) / "run")
        world, trainers = build_world(experiment, physics, batched=True)
        world.start()
        yield world, trainers, local_steps_of(config, find_algorithm(algorithm))


def run_to(goal: float, method: str, seed: int, rounds: int) -> tuple[float, ...]:
    """Rounds, and megabytes that all peers, the busiest one, and all views are, when it is reached; else nan."""
    with opened(method, seed) as (world, trainers, steps):
        for number in range(1, rounds + 1):
            world.run(number * steps)
            if trainers.evaluate(newest(world, METHODS[method][0] in ON_A_GRAPH))[1] >= goal:
                peers = world.peers.values()
                sent = megabytes(world)
                return rounds_of(world), sent.sum(), sent.max(), sum(peer.view_bytes_sent for peer in peers) / 1e6
    return (math.nan,) * 4


def rounds_of(world: World) -> float:
    """The newest round of which any peer that is there has the model."""
    return max(peer.algorithm.counters()["rounds"] for peer in world.peers.values() if peer.alive)


def newest(world: World, of_all: bool) -> torch.Tensor:
    """The mean of all models, or of those of the newest round."""
    last = -math.inf if of_all else rounds_of(world)
    algorithms = [peer.algorithm for peer in world.peers.values() if peer.alive]
    return mean(each.model(world.now) for each in algorithms if each.counters()["rounds"] >= last)


def megabytes(world: World) -> np.ndarray:
    """What each peer has sent, views too; shape ``(n,)``."""
    return np.array([peer.bytes_sent + peer.view_bytes_sent for peer in world.peers.values()]) / 1e6


def show_goal(methods: Sequence[str], seeds: int, rounds: int, goal: float) -> None:
    """Rounds and traffic until the goal."""
    print(f"digits, {PEERS} peers, {seeds} seeds: to {goal:.0%} accuracy")
    heads = ("rounds", "sent (MB)", "by the busiest", "views (MB)", "seconds a run")
    print(f"{'':26}" + "".join(f" {head:>15}" for head in heads))
    for method in methods:
        begun = time.monotonic()
        rows = np.array([run_to(goal, method, seed, rounds) for seed in range(seeds)])
        seconds = (time.monotonic() - begun) / seeds
        cells = [say(column, digits) for column, digits in zip(rows.T, (0, 1, 2, 3), strict=True)]
        print(f"{method:26}" + "".join(f" {cell:>15}" for cell in cells) + f" {seconds:15.1f}", flush=True)


def say(values: np.ndarray, digits: int = 0) -> str:
    """Mean and standard deviation over seeds; nan where one has not reached the goal."""
    spread = values.std(ddof=1) if len(values) > 1 else math.nan
    return f"{values.mean():.{digits}f} ± {spread:.{digits}f}"


def show_load(methods: Sequence[str], rounds: int) -> None:
    """How evenly peers share the work, with one seed."""
    print(f"digits, {PEERS} peers, after {rounds} rounds: min, median, max and coefficient of variation over peers")
    print(f"{'':26} {'sent by a peer (MB)':>36} {'rounds trained':>26} {'views in all (MB)':>18}")
    for method in methods:
        with opened(method, 0) as (world, _, steps):
            world.run(rounds * steps)
            peers = world.peers.values()
            trained = np.array([peer.steps_done / steps for peer in peers])
            views = sum(peer.view_bytes_sent for peer in peers) / 1e6
            print(f"{method:26} {spread(megabytes(world), 2):>36} {spread(trained, 0):>26} {views:18.2f}", flush=True)


def spread(values: np.ndarray, digits: int) -> str:
    """Of values over peers, shape ``(n,)``."""
    cells = [f"{value:.{digits}f}" for value in (values.min(), np.median(values), values.max())]
    return "  ".join([*cells, f"{values.std() / values.mean():.0%}"])


def show_delay(methods: Sequence[str], seeds: int, rounds: int) -> None:
    """Units a round takes when messages take time."""
    print(f"digits, {PEERS} peers, {seeds} seeds: mean units a round over {rounds} rounds, five of them local steps")
    print(f"{'one way takes (units)':26}" + "".join(f" {delay:>13}" for delay in DELAYS))
    for method in methods:
        cells = [
            say(np.array([units_a_round(method, seed, rounds, delay) for seed in range(seeds)]), 2) for delay in DELAYS
        ]
        print(f"{method:26}" + "".join(f" {cell:>13}" for cell in cells), flush=True)


def units_a_round(method: str, seed: int, rounds: int, delay: float) -> float:
    """Mean over so many rounds."""
    with opened(method, seed, Physics(Faults(delay=delay))) as (world, _, _):
        while rounds_of(world) < rounds:
            world.run(world.now + GLANCE)
        return world.now / rounds


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--table", choices=("goal", "load", "delay"), default="goal")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1000, help="at most; all, for load and delay")
    parser.add_argument("--goal", type=float, default=0.9)
    parser.add_argument("--only", nargs="+", choices=METHODS)
    given = parser.parse_args()
    if given.table == "goal":
        show_goal(given.only or list(METHODS), given.seeds, given.rounds, given.goal)
    elif given.table == "load":
        show_load(given.only or list(METHODS), given.rounds)
    else:
        show_delay(given.only or SAMPLING, given.seeds, given.rounds)


if __name__ == "__main__":
    main()
