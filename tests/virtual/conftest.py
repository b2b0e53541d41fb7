"""Gossip that keeps a history of what it applied, gossip with planted bugs, and the invariants that tell them apart."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest

from algorithms.exchange import Exchanges
from algorithms.gossip import Gossip
from algorithms.protocol import Effect, Message, Place, Save, Snapshot, Tick
from node.testbed.record import ledger_error, state_of
from node.testbed.virtual import World


class Remembered(Exchanges):
    """Writes down every number and difference that it applies; a crash takes the history back with the rest."""

    def __init__(self, place: Place, read: Callable, apply: Callable) -> None:
        super().__init__(place, read, apply)
        self.applied: dict[str, list[tuple[int, float]]] = {name: [] for name in place.neighbours}

    def _take_offer(self, sender: str, message: Message, now: float) -> list[Effect]:
        before = self.answered[sender].count
        effects = super()._take_offer(sender, message, now)
        if self.answered[sender].count != before:
            self.applied[sender].append((message.number, float(self.answered[sender].w.sum())))
        return effects

    def _take_reply(self, sender: str, message: Message, now: float) -> list[Effect]:
        before = self.owned[sender].count
        effects = super()._take_reply(sender, message, now)
        if self.owned[sender].count != before:
            self.applied[sender].append((message.number, float(message.vectors["w"].sum())))
        return effects

    def snapshot(self) -> Snapshot:
        snapshot = super().snapshot()
        snapshot.numbers["history"] = json.dumps(self.applied)
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        super().restore(snapshot)
        history = json.loads(str(snapshot.numbers["history"]))
        self.applied = {name: [(number, w) for number, w in pairs] for name, pairs in history.items()}


class NoDedupe(Remembered):
    """Applies a repeated offer again."""

    def _take_offer(self, sender: str, message: Message, now: float) -> list[Effect]:
        edge = self.answered[sender]
        if message.number == edge.done:
            edge.done -= 1
        return super()._take_offer(sender, message, now)


class Unrounded(Remembered):
    """Applies the difference as it is and sends it rounded."""

    def _take_offer(self, sender: str, message: Message, now: float) -> list[Effect]:
        codec, self._codec = self._codec, _Whole
        effects = super()._take_offer(sender, message, now)
        self._codec = codec
        for effect in effects:
            if not isinstance(effect, Save) and effect.message.kind == "reply":
                effect.message.vectors = {"w": codec.round(effect.message.vectors["w"])}
        return effects


class _Whole:
    round = staticmethod(lambda vector: vector)


class AnyReply(Remembered):
    """Applies every reply, whether it waits for it or not."""

    def _take_reply(self, sender: str, message: Message, now: float) -> list[Effect]:
        edge = self.owned[sender]
        if not edge.pending or message.number != edge.pending:
            edge.count += 1
            self.applied[sender].append((message.number, float(message.vectors["w"].sum())))
            self._apply(-1, message.vectors["w"], now)
            return []
        return super()._take_reply(sender, message, now)


class NoSave(Remembered):
    """Forgets to save before it sends."""

    def step(self, event: object, now: float) -> list[Effect]:
        return [effect for effect in super().step(event, now) if not isinstance(effect, Save) or effect.durable]


class DropsTicks(Remembered):
    """Drops a tick that comes while an exchange is under way."""

    def _clock_tick(self, name: str, now: float) -> list[Effect]:
        if self.owned[name].pending:
            return [self._clocks[name].rearm(now)]
        return super()._clock_tick(name, now)


EXCHANGES = {kind.__name__: kind for kind in (Remembered, NoDedupe, Unrounded, AnyReply, NoSave, DropsTicks)}


@pytest.fixture
def gossip_with() -> Callable[[str], type[Gossip]]:
    """Gossip whose exchanges are of one of the kinds above."""

    def choose(name: str) -> type[Gossip]:
        class Chosen(Gossip):
            def __init__(self, place: Place) -> None:
                super().__init__(place)
                self.exchanges = EXCHANGES[name](place, read=lambda now: self.x, apply=self._move)
                self.ticks = 0

            def step(self, event: object, now: float) -> list[Effect]:
                self.ticks += isinstance(event, Tick) and event.name.startswith("clock")
                return super().step(event, now)

        return Chosen

    return choose


def _ledger_error(world: World) -> float:
    error = ledger_error({name: state_of(world.last_words(name), world.now) for name in world.peers})
    assert error is not None
    return error


def _lost(world: World) -> tuple[int, int]:
    """Exchanges that only one end has applied: as counted by the peers, and as their histories tell."""
    counted, true = 0, 0
    for name in world.peers:
        exchanges = world.last_words(name).exchanges
        for other, edge in exchanges.owned.items():
            mine, theirs = exchanges.applied[other], world.last_words(other).exchanges.applied[name]
            counted += edge.lost
            true += len([number for number, _ in set(mine) ^ set(theirs) if number != edge.pending])
    return counted, true


def _applied_once(world: World) -> bool:
    applied = [world.last_words(name).exchanges.applied for name in world.peers]
    histories = [[number for number, _ in history] for each in applied for history in each.values()]
    return all(sorted(set(history)) == history for history in histories)


@pytest.fixture
def ledger_of() -> Callable[[World], float]:
    """The relative ledger error of a world."""
    return _ledger_error


@pytest.fixture
def lost_in() -> Callable[[World], tuple[int, int]]:
    """Lost exchanges, counted and true."""
    return _lost


@pytest.fixture
def once_in() -> Callable[[World], bool]:
    """Whether no end has applied a number twice or out of order."""
    return _applied_once


@pytest.fixture
def crash_schedule() -> Callable[[World, int, float], None]:
    """Has a world crash some peers at random times and bring each back."""

    def schedule(world: World, seed: int, until: float, count: int = 6) -> None:
        random = np.random.default_rng(seed)
        for _ in range(count):
            name = str(random.choice(sorted(world.peers)))
            start = float(random.uniform(0, until))
            world.at(start, lambda name=name: world.crash(name))
            world.at(start + float(random.exponential(2.0)), lambda name=name: world.restart(name))

    return schedule
