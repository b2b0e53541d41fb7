"""The pairwise exchange: exactly once, in both directions, over a network that loses, repeats and reorders.

Theory of operation
-------------------
Every edge has an owner, which runs the edge's Poisson clock and starts its exchanges (the *initiator*); the other
end answers (the *responder*). Exchange number k of an edge takes two messages::

    offer(k, m, life)      m: what the initiator has now; a retry keeps k and carries a fresh m
    reply(k, w, before)    w: the difference m - mine that the responder has just applied;
                           before: the number that it had applied last before k
    stale(last)            the answer to a number below the responder's last one, or to another of its lives
    settled(made)          at the end of a run: no offer of this edge is under way any more

The responder computes the difference and the reply carries it, so that both ends apply the same bits, the responder
``+w`` and the initiator ``-w``. What applying means is the algorithm's business, as long as it is linear in ``w`` with
constants that all peers share.

Invariants
----------
* Number k + 1 is never offered before k is applied; a responder applies each number once; an initiator applies a
  reply only while it waits for that number. So each difference is applied once at either end, and the *ledger* (what
  the algorithm conserves, summed over peers, less the differences that only one end has applied so far) is constant.
* A difference that only the responder has applied can be read there, where ``done`` equals the initiator's ``pending``.
* A tick that finds its edge busy is served next; ticks are counted, never dropped silently, and the clock never waits
  for an exchange to complete.
* A peer with an offer under way still answers others: no lock, so no deadlock.

Crashes
-------
A peer that falls back to a snapshot in which everything it ever said is contained loses nothing. If it falls back
further, the two ends notice from ``before`` and ``stale``, count exactly how many exchanges only one of them has still
applied (``lost``), and put a durable snapshot on disk so that no gap is ever counted twice. Every resume begins a new
``life`` of the responder: an offer or a reply that was still travelling from before it counts for nothing.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from algorithms.edges import IDLE, OUT, PARKED, QUEUED, AnsweredEdge, OwnedEdge
from algorithms.poisson import PoissonClock
from algorithms.protocol import (
    Arrival,
    Cancel,
    Delivered,
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
    Tick,
    Timer,
    Undelivered,
    Vector,
)

KINDS = {
    "offer": Kind("owner", vectors=("m",), counts=("life",)),
    "reply": Kind("peer", vectors=("w",), counts=("before", "life")),
    "stale": Kind("peer", counts=("life",)),
    "settled": Kind("owner"),
}
"""Message kinds of every algorithm that exchanges along edges."""


class Exchanges:
    """All the exchanges of one peer, as a part that an algorithm owns.

    Parameters
    ----------
    place : Place
        The peer's edges, limits, codec and random generators.
    read : callable
        ``read(now)`` is the vector to offer and to compare with, shape ``(d,)``.
    apply : callable
        ``apply(sign, w, now)`` moves the algorithm's state by ``sign * w``: +1 at the responder, -1 at the initiator.
    live : bool
        Whether what ``read`` returns is written later, so that a copy of it is sent.
    clocked : bool
        Whether the edges have clocks; else exchanges begin with :meth:`begin` only.
    """

    def __init__(
        self,
        place: Place,
        read: Callable[[float], Vector],
        apply: Callable[[int, Vector, float], None],
        live: bool = True,
        clocked: bool = True,
    ) -> None:
        self._read = read
        self._apply = apply
        self._live = live
        self._codec = place.codec
        self._limits = place.limits
        self._random = place.draw("exchange")
        edges = sorted(place.neighbours.items())
        self.owned = {name: OwnedEdge() for name, edge in edges if edge.owned}
        self.answered = {name: AnsweredEdge() for name, edge in edges if not edge.owned}
        self._clocks = {
            name: PoissonClock("clock " + name, edge.rate, self._random)
            for name, edge in edges
            if edge.owned and clocked
        }
        self._queue: deque[str] = deque()
        self._out = 0
        self._down: set[str] = set()
        self._recovered = False
        self._life = 0
        self.finishing = False
        self._handlers: dict[type, Callable] = {
            Start: self._start,
            Tick: self._tick,
            Arrival: self._arrive,
            Delivered: self._delivered,
            Undelivered: self._undelivered,
            PeerUp: self._peer_up,
            PeerDown: self._peer_down,
            Finish: self._finish,
        }

    def step(self, event: Event, now: float) -> list[Effect]:
        """Take one event and answer with effects; events that are not about exchanges have none."""
        handler = self._handlers.get(type(event))
        return handler(event, now) if handler else []

    # ------------------------------------------------------------------------------------- the initiator

    def _start(self, event: Start, now: float) -> list[Effect]:
        self._recovered = event.recovered
        effects: list[Effect] = []
        if event.recovered:
            self._life += 1
            effects.append(Save(durable=True))
        for name, edge in self.owned.items():
            edge.begun_at = now
            if name in self._clocks:
                effects.append(self._clocks[name].start(now))
            if edge.pending or edge.due:
                self._enqueue(name, edge)
        return effects + self._offer_next(now)

    def _tick(self, event: Tick, now: float) -> list[Effect]:
        what, _, name = event.name.partition(" ")
        if what == "clock":
            return self._clock_tick(name, now)
        if what == "retry":
            return self._retry(name, self.owned[name], now)
        return []

    def _clock_tick(self, name: str, now: float) -> list[Effect]:
        return [self._clocks[name].rearm(now), *self.begin(name, now)]

    def begin(self, name: str, now: float) -> list[Effect]:
        """One more exchange along an edge that this peer owns, now or after those that are due already."""
        edge = self.owned[name]
        if edge.due < self._limits.ticks_due_max:
            edge.due += 1
        else:
            edge.missed += 1
        if edge.phase == IDLE:
            self._enqueue(name, edge)
        return self._offer_next(now)

    def _enqueue(self, name: str, edge: OwnedEdge) -> None:
        edge.phase = QUEUED
        self._queue.append(name)

    def _offer_next(self, now: float) -> list[Effect]:
        """Start offers of queued edges while fewer than the most allowed are out."""
        effects: list[Effect] = []
        while self._queue and self._out < self._limits.offers_out_max:
            name = self._queue.popleft()
            edge = self.owned[name]
            if not edge.pending:
                edge.due -= 1
                edge.made += 1
                edge.pending = edge.made
                edge.begun_at = now
            edge.phase = OUT
            self._out += 1
            effects += self._offer(name, edge, now)
        return effects

    def _offer(self, name: str, edge: OwnedEdge, now: float) -> list[Effect]:
        edge.offered_at = now
        m = self._read(now)
        rounded = self._codec.round(m)
        sent = m.clone() if rounded is m and self._live else rounded
        return [Save(), Send(name, Message("offer", edge.pending, {"m": sent}, {"life": edge.life}))]

    def _delivered(self, event: Delivered, now: float) -> list[Effect]:
        edge = self.owned.get(event.to)
        if edge is None:
            return []
        if event.kind == "settled":
            edge.told = True
        elif event.kind == "offer" and edge.phase == OUT and event.number == edge.pending:
            edge.tries = 0  # the other end can be reached: back off no longer
            return [Timer("retry " + event.to, edge.reply_wait(self._limits, now - edge.offered_at))]
        return []

    def _undelivered(self, event: Undelivered, now: float) -> list[Effect]:
        edge = self.owned.get(event.to)
        if edge is None:
            return []
        if event.kind == "settled":
            edge.told = not event.reason.transient
            return [] if edge.told else [self._retry_later(event.to, edge)]
        if event.kind != "offer" or edge.phase != OUT or event.number != edge.pending:
            return []
        return self._park(event.to, edge, event.reason.transient, now)

    def _park(self, name: str, edge: OwnedEdge, transient: bool, now: float) -> list[Effect]:
        """Give the offer's place to another edge; what is refused for good waits for the peer to come back changed."""
        edge.phase = PARKED
        self._out -= 1
        again: Effect = self._retry_later(name, edge) if transient else Cancel("retry " + name)
        return [again, *self._offer_next(now)]

    def _retry_later(self, name: str, edge: OwnedEdge) -> Timer:
        delay = edge.backed_off(self._limits.retry_first, self._limits) * self._random.uniform(0.5, 1.5)
        edge.tries += 1
        return Timer("retry " + name, delay)

    def _retry(self, name: str, edge: OwnedEdge, now: float) -> list[Effect]:
        if edge.phase == PARKED:
            self._enqueue(name, edge)
            return self._offer_next(now)
        if edge.phase == OUT:  # delivered, but no reply came
            return self._offer(name, edge, now)
        if self.finishing and not edge.pending and not edge.told:
            return [self._say_settled(name, edge)]
        return []

    def _peer_up(self, event: PeerUp, now: float) -> list[Effect]:
        self._down.discard(event.name)
        edge = self.owned.get(event.name)
        if edge is None:
            return []
        edge.tries = 0
        edge.begun_at = now  # the time that it was gone is not what an exchange takes
        return self._retry(event.name, edge, now) if edge.phase != OUT else []

    def _peer_down(self, event: PeerDown, now: float) -> list[Effect]:
        self._down.add(event.name)
        edge = self.owned.get(event.name)
        return self._park(event.name, edge, True, now) if edge and edge.phase == OUT else []

    def _take_reply(self, sender: str, message: Message, now: float) -> list[Effect]:
        edge = self.owned[sender]
        before = int(message.numbers["before"])
        expected = message.number == edge.pending and message.numbers["life"] == edge.life
        if not expected or before >= edge.pending:
            return []
        self._apply(-1, message.vectors["w"], now)
        gap = abs(before - edge.applied)
        edge.lost += gap
        edge.applied, edge.pending = edge.pending, 0
        edge.count += 1
        edge.reply_times.append(now - edge.offered_at)
        edge.exchange_times.append(now - edge.begun_at)
        effects: list[Effect] = [Cancel("retry " + sender)]
        if gap:
            effects.append(Save(durable=True))
        return effects + self._free(sender, edge, now)

    def _free(self, name: str, edge: OwnedEdge, now: float) -> list[Effect]:
        """The edge's exchange is complete: serve what is due next."""
        if edge.phase == OUT:
            self._out -= 1
        elif edge.phase == QUEUED:
            self._queue.remove(name)
        edge.tries = 0
        edge.phase = IDLE
        if edge.due:
            self._enqueue(name, edge)
        elif self.finishing:
            return [self._say_settled(name, edge), *self._offer_next(now)]
        return self._offer_next(now)

    def _take_stale(self, sender: str, message: Message, now: float) -> list[Effect]:
        """The other end is ahead, or in another life: one of the two has fallen back to an old snapshot."""
        edge = self.owned[sender]
        life = int(message.numbers["life"])
        if not edge.pending or (life == edge.life and message.number <= edge.made):
            return []
        edge.life = life
        if message.number > edge.made:
            edge.made = message.number
            if not self._recovered:
                edge.pending = 0
                edge.due += 1
                return self._free(sender, edge, now)
            edge.pending = message.number  # the difference of the last exchange is still owed: ask for it
        return self._offer(sender, edge, now) if edge.phase == OUT else []

    # ------------------------------------------------------------------------------------- the responder

    def _arrive(self, event: Arrival, now: float) -> list[Effect]:
        kind = event.message.kind
        if event.sender in self.answered:
            if kind == "offer":
                return self._take_offer(event.sender, event.message, now)
            if kind == "settled":
                self.answered[event.sender].settled = True
        elif event.sender in self.owned:
            if kind == "reply":
                return self._take_reply(event.sender, event.message, now)
            if kind == "stale":
                return self._take_stale(event.sender, event.message, now)
        return []

    def _take_offer(self, sender: str, message: Message, now: float) -> list[Effect]:
        edge = self.answered[sender]
        number = message.number
        effects: list[Effect] = []
        if number < edge.done or message.numbers["life"] != self._life or (edge.w is None and number == edge.done):
            if number < edge.done:  # what its sender will count as lost must not fall back here any more
                effects.append(Save(durable=True))
            return [*effects, Send(sender, Message("stale", edge.done, numbers={"life": self._life}))]
        if number > edge.done:
            edge.w = None  # the offer acknowledges it: free it before the next one is made
            edge.w = self._codec.round(message.vectors["m"] - self._read(now))
            self._apply(+1, edge.w, now)
            edge.before, edge.done = edge.done, number
            edge.count += 1
            edge.settled = False
            effects.append(Save(durable=edge.before != number - 1))
        assert edge.w is not None
        numbers = {"before": edge.before, "life": self._life}
        return [*effects, Send(sender, Message("reply", edge.done, {"w": edge.w}, numbers))]

    # ------------------------------------------------------------------------------------------ the end

    def _finish(self, event: Finish, now: float) -> list[Effect]:
        """No new ticks; settle what is pending and tell the other ends."""
        self.finishing = True
        effects: list[Effect] = []
        for name, edge in self.owned.items():
            effects.append(Cancel("clock " + name))
            edge.due = 0
            if edge.phase == QUEUED and not edge.pending:
                self._queue.remove(name)
                edge.phase = IDLE
            if not edge.pending:
                effects.append(self._say_settled(name, edge))
        return effects

    def _say_settled(self, name: str, edge: OwnedEdge) -> Send:
        return Send(name, Message("settled", edge.made))

    @property
    def settled(self) -> bool:
        """Whether nothing is under way any more on any edge whose other end is there."""
        return all(e.told and not e.pending for name, e in self.owned.items() if name not in self._down) and all(
            e.settled for name, e in self.answered.items() if name not in self._down
        )

    def unsettled(self) -> list[str]:
        """Neighbours to which an offer of this peer is still under way."""
        return sorted(name for name, edge in self.owned.items() if edge.pending)

    # ----------------------------------------------------------------------------------------- the record

    def counters(self) -> dict[str, float]:
        """Exchanges started here and lost, ticks missed, and the units that 99 of 100 recent ones took at most;
        ``exchanges/NAME`` for each neighbour, whoever started."""
        owned = self.owned.values()
        times = [time for edge in owned for time in edge.exchange_times]
        figures: dict[str, float] = {
            "exchanges": sum(edge.count for edge in owned),
            "lost_exchanges": sum(edge.lost for edge in owned),
            "missed_ticks": sum(edge.missed for edge in owned),
            "exchange_units_p99": float(np.quantile(times, 0.99)) if times else math.nan,
        }
        for name, edge in self._edges():
            figures[f"exchanges/{name}"] = edge.count
        return figures

    def distances(self) -> dict[str, float]:
        """``distance/NAME``: how far apart the two ends were in the latest exchange, of edges answered here."""
        known = {name: edge.distance for name, edge in self.answered.items()}
        return {f"distance/{name}": distance for name, distance in known.items() if distance is not None}

    def _edges(self) -> Iterator[tuple[str, OwnedEdge | AnsweredEdge]]:
        yield from self.owned.items()
        yield from self.answered.items()

    def snapshot(self) -> Snapshot:
        """Numbers ``edge.NAME.*`` and the kept differences ``w.NAME``; these are never written again, so not copied."""
        numbers: dict[str, int | float | str] = {"life": self._life}
        for name, edge in self._edges():
            numbers |= {f"edge.{name}.{key}": value for key, value in edge.numbers().items()}
        vectors = {f"w.{name}": edge.w for name, edge in self.answered.items() if edge.w is not None}
        return Snapshot(vectors, numbers)

    def restore(self, snapshot: Snapshot) -> None:
        """Take up the numbers and differences of a snapshot; :class:`Start` then offers again what was pending."""
        self._life = int(snapshot.numbers["life"])
        for name, edge in self._edges():
            for key in edge.numbers():
                setattr(edge, key, int(snapshot.numbers[f"edge.{name}.{key}"]))
        for name, answered in self.answered.items():
            answered.w = snapshot.vectors.get(f"w.{name}")
