"""MoDeST through a thousand seeds of crashes, loss, partitions, peers that join and peers that leave.

With exact durability no peer ever trains or averages a round twice. With periodic snapshots a peer that crashes may do
so in another life: a life begins with what the last snapshot says, and goes on from there. All else holds with either.

To replay a seed that fails: ``python -m pytest tests/virtual/test_modest_faults.py -k FIRST``, where FIRST is the
chunk's first seed; the message names the seed itself, and ``live_through(SEED, exact)`` is all there is to it.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import pairwise

import numpy as np
import pytest

from algorithms.modest import Modest
from algorithms.protocol import Effect, Message, Place, Start, Tick
from node.testbed.simulated import Physics
from node.wire.memory import Faults, Partition
from tests.virtual.counting import OpenWorld

SEEDS, CHUNK = 500, 50
HEALED = 40.0
PATIENCE, ROUNDS = 300.0, 20
"""Units after healing within which so many further rounds pass: a lost round costs up to 200, others about 3."""


def weather(random: np.random.Generator, names: list[str]) -> Faults:
    """Loss and duplicates for good; up to two partitions, of any size, until it heals."""
    cuts = np.sort(random.uniform(5, HEALED, 4))
    sides = [frozenset(name for name in names if random.random() < random.choice([0.2, 0.5])) for _ in range(2)]
    partitions = tuple(Partition(cuts[2 * k], cuts[2 * k + 1], sides[k]) for k in range(int(random.integers(3))))
    loss, duplicate, reorder = (float(random.choice([0.0, 0.1])) for _ in range(3))
    return Faults(loss, duplicate, 0.1, reorder, partitions=partitions)


def storm(open_world: OpenWorld, random: np.random.Generator) -> None:
    """Crashes of some, at times of all that work on a round; comings and goings. All that crash are back in the end."""
    world = open_world.world
    for name in open_world.late:
        world.at(float(random.uniform(2, 30)), partial(world.join, name))
    for _ in range(int(random.integers(5))):
        time, share = float(random.uniform(1, 30)), float(random.choice([0.2, 0.5, 0.9]))
        for name in open_world.founders:
            if random.random() < share:
                world.at(time, partial(world.crash, name))
                world.at(float(random.uniform(time, HEALED)), partial(world.restart, name))
    for name in open_world.founders[3:]:
        if random.random() < 0.1:
            world.at(float(random.uniform(5, 30)), partial(world.leave, name))


def make(seed: int, exact: bool, rule: type[Modest] = Modest) -> OpenWorld:
    random = np.random.default_rng(seed)
    n, joiners = int(random.integers(4, 8)), int(random.integers(3))
    late = {f"n{n - 1 - k}": f"n{int(random.integers(n - joiners))}" for k in range(joiners)}
    physics = Physics(
        weather(random, [f"n{k}" for k in range(n)]),
        step_jitter=0.3,
        exact=exact,
        snapshot_every=20.0,
        crashes=True,
        silent=bool(random.random() < 0.5),
    )
    samples, aggregators, noticing = (int(random.integers(low, high)) for low, high in ((2, 4), (1, 3), (0, 2)))
    open_world = OpenWorld(n, samples, aggregators, seed, physics, late, rule=rule, noticing=bool(noticing))
    storm(open_world, random)
    return open_world


def live_through(seed: int, exact: bool, rule: type[Modest] = Modest) -> list[str]:
    """What was wrong."""
    open_world = make(seed, exact, rule)
    world, log = open_world.world, open_world.log
    world.start()
    world.run(HEALED)
    live = open_world.live()
    best = max((peer.held, float(peer.x[0])) for peer in live.values())[1]
    latest = max(peer.members.estimate for peer in live.values())

    def went_on() -> bool:
        return max(peer.held for peer in open_world.live().values()) >= latest + ROUNDS

    def all_sampled() -> bool:
        return set(open_world.live()) <= {work.name for work in log.trained if work.number > latest}

    def all_known() -> bool:
        live = open_world.live()
        return all(peer.members.view.of(name).present for peer in live.values() for name in live)

    wrong = [] if open_world.run_until(went_on, PATIENCE) else [f"no round after {latest}"]
    wrong += [] if open_world.run_until(all_sampled, PATIENCE) else ["somebody is not sampled"]
    wrong += [] if open_world.run_until(all_known, PATIENCE) else ["somebody is not known to all"]
    after = [work.value for work in log.averaged if work.number > latest and work.time > HEALED]
    wrong += [f"older than {best}"] if after and min(after) < best - 1 else []
    return wrong + wrong_in(open_world, exact)


def wrong_in(open_world: OpenWorld, exact: bool) -> list[str]:
    """Of what was done, and of what is known in the end."""
    log, wrong = open_world.log, []
    for what, works in (("trained", log.trained), ("averaged", log.averaged)):
        done = Counter((work.name, work.number, 0 if exact else work.life) for work in works)
        wrong += [f"{what} twice: {key}" for key, times in done.items() if times > 1]
        wrong += [f"{what} with more rounds in it than there were: {w}" for w in works if w.value > w.number - 1]
    wrong += [f"twice in a mean: {w}" for w in log.averaged if len(set(w.givers)) < len(w.givers)]
    live = open_world.live()
    for name, peer in live.items():
        members = peer.members
        wrong += [f"{name} is ahead of its own estimate"] if peer.held > members.estimate else []
        wrong += [f"{name} came back in secret"] if any(b <= a for a, b in pairwise(log.lives[name])) else []
    return wrong


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "periodic"])
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_rounds_go_on_and_nothing_is_done_twice(first, exact):
    for seed in range(first, first + CHUNK):
        assert live_through(seed, exact) == [], (seed, exact)


# ------------------------------------------------------------------------------------------- planted bugs


class CountsTwice(Modest):
    """A model that comes twice counts twice in a mean."""

    def _take_trained(self, sender: str, message: Message, now: float) -> list[Effect]:
        average = self._average
        if average and average.number == message.number and sender in average.givers:
            average.add(sender, message.vectors["x"], 0)
        return super()._take_trained(sender, message, now)


class KeepsMeans(Modest):
    """A mean is not handed on."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        hand_on = self._relay.hand_on
        self._relay.hand_on = lambda baton, now: hand_on(baton, now) if baton.kind == "trained" else []


class NeverLooks(Modest):
    """Nobody looks whether the round goes on."""

    def _tick(self, event: Tick, now: float) -> list[Effect]:
        return [] if event.name == "look" else super()._tick(event, now)


class TakesAnyRound(Modest):
    """A round that was trained before is trained again."""

    def _take_aggregated(self, sender: str, message: Message, now: float) -> list[Effect]:
        self._trained_last = min(self._trained_last, message.number - 1)
        return super()._take_aggregated(sender, message, now)


class BearsDoubt(Modest):
    """A peer that reads that it does not answer leaves it at that."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.members._refute = lambda news: []


class ComesBackInSecret(Modest):
    """A new life goes on with the counter of the old one."""

    def _start(self, event: Start, now: float) -> list[Effect]:
        if event.recovered:
            self.members.write = lambda left=False: []
        effects = super()._start(event, now)
        vars(self.members).pop("write", None)
        return effects


PLANTED = [CountsTwice, KeepsMeans, NeverLooks, TakesAnyRound, BearsDoubt, ComesBackInSecret]


@pytest.mark.parametrize("rule", PLANTED, ids=lambda rule: rule.__name__)
def test_a_planted_bug_is_caught_within_fifty_seeds(rule):
    assert any(live_through(seed, True, rule) for seed in range(50))
