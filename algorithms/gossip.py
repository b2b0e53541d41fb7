"""Asynchronous pairwise gossip SGD: every peer trains at its own pace and averages with one neighbour at a time.

Theory of operation
-------------------
A peer takes local steps without pause. Independently, every edge (i, j) has a Poisson clock; when it rings, its two
ends exchange what they have, w = x_i - x_j, and each moves half of the way: x_i -= w/2, x_j += w/2. There are no
rounds and nobody waits for anybody [1]_, [2]_. A merging rule that is not linear adds a correction, which each end
takes as one more step of its own.

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

from collections.abc import Mapping

from algorithms.pairwise import Pairwise
from algorithms.protocol import Effect, Event, Place, Snapshot, Start, Train, Trained, Vector


class Gossip(Pairwise):
    """See the module; local steps and exchanges are decoupled."""

    def __init__(self, place: Place) -> None:
        self._merging, self._layout, self._local_steps = place.merging, place.layout, place.local_steps
        self._share = place.merging.share
        self.x = place.start.clone()
        self.alone = place.start.clone() if place.keep_ledger else None
        """Where this peer's own steps alone would have led."""
        super().__init__(place, ledger_share=self._share)

    def _read(self, now: float) -> Vector:
        return self.x

    def _move(self, sign: int, w: Vector, now: float) -> None:
        self.x.add_(w, alpha=sign * self._share)
        if not self._merging.linear:
            self._take_step(self._correction(sign, w), now)

    def _correction(self, sign: int, w: Vector) -> Vector:
        """What the merging rule adds to x, which an exchange has just moved.

        The responder knows both ends as they were, and both count. The initiator knows only itself: its x may have
        moved since its offer, and x - w is not where the other end was. Taken for it all the same, what other exchanges
        have brought meanwhile counts as the other end's variance, which under latency feeds on itself and diverges.
        """
        moved = w * (sign * self._share)
        own, other = self.x - moved, self.x + moved
        return self._merging.correction(self.x, own, [own, other] if sign > 0 else [own], 0.0, self._layout)

    def _take_step(self, change: Vector, now: float) -> None:
        self.x.add_(change)
        if self.alone is not None:
            self.alone.add_(change)

    def _learn(self, event: Event, now: float) -> list[Effect]:
        if isinstance(event, Trained):
            self._take_step(event.change, now)
        if isinstance(event, (Start, Trained)) and not self.exchanges.finishing:
            return [Train("steps", self._read(now).clone(), self._local_steps)]
        return []

    def counters(self) -> Mapping[str, float]:
        """Those of the exchanges, and how far apart neighbours' models were in the latest ones."""
        return {**super().counters(), **self.exchanges.distances()}

    def model(self, now: float) -> Vector:
        """The peer's model."""
        return self.x.clone()

    def ledger(self) -> Vector | None:
        """What exchanges have moved: x - x(0) - own steps."""
        return None if self.alone is None else self.x - self.alone

    def snapshot(self) -> Snapshot:
        """x, where own steps alone would have led, and the exchanges."""
        snapshot = super().snapshot()
        snapshot.vectors["x"] = self.x.clone()
        if self.alone is not None:
            snapshot.vectors["alone"] = self.alone.clone()
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Take up a snapshot."""
        super().restore(snapshot)
        self.x.copy_(snapshot.vectors["x"])
        if self.alone is not None:
            self.alone.copy_(snapshot.vectors["alone"])
