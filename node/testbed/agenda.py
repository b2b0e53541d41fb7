"""What is to happen, in order: the clock of virtual time and a heap of what lies ahead of it."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import Any

Action = Callable[[Any, Any], None]
"""Takes who it happens to, and what."""


class Agenda:
    """A clock and what is to be done when; ties go by the order in which they were put down.

    Invariant: time never goes back.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Action, Any, Any]] = []
        self._soon: deque[tuple[Action, Any, Any]] = deque()  # what happens at once needs no heap
        self._order = 0

    def at(self, time: float, action: Action, who: Any, what: Any) -> None:
        """Do something at a time."""
        self._order += 1
        heapq.heappush(self._heap, (time, self._order, action, who, what))

    def after(self, delay: float, action: Action, who: Any, what: Any) -> None:
        """Do something a while from now."""
        if delay > 0:
            self.at(self.now + delay, action, who, what)
        else:
            self._soon.append((action, who, what))

    def run(self, until: float) -> None:
        """Let time pass until ``until``, or until nothing is left to happen."""
        heap, soon = self._heap, self._soon
        while True:
            if soon:
                action, who, what = soon.popleft()
            elif heap and heap[0][0] <= until:
                self.now, _, action, who, what = heapq.heappop(heap)
            else:
                break
            action(who, what)
        self.now = max(self.now, until) if until < float("inf") else self.now

    def run_next(self) -> None:
        """Let time pass until the next thing has happened, and whatever happens with it."""
        self.run(self._heap[0][0] if self._heap else self.now)

    @property
    def empty(self) -> bool:
        """Whether nothing is left to happen."""
        return not self._heap and not self._soon
