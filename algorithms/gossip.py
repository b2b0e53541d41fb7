"""Asynchronous pairwise gossip SGD: every peer trains at its own pace and averages with one neighbour at a time.

Theory of operation
-------------------
A peer takes local steps without pause. Independently, every edge (i, j) has a Poisson clock; when it rings, its two
ends exchange what they have, w = x_i - x_j, and each moves half of the way: x_i -= w/2, x_j += w/2. There are no
rounds and nobody waits for anybody [1]_, [2]_.

Invariant
---------
An exchange leaves the sum over peers alone, so sum(x - x(0) - own steps) = 0: the ledger. It is exact whatever the
network does; see ``algorithms/exchange.py``.

.. [1] S. Boyd, A. Ghosh, B. Prabhakar, D. Shah, "Randomized gossip algorithms", IEEE Trans. Information Theory 52(6),
   2006.
.. [2] X. Lian, W. Zhang, C. Zhang, J. Liu, "Asynchronous decentralized parallel stochastic gradient descent",
   ICML 2018, arXiv:1710.06952.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from algorithms.exchange import KINDS, Exchanges
from algorithms.protocol import (
    Cancel,
    Done,
    Effect,
    Event,
    Finish,
    Kind,
    Place,
    Report,
    Snapshot,
    Start,
    Tick,
    Timer,
    Train,
    Trained,
    Vector,
)


class Gossip:
    """See the module; local steps and exchanges are decoupled."""

    kinds: ClassVar[Mapping[str, Kind]] = KINDS
    options: ClassVar[Mapping[str, float | int | str]] = {}
    exchanges_per_step: ClassVar[float | None] = 1.0

    def __init__(self, place: Place) -> None:
        # Not the place itself: it would keep a model's memory, the start, for good.
        self._share = place.merging.share
        self._local_steps, self._linger = place.local_steps, place.limits.linger
        self.x = place.start.clone()
        self.alone = place.start.clone() if place.keep_ledger else None
        """Where this peer's own steps alone would have led."""
        self.exchanges = Exchanges(place, read=lambda now: self.x, apply=self._move)
        self._done = False

    def _move(self, sign: int, w: Vector, now: float) -> None:
        self.x.add_(w, alpha=sign * self._share)

    def step(self, event: Event, now: float) -> Iterable[Effect]:
        """Take one event."""
        effects = self.exchanges.step(event, now)
        if isinstance(event, Trained):
            self.x.add_(event.change)
            if self.alone is not None:
                self.alone.add_(event.change)
        if isinstance(event, (Start, Trained)) and not self.exchanges.finishing:
            effects.append(Train("steps", self.x.clone(), self._local_steps))
        if self.exchanges.finishing:
            effects += self._end(event, now)
        return effects

    def _end(self, event: Event, now: float) -> list[Effect]:
        if isinstance(event, Finish):
            effects: list[Effect] = [Cancel("steps"), Timer("linger", self._linger)]
        else:
            effects = []
        lingered = isinstance(event, Tick) and event.name == "linger"
        if not self._done and (self.exchanges.settled or lingered):
            self._done = True
            if parked := self.exchanges.unsettled():
                effects.append(Report({f"unsettled/{name}": 1.0 for name in parked}))
            effects.append(Done(self.model(now)))
        return effects

    def model(self, now: float) -> Vector:
        """The peer's model."""
        return self.x.clone()

    def ledger(self) -> Vector | None:
        """What exchanges have moved: x - x(0) - own steps."""
        return None if self.alone is None else self.x - self.alone

    def counters(self) -> Mapping[str, float]:
        """Those of the exchanges."""
        return self.exchanges.counters()

    def snapshot(self) -> Snapshot:
        """x, where own steps alone would have led, and the exchanges."""
        snapshot = self.exchanges.snapshot()
        snapshot.vectors["x"] = self.x.clone()
        if self.alone is not None:
            snapshot.vectors["alone"] = self.alone.clone()
        snapshot.numbers["ledger_share"] = self._share
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Take up a snapshot."""
        self.x = snapshot.vectors["x"].clone()
        if self.alone is not None:
            self.alone = snapshot.vectors["alone"].clone()
        self.exchanges.restore(snapshot)
