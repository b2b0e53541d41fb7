"""What is known of each peer that is watched, and what state that puts it into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from node.watch.answer import Answer

MISSED_MAX = 2
SILENCE_S = 2.0
"""A peer that has missed two questions, and was not heard of for as long, does not answer any more."""

LETTERS: Mapping[str, str] = {"waiting": "w", "learning": "l", "merging": "m", "draining": "d"}
END_S = 3.0
"""A peer that had no more to learn than this when it was last heard of has ended when it is silent."""

AWAY = "neg"
"""Not there yet, ended, gone."""


LATE_S = 60.0
"""Lateness is told of this much time or more, up to twice as much, as soon as a peer has learnt for so long."""


@dataclass
class Pace:
    """By how much local steps are late, of late: what a peer says is summed up over its life, from 0 on.

    Parameters
    ----------
    now, before, since : Answer or None
        The latest; the one that it is compared with; and the one that takes the place of that after :data:`LATE_S`.
    """

    now: Answer | None = None
    before: Answer | None = None
    since: Answer | None = None

    def hear(self, answer: Answer) -> None:
        """What a peer says that learns; one that has been started again begins anew."""
        if self.now is None or self.since is None or answer.behind_units < self.now.behind_units:
            self.before = self.since = answer
        elif answer.seconds - self.since.seconds >= LATE_S:
            self.before, self.since = self.since, answer
        self.now = answer

    @property
    def late(self) -> float | None:
        """Units a unit; None where too little is known."""
        if self.now is None or self.before is None or self.now.units <= self.before.units:
            return None
        return (self.now.behind_units - self.before.behind_units) / (self.now.units - self.before.units)


@dataclass
class Known:
    """One peer.

    Parameters
    ----------
    answer : Answer or None
        The latest.
    figures : Answer or None
        The latest with figures in it: one that waits, as after a restart, has none yet.
    heard_s : float
        When it answered last.
    missed : int
        Questions in a row that it has not answered.
    state : str
        As :class:`~node.watch.story.Moment` has it.
    asked : bool
        Whether it can be asked at all: of a peer that only others tell of, they are believed.
    pace : Pace
        How late its local steps are.
    """

    answer: Answer | None = None
    figures: Answer | None = None
    heard_s: float = 0.0
    missed: int = 0
    state: str = "n"
    asked: bool = True
    pace: Pace = field(default_factory=Pace)

    def hear(self, answer: Answer | None, now_s: float) -> None:
        """What it has answered, or None."""
        if answer is None:
            self.missed += 1
            return
        self.answer, self.heard_s, self.missed = answer, now_s, 0
        if answer.phase != "waiting":
            self.figures = answer
            self.pace.hear(answer)

    def silent(self, now_s: float) -> bool:
        """Whether it does not answer any more."""
        return self.missed >= MISSED_MAX and now_s - self.heard_s >= SILENCE_S

    @property
    def finished(self) -> bool:
        """Whether it had no more to learn when it was last heard of."""
        last = self.answer
        if last is None:
            return False
        nearly = last.phase != "waiting" and last.seconds_left is not None and last.seconds_left <= END_S
        return nearly or last.phase == "merging" or last.models_merged > 0

    @property
    def ended(self) -> bool:
        """Whether it was about to end when it was last heard of, be it because it was told to."""
        return self.finished or (self.answer is not None and self.answer.phase == "draining")

    @property
    def there(self) -> bool:
        """Whether its latest answer holds."""
        return self.answer is not None and self.state not in AWAY


def judge(peer: Known, doubts: str, now_s: float) -> str:
    """The state of a peer.

    Parameters
    ----------
    doubts : str
        The worst that a learning peer says of it: ``a`` alive, ``s`` suspect, ``g`` gone, or nothing.
    """
    if not peer.asked:
        return {"a": "l", "s": "s", "g": "g"}.get(doubts, "n" if peer.state == "n" else peer.state)
    if peer.answer is None:
        return "n"
    if peer.silent(now_s):
        return "e" if peer.ended or peer.state == "e" else "g"
    letter = LETTERS[peer.answer.phase]
    return "s" if letter == "l" and doubts in ("s", "g") else letter
