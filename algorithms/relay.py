"""How a model finds its next peers and is not lost on the way, whoever falls out.

Theory of operation
-------------------
A model on its way is a :class:`Baton`: it is sent to a sample of live peers, and kept until a receiver says that it has
handed on in turn what became of it. If that takes too long there is another sample, and whoever is new in it is sent
the model too. As soon as another peer has it, those who gave the models it was made of are told: ``averaged`` if it is
a mean of theirs, ``learnt`` if it was trained from theirs. So at any time at least two generations of a model are held,
and a round is lost only with everybody who holds one of them.

A mean for which too few receivers are found waits for more, the longer the fewer there are: of a network that is
divided, the part with more peers should be further when they meet again. Then it goes to those that there are.

A baton of a round that others are known to have finished is dropped.

Invariant
---------
Of each kind of message a peer carries at most one baton, and a newer one replaces an older one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from algorithms.membership import Membership
from algorithms.protocol import Cancel, Delivered, Effect, Limits, Message, Send, Timer, Undelivered, Vector
from algorithms.sampling import Sampler

DOUBLINGS_MAX = 3
"""Of the wait for news of a baton, each time that there were none."""

AT_ONCE = 8
"""A model that is for everybody is sent to so many at once."""

PINGS = "ping"
"""The first word of the names of the timers of samplings."""


@dataclass(slots=True)
class Baton:
    """A model on its way to the next peers.

    Parameters
    ----------
    kind, number : str, int
        Of the message that carries it.
    x : Vector
        The model, shape ``(d,)``, rounded by the codec.
    wanted : int
        How many peers are to have it.
    givers : list of str
        Whom to tell once it is handed on.
    expected : int
        How many models its receivers should wait for; 0 for as many as it is sent to.
    """

    kind: str
    number: int
    x: Vector
    wanted: int
    givers: list[str]
    expected: int = 0
    message: Message | None = None
    sent: dict[str, int] = field(default_factory=dict)  # to whom, with which version of the view, as yet unanswered
    failures: dict[str, int] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    tries: int = 0
    handed_on: bool = False


@dataclass(slots=True)
class Average:
    """A mean in the making.

    Parameters
    ----------
    number : int
        The round that it begins.
    """

    number: int
    givers: list[str] = field(default_factory=list)
    total: Vector | None = None
    expected: int = 1

    def add(self, sender: str, x: Vector, expected: int) -> None:
        """Take in a model, shape ``(d,)``."""
        self.givers.append(sender)
        self.total = torch.zeros_like(x, dtype=torch.float64) if self.total is None else self.total
        self.total.add_(x)
        self.expected = max(self.expected, expected)


class Relay:
    """All batons of one peer.

    Parameters
    ----------
    name : str
        The peer.
    members : Membership
        Of whom samples are taken.
    limits : Limits
        Waits.
    random : numpy Generator
        Spreads what is repeated over time.
    take : callable
        ``take(sender, message, now)`` hands a message to the peer itself.
    """

    def __init__(
        self,
        name: str,
        members: Membership,
        limits: Limits,
        random: np.random.Generator,
        take: Callable[[str, Message, float], list[Effect]],
    ) -> None:
        self._name, self._members, self._limits, self._random, self._take = name, members, limits, random, take
        self._sampler = Sampler(name, limits, members.ping, members.doubt)
        self._batons: dict[str, Baton] = {}
        self._for_all: Message | None = None
        self._still: list[str] = []
        self._failures: dict[str, int] = {}  # of the message for all
        self.round_time = 0.0
        """How long the work of a round takes, as far as the peer knows."""
        self.repeats = 0
        """How often a second sample had to be taken."""

    def __len__(self) -> int:
        return len(self._batons) + len(self._still)

    def carries(self, kind: str) -> bool:
        """Whether there is a baton that nobody else has yet."""
        baton = self._batons.get(kind)
        return baton is not None and not baton.handed_on

    @property
    def patience(self) -> float:
        """Units within which the work of a round and its messages should be done."""
        return 2 * (self.round_time + self._sampler.patience)

    # --------------------------------------------------------------------------------------------- handing on

    def hand_on(self, baton: Baton, now: float) -> list[Effect]:
        """Find receivers for a model."""
        effects = self.drop(baton.kind, now)
        self._batons[baton.kind] = baton
        return effects + self._sample(baton, now)

    def _sample(self, baton: Baton, now: float) -> list[Effect]:
        members = self._members
        if members.estimate > baton.number:
            return self.drop(baton.kind, now)
        astray: list[Effect] = [Send(name, members.ping(name)) for name in members.astray(1)]
        candidates = members.candidates(baton.number)
        return astray + self._sampler.begin(baton.kind, baton.wanted, candidates, partial(self._send, baton), now)

    def _send(self, baton: Baton, sample: list[str], now: float) -> list[Effect]:
        """To those of the sample who don't have it yet."""
        members, to = self._members, [name for name in sample if name not in baton.told and name not in baton.sent]
        if not sample:
            return self.drop(baton.kind, now)  # a peer that leaves is none itself, and there is no other
        if baton.kind == "aggregated" and not baton.tries and not members.own.left:
            missing = min(baton.wanted, members.present) / len(sample) - 1
            if missing > 0:
                return [Timer(f"watch {baton.kind}", missing * self.patience)]
        others = [name for name in to if name != self._name]
        for name in others:
            baton.sent.setdefault(name, members.view.version)
        effects: list[Effect] = [Timer(f"watch {baton.kind}", self._wait(baton))]
        if not others and not baton.sent:
            effects += self._hand_over(baton, now)
        if to:
            view = members.lacking(baton.sent, baton.number) if baton.sent else {}
            expected = {"expected": baton.expected or len(sample)}
            baton.message = message = Message(baton.kind, baton.number, {"x": baton.x}, expected, view)
            members.admit()
            effects += [Send(name, message) for name in others]
            if self._name in to:
                effects += self._keep(baton, message, now)
        return effects

    def _wait(self, baton: Baton) -> float:
        return 1.5 * self.patience * 2.0 ** min(baton.tries, DOUBLINGS_MAX)

    def _keep(self, baton: Baton, message: Message, now: float) -> list[Effect]:
        """The peer is one of the sample itself."""
        baton.told.add(self._name)
        self._members.estimate = max(self._members.estimate, message.number)
        return self._take(self._name, message, now)

    def hear_of(self, event: Delivered | Undelivered, now: float) -> list[Effect]:
        """What has become of a message."""
        if event.kind == "ping":
            return [] if isinstance(event, Delivered) else self._sampler.undelivered(event.to, event.reason, now)
        baton = self._batons.get(event.kind)
        if baton is None or baton.number != event.number:
            return self._spread_on(event)
        if isinstance(event, Delivered):
            baton.told.add(event.to)
            self._members.told(event.to, baton.sent.pop(event.to, 0))
            return self._hand_over(baton, now)
        if not event.reason.transient:
            baton.sent.pop(event.to, None)
            return []
        return [self._later(event, baton.failures)]

    def _hand_over(self, baton: Baton, now: float) -> list[Effect]:
        if baton.handed_on:
            return []
        baton.handed_on = True
        return self._tell_givers(baton, now)

    def _later(self, event: Undelivered, failures: dict[str, int]) -> Timer:
        tries = failures[event.to] = failures.get(event.to, 0) + 1
        delay = self._limits.backoff(tries) * self._random.uniform(0.5, 1.5)
        return Timer(f"again {event.kind} {event.to}", delay)

    def spread(self, message: Message, to: list[str]) -> list[Effect]:
        """Send the same message to many, a few at a time, and again to those whom it does not reach."""
        self._for_all, self._still = message, to
        return [effect for _ in range(AT_ONCE) for effect in self._next()]

    def _next(self) -> list[Effect]:
        return [Send(self._still.pop(), self._for_all)] if self._still and self._for_all else []

    def _spread_on(self, event: Delivered | Undelivered) -> list[Effect]:
        if self._for_all is None or (event.kind, event.number) != (self._for_all.kind, self._for_all.number):
            return []
        if isinstance(event, Undelivered) and event.reason.transient:
            return [self._later(event, self._failures), *self._next()]
        return self._next()

    def ring(self, timer: str, now: float) -> list[Effect]:
        """Of the timers that were set here, and of others nothing."""
        what, _, rest = timer.partition(" ")
        kind, _, name = rest.partition(" ")
        if what == PINGS:
            return self._sampler.ring(kind, name, now)
        baton = self._batons.get(kind)
        if what == "watch" and baton:
            return self._repeat(baton, now)
        if what != "again":
            return []
        message = baton.message if baton and name in baton.sent else self._for_all
        return [Send(name, message)] if message and message.kind == kind else []

    def _repeat(self, baton: Baton, now: float) -> list[Effect]:
        baton.tries += 1
        self.repeats += 1
        return self._sample(baton, now)

    def hurry(self, now: float) -> list[Effect]:
        """There is no time to wait for what becomes of the batons."""
        return [effect for baton in list(self._batons.values()) for effect in self._repeat(baton, now)]

    # -------------------------------------------------------------------------------------- what became of it

    def heard(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Something came from a peer; whoever has come back meanwhile may have lost what it was sent."""
        for baton in self._batons.values():
            baton.told -= self._members.returned
        self._members.returned.clear()
        return self._sampler.heard(sender, now, answered=message.kind == "pong")

    def take_word(self, sender: str, message: Message, now: float) -> list[Effect]:
        """A receiver has handed on what became of a baton."""
        kind = "trained" if message.kind == "averaged" else "aggregated"
        baton = self._batons.get(kind)
        return self.drop(kind, now) if baton and baton.number <= message.number else []

    def tell(self, to: list[str], word: str, number: int, now: float) -> list[Effect]:
        """Say to peers what became of their batons."""
        message = Message(word, number)
        effects: list[Effect] = [Send(name, message) for name in to if name != self._name]
        return effects + self.take_word(self._name, message, now) if self._name in to else effects

    def _tell_givers(self, baton: Baton, now: float) -> list[Effect]:
        word, number = ("averaged", baton.number) if baton.kind == "aggregated" else ("learnt", baton.number - 1)
        return self.tell(baton.givers, word, number, now)

    def drop(self, kind: str, now: float) -> list[Effect]:
        """Nobody needs to carry this any more."""
        baton = self._batons.pop(kind, None)
        if baton is None:
            return []
        effects = [Cancel(f"watch {kind}"), *self._sampler.stop(kind)]
        return effects if baton.handed_on else effects + self._tell_givers(baton, now)

    def drop_overtaken(self, now: float) -> list[Effect]:
        """Drop what is of rounds that others have finished."""
        overtaken = [kind for kind, baton in self._batons.items() if baton.number < self._members.estimate]
        return [effect for kind in overtaken for effect in self.drop(kind, now)]
