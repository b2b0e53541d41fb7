"""What the two ends of an edge remember about their exchanges; the rules are in ``algorithms/exchange.py``."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

import torch

from algorithms.protocol import Limits, Vector

IDLE, QUEUED, OUT, PARKED = range(4)
"""What an owned edge is doing: nothing, waiting for its turn to offer, waiting for a reply, waiting to try again."""

REPLY_TIMES = 32
"""How many past reply times of an edge its waiting time is taken from."""

EXCHANGE_TIMES = 128
"""How many past exchanges of an edge are told of."""


@dataclass(slots=True)
class OwnedEdge:
    """The initiator's side of an edge.

    Parameters
    ----------
    made, applied, pending : int
        The last number used, the last one applied, and the one under way (0 when none is).
    due, missed : int
        Ticks still to be served, and those that were too many to keep.
    lost : int
        Exchanges that a crash left applied at one end only.
    count : int
        Exchanges applied here.
    life : int
        The life that the other end was last known to be in.
    tries : int
        Attempts for the number under way that came to nothing.
    told : bool
        Whether the other end knows that the edge is settled.
    begun_at, offered_at : float
        When the number under way was first offered, and when last.
    reply_times, exchange_times : deque of float
        How long past ones took from their last and from their first offer to the reply.
    """

    made: int = 0
    applied: int = 0
    pending: int = 0
    due: int = 0
    missed: int = 0
    lost: int = 0
    count: int = 0
    life: int = 0
    phase: int = IDLE
    tries: int = 0
    begun_at: float = 0.0
    offered_at: float = 0.0
    told: bool = False
    reply_times: deque[float] = field(default_factory=lambda: deque(maxlen=REPLY_TIMES))
    exchange_times: deque[float] = field(default_factory=lambda: deque(maxlen=EXCHANGE_TIMES))

    def reply_wait(self, limits: Limits, receipt_time: float) -> float:
        """Units to wait for a reply: the median of past ones and four times their median absolute deviation.

        While none is known: four times what the receipt took.
        """
        if not self.reply_times:
            return min(max(4 * receipt_time, limits.retry_first), limits.reply_first)
        middle = median(self.reply_times)
        spread = median(abs(time - middle) for time in self.reply_times)
        return max(middle + 4 * spread, limits.retry_first)

    def backed_off(self, delay: float, limits: Limits) -> float:
        """``delay``, doubled for every try that failed, up to the longest back-off."""
        return max(delay, min(delay * 2 ** min(self.tries, 60), limits.retry_max))

    def numbers(self) -> dict[str, int]:
        """What must survive a crash."""
        return {k: getattr(self, k) for k in ("made", "applied", "pending", "due", "missed", "lost", "count", "life")}


@dataclass(slots=True)
class AnsweredEdge:
    """The responder's side of an edge.

    Parameters
    ----------
    done, before : int
        The last number applied, and the one applied before it.
    count : int
        Exchanges applied here.
    w : Vector, optional
        The difference applied with number ``done``, kept until the next offer proves that it has arrived.
    settled : bool
        Whether the owner has said that nothing is under way any more.
    """

    done: int = 0
    before: int = 0
    count: int = 0
    w: Vector | None = None
    settled: bool = False
    _distance: tuple[int, float] = (0, 0.0)

    @property
    def distance(self) -> float | None:
        """The norm of ``w``, worked out once for each number; None where none is kept."""
        if self.w is None:
            return None
        if self._distance[0] != self.done:
            self._distance = self.done, torch.linalg.vector_norm(self.w).item()
        return self._distance[1]

    def numbers(self) -> dict[str, int]:
        """What must survive a crash."""
        return {"done": self.done, "before": self.before, "count": self.count}
