"""MoDeST among peers that count instead of learning: the model shows how many rounds are in it, and whose."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import count

import torch

from algorithms.compression import CODECS
from algorithms.layout import Layout, Slot
from algorithms.merging import MERGINGS
from algorithms.modest import Modest
from algorithms.protocol import Compute, Effect, Gradient, Limits, Place, Snapshot, Start, Train, Trained, Vector
from node.draws import Draws
from node.testbed.simulated import Physics
from node.testbed.virtual import World

LIMITS = Limits(reply_first=1.0, retry_first=0.1, retry_max=2.0, linger=20.0)
LAYOUT = Layout((Slot("x", (2,), "weight", 0),), "float64")
EVER = 10_000.0


class Counting:
    """A round adds 1 to the first value; the second tells by which peers' hands the model has gone."""

    eager = False

    def train(self, jobs: Mapping[str, Train]) -> dict[str, Trained]:
        changes = {
            name: torch.tensor([1.0, math.sqrt(2 + int(name[1:])) - float(job.at[1]) / 2], dtype=torch.float64)
            for name, job in jobs.items()
        }
        return {name: Trained(job.key, changes[name], 0.0, 1) for name, job in jobs.items()}

    def compute(self, name: str, job: Compute) -> Gradient:
        raise NotImplementedError

    def snapshot(self, name: str) -> Snapshot:
        return Snapshot()

    def restore(self, name: str, snapshot: Snapshot) -> None:
        pass


@dataclass(frozen=True)
class Work:
    """A round that a peer has begun to train, or the mean of one; ``life`` is another after each crash."""

    time: float
    name: str
    life: int
    number: int
    value: float
    bits: bytes
    givers: tuple[str, ...] = ()


@dataclass
class Log:
    """What all peers have done, in order."""

    trained: list[Work] = field(default_factory=list)
    averaged: list[Work] = field(default_factory=list)
    lives: dict[str, list[int]] = field(default_factory=dict)
    """The counter with which each life of a peer began."""

    def models(self, since: float = 0.0, until: float = math.inf) -> dict[int, set[bytes]]:
        """From which models each round was trained."""
        found: dict[int, set[bytes]] = {}
        for work in self.trained:
            if since <= work.time < until:
                found.setdefault(work.number, set()).add(work.bits)
        return found


def watched(rule: type[Modest], log: Log) -> type[Modest]:
    """The rule, which writes down what it does."""
    lives = count()

    class Watched(rule):
        def __init__(self, place: Place) -> None:
            super().__init__(place)
            self.life = next(lives)

        def _start(self, event: Start, now: float) -> list[Effect]:
            effects = super()._start(event, now)
            log.lives.setdefault(self._name, []).append(self.members.own.counter)
            return effects

        def _work(self, now: float, number: int, x: Vector, givers: tuple[str, ...] = ()) -> Work:
            return Work(now, self._name, self.life, number, float(x[0]), x.numpy().tobytes(), givers)

        def _train(self, number: int, x: Vector, expected: int, givers: list[str], now: float) -> list[Effect]:
            log.trained.append(self._work(now, number, x))
            return super()._train(number, x, expected, givers, now)

        def _finish_average(self, now: float) -> list[Effect]:
            before, givers = self._counts["averaged_rounds"], tuple(self._average.givers if self._average else ())
            effects = super()._finish_average(now)
            if self._counts["averaged_rounds"] > before:
                log.averaged.append(self._work(now, self._averaged_last, self.x, givers))
            return effects

    return Watched


@dataclass
class OpenWorld:
    """Peers ``n0``, ``n1`` and so on, of which those in ``late`` join through the one that is named there."""

    n: int
    samples: int = 3
    aggregators: int = 1
    seed: int = 0
    physics: Physics = Physics()
    late: Mapping[str, str] = field(default_factory=dict)
    rounds: float = math.inf
    rule: type[Modest] = Modest
    noticing: bool = False
    limits: Limits = LIMITS
    options: Mapping[str, float] = field(default_factory=dict)
    log: Log = field(default_factory=Log)

    def __post_init__(self) -> None:
        self.names = [f"n{i}" for i in range(self.n)]
        self.founders = tuple(name for name in self.names if name not in self.late)
        self._rule = watched(self.rule, self.log)
        births = {name: partial(self._be_born, name) for name in self.names}
        neighbours = {name: [other for other in self.names if self.noticing and other != name] for name in self.names}
        self.world = World(births, neighbours, Counting(), self.seed, self.physics, late=self.late)

    def _be_born(self, name: str, draws: Draws) -> Modest:
        options = {"samples": self.samples, "aggregators": self.aggregators, **self.options}
        return self._rule(
            Place(
                name=name,
                start=torch.zeros(2, dtype=torch.float64),
                neighbours={},
                nodes=self.founders,
                edges=(),
                chi1=1.0,
                chi2=1.0,
                layout=LAYOUT,
                merging=MERGINGS["mean"],
                codec=CODECS["none"],
                draw=draws,
                options=options,
                limits=self.limits,
                rounds=self.rounds,
                address=f"host:{name}",
                contact=self.late.get(name, ""),
            )
        )

    def live(self) -> dict[str, Modest]:
        """The algorithms of those that are there and are not leaving."""
        return {name: p.algorithm for name, p in self.world.peers.items() if p.alive and not p.leaving}

    def run_until(self, done, limit: float = EVER, step: float = 5.0) -> bool:
        """Let time pass until something is so; whether it came about within ``limit`` units."""
        end = self.world.now + limit
        while not done():
            if self.world.now >= end:
                return False
            self.world.run(self.world.now + step)
        return True
