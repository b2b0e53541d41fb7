"""A network that loses messages on purpose, to see what a run does about it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np

from algorithms.protocol import Message, Reason
from node.wire.transport import Transport, Undelivered


class LossyTransport:
    """Another transport, of whose messages a part is lost: half of these are never sent, of the others the receipt is.

    Their sender can't tell which, as when nothing comes back in time; it learns so at once. Pings are not lost.

    Parameters
    ----------
    transport : Transport
        What carries the others.
    drop : float
        The part that is lost, from 0 to below 1.
    random : numpy Generator
        Draws which.
    """

    def __init__(self, transport: Transport, drop: float, random: np.random.Generator) -> None:
        self._transport, self._drop, self._random = transport, drop, random

    async def send(self, to: str, message: Message) -> None:
        """Hand a message to a neighbour's inbox, or not; see :meth:`node.wire.transport.Transport.send`."""
        luck = self._random.random()
        if luck >= self._drop / 2:
            await self._transport.send(to, message)
        if luck < self._drop:
            raise Undelivered(Reason.TIMEOUT)

    async def ping(self, to: str, wait_s: float | None = None) -> None:
        """Ask whether a neighbour is there and in the same run."""
        await self._transport.ping(to, wait_s)

    def meet(self, to: str, address: str) -> None:
        """From now on ``to`` is reached at ``address``."""
        self._transport.meet(to, address)

    def receive(self) -> AsyncIterator[tuple[str, Message]]:
        """Messages as they come in, each with its proven sender."""
        return self._transport.receive()
