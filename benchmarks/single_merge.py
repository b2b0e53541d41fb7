"""How good are models that have hardly ever been merged, and how good is their mean?

    python -m benchmarks.single_merge [--seeds 9] [--rounds 60] [--only sparse windows] [--draw docs/pictures]

Virtual time, handwritten digits, 32 peers on a complete graph, Dirichlet split with α = 0.1, a perceptron 64-64-64-10,
batches of 16, ten local steps a round, lr 0.05, no momentum, no weight decay; messages take a tenth of a step. Runs are
paired: for a seed, all have the same data and, unless they start apart, the same initial model. *local* is the mean
accuracy of the peers' models, *merged* that of their mean.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from algorithms.merging.mean import mean
from node.config import RunConfig
from node.testbed.experiment import open_experiment
from node.testbed.look import BLUE, GREY, VERMILION, open_figure, set_title
from node.testbed.simulate import build_world
from node.testbed.simulated import Physics
from node.wire.memory import Faults
from topology.planning import build_plan

PEERS, STEPS = 32, 10

FIFTHS = {"first": "0:0.2", "middle": "0.4:0.6", "last": "0.8:1"}

SPARSE = {
    "r = 0": ("pull", {"probability": "0"}, "common", "28.6 | 55.9"),
    "r = 0, own starts": ("pull", {"probability": "0"}, "own", "29.0 | 12.0"),
    "pull, r = 0.05": ("pull", {"probability": "0.05"}, "common", "37.4 | 72.5"),
    "pull, r = 0.2": ("pull", {"probability": "0.2"}, "common", "62.9 | 86.1"),
    "pull, r = 1": ("pull", {"probability": "1"}, "common", "92.4 | 93.9"),
    "symmetric, r = 0.05": ("symmetric", {"probability": "0.05"}, "common", "-"),
    "symmetric, r = 0.1": ("symmetric", {"probability": "0.1"}, "common", "-"),
    "symmetric, r = 0.2": ("symmetric", {"probability": "0.2"}, "common", "-"),
    "symmetric, r = 1": ("symmetric", {"probability": "1"}, "common", "-"),
    "fedavg": ("", {}, "common", "95.2"),
    "centralised": ("", {}, "common", "96.5"),
}
WINDOWS = {
    f"{where} fifth": ("pull", {"probability": "1", "outside": "0.2", "window": FIFTHS[where]}, "common", other)
    for where, other in (("first", "71.2 | 89.0"), ("middle", "73.8 | 90.1"), ("last", "90.3 | 90.3"))
}
"""Pairing, options, start, and what another implementation found, local and merged, in percent."""


def follow(case: str, seed: int, rounds: int, every: int) -> np.ndarray:
    """Local and merged accuracy after every so many rounds, in percent, shape ``(looks, 2)``."""
    pairing, options, init, _ = {**SPARSE, **WINDOWS}[case]
    config = RunConfig(
        algorithm="single-merge" if pairing else case,
        options={"hidden": "64,64", **({"pairing": pairing} if pairing else {}), **options},
        seed=seed,
        **({"steps": rounds * STEPS} if case == "centralised" else {"rounds": rounds, "local_steps": STEPS}),
        lr=0.05,
        momentum=0.0,
        weight_decay=0.0,
        init=init,
    )
    looks = []
    with tempfile.TemporaryDirectory() as name:
        experiment = open_experiment(build_plan("complete", PEERS, seed=seed), config, Path(name) / "run")
        world, trainers = build_world(experiment, Physics(Faults(delay=0.1)), batched=True)
        world.start()
        for done in range(every, rounds + 1, every):
            # merges make a round longer by some messages; the last look is at the end
            world.run(done * STEPS + 0.5 if done < rounds else rounds * STEPS * 1.5)
            models = [peer.algorithm.model(world.now) for peer in world.peers.values()]
            local = np.mean([trainers.evaluate(model)[1] for model in models])
            looks.append((local, trainers.evaluate(mean(models))[1]))
    return 100 * np.array(looks)


def tell(cases: dict[str, tuple[str, dict[str, str], str, str]], given: argparse.Namespace) -> None:
    """One line a case."""
    print(f"{given.rounds} rounds, {given.seeds} seeds: local | merged, in percent (another implementation)")
    for case, (*_, other) in cases.items():
        rows = np.array([follow(case, seed, given.rounds, given.rounds)[-1] for seed in range(given.seeds)])
        spread = rows.std(0, ddof=1) if len(rows) > 1 else np.full(2, np.nan)
        local, merged = (f"{m:5.1f} ± {s:3.1f}" for m, s in zip(rows.mean(0), spread, strict=True))
        print(f"  {case:22} {local} | {merged}   ({other})", flush=True)


def draw(given: argparse.Namespace, path: Path) -> None:
    """Both accuracies over rounds, a band over seeds; one panel for each of some cases."""
    every, cases = 2, ("pull, r = 0.05", "pull, r = 0.2", "last fifth")
    rounds = np.arange(every, given.rounds + 1, every)
    with open_figure(path, dark=False, width=9.6, height=3.4) as figure:
        panels = figure.subplots(1, len(cases), sharex=True, sharey=True)
        for panel, case in zip(panels, cases, strict=True):
            looks = np.array([follow(case, seed, given.rounds, every) for seed in range(given.seeds)])
            for k, (name, colour) in enumerate((("peers' own models", VERMILION), ("their mean", BLUE))):
                panel.fill_between(rounds, looks[..., k].min(0), looks[..., k].max(0), color=colour, alpha=0.2, lw=0)
                panel.plot(rounds, looks[..., k].mean(0), color=colour, label=name)
            panel.set_title("pull, r = 0.2, and 1 at the end" if case in WINDOWS else case, fontsize=10, loc="left")
            panel.set_xlabel("rounds")
            least = (looks[..., 1] - looks[..., 0]).min()
            print(f"  {case}: the mean is ahead by {least:.1f} points or more at every look", flush=True)
        panels[-1].axvspan(given.rounds * 4 / 5, given.rounds, color=GREY, alpha=0.15, lw=0)
        panels[0].set_ylabel("accuracy (%)")
        panels[0].set_ylim(0, 100)
        panels[0].legend(loc="upper left")
        set_title(figure, "The mean of models that hardly ever met is good all the time")


PARTS = {"sparse": SPARSE, "windows": WINDOWS}


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=9)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--draw", type=Path, help="folder for the picture")
    given = parser.parse_args()
    for part in given.only:
        tell(PARTS[part], given)
    if given.draw:
        draw(given, given.draw / "single_merge.png")


if __name__ == "__main__":
    main()
