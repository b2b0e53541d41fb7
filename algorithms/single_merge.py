"""Sparse merging: rounds of local steps, a merge with one random other peer now and then, and one of all at the end.

Theory of operation
-------------------
A peer takes H local steps, and then, with probability r, draws one of the neighbours that answer, all with the same
probability, and merges with it [1]_. On a complete graph that is a random other peer. The models of such peers are far
apart, and each of them knows little more than its own data; but their mean is good all the time, so that a single
merge of all at the end makes up for nearly all that was not said before.

A merge is one of two:

``symmetric``
    Both ends move half-way. It is an exchange as in ``algorithms/exchange.py``, applied once at both ends or not at
    all. Only the owner of an edge can begin one: a peer that draws an edge that it does not own sends ``call(k)``, k
    the number of the exchange that it wants, and the owner begins that unless it has already. So each peer starts r
    merges a round on average and takes part in 2r; draws of both ends of an edge at one time are one merge.
``pull``
    As published: the peer asks for the other one's model and moves half-way to it; the other one does not move.

With a window, merges have the probability r only in that part of the rounds, and another one, zero by default, outside.

Nobody waits for anybody but for a merge of its own: from the draw until it is made, the other end turns out not to be
there, or a while has passed. A merge that takes longer is made all the same, while the next steps are under way, which
are then added to what it makes of the model. After its last round a peer stays for a while, for others that are at
theirs.

Invariants
----------
* ``symmetric``: sum(x - x(0) - own steps) = 0, the ledger, whatever the network does.
* ``pull``: of each neighbour, the answer to the newest question is used, and once.

.. [1] T. Zhu, T. Zhang, M. Wang, Z. Zhou, C. Wang, "On the surprising effectiveness of a single global merging in
   decentralized learning", ICLR 2026, arXiv:2507.06542.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar

from algorithms.exchange import KINDS
from algorithms.gossip import Gossip
from algorithms.protocol import (
    Arrival,
    Cancel,
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


class SingleMerge(Gossip):
    """See the module.

    Raises
    ------
    Unsuitable
        When an option is out of its bounds, or there is a window and nobody knows how many rounds there are.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        **KINDS,
        "call": Kind("peer"),
        "ask": Kind("neighbour"),
        "model": Kind("neighbour", vectors=("x",)),
    }
    options: ClassVar[Mapping[str, float | int | str]] = {
        "probability": 0.2,
        "pairing": "symmetric",
        "window": "0:1",
        "outside": 0.0,
    }
    """r; ``symmetric`` or ``pull``; the part of the rounds in which r holds, as BEGIN:END; r outside of it."""
    defaults: ClassVar[Mapping[str, float]] = {"local_steps": 10}
    tempo: ClassVar[Tempo] = Tempo(exchanges_per_step=None, rounds=True)
    work: ClassVar[tuple[str, ...]] = ("round", "patience", "stay")
    clocked: ClassVar[bool] = False

    def __init__(self, place: Place) -> None:
        self._pull = _read_pairing(place)
        self._inside, self._outside, self._window = _read_probabilities(place)
        self._random, self._codec, self._limits = place.draw("pairing"), place.codec, place.limits
        self._rounds_max = place.rounds
        self._there = set(place.neighbours)
        self._asked: dict[str, int] = {}
        self._other, self._before = "", 0
        self.round = self._questions = self._pulled = 0
        super().__init__(replace(place, neighbours={}, keep_ledger=False) if self._pull else place)

    def step(self, event: Event, now: float) -> Iterable[Effect]:
        """Take one event."""
        stayed = isinstance(event, Tick) and event.name == "stay"
        return super().step(Finish() if stayed else event, now)

    def _learn(self, event: Event, now: float) -> list[Effect]:
        match event:
            case Start():
                return self._train()
            case Trained():
                self._take_step(event.change, now)
                return self._draw(now)
            case Arrival(sender, message):
                return self._hear(sender, message, now)
            case PeerUp(name):
                self._there.add(name)
            case PeerDown(name):
                self._there.discard(name)
                return self._go_on() if name == self._other else []
            case Undelivered(to=name, kind="ask" | "call" | "offer"):
                return self._go_on() if name == self._other else []
            case Tick("patience"):
                return self._go_on() if self._other else []
        return []

    # ---------------------------------------------------------------------------------------------- a round

    def _train(self) -> list[Effect]:
        if self.round >= self._rounds_max:
            return [Save(), Timer("stay", self._limits.linger)]
        return [Save(), Train("round", self.x.clone(), self._local_steps)]

    def _draw(self, now: float) -> list[Effect]:
        """After the local steps: whether to merge, and with whom."""
        if self._random.random() >= self.probability or not self._there:
            return self._go_on()
        names = sorted(self._there)
        name = self._other = names[self._random.integers(len(names))]
        patience = Timer("patience", self._limits.reply_first)
        if self._pull:
            self._questions += 1
            self._asked[name] = self._questions
            return [patience, Send(name, Message("ask", self._questions))]
        self._before = self._made_with(name)
        if name in self.exchanges.owned:
            return [patience, *self._begin_exchange(name, now)]
        return [patience, Send(name, Message("call", self.exchanges.answered[name].done + 1))]

    @property
    def probability(self) -> float:
        """Of a merge after the round that is under way."""
        begin, end = self._window
        inside = math.isinf(self._rounds_max) or begin <= self.round / self._rounds_max < end
        return self._inside if inside else self._outside

    def _go_on(self) -> list[Effect]:
        if self.exchanges.finishing:
            return []
        self._other = ""
        self.round += 1
        return [Cancel("patience"), *self._train()]

    # ---------------------------------------------------------------------------------------------- merges

    def _begin_exchange(self, name: str, now: float) -> list[Effect]:
        edge = self.exchanges.owned[name]
        return [] if edge.pending or edge.due else self.exchanges.begin(name, now)

    def _made_with(self, name: str) -> int:
        """How many exchanges with a neighbour this end has applied."""
        owned = self.exchanges.owned.get(name)
        return owned.count if owned else self.exchanges.answered[name].count

    def _hear(self, sender: str, message: Message, now: float) -> list[Effect]:
        """What is asked of this peer is done whatever it is doing itself; an exchange has been applied already."""
        if message.kind == "ask":
            return [Send(sender, Message("model", message.number, {"x": self._codec.round(self.x.clone())}))]
        if message.kind == "call":
            edge = self.exchanges.owned.get(sender)
            return self._begin_exchange(sender, now) if edge and message.number > edge.made else []
        if message.kind == "model" and self._asked.get(sender) == message.number:
            del self._asked[sender]
            self._merge(message.vectors["x"])
            return self._go_on() if sender == self._other else []
        made = sender == self._other and not self._pull and self._made_with(sender) > self._before
        return self._go_on() if made else []

    def _merge(self, theirs: Vector) -> None:
        own, self._pulled = self.x, self._pulled + 1
        self.x = own.add(theirs - own, alpha=self._share)
        if not self._merging.linear:
            self.x.add_(self._merging.correction(self.x, own, [theirs], 1 - self._share, self._layout))

    # ----------------------------------------------------------------------------------------------- the record

    def counters(self) -> Mapping[str, float]:
        """Rounds done; exchanges begun at this peer's edges, or models pulled."""
        if self._pull:
            return {"rounds": self.round, "exchanges": self._pulled}
        made = super().counters()  # how often each edge is used, no rate of the plan says
        kept = {key: value for key, value in made.items() if key.startswith("distance/")}
        return {"rounds": self.round, **{key: made[key] for key in ("exchanges", "lost_exchanges")}, **kept}

    def snapshot(self) -> Snapshot:
        """The model, the exchanges, and the counts: a round that was under way is done again."""
        snapshot = super().snapshot()
        snapshot.numbers |= {"round": self.round, "questions": self._questions, "pulled": self._pulled}
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Take up a snapshot."""
        super().restore(snapshot)
        self.round, self._questions, self._pulled = (
            int(snapshot.numbers[key]) for key in ("round", "questions", "pulled")
        )


def _read_pairing(place: Place) -> bool:
    """Whether models are pulled."""
    pairing = str(place.options.get("pairing", "symmetric"))
    if pairing not in ("symmetric", "pull"):
        raise Unsuitable(f"--set pairing={pairing} can't be used: write symmetric or pull.")
    return pairing == "pull"


def _read_probabilities(place: Place) -> tuple[float, float, tuple[float, float]]:
    """The probabilities inside and outside the window, and the window."""
    given = {**SingleMerge.options, **place.options}
    for key in ("probability", "outside"):
        if not 0 <= float(given[key]) <= 1:
            raise Unsuitable(f"--set {key}={given[key]} can't be used: write a probability from 0 to 1.")
    window = str(given["window"])
    try:
        begin, end = (float(part) for part in window.split(":"))
    except ValueError:
        begin = end = math.nan
    if not 0 <= begin < end <= 1:
        raise Unsuitable(f"--set window={window} can't be used: write a part of the rounds such as 0.9:1.")
    if (begin, end) != (0, 1) and math.isinf(place.rounds):
        raise Unsuitable(f"--set window={window} is a part of the rounds: write --rounds, too.")
    return float(given["probability"]), float(given["outside"]), (begin, end)
