"""A link between two peers: how long bytes take over it, how many go through, and whether it is cut.

Theory of operation
-------------------
Each direction of a link sends one piece after the other, each for as long as its bytes take at the link's bandwidth;
a piece arrives one delay after its last byte was sent. A connection has one piece at a time in that queue, so that all
connections of a link get the same share of it.
"""

from __future__ import annotations

import math
from typing import Any

import trio

PIECE_S = 0.02
"""A piece takes about this long to send, so that others need not wait long for their turn."""

PIECE_BYTES_MIN, PIECE_BYTES_MAX = 2**10, 2**18

LATE_S = 0.02
"""So much later than it should a sleeper may wake without the link having been idle."""

IN_FLIGHT_BYTES_MAX = 2**24
"""Of one direction of one connection, however long the link's delay."""


class Link:
    """One link, both ways.

    Parameters
    ----------
    a, b : str
        The peers at its ends.
    delay : float
        Seconds one way.
    bandwidth : float
        The first one.

    Attributes
    ----------
    carried : int
        Bytes that have come out of it.
    connections : int
        How many go over it now.
    """

    def __init__(self, a: str, b: str, delay: float = 0.0, bandwidth: float = math.inf) -> None:
        self.a, self.b = a, b
        self.delay, self._bandwidth = delay, bandwidth
        self.carried = self.connections = 0
        self._free_at: dict[str, float] = {}  # by who sends
        self._healed: trio.Event | None = None
        self._relimited = trio.Event()

    @property
    def bandwidth(self) -> float:
        """Bytes a second each way. A new one holds at once, also for pieces that are being sent."""
        return self._bandwidth

    @bandwidth.setter
    def bandwidth(self, bandwidth: float) -> None:
        self._bandwidth = bandwidth
        self._free_at.clear()
        self._relimited.set()
        self._relimited = trio.Event()

    @property
    def is_cut(self) -> bool:
        """Whether nothing gets through."""
        return self._healed is not None

    def cut(self) -> None:
        """Let nothing through from now on."""
        if self._healed is None:
            self._healed = trio.Event()

    def heal(self) -> None:
        """Let everything through again, what has waited first."""
        if self._healed is not None:
            self._healed.set()
        self._healed = None

    async def healed(self) -> None:
        """Wait for as long as it is cut."""
        while self._healed is not None:
            await self._healed.wait()

    @property
    def piece_bytes(self) -> int:
        """The most to send at once."""
        return int(min(max(self.bandwidth * PIECE_S, PIECE_BYTES_MIN), PIECE_BYTES_MAX))

    @property
    def in_flight_bytes_max(self) -> float:
        """What one direction of one connection may have sent that has not come out yet."""
        under_way = self.bandwidth * self.delay if self.delay else 0.0  # no limit times no delay is no number
        return min(under_way + PIECE_BYTES_MAX, IN_FLIGHT_BYTES_MAX)

    async def send(self, sender: str, size_bytes: int) -> float:
        """Wait until a piece has been sent, in its turn; gives the time when it arrives.

        Parameters
        ----------
        sender : str
            Which of the two ends it comes from.
        size_bytes : int
            At most :attr:`piece_bytes`.
        """
        now = trio.current_time()
        if self.bandwidth < math.inf:
            free_at = self._free_at.get(sender, -math.inf)
            sent_at = (free_at if now - free_at < LATE_S else now) + size_bytes / self.bandwidth
            self._free_at[sender] = sent_at
            relimited = self._relimited
            with trio.move_on_at(sent_at):
                await relimited.wait()
            return min(sent_at, trio.current_time()) + self.delay
        return now + self.delay

    def describe(self) -> dict[str, Any]:
        """How it is now, for JSON; bandwidth is None where it has no limit."""
        return {
            "a": self.a,
            "b": self.b,
            "delay": self.delay,
            "bandwidth": self.bandwidth if self.bandwidth < math.inf else None,
            "state": "cut" if self.is_cut else "up",
            "bytes": self.carried,
            "connections": self.connections,
        }
