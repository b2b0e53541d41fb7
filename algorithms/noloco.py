"""NoLoCo: many local steps, then an outer step of momentum with one random other peer, and no all-reduce.

Theory of operation
-------------------
A peer has slow weights φ. In outer step t it takes m local steps from them, which lead to θ, and exchanges Δ = θ - φ
and φ with the others of a small random group G, two of them by default. Then, with means over G [1]_,

    δ <- α δ + β mean Δ + γ (mean φ - φ),     φ <- φ + δ,

and the next local steps begin from φ. The first two terms are the momentum of local-update methods, with a mean over G
in place of all peers; the third pulls together those who meet. Without it the peers' φ do a random walk apart.

Everybody works out the groups alone: the peers of the plan, in the order of a hash of name and t, are taken two by two,
and whoever is left over steps alone. With a group of all it is DiLoCo [2]_ with this momentum.

The number of a message is t + 1. A peer waits for the others of its group until the deadline of
:mod:`algorithms.lateness`, and then steps with those that are there; one that is known to be gone, or can't be reached,
is not waited for. What comes too early is kept. A peer that has been sent something of two steps ahead or more has been
left behind: after its local steps it goes on in the newest step that it was sent something of.

Invariants
----------
* Of each peer, what it says in a step is used at most once, and only by those in its group of that step.
* Without losses the mean of φ over peers is what it would be with a group of all: in a group of two, what one end gains
  the other loses, rounded or not.

.. [1] J. Kolehmainen, N. Blagoev, J. Donaghy, O. Ersoy, C. Nies, "NoLoCo: No-all-reduce low communication training
   method for large models", arXiv:2506.10911.
.. [2] A. Douillard, Q. Feng, A. A. Rusu et al., "DiLoCo: Distributed low-communication training of language models",
   arXiv:2311.08105.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import ClassVar

import torch

from algorithms.lateness import Lateness
from algorithms.merging.mean import require_mean
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
    Reason,
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
from algorithms.view import draw

BEHIND = 2
"""Whoever is sent something of so many steps ahead has been left behind."""

KEPT = 2
"""Messages of one peer that are kept for steps to come."""

COUNTS = {"round": "round", "met": "_met", "missed": "_missed"}
"""What a snapshot holds besides φ and δ."""


class Noloco:
    """See the module.

    Raises
    ------
    Unsuitable
        When an option is out of its bounds, or models are not to be merged by their mean.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {"outer": Kind("member", vectors=("delta", "phi"))}
    options: ClassVar[Mapping[str, float | int | str]] = {"alpha": 0.5, "beta": 0.7, "gamma": 0.7, "group": 2}
    """α, β and γ; peers in a group, 0 for all."""
    defaults: ClassVar[Mapping[str, float]] = {"local_steps": 50}
    tempo: ClassVar[Tempo] = Tempo(exchanges_per_step=None, rounds=True)

    def __init__(self, place: Place) -> None:
        require_mean(place, "noloco")
        self._alpha, self._beta, self._gamma, self._size = _read_options(place)
        self._name, self._nodes = place.name, place.nodes
        self._codec, self._limits, self._random = place.codec, place.limits, place.draw("noloco")
        self._local_steps, self._rounds_max = place.local_steps, place.rounds
        self.phi = place.start.clone()
        self.delta = torch.zeros_like(self.phi)
        self.round = self._met = self._missed = 0
        self._lateness = Lateness(max(4.0 * place.local_steps, place.limits.reply_first), float(place.local_steps))
        self._inbox: dict[str, dict[int, tuple[Mapping[str, Vector], float]]] = {}
        self._own: Vector | None = None
        """Δ while the others of the group are waited for."""
        self._waited: set[str] = set()
        self._away: set[str] = set()
        self._said: Message | None = None
        self._unheard: dict[str, int] = {}
        self._finishing = self._done = False

    def step(self, event: Event, now: float) -> Iterable[Effect]:
        """Take one event."""
        effects = [] if self._done else self._take(event, now)
        if self._own is not None and not self._waited:
            effects += self._step_out(self._own)
        if self._finishing and not self._done and not self._unheard:
            self._done = True
            effects.append(Done(self.phi.clone()))
        return effects

    def _take(self, event: Event, now: float) -> list[Effect]:
        match event:
            case Start():
                return self._train()
            case Trained():
                return self._say(event.change.clone(), now)
            case Arrival(sender, message):
                self._keep(sender, message, now)
            case Delivered(to, _, number):
                if self._said is not None and number == self._said.number:
                    self._unheard.pop(to, None)
            case Undelivered():
                return self._repeat_later(event)
            case Tick(name):
                return self._ring(name)
            case PeerDown(name):
                self._give_up({name})
            case PeerUp(name):
                self._away.discard(name)
            case Finish():
                self._own = None
                return [Cancel("outer"), Cancel("deadline"), *self._linger()]
        return []

    # ------------------------------------------------------------------------------------------ an outer step

    def _train(self) -> list[Effect]:
        if self.round >= self._rounds_max:
            return self._linger()
        return [Save(), Train("outer", self.phi.clone(), self._local_steps)]

    def _say(self, own: Vector, now: float) -> list[Effect]:
        """Tell the group where the local steps have led, and wait for it."""
        newest = max((number for kept in self._inbox.values() for number in kept), default=0)
        if newest - 1 >= self.round + BEHIND:
            self.round = newest - 1
        number = self.round + 1
        vectors = {"delta": self._codec.round(own), "phi": self._codec.round(self.phi)}
        self._own, self._said = own, Message("outer", number, vectors)
        self._lateness.begin(number, now)
        others = self.group(self.round)
        self._waited = {name for name in others if name not in self._away}
        self._unheard = dict.fromkeys(others, 0)
        for name, kept in self._inbox.items():
            if number in kept:
                self._waited.discard(name)
                self._lateness.note(number, kept[number][1])
        return [*(Send(name, self._said) for name in others), Timer("deadline", self._lateness.patience)]

    def group(self, step: int) -> list[str]:
        """The other peers of this one's group in an outer step."""
        order = _order(self._nodes, step)
        first = order.index(self._name) // self._size * self._size
        return [name for name in order[first : first + self._size] if name != self._name]

    def _step_out(self, own: Vector) -> list[Effect]:
        """The outer step, with those who are there."""
        assert self._said is not None
        said, number = self._said.vectors, self._said.number
        there = [kept[number][0] for _, kept in sorted(self._inbox.items()) if number in kept]
        self._met += len(there)
        self._missed += len(self.group(self.round)) - len(there)
        self.delta = self.delta * self._alpha
        self.delta.add_(own, alpha=self._beta)
        for theirs in there:
            self.delta.add_(theirs["delta"] - said["delta"], alpha=self._beta / (1 + len(there)))
            self.delta.add_(theirs["phi"] - said["phi"], alpha=self._gamma / (1 + len(there)))
        self.phi = self.phi + self.delta  # a new one: the old one may still be on its way to somebody
        self._inbox = {
            name: later for name, kept in self._inbox.items() if (later := {k: kept[k] for k in kept if k > number})
        }
        self._own, self.round = None, number
        return [Cancel("deadline"), *self._train()]

    # --------------------------------------------------------------------------------------------- the others

    def _keep(self, sender: str, message: Message, now: float) -> None:
        number = message.number
        if not 1 <= number <= self.round + AHEAD or sender not in self.group(number - 1):
            return
        self._away.discard(sender)
        self._lateness.note(number, now)
        kept = self._inbox.setdefault(sender, {})
        if number <= self.round or number in kept:
            return
        kept[number] = {key: vector.clone() for key, vector in message.vectors.items()}, now
        for old in sorted(kept)[:-KEPT]:
            del kept[old]
        if self._own is not None and number == self.round + 1:
            self._waited.discard(sender)

    def _give_up(self, names: set[str]) -> None:
        """They are waited for again when they have been heard again."""
        self._away |= names
        self._waited -= names

    def _repeat_later(self, event: Undelivered) -> list[Effect]:
        if self._said is None or event.number != self._said.number or event.to not in self._unheard:
            return []
        if event.reason is Reason.UNREACHABLE:
            self._give_up({event.to})
        if not event.reason.transient:
            del self._unheard[event.to]
            return []
        tries = self._unheard[event.to]
        self._unheard[event.to] = tries + 1
        return [Timer(f"again {event.to}", self._limits.backoff(tries) * self._random.uniform(0.5, 1.5))]

    def _ring(self, timer: str) -> list[Effect]:
        if timer == "deadline":
            self._give_up(set(self._waited))
        if timer == "linger":
            self._unheard.clear()
        name = timer.removeprefix("again ")
        return [Send(name, self._said)] if name in self._unheard and self._said is not None else []

    # ------------------------------------------------------------------------------------- the end, the record

    def _linger(self) -> list[Effect]:
        """What was said last is repeated until it is heard, for a while."""
        self._finishing = True
        return [Timer("linger", self._limits.linger)]

    def model(self, now: float) -> Vector:
        """The slow weights after the last whole outer step."""
        return self.phi.clone()

    def ledger(self) -> Vector | None:
        """None: who steps alone keeps what its group should have had."""
        return None

    def counters(self) -> Mapping[str, float]:
        """Outer steps done; others stepped with, and those that were missing."""
        return {"rounds": self.round, "exchanges": self._met, "missed_models": self._missed}

    def snapshot(self) -> Snapshot:
        """φ and δ after the last whole outer step: one that was under way is done again."""
        counts = {key: getattr(self, name) for key, name in COUNTS.items()}
        return Snapshot({"phi": self.phi.clone(), "delta": self.delta.clone()}, counts)

    def restore(self, snapshot: Snapshot) -> None:
        """Take up a snapshot."""
        self.phi, self.delta = snapshot.vectors["phi"].clone(), snapshot.vectors["delta"].clone()
        for key, name in COUNTS.items():
            setattr(self, name, int(snapshot.numbers[key]))


@lru_cache(maxsize=8)
def _order(nodes: tuple[str, ...], step: int) -> list[str]:
    """All peers in the order of an outer step; once for all peers of a process."""
    return sorted(nodes, key=lambda name: draw(name, step))


def _read_options(place: Place) -> tuple[float, float, float, int]:
    """α, β, γ and the size of groups."""
    given = {**Noloco.options, **place.options}
    alpha, beta, gamma = (float(given[key]) for key in ("alpha", "beta", "gamma"))
    if not 0 <= alpha < 1:
        raise Unsuitable(f"--set alpha={alpha:g} can't be used: write the outer momentum, from 0 to below 1.")
    if not 0 < beta < math.inf:
        raise Unsuitable(f"--set beta={beta:g} can't be used: write the outer learning rate, above 0.")
    if not 0 <= gamma < math.inf:
        raise Unsuitable(f"--set gamma={gamma:g} can't be used: write 0 or more.")
    size = int(given["group"])
    if size < 2 and size != 0:
        raise Unsuitable(f"--set group={size} can't be used: write how many peers step together, or 0 for all.")
    return alpha, beta, gamma, size or max(2, len(place.nodes))
