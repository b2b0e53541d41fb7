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

Deaths: whoever loses its parent, or a neighbour that has the wave and has not answered, can't know what is lost with
it, and begins a new wave. Waves are numbered; the larger (number, root) wins everywhere and everything begins anew, so
that each death costs at most one restart. Once there is a mean it stays: a peer that has it answers every wave with it.
So two means can only arise in two parts of a network that don't reach each other.

Who has the mean tells its neighbours, gives it after a while to those who have not told, and may leave when all have.

Invariant
---------
A mean is that of exactly the models whose names come with it, each once.

.. [1] E. J. H. Chang, "Echo algorithms: depth parallel operations on general graphs", IEEE Trans. Software Engineering
   8(4), 1982.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch

from algorithms.protocol import Delivered, Effect, Kind, Limits, Message, Send, Timer, Undelivered, Vector
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
        "wave": Kind("neighbour", counts=("root", "ends")),
        "sum": Kind("neighbour", vectors=("sum", "rest"), counts=("root",), view=True, whole=True),
        "mean": Kind("neighbour", vectors=("x",), counts=("root",), view=True, whole=True),
        "had": Kind("neighbour"),
    }

    def __init__(
        self, name: str, nodes: Sequence[str], neighbours: Iterable[str], limits: Limits, random: np.random.Generator
    ) -> None:
        self._name, self._nodes, self._limits, self._random = name, sorted(nodes), limits, random
        self._live = set(neighbours)
        self._wave = (0, -1)  # number, and the root's index
        self._parent = ""
        self._reached: set[str] = set()  # who has this wave for certain, from this peer
        self._waiting: set[str] = set()
        self._children: list[str] = []
        self._own: Vector | None = None
        self._total: Vector | None = None
        self._names: set[str] = set()
        self._answered = False
        self._out: dict[tuple[str, str], Message] = {}
        self._tries = 0
        self._had: set[str] = set()
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
        """Begin a wave."""
        self.ends = self.ends or ends
        if self.mean is not None:
            return []
        return self._join((self._wave[0] + 1, self._nodes.index(self._name)), "")

    def freeze(self, x: Vector) -> list[Effect]:
        """From now on ``x``, shape ``(d,)``, is this peer's model; it is not written any more."""
        self._own = x
        return self._go_on()

    def arrive(self, sender: str, message: Message) -> list[Effect]:
        """Take in a message."""
        self._live.add(sender)
        if message.kind == "had":
            self._had.add(sender)
            self._out.pop((sender, "mean"), None)
            return []
        if self.mean is not None:
            return [] if message.kind == "mean" or sender in self._had else self._give(sender)
        if message.kind == "mean":
            return self._learn(sender, message.vectors["x"].clone(), tuple(sorted(message.view)))
        wave = message.number, int(message.numbers["root"])
        if message.kind == "wave":
            possible = wave[0] <= self._wave[0] + AHEAD and wave[1] < len(self._nodes)
            return self._take_wave(sender, wave, bool(message.numbers["ends"])) if possible else []
        possible = wave == self._wave and message.view.keys() <= set(self._nodes)
        return self._take_sum(sender, message) if possible else []

    def hear_of(self, event: Delivered | Undelivered) -> list[Effect]:
        """What has become of a message."""
        key = event.to, event.kind
        message = self._out.get(key)
        if message is None or message.number != event.number:
            return []
        if isinstance(event, Undelivered) and event.reason.transient:
            self._tries = min(self._tries + 1, 60)
            delay = min(self._limits.retry_first * 2.0**self._tries, self._limits.retry_max)
            return [Timer(f"{MARK} again {event.kind} {event.to}", delay * self._random.uniform(0.5, 1.5))]
        self._tries = 0
        del self._out[key]
        if isinstance(event, Delivered) and event.kind == "wave":
            self._reached.add(event.to)
        return []

    def ring(self, timer: str) -> list[Effect]:
        """Of the timers that were set here."""
        if timer == f"{MARK} spread":
            late = sorted(self._live - self._had)
            return [effect for name in late for effect in self._give(name)]
        _, _, kind, to = timer.split(" ")
        return [Send(to, self._out[to, kind])] if (to, kind) in self._out else []

    def lose(self, name: str) -> list[Effect]:
        """A neighbour no longer answers."""
        self._live.discard(name)
        self._out = {key: message for key, message in self._out.items() if key[0] != name}
        if self.mean is not None or not self.under_way:
            return []
        if name == self._parent or (name in self._waiting and name in self._reached):
            return self.lead()
        self._waiting.discard(name)
        return self._go_on()

    def find(self, name: str) -> list[Effect]:
        """A neighbour answers again, and may have forgotten everything."""
        self._live.add(name)
        self._had.discard(name)
        if self.mean is not None:
            return [Timer(f"{MARK} spread", self._limits.reply_first)]
        if not self.under_way or self._answered:
            return []
        self._waiting.add(name)
        return [self._say(name, self._message_of_wave())]

    # ---------------------------------------------------------------------------------------------- up the tree

    def _take_wave(self, sender: str, wave: tuple[int, int], ends: bool) -> list[Effect]:
        self.ends = self.ends or ends
        if wave > self._wave:
            return self._join(wave, sender)
        if wave < self._wave:  # it has missed the newer one, perhaps by a crash; but not if that came from it
            return [self._say(sender, self._message_of_wave())] if sender != self._parent else []
        self._waiting.discard(sender)
        return self._go_on()

    def _join(self, wave: tuple[int, int], parent: str) -> list[Effect]:
        """Take part in a wave: everything begins anew."""
        self._wave, self._parent = wave, parent
        self.waves += 1
        self._names, self._total, self._children, self._answered = set(), None, [], False
        self._waiting, self._reached = self._live - {parent}, set()
        self._out = {key: message for key, message in self._out.items() if key[1] not in ("wave", "sum")}
        return [*(self._say(name, self._message_of_wave()) for name in sorted(self._waiting)), *self._go_on()]

    def _message_of_wave(self) -> Message:
        return Message("wave", self._wave[0], numbers={"root": self._wave[1], "ends": int(self.ends)})

    def _take_sum(self, sender: str, message: Message) -> list[Effect]:
        if sender not in self._waiting:
            return []
        if self._names & message.view.keys():  # can't be, unless somebody has forgotten what it did
            return self.lead()
        self._waiting.discard(sender)
        self._children.append(sender)
        self._names |= message.view.keys()
        self._add(message.vectors["sum"], message.vectors["rest"])
        return self._go_on()

    def _add(self, *parts: Vector) -> None:
        for part in parts:
            self._total = torch.zeros_like(part, dtype=torch.float64) if self._total is None else self._total
            self._total.add_(part)

    def _go_on(self) -> list[Effect]:
        """Answer the parent, or divide, if everything is there."""
        if self._own is None or not self.under_way or self._waiting or self._answered or self.mean is not None:
            return []
        self._answered = True
        self._names.add(self._name)
        self._add(self._own)
        total, self._total = self._total, None
        assert total is not None
        if not self._parent:
            mean = total.div_(len(self._names)).to(self._own.dtype)
            return self._learn("", mean, tuple(sorted(self._names)))
        rounded = total.to(self._own.dtype)
        rest = total.sub_(rounded).to(self._own.dtype)
        names = {name: Standing() for name in sorted(self._names)}
        numbers = {"root": self._wave[1]}
        message = Message("sum", self._wave[0], {"sum": rounded, "rest": rest}, numbers, names, whole=True)
        return [self._say(self._parent, message)]

    # -------------------------------------------------------------------------------------------- down the tree

    def _learn(self, sender: str, mean: Vector, members: tuple[str, ...]) -> list[Effect]:
        """Here is the mean."""
        self.mean, self.members = mean, members
        self._waiting, self._total, self._out = set(), None, {}
        if sender:
            self._had.add(sender)
        given = [effect for name in self._children if name in self._live for effect in self._give(name)]
        told = [self._say(name, Message("had", self._wave[0])) for name in sorted(self._live)]
        return [*given, *told, Timer(f"{MARK} spread", self._limits.reply_first)]

    def _give(self, name: str) -> list[Effect]:
        assert self.mean is not None
        if (name, "mean") in self._out:
            return []
        members = {member: Standing() for member in self.members}
        message = Message("mean", self._wave[0], {"x": self.mean}, {"root": self._wave[1]}, members, whole=True)
        return [self._say(name, message)]

    def _say(self, to: str, message: Message) -> Send:
        """Send what is to be repeated until it is delivered."""
        self._out[to, message.kind] = message
        return Send(to, message)
