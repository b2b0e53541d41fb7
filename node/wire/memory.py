"""A network in memory with a menu of faults, for virtual time and for tests of the peer's loop.

Theory of operation
-------------------
:class:`Faults` says what may go wrong and :class:`Weather` draws, for one message at a time, what does: when its
copies arrive, and when and how its sender learns of it. A call is a message one way and a receipt back, and both can
be lost: a sender that hears nothing until its deadline can't know whether the message arrived, exactly as with gRPC.

Times are in whatever unit the driver counts in: plan units in virtual time, seconds on :class:`MemoryNetwork`.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import trio

from algorithms.protocol import Message, Reason
from algorithms.view import Standing
from node.wire.transport import Transport, Undelivered

WAIT_MIN = 0.05
"""How much longer a sender waits for a receipt than four delays and the transmission."""


@dataclass(frozen=True, slots=True)
class Partition:
    """From ``start`` to ``end`` only peers on the same side reach each other."""

    start: float
    end: float
    side: frozenset[str]

    def cuts(self, one: str, other: str, now: float) -> bool:
        """Whether it stands between two peers now."""
        return self.start <= now < self.end and (one in self.side) != (other in self.side)


@dataclass(frozen=True, slots=True)
class Nature:
    """What one link is like; None is like all others.

    Parameters
    ----------
    delay : float, optional
        Time of one way, exactly.
    bandwidth : float, optional
        Bytes per unit of time each way, for all messages together.
    """

    delay: float | None = None
    bandwidth: float | None = None


@dataclass(frozen=True, slots=True)
class Faults:
    """The menu.

    Parameters
    ----------
    loss : float
        Probability that a message is lost, and likewise its receipt.
    duplicate : float
        Probability that a message arrives a second time.
    delay : float
        Mean time of one way; each is uniform within half of it either way.
    reorder : float
        Probability that a message takes up to four delays more, so that later ones overtake it.
    bandwidth : float
        Bytes per unit of time, for each message on its own; infinite by default.
    deadline : float, optional
        How long a sender waits for the receipt; by default four delays and the transmission, and a little more.
    partitions : tuple of Partition
        Cuts.
    links : mapping of frozenset of str to Nature
        Links of two peers that are not like the others.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    delay: float = 0.0
    reorder: float = 0.0
    bandwidth: float = float("inf")
    deadline: float | None = None
    partitions: tuple[Partition, ...] = ()
    links: Mapping[frozenset[str], Nature] = field(default_factory=dict)

    @property
    def none(self) -> bool:
        """Whether messages always arrive, at once and in order."""
        return self == Faults()


@dataclass(slots=True)
class Passage:
    """What becomes of one message: when its copies arrive, what its sender hears when, and how long it would wait."""

    arrivals: list[float]
    heard_after: float
    deadline: float
    reason: Reason | None = None


def wire_bytes(message: Message, share: float) -> int:
    """Bytes of a message's vectors on the wire, where the codec leaves this share of those of a tensor."""
    return round(size_bytes(message) * (1.0 if message.whole else share))


def size_bytes(message: Message) -> int:
    """Bytes of a message's vectors as tensors; neither the header nor the view is counted."""
    return sum(vector.numel() * vector.element_size() for vector in message.vectors.values())


def view_size_bytes(view: Mapping[str, Standing]) -> int:
    """Bytes of a view on a real wire, as ``peer.proto`` has it, without serialising it."""
    return sum(_part_bytes(_standing_bytes(name, standing)) for name, standing in view.items())


@lru_cache(maxsize=1 << 16)  # views repeat themselves
def _standing_bytes(name: str, standing: Standing) -> int:
    numbers = (standing.active, standing.counter, standing.doubted)
    return (
        _part_bytes(len(name))
        + sum(1 + _varint_bytes(number + 1) for number in numbers if number >= 0)
        + 2 * standing.left
        + (_part_bytes(len(standing.address)) if standing.address else 0)
    )


def _part_bytes(size: int) -> int:
    """Of a field of so many bytes: its tag and its length come before it."""
    return 1 + _varint_bytes(size) + size


def _varint_bytes(value: int) -> int:
    return (value.bit_length() + 6) // 7 or 1


LIKE_OTHERS = Nature()


