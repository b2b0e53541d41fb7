"""One peer's part in an open membership: its view, its own standing in it, and what others have been told.

Theory of operation
-------------------
What is heard of members is merged into the :class:`~algorithms.view.View`; somebody who has just joined waits until the
next model has been sent, so that those who send it look for the same sample. What a peer has been told for certain
need not be told again: every version of the view that was delivered to it is remembered, until it comes back from a
crash, which shows in its counter. A peer that reads of itself that it is in doubt, or has left, or of a counter that it
has not written, writes itself down anew, with a larger counter.

Invariants
----------
* The estimate of the round under way only grows.
* What others lack of a view, they are told, or it can make no difference to any sample to come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from algorithms.protocol import AHEAD, COUNT_MAX, Effect, Meet, Message, Part, Place, Save
from algorithms.view import UNKNOWN, Standing, View

SAVED = "member "
"""Begins the names of standings in a snapshot."""

JOINED_MAX = 2_500
"""So many members are believed in beside those of the plan: a view of all of them fits into one message."""


class Membership:
    """See the module.

    Parameters
    ----------
    place : Place
        Of the peer.
    window : int
        Members that were active within so many rounds are sampled.
    random : numpy Generator
        Chooses members where any will do.
    """

    def __init__(self, place: Place, window: int, random: np.random.Generator) -> None:
        self._name, self._address, self._window, self._random = place.name, place.address, window, random
        self.view = View(place.nodes)
        self.newcomer = bool(place.contact)
        """Whether it has yet to hear what round it is; until then it believes whatever welcomes it."""
        self.estimate = 0
        """The last round that is known to be under way."""
        self._members_max = len(place.nodes) + JOINED_MAX
        self._pending: dict[str, Standing] = {}
        self._told: dict[str, int] = {}
        self.returned: set[str] = set()
        """Whoever has a new counter: it may have lost what it was sent."""
        self.refuted = 0

    @property
    def own(self) -> Standing:
        """The peer's own standing."""
        return self.view.of(self._name)

    def write(self, left: bool = False) -> list[Effect]:
        """Join, also once more, or leave."""
        counter = max(self.own.counter, self.own.doubted, 0) + 1
        self.view.learn(self._name, Standing(self.estimate, counter, left, self._address))
        return [Save(durable=True)]

    # ------------------------------------------------------------------------------------------ what is heard

    def plausible(self, message: Message) -> bool:
        """Whether rounds and counters of a message are near enough to what is known."""
        ahead = COUNT_MAX if self.newcomer and message.kind == "welcome" else AHEAD
        latest = self.estimate + ahead
        strange = sum(name not in self.view and name not in self._pending for name in message.view)
        return (
            max(message.number, message.numbers.get("held", 0)) <= latest
            and (not strange or len(self.view) + len(self._pending) + strange <= self._members_max)
            and all(
                one.active <= latest and max(one.counter, one.doubted) <= self.view.of(name).counter + ahead
                for name, one in message.view.items()
            )
        )

    def hear(self, sender: str, message: Message, joins_wait: bool) -> list[Effect]:
        """Take in what a message says of rounds and members; whoever sends is active in the newest round."""
        self.estimate = max(self.estimate, message.number)
        effects: list[Effect] = []
        for name, news in message.view.items():
            effects += self._hear_of(name, news, joins_wait)
        self.view.learn(sender, Standing(active=self.estimate))
        return effects

    def _hear_of(self, name: str, news: Standing, joins_wait: bool) -> list[Effect]:
        self.estimate = max(self.estimate, news.active)
        known = self.view.of(name)
        if name == self._name:
            self.view.learn(name, Standing(active=news.active))
            return self._refute(news)
        if news.counter <= known.counter:
            self.view.learn(name, news)
            return []
        waiting = self._pending.get(name, UNKNOWN)
        if joins_wait and news.present:
            self._pending[name] = news.merge(waiting)
        else:
            self.view.learn(name, news)
        if news.counter <= waiting.counter:
            return []  # it says again what others have yet to be told
        self._told.pop(name, None)
        self.returned.add(name)
        if news.left:
            return [Part(name)]
        return [Meet(name, news.address)] if news.address else []

    def _refute(self, news: Standing) -> list[Effect]:
        own = self.own
        false = news.counter > own.counter or news.doubted >= own.counter
        false = false or (news.counter == own.counter and news[1:4] != own[1:4])
        if not false:
            return []
        self.refuted += 1
        self.view.learn(self._name, Standing(counter=news.counter, doubted=news.doubted))
        return self.write(left=own.left)

    def admit(self) -> None:
        """A model has been sent: who joined meanwhile counts from now on."""
        for name, standing in self._pending.items():
            self.view.learn(name, standing)
        self._pending.clear()

    def doubt(self, name: str) -> None:
        """A member does not answer."""
        if name in self.view and name != self._name:
            self.view.learn(name, Standing(doubted=self.view.of(name).counter))

    # --------------------------------------------------------------------------------------- what others know

    def lacking(self, to: Iterable[str], number: int) -> dict[str, Standing]:
        """What at least one of these may not know, as far as it matters from round ``number`` on."""
        return self.view.since(min((self._told.get(name, 0) for name in to), default=0), number - self._window)

    def told(self, name: str, version: int) -> None:
        """A peer has been sent all that it lacked of a version of the view."""
        self._told[name] = max(version, self._told.get(name, 0))

    @property
    def present(self) -> int:
        """How many members are known."""
        return sum(one.present for one in self.view.values())

    def appear(self) -> None:
        """Be active in the round under way, as far as it is known."""
        self.view.learn(self._name, Standing(active=self.estimate))

    def introduce(self) -> dict[str, Standing]:
        """A view of the peer itself, if it is not as in the plan."""
        return self.only(self._name) if self.own.counter > 0 else {}

    def ping(self, name: str) -> Message:
        """The message that asks whether a member is there; one in doubt can say then that it should not be."""
        asked = self.only(name) if self.view.of(name).in_doubt else {}
        return Message("ping", self.estimate, view={**self.introduce(), **asked})

    def only(self, name: str) -> dict[str, Standing]:
        """A view of one member."""
        return {name: self.view.of(name)} if name in self.view else {}

    # ---------------------------------------------------------------------------------------------- who to ask

    def candidates(self, number: int) -> list[str]:
        """In the order in which a sample of round ``number`` asks them; the peer itself is one unless it has left."""
        self.appear()
        return self.view.candidates(number, self._window)

    def others(self, count: int) -> list[str]:
        """Members at random."""
        return self._choose([name for name, one in self.view.items() if one.present], count)

    def astray(self, count: int) -> list[str]:
        """Members at random of those that are not sampled, or last of all: they may be back."""
        oldest = self.estimate - self._window
        return self._choose(
            [name for name, one in self.view.items() if one.present and (one.active < oldest or one.in_doubt)], count
        )

    def _choose(self, names: Sequence[str], count: int) -> list[str]:
        names = [name for name in names if name != self._name]
        if len(names) <= count:
            return names
        return [names[k] for k in self._random.choice(len(names), count, replace=False)]

    # ------------------------------------------------------------------------------------------------ snapshots

    def snapshot(self) -> dict[str, int | str]:
        """What a later life needs: whatever is not as in the plan."""
        saved: dict[str, int | str] = {"estimate": self.estimate, "newcomer": int(self.newcomer)}
        for name, one in self.view.since(0, 0).items():
            saved[SAVED + name] = f"{one.active} {one.counter} {one.left:d} {one.doubted} {one.address}"
        return saved

    def restore(self, saved: Mapping[str, int | float | str]) -> list[Effect]:
        """Take up a snapshot; whom it knows of the members that are not where the plan says."""
        self.estimate, self.newcomer = int(saved["estimate"]), bool(saved["newcomer"])
        met: list[Effect] = []
        for key in saved:
            if not key.startswith(SAVED):
                continue
            name = key.removeprefix(SAVED)
            active, counter, left, doubted, address = str(saved[key]).split(" ")
            standing = Standing(int(active), int(counter), left == "1", address, int(doubted))
            self.view.learn(name, standing)
            if standing.present and address and name != self._name:
                met.append(Meet(name, address))
        return met
