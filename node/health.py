"""How far a peer may trust its own observation of others: how late it is itself, and how long their answers take.

A peer that is stopped, starved or cut off finds that everybody else has fallen silent. Whoever draws conclusions from
silence must first look at itself: that is the local health of Lifeguard [1]_, section IV-A.

.. [1] A. Dadgar, J. Phillips, J. Currey, "Lifeguard: Local health awareness for more accurate failure detection",
   DSN 2018 workshops, arXiv:1707.00788.
"""

from __future__ import annotations

from collections import deque
from statistics import median

import trio

SCORE_MAX = 8
"""Worst health; waits are then nine times as long."""

BEAT_S = 0.5
"""The loop looks at the clock at least so often."""

LATE_S = 0.5
"""Later than this, and the process was stopped or starved."""

ANSWERS_MIN, ANSWERS_KEPT = 8, 64
"""Answers that are needed to know how long they take; the latest so many count."""

WAIT_MIN_S, WAIT_FIRST_S = 0.2, 2.0
"""Shortest wait for an answer, so that a busy machine is not accused; the wait while little is known, and longest."""

DEVIATIONS = 10.0
"""So many median absolute deviations above the median an answer is late."""


class Health:
    """A score from 0, well, to :data:`SCORE_MAX`, and a clock that stands still while the process does.

    The score falls by one with each answer in time, and rises by one with each ping that nobody answered in time and
    with each late awakening of the own loop.
    """

    def __init__(self) -> None:
        self.score = 0
        self._seen_s: float | None = None
        self._awake_s = self._woke_s = 0.0

    @property
    def factor(self) -> float:
        """What all waits are multiplied by."""
        return 1.0 + self.score

    def better(self) -> None:
        """Somebody answered in time."""
        self.score = max(self.score - 1, 0)

    def worse(self) -> None:
        """Nobody answered in time, or the loop was late."""
        self.score = min(self.score + 1, SCORE_MAX)

    def awake_s(self) -> float:
        """Seconds for which the loop has turned; a late awakening adds nothing, however long the sleep."""
        now = trio.current_time()
        gap_s = 0.0 if self._seen_s is None else now - self._seen_s
        self._seen_s = now
        if gap_s > BEAT_S + LATE_S:
            self._woke_s = self._awake_s
            self.worse()
        else:
            self._awake_s += gap_s
        return self._awake_s

    def steady_s(self) -> float:
        """Seconds for which the loop has turned since it was last late."""
        return self.awake_s() - self._woke_s

    async def run(self) -> None:
        """Look at the clock for ever; without it nobody knows what is late."""
        while True:
            self.awake_s()
            await trio.sleep(BEAT_S)


class Patience:
    """How long to wait for one peer's answers: median and median absolute deviation of how long its latest took."""

    def __init__(self) -> None:
        self._took_s: deque[float] = deque(maxlen=ANSWERS_KEPT)
        self._usual_s = WAIT_FIRST_S
        self._timeouts = 0

    @property
    def wait_s(self) -> float:
        """Doubled with each answer that did not come in time, up to :data:`WAIT_FIRST_S`."""
        return min(self._usual_s * 2.0 ** min(self._timeouts, 10), WAIT_FIRST_S)

    @property
    def learnt(self) -> bool:
        """Whether enough answers are known."""
        return len(self._took_s) >= ANSWERS_MIN

    def answered(self, took_s: float) -> None:
        """An answer came in time."""
        self._timeouts = 0
        self._took_s.append(took_s)
        if self.learnt:
            middle = median(self._took_s)
            spread = median(abs(each - middle) for each in self._took_s)
            self._usual_s = min(max(middle + DEVIATIONS * spread, WAIT_MIN_S), WAIT_FIRST_S)

    def timed_out(self) -> None:
        """None came in time."""
        self._timeouts += 1
