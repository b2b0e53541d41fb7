"""The neighbourhood round: local steps, then averaging with all neighbours, and no wait without an end.

Theory of operation
-------------------
A run goes on in rounds. In each, a peer takes its local steps and gets from x to z; then, Q times over, it sends z to
all neighbours and moves to Σ_j w_ij z_j, w the plan's mixing matrix. The number of a message counts these gossip steps
over all rounds, round · Q + step + 1, so that both ends know which z belongs to which step.

Nobody coordinates this: a peer that has all its neighbours' z of the step goes on. A neighbour that is late is waited
for until a deadline, the median and ten times the median absolute deviation of how late neighbours have been so far,
those included whose z came too late to be used: else a network slower than the first deadline would stay so for ever.
After the deadline it is left out of this step, its weight goes to the own model, so that rows still sum to 1, and it is
waited for again only once it has been heard again. One that is known to be gone is not waited for at all.

A peer that finds others a round ahead, because it was cut off or slow, takes its next z straight into their round.

With ``acceleration=chebyshev`` the Q gossip steps of a round are those of :mod:`algorithms.chebyshev`.

Invariants
----------
* Of each neighbour, the z of each step is used at most once.
* What has been sent is never written again; all neighbours are sent the same message.
* Without losses, the mean over peers is what it would be without the network: w is symmetric, and differences are of
  what was sent, rounded or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import torch

from algorithms.chebyshev import omegas
from algorithms.lateness import Lateness
from algorithms.options import part
from algorithms.protocol import (
    AHEAD,
    Arrival,
    Cancel,
    Delivered,
    Done,
    Effect,
    Event,
    Finish,
    Kind,
    Message,
    PeerDown,
    PeerUp,
    Place,
    Save,
    Send,
    Snapshot,
    Start,
    Tempo,
    Tick,
    Timer,
    Train,
    Trained,
    Undelivered,
    Unsuitable,
    Vector,
)

KEPT = 2
"""Models of one neighbour that are kept for steps to come."""

LOOK_EVERY = 4
"""Rounds between two looks at how far the neighbours' models are from the own one: each costs as much as a mixing."""


