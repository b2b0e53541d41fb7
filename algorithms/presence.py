"""How a peer of an open run comes, is found, stays in touch, and goes.

Theory of operation
-------------------
Who joins asks one member, its contact, and when that does not answer any other it knows of, for the view and the newest
model; then it tells some members at random that it is there. Who comes back from a crash tells some of its new counter,
who leaves tells some that it has.

Everybody listens for new rounds. Who has heard of one since it last looked asks a few members at random all the same,
rarely, so that nobody who is never sampled loses touch; who has not asks soon again, more each time. When twice in a
row nothing is new, the round is lost with all who worked on it, or this peer is cut off. Then it asks whoever has a
newer model for that; or, if nobody has, :attr:`Presence.revive` says that it is up to this peer to go on. Peers with
older models wait longer.

Invariant
---------
Whatever is lost, a peer asks again: it never waits for ever for somebody else to speak.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from algorithms.membership import Membership
from algorithms.protocol import Cancel, Delivered, Effect, Limits, Message, Place, Send, Timer, Undelivered, Vector

ROUNDS_SILENT = 6
"""A peer looks for new rounds after so many times as long as one takes."""

PROBES = 3
"""Members that are asked for news while there are some."""

PROBES_MAX = 100
"""Members that are asked at most while there are none; twice as many each time."""

CALM_MAX = 4
"""By how much it takes longer until the next look while there are."""

LATER_MAX = 4
"""Looks that peers with old models wait for those with newer ones."""

ALONE = 10
"""Looks in a row without any answer, after which a peer is alone."""


class Presence:
    """See the module.

    Parameters
    ----------
    place : Place
        Of the peer.
    members : Membership
        Whom it knows.
    tell : int
        How many are told of its comings and goings.
    held : callable
        ``held()`` is the newest round whose model the peer has.
    model : callable
        ``model()`` is that model, shape ``(d,)``, as it is sent.
    random : numpy Generator
        Spreads looks over time.
    """

    def __init__(
        self,
        place: Place,
        members: Membership,
        tell: int,
        held: Callable[[], int],
        model: Callable[[], Vector],
        random: np.random.Generator,
    ) -> None:
        self._name, self._contact = place.name, place.contact
        self._limits: Limits = place.limits
        self._look_every = ROUNDS_SILENT * place.local_steps + 2 * place.limits.reply_first
        self._members, self._tell, self._random = members, tell, random
        self._held, self._model = held, model
        self._asked: set[str] = set()
        self._unheard: set[str] = set()
        self._news = self._answers = 0
        self._newest, self._holder, self._behind = 0, "", False
        self._calm = 1
        self.silences = 0
        """Looks in a row that found nothing new."""
        self.alone = 0
        """Looks in a row that nobody answered."""

    # --------------------------------------------------------------------------------------- coming and going

    def begin(self, recovered: bool) -> list[Effect]:
        """Of a life."""
        effects: list[Effect] = [self._look_later()]
        if self._members.newcomer:
            return effects + self._members.write() + self._ask_in()
        return effects + self._members.write() + self._announce() if recovered else effects

    def leave(self) -> list[Effect]:
        """Say goodbye; see :attr:`unheard`."""
        return [Cancel("join"), Cancel("look"), *self._members.write(left=True), *self._announce()]

    @property
    def unheard(self) -> bool:
        """Whether it is open whether somebody has heard of this peer's standing."""
        return bool(self._unheard)

    def hear_of(self, event: Delivered | Undelivered) -> None:
        """What has become of a message."""
        if event.kind == "standing":
            self._unheard.discard(event.to)

    def _announce(self) -> list[Effect]:
        to = self._members.others(self._tell)
        self._unheard = set(to)
        standing = Message("standing", self._members.estimate, view=self._members.only(self._name))
        return [Send(name, standing) for name in to]

    def _ask_in(self) -> list[Effect]:
        known = [self._contact, *(self._members.others(1) if self._contact in self._asked else [])]
        chosen = known[int(self._random.integers(len(known)))]
        return [*self._ask_for_model(chosen), Timer("join", self._limits.reply_first)]

    def _ask_for_model(self, name: str) -> list[Effect]:
        self._asked.add(name)
        return [Send(name, Message("join", self._members.estimate, view=self._members.only(self._name)))]

    def asked(self, name: str) -> bool:
        """Whether a peer was asked for its model and has not sent it."""
        return name in self._asked

    def welcomed(self) -> list[Effect]:
        """What follows when a peer that was asked to has sent its model."""
        self._asked.clear()
        if not self._members.newcomer:
            return []
        self._members.newcomer = False
        self._members.appear()
        return [Cancel("join"), *self._announce()]

    # --------------------------------------------------------------------------------------------- being asked

    def take_ping(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Answer."""
        own = self._members.introduce()
        return [Send(sender, Message("pong", self._members.estimate, numbers={"held": self._held()}, view=own))]

    def take_pong(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Remember who has the newest model."""
        self._answers += 1
        if message.numbers["held"] > self._newest:
            self._newest, self._holder = int(message.numbers["held"]), sender
        return []

    def take_join(self, sender: str, message: Message, now: float) -> list[Effect]:
        """Give everything, unless there is nothing yet."""
        if self._members.newcomer:
            return []
        return [Send(sender, Message("welcome", self._held(), {"x": self._model()}, view=self._members.lacking((), 0)))]

    # ---------------------------------------------------------------------------------------- looking for news

    def _look_later(self) -> Timer:
        return Timer("look", self._look_every * self._calm * self._random.uniform(1, 2))

    def ring(self, timer: str) -> list[Effect]:
        """Of the timers that were set here, and of others nothing."""
        if timer == "join":
            return self._ask_in()
        return self._look() if timer == "look" else []

    def _look(self) -> list[Effect]:
        estimate = self._members.estimate
        self.silences = 0 if estimate > self._news else self.silences + 1
        self.alone = 0 if self._answers or not self.silences else self.alone + 1
        self._calm = 1 if self.silences else min(2 * self._calm, CALM_MAX)
        self._news = estimate
        effects: list[Effect] = [self._look_later()]
        self._behind = self._newest > self._held()
        if self.silences > 1 and self._behind:
            effects += self._ask_for_model(self._holder)
        self._answers = 0
        self._newest = 0
        if self.silences:
            self._members.admit()  # whoever comes now waits for no model: there is none on its way
        count = min(self._tell * 2 ** min(self.silences, 10), PROBES_MAX) if self.silences else PROBES
        return effects + [Send(name, self._members.ping(name)) for name in self._members.others(count)]

    @property
    def revive(self) -> bool:
        """Whether the round under way is lost and this peer has to begin the next."""
        older = self._members.estimate - self._held()
        lost = not self._behind and self.silences >= 2 + min(older, LATER_MAX)
        return lost and not self._members.newcomer
