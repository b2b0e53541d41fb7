"""What happens to peers while a simulated run is under way: they join, leave, stop, crash and come back.

Times are in plan units. All is drawn from the run's seed before anything happens, but for churn, which goes on for as
long as the run does.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from node.draws import Draws

Event = Literal["joined", "left", "stopped", "crashed", "restarted"]


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that happens to one peer."""

    time: float
    event: Event
    name: str


@dataclass(frozen=True, slots=True)
class Churn:
    """Every peer is up and down by turns, for exponentially distributed times with these means."""

    up: float
    down: float


@dataclass(frozen=True, slots=True)
class Script:
    """What happens during a run.

    Parameters
    ----------
    planned : sequence of Happening
        What is known before, in any order.
    churn : Churn, optional
        What befalls everybody who does not leave.
    """

    planned: Sequence[Happening] = ()
    churn: Churn | None = None

    @property
    def late(self) -> tuple[str, ...]:
        """Who joins while the run is under way."""
        return self._names("joined")

    @property
    def crashes(self) -> bool:
        """Whether peers come back from their snapshots."""
        return self.churn is not None or bool(self._names("crashed"))

    def play(self, names: Sequence[str], seed: int) -> Iterator[Happening]:
        """All that happens to these peers, in the order of time; without an end where there is churn."""
        draws, leaving = Draws(seed, "world"), set(self._names("left"))
        births = {happening.name: happening.time for happening in self.planned if happening.event == "joined"}
        churned = [
            _up_and_down(name, births.get(name, 0.0), self.churn, draws(f"churn {name}"))
            for name in names
            if self.churn and name not in leaving
        ]
        return heapq.merge(sorted(self.planned, key=_time), *churned, key=_time)

    def contacts(self, names: Sequence[str], seed: int) -> dict[str, str]:
        """Through whom each late peer joins: a random founder, of those that stay if any do."""
        gone = {*self.late, *self._names("left"), *self._names("stopped")}
        founders = [name for name in names if name not in self.late]
        choice = [name for name in founders if name not in gone] or founders
        random = Draws(seed, "world")("contacts")
        return {name: str(random.choice(choice)) for name in self.late}

    def _names(self, event: Event) -> tuple[str, ...]:
        return tuple(happening.name for happening in self.planned if happening.event == event)


def _time(happening: Happening) -> float:
    return happening.time


def _up_and_down(name: str, birth: float, churn: Churn, random: np.random.Generator) -> Iterator[Happening]:
    time = birth
    while True:
        time += random.exponential(churn.up)
        yield Happening(time, "crashed", name)
        time += random.exponential(churn.down)
        yield Happening(time, "restarted", name)


def draw_crashes(names: Sequence[str], count: int, down: float, duration: float, seed: int) -> list[Happening]:
    """``count`` crashes of random peers at random times that leave each time to come back after ``down``."""
    random = Draws(seed, "world")("crashes")
    latest = max(duration - down, 0.0)
    starts = sorted(random.uniform(0, latest, size=count).tolist())
    crashes = [(str(random.choice(list(names))), start) for start in starts]
    return [
        happening
        for name, start in crashes
        for happening in (Happening(start, "crashed", name), Happening(start + down, "restarted", name))
    ]


def join_between(names: Sequence[str], between: tuple[float, float]) -> list[Happening]:
    """These peers join one after the other, at times spread evenly from one moment to another."""
    times = np.linspace(*between, len(names)).tolist()
    return [Happening(time, "joined", name) for name, time in zip(names, times, strict=True)]


def draw_leaves(names: Sequence[str], count: int, between: tuple[float, float], seed: int) -> list[Happening]:
    """``count`` random ones of these peers leave, at times spread evenly from one moment to another."""
    chosen = Draws(seed, "world")("leaves").choice(list(names), size=count, replace=False).tolist()
    times = np.linspace(*between, count).tolist()
    return [Happening(time, "left", name) for name, time in zip(chosen, times, strict=True)]


def draw_stops(
    names: Sequence[str], before: Sequence[Happening], share: float, time: float, seed: int
) -> list[Happening]:
    """A random part of the peers that are there at a time stop for good.

    Parameters
    ----------
    names : sequence of str
        All peers.
    before : sequence of Happening
        Who joins and leaves when.
    share : float
        The part, 0 to 1, of those that have joined by then and not left.
    """
    absent = {one.name for one in before if one.event == ("joined" if one.time > time else "left")}
    there = [name for name in names if name not in absent]
    random = Draws(seed, "world")("stops")
    chosen = random.choice(there, size=round(share * len(there)), replace=False).tolist()
    return [Happening(time, "stopped", name) for name in chosen]