class Weather:
    """Draws what happens to each message."""

    def __init__(self, faults: Faults, random: np.random.Generator) -> None:
        self._faults = faults
        self._none = faults.none
        self._random = random
        self._free_at: dict[tuple[str, str], float] = {}  # of links with a bandwidth of their own, each way

    def passage(self, sender: str, to: str, bytes_sent: float, now: float) -> Passage:
        """What becomes of a message that is sent now."""
        faults = self._faults
        if self._none:
            return Passage([0.0], 0.0, WAIT_MIN)
        nature = faults.links.get(frozenset((sender, to)), LIKE_OTHERS)
        delay = faults.delay if nature.delay is None else nature.delay
        cut = self.cut(sender, to, now)
        transmission = bytes_sent / (nature.bandwidth or faults.bandwidth)
        if nature.bandwidth and bytes_sent and not cut:
            free_at = max(now, self._free_at.get((sender, to), now))
            self._free_at[sender, to] = free_at + transmission
            transmission += free_at - now
        deadline = 4 * delay + transmission + WAIT_MIN if faults.deadline is None else faults.deadline
        if cut:
            return Passage([], deadline, deadline, Reason.UNREACHABLE)
        first = self._one_way(nature) + transmission
        arrivals = [] if self._happens(faults.loss) else [first]
        if arrivals and self._happens(faults.duplicate):
            arrivals.append(first + self._one_way(nature))
        heard_after = first + self._one_way(nature)
        if not arrivals or heard_after > deadline or self._happens(faults.loss):
            return Passage(arrivals, deadline, deadline, Reason.TIMEOUT)
        return Passage(arrivals, heard_after, deadline)

    def cut(self, one: str, other: str, now: float) -> bool:
        """Whether a partition stands between two peers now."""
        return any(partition.cuts(one, other, now) for partition in self._faults.partitions)

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._random.random() < probability

    def _one_way(self, nature: Nature) -> float:
        mean = self._faults.delay if nature.delay is None else nature.delay
        delay = mean if nature.delay is not None else mean * self._random.uniform(0.5, 1.5)
        return delay + self._random.uniform(0, 4 * mean) * self._happens(self._faults.reorder)


@dataclass(slots=True)
class MemoryNetwork:
    """Peers in one process, in trio's time (seconds); under trio's virtual clock a test takes no time at all."""

    weather: Weather
    inbox_messages_max: int = 64
    _inboxes: dict[str, trio.MemorySendChannel[tuple[str, Message]]] = field(default_factory=dict)

    @asynccontextmanager
    async def join(self, name: str) -> AsyncIterator[Transport]:
        """The end of one peer, which is reachable while this is open."""
        into, out = trio.open_memory_channel[tuple[str, Message]](self.inbox_messages_max)
        async with trio.open_nursery() as nursery, into, out:
            self._inboxes[name] = into
            try:
                yield _MemoryTransport(name, self, out, nursery)
            finally:
                del self._inboxes[name]
                nursery.cancel_scope.cancel()

    async def carry(self, sender: str, to: str, message: Message, nursery: trio.Nursery) -> None:
        """Let the weather have its way with one message; returns when the sender hears that it arrived."""
        bytes_sent = size_bytes(message) + view_size_bytes(message.view)
        passage = self.weather.passage(sender, to, bytes_sent, trio.current_time())
        refused: list[Reason] = []
        before_the_receipt: list[trio.Event] = []
        for delay in passage.arrivals:
            if delay == 0:
                self._drop_in(sender, to, message, refused)
                continue
            arrived = trio.Event()
            nursery.start_soon(self._arrive, delay, sender, to, message, refused, arrived)
            if delay <= passage.heard_after:
                before_the_receipt.append(arrived)
        await trio.sleep(passage.heard_after)
        for arrived in before_the_receipt:  # at the same instant, whichever task trio runs first
            await arrived.wait()
        for reason in (*refused, *([passage.reason] if passage.reason else [])):
            raise Undelivered(reason)

    async def _arrive(
        self, delay: float, sender: str, to: str, message: Message, refused: list[Reason], arrived: trio.Event
    ) -> None:
        await trio.sleep(delay)
        self._drop_in(sender, to, message, refused)
        arrived.set()

    def _drop_in(self, sender: str, to: str, message: Message, refused: list[Reason]) -> None:
        try:
            self._inboxes[to].send_nowait((sender, message))
        except trio.WouldBlock:
            refused.append(Reason.BUSY)
        except (KeyError, trio.BrokenResourceError):
            refused.append(Reason.UNREACHABLE)


class _MemoryTransport:
    def __init__(
        self,
        name: str,
        network: MemoryNetwork,
        inbox: trio.MemoryReceiveChannel[tuple[str, Message]],
        nursery: trio.Nursery,
    ) -> None:
        self._name, self._network, self._inbox, self._nursery = name, network, inbox, nursery

    async def send(self, to: str, message: Message) -> None:
        await self._network.carry(self._name, to, message, self._nursery)

    async def ping(self, to: str, wait_s: float | None = None) -> None:
        passage = self._network.weather.passage(self._name, to, 0, trio.current_time())
        with trio.move_on_after(math.inf if wait_s is None else wait_s):
            await trio.sleep(passage.heard_after)
            if passage.reason or to not in self._network._inboxes:
                raise Undelivered(passage.reason or Reason.UNREACHABLE)
            return
        raise Undelivered(Reason.TIMEOUT)

    def meet(self, to: str, address: str) -> None:
        """Names are all that this network needs."""

    def receive(self) -> AsyncIterator[tuple[str, Message]]:
        return self._inbox.__aiter__()


def halves(names: Iterable[str]) -> frozenset[str]:
    """Every other peer: one side of a partition into halves."""
    return frozenset(sorted(names)[::2])
