"""What does NoLoCo cost beside averaging over all peers, and how far apart do its peers drift?

    python -m benchmarks.noloco [--seeds 3] [--rounds 20] [--only digits noise]

*digits*: virtual time, handwritten digits, 32 peers, a perceptron 64-64-64-10, batches of 16, AdamW with lr 0.001 kept
over outer steps, 50 local steps an outer step. *local* is the mean accuracy of the peers' models, *averaged* that of
their mean; *apart* is the root mean square distance of the peers from their mean, as a part of the mean's norm.

*noise*: 64 peers whose local steps add noise of variance 1 to every entry, 600 outer steps; the mean square of what is
left when the mean over peers is taken off, over the last 200 steps and 100 entries.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from algorithms.noloco import Noloco
from algorithms.protocol import Algorithm, Place, Train, Trained
from benchmarks.quadratics import Quadratics
from benchmarks.quadratics import build_world as build_small_world
from node.config import RunConfig
from node.testbed.experiment import open_experiment
from node.testbed.simulate import build_world
from node.testbed.simulated import Physics
from topology.planning import build_plan

PEERS = 32
CASES = {
    "NoLoCo": {},
    "NoLoCo, γ = 0": {"gamma": "0"},
    "NoLoCo, groups of 4": {"group": "4"},
    "NoLoCo, groups of all": {"group": "0"},
}
"""The last is DiLoCo with the same outer momentum."""

NOISE = {0.0: "472", 0.1: "5.0", 0.5: "1.39", 0.7: "1.24", 1.45: "7.6", 1.6: "diverges"}
"""By γ, what another implementation found for α = 0.5, β = 0.7."""


def learn(options: Mapping[str, str], partition: str, seed: int, rounds: int) -> tuple[float, float, float, float]:
    """Local and averaged accuracy in percent, how far apart peers are, and megabytes sent by each."""
    config = RunConfig(
        algorithm="noloco",
        options={"hidden": "64,64", **options},
        partition=partition,
        seed=seed,
        rounds=rounds,
        optimiser="adamw",
        lr=0.001,
    )
    with tempfile.TemporaryDirectory() as name:
        experiment = open_experiment(build_plan("exponential", PEERS, seed=seed), config, Path(name) / "run")
        world, trainers = build_world(experiment, Physics(), batched=True)
        world.start()
        world.run(float("inf"))
        models = torch.stack([peer.algorithm.model(world.now) for peer in world.peers.values()]).double()
        mean = models.mean(0)
        local = np.mean([trainers.evaluate(model.to(torch.float32))[1] for model in models])
        apart = float((models - mean).pow(2).sum(1).mean().sqrt() / mean.norm())
        sent = np.mean([peer.bytes_sent for peer in world.peers.values()]) / 1e6
        return 100 * local, 100 * trainers.evaluate(mean.to(torch.float32))[1], apart, float(sent)


def digits(given: argparse.Namespace) -> None:
    """The table."""
    for partition in ("iid", "dirichlet"):
        print(f"digits, {partition}, {PEERS} peers, {given.rounds} outer steps, {given.seeds} seeds")
        for case, options in CASES.items():
            rows = np.array([learn(options, partition, seed, given.rounds) for seed in range(given.seeds)])
            spread = rows.std(0, ddof=1) if len(rows) > 1 else np.full(4, np.nan)
            local, averaged, apart, sent = rows.mean(0)
            print(
                f"  {case:22} {local:5.1f} ± {spread[0]:3.1f} | {averaged:5.1f} ± {spread[1]:3.1f}"
                f"   apart {apart:.3f}   {sent:6.2f} MB",
                flush=True,
            )


class Noise(Quadratics):
    """Local steps that go nowhere: each adds noise of variance 1 to each of ``d`` entries."""

    def __init__(self, n: int, d: int) -> None:
        super().__init__(np.stack([np.eye(d)] * n), np.zeros((n, d)))
        self._random = np.random.default_rng(0)

    def train(self, jobs: Mapping[str, Train]) -> dict[str, Trained]:
        """The noise."""
        return {
            name: Trained(job.key, torch.from_numpy(self._random.normal(size=len(job.at))), 0.0, 1)
            for name, job in jobs.items()
        }


def drift(gamma: float, seed: int, n: int = 64, steps: int = 600, last: int = 200) -> float:
    """The mean square around the mean over peers; each seed has other pairs, those of other steps."""

    def born(place: Place) -> Algorithm:
        options = {**Noloco.options, "gamma": gamma}
        peer = Noloco(replace(place, start=torch.zeros_like(place.start), local_steps=1, options=options))
        peer.round = seed * steps
        return peer

    world = build_small_world(build_plan("ring", n), Noise(n, 100), seed, algorithm="noloco", born=born)
    world.start()
    squares = []
    for step in range(1, steps + 1):
        world.run(step + 0.5)
        if step > steps - last:
            models = np.array([peer.algorithm.model(world.now).numpy() for peer in world.peers.values()])
            squares.append(((models - models.mean(0)) ** 2).mean())
    return float(np.mean(squares))


def noise(given: argparse.Namespace) -> None:
    """Mean squares by γ."""
    print(f"noise, {given.seeds} seeds: mean square (another implementation)")
    for gamma, other in NOISE.items():
        found = [drift(gamma, seed) for seed in range(given.seeds)]
        spread = np.std(found, ddof=1) if len(found) > 1 else np.nan
        print(f"  γ = {gamma:4}: {np.mean(found):9.4g} ± {spread:.2g}   ({other})", flush=True)


PARTS = {"digits": digits, "noise": noise}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=20, help="outer steps")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    given = parser.parse_args()
    for part in given.only:
        PARTS[part](given)


if __name__ == "__main__":
    main()
