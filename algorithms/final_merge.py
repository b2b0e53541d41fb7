"""The one merge that ends a run: any algorithm, and then the exact mean of all live peers' models.

Theory of operation
-------------------
:class:`FinalMerge` is an algorithm around another one. It hands on every event and effect until the inner algorithm is
done; then it freezes the model and takes part in an echo wave (:mod:`algorithms.echo`) over the topology. Models that
have hardly ever been merged before are often as good after this one merge as if they had been all the time [1]_.

The run ends in one of two ways. When its time or its rounds are over each peer ends by itself, and the first of the
plan's peers begins the wave, or, when that is not heard of, another one after a while. Or one peer is told to end the
run: its wave ends that of everybody whom it reaches.

Statistics, such as a batch normalisation's, are no parameters: the mean of several need not be that of any model. A
peer keeps its own, and estimates them anew for the merged model by local steps of length zero. The optimiser's state is
left out.

Invariants
----------
* The learnable parameters of the merged model are the same bits on all peers that have it.
* The inner algorithm's model, ledger and snapshot stay what they were when it was done.

.. [1] T. Zhu, T. Zhang, M. Wang, Z. Zhou, C. Wang, "On the surprising effectiveness of a single global merging in
   decentralized learning", ICLR 2026, arXiv:2507.06542.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from algorithms.echo import MARK, Echo
from algorithms.protocol import (
    Algorithm,
    Arrival,
    Delivered,
    Done,
    Effect,
    Event,
    Finish,
    PeerDown,
    PeerUp,
    Place,
    Snapshot,
    Tick,
    Timer,
    Train,
    Trained,
    Undelivered,
    Vector,
)

STATISTICS = "statistics"
"""The key of the steps that estimate them."""

STATISTICS_STEPS = 50
"""Batches for that: with the usual momentum of 0.1 nothing is left of the old ones."""


LEAD, LINGER, STALL = f"{MARK} lead", f"{MARK} linger", f"{MARK} stall"

STALL_MAX = 64
"""By how much the wait for a mean grows, after which there is another wave."""


class FinalMerge:
    """See the module.

    Parameters
    ----------
    inner : Algorithm
        What learns.
    place : Place
        Where.
    """

    def __init__(self, inner: Algorithm, place: Place) -> None:
        assert not inner.kinds.keys() & Echo.kinds.keys()
        self.inner = inner
        self.kinds = {**inner.kinds, **Echo.kinds}
        self.options, self.defaults, self.tempo = inner.options, inner.defaults, inner.tempo
        self._limits = place.limits
        slots = [slot for slot in place.layout.slots if slot.kind == "statistic"]
        self._statistics = [slice(slot.offset, slot.offset + slot.size) for slot in slots]
        self._first = place.name == min(place.nodes)
        random = place.draw("final merge")
        self._patience = place.limits.linger * random.uniform(1, 2)
        self._waves_then, self._stalls = 0, 0
        self._echo = Echo(place.name, place.nodes, place.neighbours, place.limits, random)
        self._frozen: Vector | None = None
        self._at: Vector | None = None
        self._merges = True
        self._told = self._joined = self._given = self._lingered = self._done = False
        self.merged: Vector | None = None
        """The merged model with this peer's own statistics, shape ``(d,)``, once there is one."""
        self.learnt_until = math.inf
        """When the inner algorithm was done."""

    @property
    def members(self) -> tuple[str, ...]:
        """Whose models are in the merged one."""
        return self._echo.members

    @property
    def merging(self) -> bool:
        """Whether the inner algorithm is done, and the models of all are to be merged."""
        return self._frozen is not None and self._merges

    def step(self, event: Event, now: float) -> Iterable[Effect]:
        """Take one event."""
        if self._done:
            return []
        effects = self._take(event, now)
        if self._echo.ends and not self._told:
            self._told = True
            effects += self._hand_in(Finish(), now)
        if self._frozen is not None and self._merges and not self._joined:
            self._joined = True
            effects += self._join(self._frozen)
        if self._echo.mean is not None and not self._given and self._frozen is not None:
            self._given = True
            effects += self._merge(self._echo.mean, self._frozen)
        return effects + self._end() if self._over else effects

    def _take(self, event: Event, now: float) -> list[Effect]:
        if isinstance(event, Arrival) and event.message.kind in Echo.kinds:
            return self._echo.arrive(event.sender, event.message)
        if isinstance(event, (Delivered, Undelivered)) and event.kind in Echo.kinds:
            return self._echo.hear_of(event)
        if isinstance(event, Tick) and event.name.startswith(MARK):
            return self._ring(event.name)
        if isinstance(event, Trained) and event.key == STATISTICS:
            return self._estimated(event.change)
        effects: list[Effect] = []
        if isinstance(event, PeerDown):
            effects = self._echo.lose(event.name)
        elif isinstance(event, PeerUp):
            effects = self._echo.find(event.name)
        elif isinstance(event, Finish):
            effects = self._echo.lead(ends=True) if event.lead and self._merges else []
            told, self._merges, self._told = self._told, self._merges and event.merge, True
            if told:  # it settles already
                return effects
        return effects + self._hand_in(event, now)

    def _hand_in(self, event: Event, now: float) -> list[Effect]:
        """To the inner algorithm, as long as it is not done."""
        effects: list[Effect] = []
        for effect in self.inner.step(event, now) if self._frozen is None else ():
            if isinstance(effect, Done):
                self._frozen, self.learnt_until = effect.vector, now
            else:
                effects.append(effect)
        return effects

    def _ring(self, timer: str) -> list[Effect]:
        if timer == LEAD:
            return [] if self._echo.under_way else self._echo.lead()
        if timer == STALL:
            return self._lead_if_stalled()
        if timer == LINGER:
            self._lingered = True
            return []
        return self._echo.ring(timer)

    # ---------------------------------------------------------------------------------------------- the merge

    def _join(self, frozen: Vector) -> list[Effect]:
        """The inner algorithm is done."""
        effects = [*self._echo.freeze(frozen), Timer(STALL, 2 * self._patience)]
        if self._echo.under_way:
            return effects
        return effects + self._echo.lead() if self._first else [*effects, Timer(LEAD, self._patience)]

    def _lead_if_stalled(self) -> list[Effect]:
        """A wave has come to nothing for long: something went wrong that nobody has noticed."""
        if self._echo.mean is not None:
            return []
        stalled = self._echo.waves == self._waves_then
        effects = self._echo.lead() if stalled else []
        self._waves_then = self._echo.waves
        self._stalls += 1  # whoever began the last one: a slow peer is not to make all others begin in turn
        return [*effects, Timer(STALL, 2 * self._patience * min(2.0**self._stalls, STALL_MAX))]

    def _merge(self, mean: Vector, frozen: Vector) -> list[Effect]:
        """Here is the mean; the peer's own statistics belong into it."""
        linger = Timer(LINGER, self._limits.linger)
        if not self._statistics or not self.members:  # nobody's model was finite
            self.merged = mean if self.members else frozen
            return [linger]
        self._at = mean.clone()
        for part in self._statistics:
            self._at[part] = frozen[part]
        return [linger, Train(STATISTICS, self._at.clone(), STATISTICS_STEPS, lr_factor=0.0)]

    def _estimated(self, change: Vector) -> list[Effect]:
        assert self._at is not None
        for part in self._statistics:
            self._at[part] += change[part]
        self.merged, self._at = self._at, None
        return []

    @property
    def _over(self) -> bool:
        if self._frozen is None:
            return False
        return not self._merges or (self.merged is not None and (self._echo.settled or self._lingered))

    def _end(self) -> list[Effect]:
        self._done = True
        last = self._frozen if self.merged is None else self.merged
        assert last is not None
        return [Done(last.clone())]

    # ------------------------------------------------------------------------------------ the inner algorithm's

    def model(self, now: float) -> Vector:
        """The peer's own model, which is not the merged one."""
        return self.inner.model(now) if self._frozen is None else self._frozen.clone()

    def ledger(self) -> Vector | None:
        """What the inner algorithm conserves."""
        return self.inner.ledger()

    def counters(self) -> Mapping[str, float]:
        """The inner algorithm's, and how many waves there were."""
        return {**self.inner.counters(), "merge_waves": self._echo.waves}

    def snapshot(self) -> Snapshot:
        """The inner algorithm's: after a crash it ends once more."""
        return self.inner.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        """Take up a snapshot."""
        self.inner.restore(snapshot)


def time_learnt(algorithm: Algorithm, now: float) -> float:
    """How long a peer has learnt, in plan units: it no longer does while models are merged."""
    return min(now, algorithm.learnt_until) if isinstance(algorithm, FinalMerge) else now
