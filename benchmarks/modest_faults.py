"""What becomes of MoDeST when most peers stop at once, when half of them come late, and when they come and go?

    python -m benchmarks.modest_faults [--seeds 3] [--only "80 % stop"] [--draw modest_faults.png]

Virtual time, handwritten digits, 100 peers of which ten train in a round and two average, Dirichlet split with α = 0.1,
a perceptron 64-64-10, batches of 16, lr 0.1, five local steps a round; a message takes 0.05 units on average, and a
peer that is gone answers nothing at all, so that its senders wait. Nobody is told of anything: the peers find out.
A round takes about 5.4 units when nothing goes wrong.

*80 % stop*: at unit 110, about round 20, and for good. *50 join*: from unit 55 to 165, about rounds 10 to 30, each
through a random founder. *a third is down*: each peer is up for 200 units and down for 100 on average; once
more with aggregators that go on with eight models of ten.

A round's time is that from the first model of the round before to its own first. Accuracy is that of the newest model
that a living peer has, the mean of them where there are several.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import cast

import numpy as np

from algorithms.modest import Modest
from benchmarks.modest import DEGREE, GLANCE, PEERS, newest
from node.config import RunConfig
from node.testbed.experiment import open_experiment
from node.testbed.happenings import Churn, Script, draw_stops, join_between
from node.testbed.simulate import ACTS, Trainers, build_world
from node.testbed.simulated import Physics
from node.testbed.virtual import World
from node.wire.memory import Faults
from topology.planning import build_plan

UNITS = 1000
STOP_AT, STOP_SHARE = 110.0, 0.8
JOIN, JOIN_BETWEEN = 50, (55.0, 165.0)
CHURN = Churn(up=200.0, down=100.0)
PHYSICS = Physics(Faults(delay=0.05), silent=True)


@dataclass(frozen=True)
class Course:
    """How a run went: when the first model of each round was there, and how accurate it was."""

    times: np.ndarray
    """Shape ``(rounds,)``, from round 1; a round that was skipped has the time of the next."""
    accuracies: np.ndarray

    @property
    def units(self) -> np.ndarray:
        """Units that each round took, from the second on; shape ``(rounds - 1,)``."""
        return np.diff(self.times)

    def between(self, start: float, end: float) -> np.ndarray:
        """Units of the rounds whose models came between two times."""
        inside = (self.times[1:] > start) & (self.times[1:] <= end)
        return self.units[inside]

    def after(self, time: float, count: int) -> np.ndarray:
        """Units of the first ``count`` rounds whose models came after a time."""
        return self.units[self.times[1:] > time][:count]


OPTIONS: dict[str, dict[str, str]] = {
    "undisturbed": {},
    "80 % stop": {},
    "50 join": {},
    "a third is down": {},
    "a third is down, success=0.8": {"success": "0.8"},
}


def script_of(case: str, names: Sequence[str], seed: int) -> Script:
    """What happens."""
    if case == "80 % stop":
        return Script(draw_stops(names, (), STOP_SHARE, STOP_AT, seed))
    if case == "50 join":
        return Script(join_between(names[-JOIN:], JOIN_BETWEEN))
    return Script(churn=CHURN) if "down" in case else Script()


def run(case: str, seed: int) -> Course:
    """One run to its end."""
    config = RunConfig(algorithm="modest", seed=seed, options=OPTIONS[case])
    plan = build_plan("regular", PEERS, degree=DEGREE, seed=seed)
    names = [node.name for node in plan.nodes]
    script = script_of(case, names, seed)
    with tempfile.TemporaryDirectory() as name:
        experiment = open_experiment(plan, config, Path(name) / "run")
        experiment = replace(experiment, late=script.contacts(names, seed))
        world, trainers = build_world(experiment, replace(PHYSICS, crashes=script.crashes), batched=True)
        for happening in takewhile(lambda one: one.time < UNITS, script.play(names, seed)):
            world.at(happening.time, partial(act, world, happening.event, happening.name))
        return follow(world, trainers)


def act(world: World, event: str, name: str) -> None:
    """Let something happen to a peer."""
    ACTS[event](world, name)


def follow(world: World, trainers: Trainers) -> Course:
    """Watch a world from its start on."""
    times: list[float] = []
    accuracies: list[float] = []
    world.start()
    while world.now < UNITS:
        world.run(world.now + GLANCE)
        rounds = max(cast(Modest, peer.algorithm).held for peer in world.peers.values() if peer.alive) - 1
        if rounds > len(times):
            accuracy = trainers.evaluate(newest(world, of_all=False))[1]
            accuracies += [accuracy] * (rounds - len(times))
            times += [world.now] * (rounds - len(times))
    return Course(np.array(times), np.array(accuracies))


def show(case: str, courses: Sequence[Course]) -> None:
    """Medians over the rounds of all seeds."""
    print(f"\n{case}")
    print("  rounds in all:         ", "  ".join(str(len(course.times)) for course in courses))
    print("  accuracy at the end:   ", "  ".join(f"{course.accuracies[-1]:.1%}" for course in courses))
    for start, end in ((0.0, STOP_AT), (STOP_AT, 2 * STOP_AT), (2 * STOP_AT, float(UNITS))):
        units = np.concatenate([course.between(start, end) for course in courses])
        figures = [np.median(units), np.quantile(units, 0.9), units.max()] if len(units) else [np.nan] * 3
        middle, most, longest = figures
        print(f"  units a round, {start:4.0f}–{end:4.0f}:", end="  ")
        print(f"median {middle:.2f}, 90 % below {most:.2f}, longest {longest:.2f}")
    if case == "80 % stop":
        for seed, course in enumerate(courses):
            before = np.count_nonzero(course.times <= STOP_AT)
            print(f"  seed {seed}, from round {before + 1}:", *(f"{units:.1f}" for units in course.after(STOP_AT, 10)))


def draw(courses: Mapping[str, Sequence[Course]], path: Path) -> None:
    """Accuracy over time, and units a round, with what the undisturbed run of the same seed does behind."""
    from matplotlib import pyplot

    from node.testbed.charts import ON_LIGHT

    cases = [case for case in courses if case != "undisturbed"]
    figure, grid = pyplot.subplots(
        2, len(cases), squeeze=False, sharey="row", sharex=True, figsize=(2.5 + 3 * len(cases), 5.6)
    )
    for column, case in zip(grid.T, cases, strict=True):
        for others, color, width in ((courses.get("undisturbed", ()), "0.75", 1.0), (courses[case], ON_LIGHT[0], 1.3)):
            for course in others:
                column[0].plot(course.times, 100 * course.accuracies, color=color, linewidth=width)
                column[1].step(course.times[1:], course.units, color=color, linewidth=width, where="pre")
        if "down" not in case:
            start, end = (STOP_AT, STOP_AT) if case == "80 % stop" else JOIN_BETWEEN
            for axes in column:
                axes.axvspan(start, end, color=ON_LIGHT[1], alpha=0.2 if end > start else 0.9, linewidth=1)
        column[0].set_title(case, fontsize=10, loc="left")
        column[1].set_yscale("log")
        column[1].set_xlabel("time (units)")
    grid[0, 0].set_ylabel("accuracy of the newest model (%)")
    grid[1, 0].set_ylabel("units a round")
    for axes in grid.flat:
        axes.grid(color="0.9")
        axes.set_xlim(0, UNITS)
    figure.suptitle("MoDeST, 100 peers, 10 train in a round; undisturbed in grey", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    """Measure, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=OPTIONS, default=list(OPTIONS))
    parser.add_argument("--draw", type=Path)
    given = parser.parse_args()
    courses: dict[str, list[Course]] = {}
    for case in given.only:
        courses[case] = [run(case, seed) for seed in range(given.seeds)]
        show(case, courses[case])
    if given.draw:
        draw(courses, given.draw)


if __name__ == "__main__":
    main()
