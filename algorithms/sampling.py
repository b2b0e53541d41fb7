"""Finding live peers: ask the first of a list, and one more for each that does not answer.

Theory of operation
-------------------
A sampling wants some number of live peers out of a list of candidates [1]_. It pings as many as it still wants, the
first of the list first; whom it has not heard within half of its patience it pings once more, and after all of its
patience it gives up and pings the next of the list instead. It is done when as many as wanted have answered, who are
returned in the order of their answers, or when the list is at its end.

Half of the patience is the median and five times the median absolute deviation of how long the latest answers took,
from the first ping on, also those that came too late. Were those left out that had to be pinged twice, as nobody can
tell which ping they answer, only the quickest would count, and patience would end before most answers come.

Invariant
---------
A sampling ends, whatever happens to messages: each candidate costs at most one patience.

.. [1] M. de Vos, A. Dhasade, A.-M. Kermarrec, E. Lavoie, J. Pouwelse, "MoDeST: Bridging the gap between federated and
   decentralized learning with decentralized sampling", arXiv:2302.13837, Algorithm 2.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from algorithms.protocol import Cancel, Effect, Limits, Message, Reason, Send, Timer

TRIPS, TRIPS_MIN = 64, 8
"""Of how many past pings the patience is made at most; with how many their own spread is enough to go by."""

DEVIATIONS = 5.0
"""Median absolute deviations beyond the median after which a ping is repeated."""

FLOOR = 0.1
"""The least patience, as a part of the patience while no ping has been answered."""

REPEAT = 0.5
"""After this part of the patience a ping is repeated."""

TIMER = "ping"
"""The first word of the names of all timers that are set here."""

Then = Callable[[list[str], float], list[Effect]]


@dataclass(slots=True)
class _Sampling:
    wanted: int
    queue: list[str]  # to be asked, the next one last
    then: Then
    alive: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    repeated: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)


class Sampler:
    """All samplings of one peer that are under way; there is one of a key at a time.

    Parameters
    ----------
    name : str
        The peer itself, which answers at once.
    limits : Limits
        The patience while no ping has been answered is ``reply_first``.
    ping : callable
        ``ping(name)`` is the message that asks a peer.
    fail : callable
        ``fail(name)`` is told of each that does not answer.
    """

    def __init__(self, name: str, limits: Limits, ping: Callable[[str], Message], fail: Callable[[str], None]) -> None:
        self._name, self._limits, self._message, self._fail = name, limits, ping, fail
        self._trips: deque[float] = deque(maxlen=TRIPS)
        self._asked_at: dict[str, float] = {}  # when each was pinged that has not answered since
        self._under_way: dict[str, _Sampling] = {}

    @property
    def patience(self) -> float:
        """Units that an answer is waited for."""
        longest = self._limits.reply_first
        if not self._trips:
            return longest
        middle = median(self._trips)
        spread = median(abs(trip - middle) for trip in self._trips)
        if len(self._trips) < TRIPS_MIN:
            spread = max(spread, middle / 2)  # as RFC 6298 has it for the first
        return min(max((middle + DEVIATIONS * spread) / REPEAT, FLOOR * longest), longest)

    def begin(self, key: str, wanted: int, candidates: Sequence[str], then: Then, now: float) -> list[Effect]:
        """Look for ``wanted`` live peers; ``then(sample, now)`` follows, unless this key is used again before."""
        stopped = self.stop(key)
        sampling = self._under_way[key] = _Sampling(wanted, [*reversed(candidates)], then)
        return stopped + self._go_on(key, sampling, now)

    def stop(self, key: str) -> list[Effect]:
        """Forget a sampling."""
        sampling = self._under_way.pop(key, None)
        return [Cancel(f"{TIMER} {key} {name}") for name in sampling.asked] if sampling else []

    def heard(self, name: str, now: float, answered: bool) -> list[Effect]:
        """Something came from a peer; ``answered`` if it is the answer to a ping."""
        effects: list[Effect] = []
        if answered and name in self._asked_at:
            self._trips.append(min(now - self._asked_at.pop(name), self._limits.reply_first))
            if len(self._trips) == 1:  # the others were asked with no idea of how long an answer takes
                asked = [f"{TIMER} {key} {one}" for key, sampling in self._under_way.items() for one in sampling.asked]
                effects += [Timer(timer, self.patience * REPEAT) for timer in asked]
        for key, sampling in list(self._under_way.items()):
            if self._under_way.get(key) is not sampling:
                continue  # what followed from another one has ended it
            if name in sampling.asked:
                sampling.asked.remove(name)
                effects.append(Cancel(f"{TIMER} {key} {name}"))
            elif name not in sampling.failed:
                continue
            sampling.failed.discard(name)
            sampling.alive.append(name)
            effects += self._go_on(key, sampling, now)
        return effects

    def ring(self, key: str, name: str, now: float) -> list[Effect]:
        """Of the timer ``"ping KEY NAME"``: ping again, or give up."""
        sampling = self._under_way.get(key)
        if sampling is None or name not in sampling.asked:
            return []
        if name in sampling.repeated:
            return self._give_up(key, sampling, name, now)
        sampling.repeated.add(name)
        return self._ping(key, name, self.patience * (1 - REPEAT))

    def undelivered(self, name: str, reason: Reason, now: float) -> list[Effect]:
        """A ping did not arrive: there is no use in waiting for its answer, unless another one is still to come."""
        effects: list[Effect] = []
        for key, sampling in list(self._under_way.items()):
            under_way = self._under_way.get(key) is sampling  # nothing that followed from another one has ended it
            if under_way and name in sampling.asked and (name in sampling.repeated or not reason.transient):
                effects += [Cancel(f"{TIMER} {key} {name}"), *self._give_up(key, sampling, name, now)]
        return effects

    def _give_up(self, key: str, sampling: _Sampling, name: str, now: float) -> list[Effect]:
        sampling.asked.remove(name)
        sampling.failed.add(name)
        self._fail(name)
        return self._go_on(key, sampling, now)

    def _go_on(self, key: str, sampling: _Sampling, now: float) -> list[Effect]:
        """Ask as many as are missing; end if none is, or nobody is left."""
        effects: list[Effect] = []
        while sampling.queue and len(sampling.alive) + len(sampling.asked) < sampling.wanted:
            name = sampling.queue.pop()
            if name == self._name:
                sampling.alive.append(name)
                continue
            sampling.asked.append(name)
            if now - self._asked_at.get(name, -math.inf) >= self._limits.reply_first:
                self._asked_at[name] = now
            effects += self._ping(key, name, self.patience * REPEAT)
        if sampling.asked and len(sampling.alive) < sampling.wanted:
            return effects
        return effects + self.stop(key) + sampling.then(sampling.alive[: sampling.wanted], now)

    def _ping(self, key: str, name: str, wait: float) -> list[Effect]:
        return [Send(name, self._message(name)), Timer(f"{TIMER} {key} {name}", wait)]
