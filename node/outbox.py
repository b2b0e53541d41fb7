"""Messages on their way out: beside the peer's loop, bounded in number and bytes.

Invariant: each message ends in exactly one ``Delivered`` or ``Undelivered``.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from algorithms.protocol import Delivered, Reason, Send, Undelivered
from node.figures import Figures
from node.members import Members
from node.wire.memory import size_bytes, view_size_bytes, wire_bytes
from node.wire.transport import Transport
from node.wire.transport import Undelivered as NotDelivered


class Outbox:
    """Sends what a peer's algorithm wants sent.

    Parameters
    ----------
    transport : Transport
        The way out.
    members : Members
        Told of every outcome.
    figures : Figures
        Counts.
    report : callable
        Takes the outcomes.
    wire_share : float
        How much of a vector's bytes travels.
    sends_max, bytes_max : int
        Messages on their way out, and the bytes of their vectors; more are undelivered at once, as BUSY. One message
        is always let through, however large.
    """

    def __init__(
        self,
        transport: Transport,
        members: Members,
        figures: Figures,
        report: Callable[[Delivered | Undelivered], None],
        wire_share: float = 1.0,
        sends_max: int = 256,
        bytes_max: int = 2**32,
    ) -> None:
        self._transport, self._members, self._figures, self._report = transport, members, figures, report
        self._wire_share, self._sends_max, self._bytes_max = wire_share, sends_max, bytes_max

    def send(self, effect: Send, nursery: trio.Nursery) -> None:
        """Send in a task of ``nursery``."""
        figures, message, size = self._figures, effect.message, size_bytes(effect.message)
        too_large = figures.sends > 0 and figures.sends_bytes + size > self._bytes_max
        if too_large or figures.sends >= self._sends_max:
            self._report(Undelivered(effect.to, message.kind, message.number, Reason.BUSY))
            return
        figures.sends += 1
        figures.sends_bytes += size
        figures.messages_sent += 1
        figures.bytes_sent += wire_bytes(message, self._wire_share)
        figures.view_bytes_sent += view_size_bytes(message.view)
        nursery.start_soon(self._deliver, effect, size)

    async def _deliver(self, effect: Send, size: int) -> None:
        to, kind, number = effect.to, effect.message.kind, effect.message.number
        try:
            await self._transport.send(to, effect.message)
        except NotDelivered as error:
            self._figures.undelivered[to] += 1
            self._members.undelivered(to, error.reason)
            self._report(Undelivered(to, kind, number, error.reason))
        else:
            self._members.heard(to)
            self._report(Delivered(to, kind, number))
        finally:
            self._figures.sends -= 1
            self._figures.sends_bytes -= size
