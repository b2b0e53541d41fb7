"""The exact mean of all live peers' models without a server: an echo wave over the topology.

Theory of operation
-------------------
One peer, the root, sends a wave to its neighbours; whoever is reached for the first time takes the sender for its
parent and sends the wave on to all its other neighbours [1]_. A peer has heard of everybody when each of these has
answered, by the same wave if it has another parent, or by the sum of the models below it; then it sends its own sum to
its parent. When the root has heard of everybody it divides, and the mean goes down the same tree. Without deaths that
is two small messages over each edge, or one over those of the tree, n − 1 sums and n − 1 means.

Sums are accumulated in float64 and travel as two vectors of the run's dtype, the rounded sum and what rounding left,
with the names of those whose models are in it. A peer needs room for its frozen model and one accumulator.

Deaths: whoever loses its parent, or a neighbour that may have the wave and has not answered, can't know what is lost
with it, and begins a new wave. Waves are numbered; the largest wins everywhere and everything begins anew. Neighbours
that notice a death at the same time cause one restart together. Once there is a mean it stays: a peer that has it
answers every wave with it. So two means can only arise in two parts of a network that don't reach each other, or when a
peer asks only after all that had the mean have left.

Who comes back is asked by those that have not answered yet, and is not waited for by those who have heard of it in this
wave: it would only be lost with all that it had asked in turn. It is given the mean in the end.

Who has the mean tells its neighbours, gives it after a while to those who have not told, and may leave when all have.

Invariants
----------
* A mean is that of exactly the models whose names come with it, each once. A model that is not finite is in none.
* A peer that no neighbour loses during the last wave is in its mean, if a path of such peers leads from it to the root.

.. [1] E. J. H. Chang, "Echo algorithms: depth parallel operations on general graphs", IEEE Trans. Software Engineering
   8(4), 1982.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch

from algorithms.protocol import Delivered, Effect, Kind, Limits, Message, Reason, Send, Timer, Undelivered, Vector
from algorithms.view import Standing

MARK = "merge"
"""The first word of the names of all timers that are set here."""

AHEAD = 1000
"""Waves that are further ahead than this of what a peer knows are not believed."""


class Echo:
    """One peer's part in it.

    Parameters
    ----------
    name : str
        The peer.
    nodes : sequence of str
        All peers that may be roots, in the same order everywhere.
    neighbours : iterable of str
        Its neighbours in the topology, which need not be live.
    limits : Limits
        Waits.
    random : numpy Generator
        Spreads what is repeated over time.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "wave": Kind("neighbour", counts=("ends",)),
        "sum": Kind("neighbour", vectors=("sum", "rest"), view=True, whole=True),
        "mean": Kind("neighbour", vectors=("x",), view=True, whole=True),
        "had": Kind("neighbour"),
    }

    def __init__(
        self, name: str, nodes: Sequence[str], neighbours: Iterable[str], limits: Limits, random: np.random.Generator
    ) -> None:
        self._name, self._nodes, self._limits, self._random = name, sorted(nodes), limits, random
        self._live = set(neighbours)
        self._gone: set[str] = set()  # who was lost last; a late message may make it live all the same
        self._wave = 0  # its number times the number of nodes, and the root's index: no two roots begin the same
        self._parent = ""
        self._perhaps: Counter[str] = Counter()  # copies of this wave from this peer that may have arrived
        self._waiting: set[str] = set()
        self._heard: set[str] = set()  # who has answered in this wave
        self._children: list[str] = []
        self._own: Vector | None = None
        self._finite = True
        self._total: Vector | None = None
        self._names: set[str] = set()
        self._answered = False
        self._out: dict[tuple[str, str], Message] = {}
        self._tries = 0
        self._had: set[str] = set()
        self._result: Message | None = None
        self.ends = False
        """Whether the run of everybody who is reached is to end."""
        self.mean: Vector | None = None
        """The mean, shape ``(d,)``, once it is known."""
        self.members: tuple[str, ...] = ()
        """Whose models are in it."""
        self.waves = 0
        """How many this peer has taken part in."""

    @property
    def under_way(self) -> bool:
        """Whether a wave has reached this peer."""
        return self.waves > 0

    @property
    def settled(self) -> bool:
        """Whether this peer and all its neighbours have the mean."""
        return self.mean is not None and self._live <= self._had and not self._out

    # ------------------------------------------------------------------------------------------- what happens

    def lead(self, ends: bool = False) -> list[Effect]:
        """Begin a wave; with ``ends`` it is to end the run of all whom it reaches."""
        if self.mean is not None or (ends and self.ends and self.under_way):
            return []
        self.ends = self.ends or ends
        count = len(self._nodes)
        return self._join((self._wave // count + 1) * count + self._nodes.index(self._name), "")

    def freeze(self, x: Vector) -> list[Effect]:
        """From now on ``x``, shape ``(d,)``, is this peer's model; it is not written any more."""
        # Left out is also a model of which as many as there are peers would have no finite sum.
        self._own, self._finite = x, bool(torch.isfinite(x * float(len(self._nodes))).all())
        return self._go_on()

    def arrive(self, sender: str, message: Message) -> list[Effect]:
        """Take in a message."""
        self._live.add(sender)
        if message.kind == "had":
            self._had.add(sender)
            self._out.pop((sender, "mean"), None)
            return []
        if self.mean is not None:
            return self._answer_late(sender, message.kind)
        if message.view and not message.view.keys() <= set(self._nodes):
            return []
        if message.kind == "mean":
            return self._learn(sender, message.vectors["x"].clone(), message.view)
        if message.kind == "wave":
            possible = message.number <= self._wave + AHEAD * len(self._nodes)
            return self._take_wave(sender, message.number, bool(message.numbers["ends"])) if possible else []
        return self._take_sum(sender, message) if message.number == self._wave else []

    def hear_of(self, event: Delivered | Undelivered) -> list[Effect]:
        """What has become of a message."""
        key = event.to, event.kind
        message = self._out.get(key)
        if message is None or message.number != event.number:
            return []
        if isinstance(event, Undelivered):
            if event.kind == "wave" and event.reason is not Reason.TIMEOUT:
                self._perhaps[event.to] -= 1
            if event.to in self._gone and event.reason in (Reason.UNREACHABLE, Reason.TIMEOUT):
                return self.lose(event.to)
            if event.reason.transient:
                self._tries += 1
                delay = self._limits.backoff(self._tries) * self._random.uniform(0.5, 1.5)
                return [Timer(f"{MARK} again {event.kind} {event.to}", delay)]
            del self._out[key]
            return self._go_on_without(event.to) if event.kind == "wave" else []
        self._tries = 0
        del self._out[key]
        return []

    def ring(self, timer: str) -> list[Effect]:
        """Of the timers that were set here."""
        if timer == f"{MARK} spread":
            late = sorted(self._live - self._had)
            return [effect for name in late for effect in self._give(name)]
        _, _, kind, to = timer.split(" ")
        return [self._say(to, self._out[to, kind])] if (to, kind) in self._out else []

    def lose(self, name: str) -> list[Effect]:
        """A neighbour no longer answers."""
        self._live.discard(name)
        self._gone.add(name)
        self._out = {key: message for key, message in self._out.items() if key[0] != name}
        if self.mean is None and self.under_way and self._misses(name):
            return self.lead()
        return self._go_on_without(name)

    def _misses(self, name: str) -> bool:
        """Whether sums of others may be lost with it."""
        return name == self._parent or (name in self._waiting and self._perhaps[name] > 0)

    def find(self, name: str) -> list[Effect]:
        """A neighbour answers again, and may have forgotten everything."""
        self._live.add(name)
        self._gone.discard(name)
        self._had.discard(name)
        if self.mean is not None:
            return [Timer(f"{MARK} spread", self._limits.reply_first)]
        return self._ask(name) if self.under_way else []

    # ---------------------------------------------------------------------------------------------- up the tree

    def _take_wave(self, sender: str, wave: int, ends: bool) -> list[Effect]:
        news = ends and not self.ends
        self.ends = self.ends or ends
        if wave > self._wave:
            return self._join(wave, sender)
        if news:  # which the wave under way does not bring to all
            return self.lead()
        if wave < self._wave:  # it has missed the newer one, perhaps by a crash; but not if that came from it
            return self._ask(sender) if sender != self._parent else []
        self._heard.add(sender)
        return self._go_on_without(sender)

    def _ask(self, name: str) -> list[Effect]:
        """Bring a neighbour into the wave under way, if that can still wait for it."""
        if self._answered or name in self._heard:
            return []
        self._waiting.add(name)
        return [self._say(name, self._message_of_wave())]

    def _join(self, wave: int, parent: str) -> list[Effect]:
        """Take part in a wave: everything begins anew."""
        self._wave, self._parent = wave, parent
        self.waves += 1
        self._names, self._total, self._children, self._answered = set(), None, [], False
        self._waiting, self._heard, self._perhaps = self._live - {parent}, set(), Counter()
        self._out = {key: message for key, message in self._out.items() if key[1] not in ("wave", "sum")}
        return [*(self._say(name, self._message_of_wave()) for name in sorted(self._waiting)), *self._go_on()]

    def _message_of_wave(self) -> Message:
        return Message("wave", self._wave, numbers={"ends": int(self.ends)})

    def _take_sum(self, sender: str, message: Message) -> list[Effect]:
        if sender not in self._waiting:
            return []
        if ({self._name} | self._names) & message.view.keys():  # somebody has forgotten what it did
            return self.lead()
        self._heard.add(sender)
        self._children.append(sender)
        self._names |= message.view.keys()
        self._add(message.vectors["sum"], message.vectors["rest"])
        return self._go_on_without(sender)

    def _add(self, *parts: Vector) -> None:
        for part in parts:
            self._total = torch.zeros_like(part, dtype=torch.float64) if self._total is None else self._total
            self._total.add_(part)

    def _go_on_without(self, name: str) -> list[Effect]:
        """Nobody needs to wait for it any more."""
        self._waiting.discard(name)
        return self._go_on()

    def _go_on(self) -> list[Effect]:
        """Answer the parent, or divide, if everything is there."""
        if self._own is None or not self.under_way or self._waiting or self._answered or self.mean is not None:
            return []
        self._answered = True
        if self._finite:
            self._names.add(self._name)
        self._add(self._own if self._finite else torch.zeros_like(self._own))
        total, self._total = self._total, None
        assert total is not None
        if not self._parent:
            mean = total.div_(max(len(self._names), 1)).to(self._own.dtype)
            return self._learn("", mean, _of(self._names))
        rounded = total.to(self._own.dtype, copy=True)
        rest = total.sub_(rounded).to(self._own.dtype)
        message = Message("sum", self._wave, {"sum": rounded, "rest": rest}, view=_of(self._names), whole=True)
        return [self._say(self._parent, message)]

    # -------------------------------------------------------------------------------------------- down the tree

    def _learn(self, sender: str, mean: Vector, members: Mapping[str, Standing]) -> list[Effect]:
        """Here is the mean."""
        self.mean, self.members = mean, tuple(sorted(members))
        self._result = Message("mean", self._wave, {"x": mean}, view=members, whole=True)
        self._waiting, self._total, self._out = set(), None, {}
        if sender:
            self._had.add(sender)
        given = [effect for name in self._children if name in self._live for effect in self._give(name)]
        told = [self._say(name, Message("had", self._wave)) for name in sorted(self._live)]
        return [*given, *told, Timer(f"{MARK} spread", self._limits.reply_first)]

    def _answer_late(self, sender: str, kind: str) -> list[Effect]:
        """Whoever still asks has not had the mean, or has forgotten it."""
        if kind == "mean":
            return [self._say(sender, Message("had", self._wave))]
        if kind == "wave":
            self._had.discard(sender)
        return self._give(sender) if sender not in self._had else []

    def _give(self, name: str) -> list[Effect]:
        assert self._result is not None
        return [] if (name, "mean") in self._out else [self._say(name, self._result)]

    def _say(self, to: str, message: Message) -> Send:
        """Send what is to be repeated until it is delivered."""
        self._out[to, message.kind] = message
        if message.kind == "wave":
            self._perhaps[to] += 1
        return Send(to, message)


def _of(names: Iterable[str]) -> dict[str, Standing]:
    """Names as a message carries them."""
    return dict.fromkeys(sorted(names), Standing())
