"""How long to wait for what others say of the same step: as long as is usual, and no longer.

The deadline is the median and ten times the median absolute deviation of how late others have been so far, counted from
when the own part of a step was ready. Those count, too, who came too late to be used: else a network slower than the
first deadline would stay so for ever.
"""

from __future__ import annotations

from collections import deque
from statistics import median

KNOWN, KNOWN_MIN = 64, 8
"""Of how many past messages the deadline is made, at most and at least."""

DEVIATIONS = 10.0
"""Median absolute deviations beyond the median that are waited."""

REMEMBERED = 1024
"""Steps of which it is known when the own part was ready: how late one may be for its lateness to count."""


class Lateness:
    """How late others are for steps, all times in plan units.

    Parameters
    ----------
    first : float
        How long to wait as long as too little is known.
    least : float
        The shortest wait.
    """

    def __init__(self, first: float, least: float) -> None:
        self._first, self._least = first, least
        self._ready: dict[int, float] = {}
        self._late: deque[float] = deque(maxlen=KNOWN)

    def begin(self, number: int, now: float) -> None:
        """The own part of step ``number`` is ready."""
        self._ready[number] = now
        if len(self._ready) > REMEMBERED:
            del self._ready[next(iter(self._ready))]

    def note(self, number: int, then: float) -> None:
        """Another one's part was there at the time ``then``, before or after the own one was."""
        if number in self._ready:
            self._late.append(then - self._ready[number])

    @property
    def patience(self) -> float:
        """Units to wait once the own part is ready."""
        if len(self._late) < KNOWN_MIN:
            return self._first
        middle = median(self._late)
        return max(self._least, middle + DEVIATIONS * median(abs(late - middle) for late in self._late))