class Rounds:
    """See the module. What tells methods apart is in their options, and in how they ask for local steps."""

    kinds: ClassVar[Mapping[str, Kind]] = {"model": Kind("neighbour", vectors=("x",))}
    options: ClassVar[Mapping[str, float | int | str]] = {"gossip_steps": 1, "acceleration": "none", "decay": 1.0}
    """Gossip steps a round; ``chebyshev`` or ``none``; by how much the learning rate is multiplied after each round."""
    defaults: ClassVar[Mapping[str, float]] = {}
    tempo: ClassVar[Tempo] = Tempo(exchanges_per_step=None, rounds=True)

    def __init__(self, place: Place) -> None:
        self._weights = {name: edge.weight for name, edge in sorted(place.neighbours.items())}
        self._codec, self._limits, self._random = place.codec, place.limits, place.draw("rounds")
        self._local_steps, self._rounds_max = place.local_steps, place.rounds
        self._merging, self._layout = place.merging, place.layout
        self._options = {**type(self).options, **place.options}
        self._steps, self._decay = int(self._options["gossip_steps"]), part(self._options, "decay")
        self._acceleration = _acceleration(place, str(self._options["acceleration"]), self._steps)
        self.x = place.start.clone()
        self.round, self.step_done = 0, 0
        self._inbox: dict[str, dict[int, tuple[Vector, float]]] = {name: {} for name in self._weights}
        self._newest = dict.fromkeys(self._weights, 0)
        self._quiet: set[str] = set()
        self._down: set[str] = set()
        # After local steps, which differ, neighbours are late by more than between two gossip steps.
        first, least = max(4.0 * place.local_steps, place.limits.reply_first), float(place.local_steps)
        self._lateness = Lateness(first, least), Lateness(first, least)
        self._sent: dict[int, Message] = {}
        self._unheard: set[tuple[str, int]] = set()
        self._tries = dict.fromkeys(self._weights, 0)
        self._before: Vector | None = None
        self._mixing = self._finishing = self._done = False
        self._merged = self._missed = 0
        self._distances: dict[str, float] = {}
        self._handlers: dict[type, Callable[[Any, float], list[Effect]]] = {
            Start: lambda event, now: self._train(),
            Trained: self._trained,
            Arrival: self._arrive,
            Tick: self._tick,
            Delivered: self._delivered,
            Undelivered: self._undelivered,
            PeerUp: self._peer_up,
            PeerDown: self._peer_down,
            Finish: self._finish,
        }

    def step(self, event: Event, now: float) -> Iterable[Effect]:
        """Take one event."""
        handler = self._handlers.get(type(event))
        effects = handler(event, now) if handler and not self._done else []
        if self._finishing and not self._done and not self._unheard:
            effects += self._end()
        return effects

    # -------------------------------------------------------------------------------------- the local steps

    def _ask(self, at: Vector) -> Train:
        """The local steps of this round."""
        factor = self._decay**self.round
        return Train("round", at, self._local_steps, lr_factor=factor)

    def _train(self) -> list[Effect]:
        if self.round >= self._rounds_max:  # resumed when it was done
            return self._linger()
        return [Save(), self._ask(self.x.clone())]

    def _trained(self, event: Trained, now: float) -> list[Effect]:
        ahead = (max(self._newest.values(), default=0) - 1) // self._steps
        if ahead > self.round:  # others did not wait: go on where they are
            self.round = ahead
        self._mixing = True
        self.step_done = 0
        return self._say(self.x + event.change, now)

    # -------------------------------------------------------------------------------------- a gossip step

    @property
    def number(self) -> int:
        """Of the gossip step that is under way."""
        return self.round * self._steps + self.step_done + 1

    def _say(self, z: Vector, now: float) -> list[Effect]:
        """Send z to everybody who is there, and go on if nobody is waited for."""
        number = self.number
        self._z, sent = z, self._codec.round(z)
        self._sent = {k: message for k, message in self._sent.items() if k >= number - 1}
        self._unheard = {(to, k) for to, k in self._unheard if k in self._sent}
        self._sent[number] = message = Message("model", number, {"x": sent})
        lateness = self._lateness_of(number)
        lateness.begin(number, now)
        there = [name for name in self._weights if name not in self._down]
        self._unheard |= {(name, number) for name in there}
        for kept in self._inbox.values():
            for old in [k for k in kept if k < number]:
                del kept[old]
            if number in kept:
                lateness.note(number, kept[number][1])
        effects: list[Effect] = [Send(name, message) for name in there]
        return effects + self._go_on(now) if not self._missing() else [*effects, Timer("deadline", lateness.patience)]

    def _missing(self) -> list[str]:
        """Neighbours that are waited for."""
        number = self.number
        return [
            name
            for name, kept in self._inbox.items()
            if number not in kept
            and name not in self._down
            and name not in self._quiet
            and self._newest[name] <= number + 1
        ]

    def _lateness_of(self, number: int) -> Lateness:
        return self._lateness[(number - 1) % self._steps > 0]

    def _go_on(self, now: float) -> list[Effect]:
        """Mix with what is there, and begin the next step or round."""
        mixed = self._mix()
        effects: list[Effect] = [Cancel("deadline")]
        if self.step_done + 1 < self._steps:
            self.step_done += 1
            return effects + self._say(mixed, now)
        self.x, self._mixing, self._before = mixed, False, None
        self.round, self.step_done = self.round + 1, 0
        return effects + self._train()

    def _mix(self) -> Vector:
        """z + Σ w_ij (sent_j − sent_i) over those that are there: whose is missing counts as the own.

        What a merging rule adds comes last.
        """
        number = self.number
        there = {name: kept.pop(number)[0] for name, kept in self._inbox.items() if number in kept}
        self._missed += len(self._inbox) - len(there)
        self._merged += len(there)
        own, weight = self._sent[number].vectors["x"], sum(self._weights[name] for name in there)
        if self.round % LOOK_EVERY == 0 and self.step_done == 0:
            self._distances |= {f"distance/{name}": torch.dist(theirs, own).item() for name, theirs in there.items()}
        mixed = self._z.add(own, alpha=-weight)
        for name, theirs in there.items():
            mixed.add_(theirs, alpha=self._weights[name])
        omega = self._acceleration[self.step_done]
        if self._before is not None:
            mixed.sub_(self._before).mul_(omega).add_(self._before)
        if not self._merging.linear:
            mixed.add_(self._merging.correction(mixed, self._z, [*there.values()], 1 - weight, self._layout))
        self._before = self._z if self._steps > 1 else None
        return mixed

    # -------------------------------------------------------------------------------------------- neighbours

    def _arrive(self, event: Arrival, now: float) -> list[Effect]:
        name, number = event.sender, event.message.number
        if name not in self._inbox or not 0 < number <= self.number + AHEAD * self._steps:
            return []
        self._newest[name] = max(self._newest[name], number)
        self._quiet.discard(name)
        self._lateness_of(number).note(number, now)
        kept = self._inbox[name]
        if number < self.number or number in kept:
            return []
        kept[number] = event.message.vectors["x"], now
        for old in sorted(kept)[:-KEPT]:
            del kept[old]
        return self._check(now)

    def _check(self, now: float) -> list[Effect]:
        return self._go_on(now) if self._mixing and not self._missing() else []

    def _tick(self, event: Tick, now: float) -> list[Effect]:
        what, _, rest = event.name.partition(" ")
        if what == "deadline" and self._mixing:
            self._quiet.update(self._missing())
            return self._go_on(now)
        if what == "again":
            number, _, name = rest.partition(" ")
            return self._repeat(name, int(number))
        if what == "linger":
            self._unheard.clear()
        return []

    def _repeat(self, name: str, number: int) -> list[Effect]:
        if (name, number) not in self._unheard or name in self._down:
            return []
        return [Send(name, self._sent[number])]

    def _delivered(self, event: Delivered, now: float) -> list[Effect]:
        self._unheard.discard((event.to, event.number))
        self._tries[event.to] = 0
        return []

    def _undelivered(self, event: Undelivered, now: float) -> list[Effect]:
        if (event.to, event.number) not in self._unheard:
            return []
        if not event.reason.transient:
            self._unheard.discard((event.to, event.number))
            return []
        delay = self._limits.backoff(self._tries[event.to]) * self._random.uniform(0.5, 1.5)
        self._tries[event.to] += 1
        return [Timer(f"again {event.number} {event.to}", delay)]

    def _peer_up(self, event: PeerUp, now: float) -> list[Effect]:
        self._down.discard(event.name)
        self._quiet.discard(event.name)
        if self._mixing and event.name in self._weights:
            self._unheard.add((event.name, self.number))
            return self._repeat(event.name, self.number)
        return []

    def _peer_down(self, event: PeerDown, now: float) -> list[Effect]:
        self._down.add(event.name)
        self._unheard = {(to, number) for to, number in self._unheard if to != event.name}
        return self._check(now)

    # ------------------------------------------------------------------------------------------------ the end

    def _finish(self, event: Finish, now: float) -> list[Effect]:
        """The round under way is left."""
        self._mixing = False
        return [Cancel("round"), Cancel("deadline"), *self._linger()]

    def _linger(self) -> list[Effect]:
        """What was said is repeated until it is heard, for a while."""
        self._finishing = True
        return [Timer("linger", self._limits.linger)]

    def _end(self) -> list[Effect]:
        self._done = True
        return [Done(self.x.clone())]

    def model(self, now: float) -> Vector:
        """The peer's model after its last whole round."""
        return self.x.clone()

    def ledger(self) -> Vector | None:
        """None: a neighbour that is left out takes its share with it."""
        return None

    def counters(self) -> Mapping[str, float]:
        """Rounds done; models of neighbours averaged with, and those that were missing; how far these were, of late."""
        return {"rounds": self.round, "exchanges": self._merged, "missed_models": self._missed, **self._distances}

    def snapshot(self) -> Snapshot:
        """The model after the last whole round: a round that was under way is done again, or skipped."""
        numbers = {"round": self.round, "merged": self._merged, "missed": self._missed}
        return Snapshot({"x": self.x.clone()}, dict(numbers))

    def restore(self, snapshot: Snapshot) -> None:
        """Take up a snapshot."""
        self.x.copy_(snapshot.vectors["x"])
        self.round = int(snapshot.numbers["round"])
        self._merged, self._missed = int(snapshot.numbers["merged"]), int(snapshot.numbers["missed"])


def _acceleration(place: Place, name: str, steps: int) -> list[float]:
    """ω of each gossip step."""
    if steps < 1:
        raise Unsuitable(f"--set gossip_steps={steps} can't be used: write a whole number from 1.")
    if name == "none":
        return [1.0] * steps
    if name != "chebyshev":
        raise Unsuitable(f"--set acceleration={name} can't be used: write chebyshev or none.")
    return omegas(place.contraction(), steps)
