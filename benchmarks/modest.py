"""What does a round of few peers cost beside one of all: rounds and bytes to 90 % accuracy?

    python -m benchmarks.modest [--seeds 5] [--rounds 1000] [--goal 0.9] [--only "FedAvg, 10 of 100"]

Virtual time, handwritten digits, 100 peers, Dirichlet split with α = 0.1, a perceptron 64-64-10, batches of 16, lr 0.1,
five local steps a round but for D-PSGD; messages take no time. The graph, where there is one, gives each peer ten
neighbours. Runs are paired: for a seed, all methods have the same data, initial model and graph. After each round the
newest model is looked at: the common one, or the mean of all models where there is none. *Sent* counts all peers, and
then the one that has sent most.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from algorithms.merging.mean import mean
from node.config import RunConfig
from node.place import find_algorithm, local_steps_of
from node.testbed.experiment import open_experiment
from node.testbed.simulate import build_world
from node.testbed.simulated import Physics
from node.testbed.virtual import World
from topology.planning import build_plan

PEERS, DEGREE = 100, 10

METHODS: dict[str, tuple[str, dict[str, str]]] = {
    "FedAvg, 10 of 100": ("fedavg", {"samples": "10"}),
    "FedAvg, all": ("fedavg", {}),
    "D-PSGD, 10-regular": ("dpsgd", {}),
    "DFedAvg, 10-regular": ("dfedavg", {}),
}
ON_A_GRAPH = ("dpsgd", "dfedavg")


def run(method: str, seed: int, rounds: int, goal: float) -> tuple[float, float, float]:
    """Rounds, and megabytes that all peers and the busiest one have sent, when the goal is reached; else nan."""
    algorithm, options = METHODS[method]
    config = RunConfig(algorithm=algorithm, options=options, seed=seed, rounds=rounds)
    plan = build_plan("regular", PEERS, degree=DEGREE, seed=seed)
    steps = local_steps_of(config, find_algorithm(algorithm))
    with tempfile.TemporaryDirectory() as name:
        experiment = open_experiment(plan, config, Path(name) / "run")
        world, trainers = build_world(experiment, Physics(), batched=True)
        world.start()
        for number in range(1, rounds + 1):
            world.run(number * steps)
            if trainers.evaluate(newest(world, algorithm in ON_A_GRAPH))[1] >= goal:
                sent = [(peer.bytes_sent + peer.view_bytes_sent) / 1e6 for peer in world.peers.values()]
                return rounds_of(world), sum(sent), max(sent)
    return math.nan, math.nan, math.nan


def rounds_of(world: World) -> float:
    """The newest round that any peer knows the end of."""
    return max(peer.algorithm.counters()["rounds"] for peer in world.peers.values())


def newest(world: World, of_all: bool) -> torch.Tensor:
    """The mean of all models, or of those of the newest round."""
    last = -math.inf if of_all else rounds_of(world)
    algorithms = [peer.algorithm for peer in world.peers.values()]
    return mean(each.model(world.now) for each in algorithms if each.counters()["rounds"] >= last)


def say(values: np.ndarray, digits: int = 0) -> str:
    """Mean and standard deviation over seeds; nan where one has not reached the goal."""
    spread = values.std(ddof=1) if len(values) > 1 else math.nan
    return f"{values.mean():.{digits}f} ± {spread:.{digits}f}"


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=1000, help="at most")
    parser.add_argument("--goal", type=float, default=0.9)
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    given = parser.parse_args()
    print(f"digits, {PEERS} peers, {given.seeds} seeds: to {given.goal:.0%} accuracy")
    print(f"{'':22} {'rounds':>14} {'sent (MB)':>14} {'by the busiest':>16} {'seconds a run':>14}")
    for method in given.only:
        begun = time.monotonic()
        rows = np.array([run(method, seed, given.rounds, given.goal) for seed in range(given.seeds)])
        seconds = (time.monotonic() - begun) / given.seeds
        rounds, sent, busiest = rows.T
        print(f"{method:22} {say(rounds):>14} {say(sent, 1):>14} {say(busiest, 2):>16} {seconds:14.1f}", flush=True)


if __name__ == "__main__":
    main()
