"""What a testbed shows while it runs: a table of its peers, or a line now and then where there is no terminal.

Everything is read from the lines that the peers append to the record, each line once, so that watching costs the peers
nothing.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from node.testbed.milestones import root_mean_square, rounds_done

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

log = logging.getLogger(__name__)

ROWS_MAX = 32
"""Peers that the table shows; of more, those that are lost and then the first."""

LINE_EVERY_S = 5.0

OPTIONAL: Mapping[str, str] = {"distance": ".2e", "refused": ".0f"}
"""Columns that the table has only where a peer reports such a figure, and how it is written."""


@dataclass
class Follower:
    """Follows one peer's lines.

    Parameters
    ----------
    path : Path
        Where the peer appends them.
    asked : float
        Exchanges a unit that it is to start.
    steps, rounds : int or None
        Units or rounds after which its run is over, if that is what ends it.
    duration_s : float
        Seconds after which it is over, if not.
    sampled : bool
        Whether only a sample of the peers works at a time, so that the newest model is what counts.
    """

    path: Path
    asked: float = 0.0
    steps: int | None = None
    duration_s: float = math.inf
    rounds: int | None = None
    sampled: bool = False
    state: str = "starting"
    first: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    heard_s: float = field(default_factory=time.monotonic)
    _read: int = 0

    def read_on(self) -> None:
        """Take in the lines that have come since."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._read)
                whole, newline, _ = file.read().rpartition(b"\n")
        except FileNotFoundError:
            return
        if newline:
            self._read += len(whole) + 1
            lines = whole.splitlines()
            self.first = self.first or json.loads(lines[0])
            self.last = json.loads(lines[-1])
            self.heard_s = time.monotonic()
            if self.state == "starting":
                self.state = "learning"
            if self.state == "learning" and self.last.get("merge_waves"):
                self.state = "merging"

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return float(self.last.get("seconds") or 0.0)

    @property
    def share(self) -> float:
        """How much of its run is behind it, 0 to 1."""
        if self.rounds:
            part = self.last.get("rounds", 0) / self.rounds
        else:
            part = self.last.get("units", 0.0) / self.steps if self.steps else self.seconds / self.duration_s
        return 1.0 if self.state == "done" else min(1.0, part)

    @property
    def asked_hz(self) -> float | None:
        """Exchanges a second that it is to start; None where it counts none, or has not said how long a unit is."""
        unit_s = self.last.get("unit_s") if "exchanges_with" in self.last else None
        return self.asked / unit_s if unit_s else None

    @property
    def achieved_hz(self) -> float:
        """Exchanges a second that it has started so far."""
        return self.last.get("exchanges", 0) / self.seconds if self.seconds else 0.0


class Live:
    """Shows followers until the ``with`` block is left.

    Parameters
    ----------
    followers : mapping of str to Follower
        Who is shown.
    console : Console
        Where to; a table where that is a terminal, otherwise a line is logged now and then.
    """

    def __init__(self, followers: Mapping[str, Follower], console: Console) -> None:
        from rich.live import Live as Display

        self._followers = followers
        self._logged_s = time.monotonic()
        terminal = console.is_terminal
        self._display = Display(console=console, auto_refresh=False, transient=True) if terminal else None

    def __enter__(self) -> Live:
        if self._display:
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display:
            self._display.stop()

    def update(self) -> None:
        """Read on, and show how things stand."""
        for follower in self._followers.values():
            follower.read_on()
        if self._display:
            self._display.update(render(self._followers), refresh=True)
        elif time.monotonic() - self._logged_s >= LINE_EVERY_S:
            self._logged_s = time.monotonic()
            log.info("%s", one_line(self._followers))


def progress(followers: Iterable[Follower]) -> float:
    """How much of the run is behind the peers that are not lost, 0 to 1."""
    parts = [follower.share for follower in followers if follower.state != "lost"]
    return sum(parts) / len(parts) if parts else 0.0


def one_line(followers: Mapping[str, Follower]) -> str:
    """How things stand, in one line."""
    states = [follower.state for follower in followers.values()]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    exchanges = sum(follower.last.get("exchanges", 0) for follower in followers.values())
    share = progress(followers.values())
    return f"{share:.0%}: {counts}; {_success(followers.values())}, {exchanges:.0f} exchanges"


def _success(followers: Collection[Follower]) -> str:
    """The mean accuracy, or how much is left of the distance to the optimum where there is one."""
    reported = [follower for follower in followers if follower.last.get("distance") is not None]
    if start := root_mean_square([follower.first["distance"] for follower in reported]) if reported else 0.0:
        distance = root_mean_square([follower.last["distance"] for follower in reported])
        return f"distance to the optimum {distance / start:.2g} of the first"
    lines = [follower.last for follower in followers]
    if any(follower.sampled for follower in followers):
        newest = rounds_done(lines)
        lines = [line for line in lines if line.get("rounds") == newest]
    accuracy = _mean(line.get("accuracy") for line in lines)
    return "accuracy –" if accuracy is None else f"accuracy {accuracy:.1%}"


def render(followers: Mapping[str, Follower]) -> RenderableType:
    """How things stand, as a table above a bar."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    optional = [key for key in OPTIONAL if any(f.last.get(key) is not None for f in followers.values())]
    table = Table(box=SIMPLE_HEAD)
    for name in ("peer", "state"):
        table.add_column(name)
    for name in ("steps", "loss", "accuracy", "exchanges", "a second", "of", *optional):
        table.add_column(name, justify="right")
    shown = sorted(followers, key=lambda name: followers[name].state != "lost")[:ROWS_MAX]
    for name, follower in followers.items():
        if name in shown:
            table.add_row(*_row(name, follower, optional), style="red" if follower.state == "lost" else None)
    hidden = len(followers) - len(shown)
    rest = [f"and {hidden} more"] if hidden else []
    bar = ProgressBar(total=1.0, completed=progress(followers.values()), width=60)
    return Group(table, *rest, bar, Text(one_line(followers)))


def _row(name: str, follower: Follower, optional: Sequence[str]) -> list[str]:
    last = follower.last
    return [
        name,
        follower.state,
        _shown(last.get("gradients"), ".0f"),
        _shown(last.get("loss"), ".3f"),
        _shown(last.get("accuracy"), ".1%"),
        _shown(last.get("exchanges"), ".0f"),
        f"{follower.achieved_hz:.2f}",
        _shown(follower.asked_hz, ".2f"),
        *(_shown(last.get(key), OPTIONAL[key]) for key in optional),
    ]


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
