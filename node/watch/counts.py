"""How often an edge has exchanged of late, from counts that are read now and then."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

RECENT_S = 10.0
"""What is called a rate of late."""
KEPT_S = 60.0
JUDGED_S = 30.0
"""An edge is judged by at least this much time."""
SHORTEST_S = 2.0
MARKS_MAX = 1024


@dataclass(frozen=True, slots=True)
class Tally:
    """So many exchanges in so many seconds."""

    count: int
    seconds: float

    @property
    def rate_hz(self) -> float:
        """Exchanges a second."""
        return self.count / self.seconds


class Counted:
    """The counts of one edge over at least the latest :data:`KEPT_S` seconds, by the clock of who has counted.

    Where they are read less often than that, the latest two are kept.
    """

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque(maxlen=MARKS_MAX)

    def add(self, seconds: float, count: int) -> None:
        """Read a count; a clock or a count that has fallen is that of a peer that fell back, and begins anew."""
        if self._marks:
            last_s, last = self._marks[-1]
            if seconds < last_s or count < last:
                self._marks.clear()
            elif seconds == last_s:
                return
        self._marks.append((seconds, count))
        while len(self._marks) > 1 and seconds - self._marks[1][0] >= KEPT_S:
            self._marks.popleft()

    def forget(self) -> None:
        """Begin anew."""
        self._marks.clear()

    def over(self, span_s: float) -> Tally | None:
        """What was counted over the latest so many seconds, or a little more; None where too little is known."""
        if not self._marks:
            return None
        last_s, last = self._marks[-1]
        before = (mark for mark in reversed(self._marks) if mark[0] <= last_s - span_s)
        first_s, first = next(before, self._marks[0])
        return Tally(last - first, last_s - first_s) if last_s - first_s >= SHORTEST_S else None
