"""What every algorithm that exchanges along edges shares: its exchanges, and how its run ends.

Such an algorithm says what it offers (``_read``), how a difference moves it (``_move``), and what it does besides
(``_learn``). Everything else about an edge is in ``algorithms/exchange.py``.
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
    Tempo,
    Tick,
    Timer,
    Vector,
)


class Pairwise:
    """See the module.

    Parameters
    ----------
    place : Place
        Of this peer. It is not kept: its start would hold a model's memory for good.
    ledger_share : float
        By how much the ledger moves for each unit of a difference that is applied.
    """

    kinds: ClassVar[Mapping[str, Kind]] = KINDS
    options: ClassVar[Mapping[str, float | int | str]] = {}
    defaults: ClassVar[Mapping[str, float]] = {}
    tempo: ClassVar[Tempo] = Tempo()
    work: ClassVar[tuple[str, ...]] = ("steps",)
    """Timers and jobs that are forgotten when the run is over."""

    live: ClassVar[bool] = True
    """Whether ``_read`` returns a vector of the state itself, not a new one."""

    clocked: ClassVar[bool] = True
    """Whether the edges' clocks begin exchanges, not the algorithm."""

    def __init__(self, place: Place, ledger_share: float) -> None:
        self._ledger_share, self._linger = ledger_share, place.limits.linger
        self.exchanges = Exchanges(place, read=self._read, apply=self._move, live=self.live, clocked=self.clocked)
        self._done = False

    # ------------------------------------------------------------------------------ what an algorithm adds

    def _read(self, now: float) -> Vector:
        """What is offered and compared with."""
        raise NotImplementedError

    def _move(self, sign: int, w: Vector, now: float) -> None:
        """Apply ``sign * w``."""
        raise NotImplementedError

    def _begin(self, now: float) -> None:
        """Time begins, or goes on after a pause that does not count."""

    def _learn(self, event: Event, now: float) -> list[Effect]:
        """All but the exchanges; not asked to begin anything once ``exchanges.finishing``."""
        raise NotImplementedError

    def model(self, now: float) -> Vector:
        """What to evaluate and publish; a new vector."""
        raise NotImplementedError

    # -------------------------------------------------------------------------------------- what they share

    def step(self, event: Event, now: float) -> Iterable[Effect]:
        """Take one event."""
        if isinstance(event, Start):
            self._begin(now)
        effects = self.exchanges.step(event, now)
        effects += self._learn(event, now)
        if self.exchanges.finishing:
            effects += self._end(event, now)
        return effects

    def _end(self, event: Event, now: float) -> list[Effect]:
        if isinstance(event, Finish):
            effects: list[Effect] = [*map(Cancel, self.work), Timer("linger", self._linger)]
        else:
            effects = []
        lingered = isinstance(event, Tick) and event.name == "linger"
        if not self._done and (self.exchanges.settled or lingered):
            self._done = True
            if parked := self.exchanges.unsettled():
                effects.append(Report({f"unsettled/{name}": 1.0 for name in parked}))
            effects.append(Done(self.model(now)))
        return effects

    def counters(self) -> Mapping[str, float]:
        """Those of the exchanges."""
        return self.exchanges.counters()

    def snapshot(self) -> Snapshot:
        """The exchanges, and what the ledger needs to know of them."""
        snapshot = self.exchanges.snapshot()
        snapshot.numbers["ledger_share"] = self._ledger_share
        return snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Take up a snapshot."""
        self.exchanges.restore(snapshot)
