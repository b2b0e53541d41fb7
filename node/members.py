"""Who is there: alive, suspect or gone, each as this peer sees it.

Theory of operation
-------------------
Whatever comes from a peer proves that it is alive. A neighbour that has been silent for about a second is pinged, as is
one of whose answers too few are known to say how long they take. One that can't be reached, or does not answer two
pings in a row in their time, is suspect, as in SWIM [1]_: it is pinged several times more, and gone if nothing is heard
of it in all that time. From then on it is pinged again and again, ever more rarely, until it answers. The outcomes of
sends decide nothing by themselves: a failed one only brings the next ping forward, so that a connection that works in
one direction and not yet in the other, as after a restart, can't make a peer come and go as fast as messages fly.

Members that are no neighbours are acquaintances. They are taken to be there when they are met, and then one of them a
second is pinged, whichever is next on a list that is shuffled anew after each pass: that costs the same however many
they are, and with n of them none waits longer than for 2n - 1 pings. One that does not answer is watched on its own
until it does or is gone.

How long an answer may take is learnt for each peer; it and the time of suspicion grow with the peer's own ill health,
and time during which the own process stood still counts for nothing: see ``node/health.py``.

A neighbour that answers but refuses, being of another run, plan, layout or version, is gone at once, as is one whose
answers make no sense: nothing can be exchanged with it. The reason is logged once, in words.

What is left out
----------------
SWIM asks others to ping a suspect in its stead. Here it would not help: a peer that can be reached only by others is of
no use as a neighbour, and pings travel over TCP, which sends again what was lost.

Invariants
----------
* Between two reports about a peer it has gone or come back; suspicions are not reported.
* Neighbours are gone until proven alive.

.. [1] A. Das, I. Gupta, A. Motivala, "SWIM: Scalable weakly-consistent infection-style process group membership
   protocol", DSN 2002.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import trio

from algorithms.protocol import PeerDown, PeerUp, Reason
from node.health import Health, Patience
from node.wire.transport import Transport, Undelivered

log = logging.getLogger(__name__)

SILENCE_S = 1.0
"""A neighbour that was silent for this long is pinged, and one acquaintance each time this has passed."""

SUSPICION_S = 1.0
"""A suspect is gone after this long, in good health."""

SUSPICION_PINGS = 10
"""Pings of a suspect; with a fifth of them lost, one in a hundred million suspicions is wrong."""

RETRY_FIRST_S, RETRY_MAX_S = 0.25, 5.0
"""First and longest wait between two pings of one that is gone."""

REFUSALS: Mapping[Reason, str] = {
    Reason.WRONG_VERSION: "it speaks another version of the protocol: run the same gradvine on both",
    Reason.WRONG_RUN: "it is in another run: give both the same plan, algorithm, codec, options and --run",
    Reason.WRONG_LAYOUT: "its model is laid out differently: give both the same task and task options",
    Reason.NOT_MY_NEIGHBOUR: "it does not know this peer as its neighbour: give both the same plan, and check the "
    "names in their certificates",
}
MALFORMED = "%s and this peer can't read each other's pings: run the same gradvine on both."
"""Of a ping or its answer, so that either of them may have found it."""

State: TypeAlias = Literal["alive", "suspect", "gone"]


@dataclass(slots=True)
class Member:
    """What is known of one peer.

    Parameters
    ----------
    near : bool
        Whether it is a neighbour.
    heard_s : float
        When something last came from it; this and all times are those of the own health's clock.
    doubted : bool
        Whether a message to it has failed since.
    failures : int
        Times since that it could not be reached, while it was gone.
    visited : bool
        Of an acquaintance: whether it is being pinged, or was a moment ago.
    untold : bool
        Whether there is news that no ping has carried to it yet.
    told : set of Reason
        The refusals that were logged already.
    patience : Patience
        How long its answers may take.
    hurry : trio.Event
        Set to ping it at once.
    """

    state: State
    near: bool
    heard_s: float = float("-inf")
    doubted: bool = False
    failures: int = 0
    visited: bool = False
    untold: bool = False
    told: set[Reason] = field(default_factory=set)
    patience: Patience = field(default_factory=Patience)
    hurry: trio.Event = field(default_factory=trio.Event)


class Members:
    """A peer's neighbours and acquaintances.

    Parameters
    ----------
    transport : Transport
        For pings.
    names : iterable of str
        The neighbours.
    random : numpy Generator
        Spreads the pings over time, and shuffles the acquaintances.
    """

    def __init__(self, transport: Transport, names: Iterable[str], random: np.random.Generator) -> None:
        self._transport = transport
        self._random = random
        self.health = Health()
        """This peer's own."""
        self._members = {name: Member("gone", near=True) for name in sorted(names)}
        self._neighbours = dict(self._members)
        self._round: list[str] = []
        self._nursery: trio.Nursery | None = None
        self._all_alive = trio.Event()
        self._see_whether_all_are_alive()
        self.report: Callable[[PeerUp | PeerDown], None] = lambda news: None
        """Told of every change."""

    def states(self) -> dict[str, str]:
        """``"alive"``, ``"suspect"`` or ``"gone"`` by name, neighbours first."""
        return {name: one.state for name, one in self._members.items()}

    def gone(self) -> list[str]:
        """Those who are not there."""
        return [name for name, one in self._members.items() if one.state == "gone"]

    async def wait_for_all(self) -> None:
        """Return when all neighbours have been there at once."""
        await self._all_alive.wait()

    def tell_all(self) -> None:
        """Ping all neighbours soon, heard lately or not: there is news that pings carry."""
        for one in self._neighbours.values():
            one.untold = True
            one.hurry.set()

    def meet(self, name: str) -> None:
        """Watch a member that need not be a neighbour; one that is watched and gone is pinged at once."""
        one = self._members.get(name)
        if one is None:
            self._members[name] = Member("alive", near=False)
        elif one.state == "gone":
            self._hurry(name, one)

    def part(self, name: str) -> None:
        """Watch an acquaintance no more; neighbours are watched for ever."""
        if name in self._members and name not in self._neighbours:
            one = self._members.pop(name)
            one.state, one.hurry = "gone", trio.Event()  # ends what is under way with it

    async def run(self) -> None:
        """Ping for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.health.run)
            nursery.start_soon(self._stroll)
            for name, one in self._neighbours.items():
                nursery.start_soon(self._watch, name, one)
            self._nursery = nursery
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    # ----------------------------------------------------------------------------------- what is observed

    def heard(self, name: str) -> None:
        """Something came from a peer; it need not be a member."""
        one = self._members.get(name)
        if one is None:
            return
        one.heard_s, one.failures, one.doubted = self.health.awake_s(), 0, False
        before, one.state = one.state, "alive"
        if before == "gone":
            one.told.clear()
            log.info("%s is there", name)
            self._see_whether_all_are_alive()
            self.report(PeerUp(name))

    def undelivered(self, name: str, reason: Reason) -> None:
        """A message to a peer was not delivered."""
        one = self._members.get(name)
        if one is None:
            return
        if reason in REFUSALS:
            self._tell_refusal(name, one, reason)
        elif reason in (Reason.UNREACHABLE, Reason.TIMEOUT):
            one.doubted = True
            self._hurry(name, one)
        else:
            self.heard(name)

    def _see_whether_all_are_alive(self) -> None:
        if all(one.state != "gone" for one in self._neighbours.values()):
            self._all_alive.set()

    # -------------------------------------------------------------------------------------- whom to ping

    async def _watch(self, name: str, one: Member) -> None:
        """A neighbour, for ever."""
        while True:
            one.hurry = trio.Event()
            silent = self.health.awake_s() - one.heard_s >= SILENCE_S / 2
            if silent or one.doubted or one.untold or not one.patience.learnt:
                one.untold = False
                await self._visit(name, one)
            else:
                self.health.better()  # what it sent stands for the answer
            await trio.sleep(RETRY_FIRST_S * self._random.uniform(0.8, 1.2))
            with trio.move_on_after(self._wait_s(one) - RETRY_FIRST_S):
                await one.hurry.wait()

    def _wait_s(self, one: Member) -> float:
        backed_off_s = min(RETRY_FIRST_S * 2.0 ** min(one.failures - 1, 10), RETRY_MAX_S)
        wait_s = backed_off_s if one.failures else SILENCE_S
        return max(wait_s * self._random.uniform(0.8, 1.2), RETRY_FIRST_S)

    async def _stroll(self) -> None:
        """From one acquaintance to the next, for ever."""
        while True:
            await trio.sleep(SILENCE_S * self._random.uniform(0.8, 1.2))
            if not self._round:
                self._round = [name for name, one in self._members.items() if not one.near]
                self._random.shuffle(self._round)
            name = self._round.pop() if self._round else ""
            if name in self._members:
                self._hurry(name, self._members[name])

    def _hurry(self, name: str, one: Member) -> None:
        """Let it be pinged, at once if that was not done a moment ago."""
        one.hurry.set()
        if not one.near and not one.visited and self._nursery is not None:
            one.visited = True
            self._nursery.start_soon(self._call_on, name, one)

    async def _call_on(self, name: str, one: Member) -> None:
        """An acquaintance, once, and again if a message to it has failed since."""
        while one.hurry.is_set():
            one.hurry = trio.Event()
            await self._visit(name, one)
            await trio.sleep(RETRY_FIRST_S)
        one.visited = False

    # --------------------------------------------------------------------------------------------- pings

    async def _visit(self, name: str, one: Member) -> None:
        """Until it has answered, or is gone."""
        reason = await self._ping(name, one)
        if reason is Reason.TIMEOUT and one.state == "alive":
            reason = await self._ping(name, one)
            if reason is Reason.TIMEOUT:
                self.health.worse()
        if reason is None:
            return
        if one.state == "alive":
            one.state = "suspect"
            log.debug("%s may be gone: %s", name, reason.value)
            await self._doubt(name, one, reason)
        if one.state == "gone":
            one.failures += 1

    async def _doubt(self, name: str, one: Member, reason: Reason) -> None:
        """Ping a suspect without waiting for answers, until anything is heard of it or its time is over."""
        sent = 0
        async with trio.open_nursery() as pings:
            while one.state == "suspect":
                pings.start_soon(self._ping, name, one)
                sent += 1
                await trio.sleep(SUSPICION_S * self.health.factor / SUSPICION_PINGS)
                long_enough = sent >= SUSPICION_PINGS and self.health.steady_s() >= SUSPICION_S
                if long_enough and one.state == "suspect":
                    self._lose(name, one, reason)
            pings.cancel_scope.cancel()

    async def _ping(self, name: str, one: Member) -> Reason | None:
        """Why there was no answer; None if there was one, or if its absence says nothing."""
        wait_s = one.patience.wait_s * (1.0 if one.state == "gone" else self.health.factor)  # no accusation, no care
        begun_s, since_s = trio.current_time(), self.health.awake_s()
        try:
            await self._transport.ping(name, wait_s)
        except Undelivered as error:
            reason = error.reason
        else:
            one.patience.answered(trio.current_time() - begun_s)
            self.health.better()
            self.heard(name)
            return None
        if reason is Reason.TIMEOUT:
            if self.health.awake_s() - since_s < (trio.current_time() - begun_s) / 2:
                return None  # this peer was not there to hear the answer
            one.patience.timed_out()
        self._unanswered(name, one, reason)
        return None if one.heard_s >= since_s else reason

    def _unanswered(self, name: str, one: Member, reason: Reason) -> None:
        if not reason.transient:
            self._tell_refusal(name, one, reason)
            self._lose(name, one, reason)
        elif reason is Reason.BUSY:
            self.heard(name)

    def _lose(self, name: str, one: Member, reason: Reason) -> None:
        if one.state != "gone":
            one.state = "gone"
            log.warning("%s is gone: %s", name, reason.value)
            self.report(PeerDown(name))

    def _tell_refusal(self, name: str, one: Member, reason: Reason) -> None:
        if reason in one.told:
            return
        one.told.add(reason)
        if reason is Reason.MALFORMED:
            log.error(MALFORMED, name)
        else:
            log.error("%s refuses this peer: %s.", name, REFUSALS.get(reason, reason.value))
