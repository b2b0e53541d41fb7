"""What a peer needs of a network, whichever it is.

A transport is best effort: a message may be lost, repeated or reordered, but never altered, and its sender is
proven, not claimed. What must happen exactly once is the algorithm's business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from algorithms.protocol import Message, Reason


class Undelivered(Exception):
    """A message was refused, or no answer came in time; then it may have arrived all the same."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class Transport(Protocol):
    """One peer's end of the network."""

    async def send(self, to: str, message: Message) -> None:
        """Hand a message to a neighbour's inbox.

        Raises
        ------
        Undelivered
            With the receiver's reason, or ``UNREACHABLE`` or ``TIMEOUT`` after this call's deadline.
        """

    async def ping(self, to: str, wait_s: float | None = None) -> None:
        """Ask whether a neighbour is there and in the same run; raises like :meth:`send`.

        ``wait_s`` is how long to wait for the answer; by default as long as the network finds right.
        """

    def meet(self, to: str, address: str) -> None:
        """From now on ``to`` is reached at ``address``, ``HOST:PORT``."""

    def receive(self) -> AsyncIterator[tuple[str, Message]]:
        """Messages as they come in, each with its proven sender."""
