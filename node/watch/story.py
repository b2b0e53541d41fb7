"""The story of a run: what the page shows, live and in a report.

A story is one JSON object: who takes part, the frames (how all peers and edges were at one moment), the events between
them, and what the plan promised. ``node/watch/follow.py`` makes one from the statuses of running peers,
``node/watch/recorded.py`` from the folder of a run that is over.

Numbers have four significant digits, times of the run milliseconds, and what is not known is null. Whatever is told of
each peer or each edge is a list in the order of the nodes or the edges; peers that join later are appended, so that
older frames' lists are shorter.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from node.testbed.milestones import root_mean_square

VERSION = 1
FRAMES_MAX = 300
"""A story with more is thinned to half as many."""
FRAMES_MIN, VALUES_MAX = 40, 200_000
"""Of large networks there are fewer frames, so that they come to about a megabyte, but not fewer than so many."""
EVENTS_MAX = 500
"""Of more events, the latest are told."""

Number: TypeAlias = float | None
# fmt: off
Kind: TypeAlias = Literal[
    "joined", "learning", "suspect", "gone", "back", "merging", "merged", "ended", "lost", "crashed", "left", "slow",
    "over",
]
# fmt: on


def rounded(value: Number) -> Number:
    """Four significant digits; None of what is no finite number.

    Examples
    --------
    >>> rounded(1234567.0), rounded(0.00123456), rounded(float("nan"))
    (1235000, 0.001235, None)
    """
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.4g}")
    return int(short) if short.is_integer() and abs(short) < 2**53 else short


def at(seconds: float) -> float:
    """A time of the run to a thousandth, however long that is; 0 of what is no finite number."""
    return round(seconds, 3) if math.isfinite(seconds) else 0.0


def told(value: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


@dataclass(frozen=True, slots=True)
class Moment:
    """How a run is at one moment: one value a peer, or one an edge.

    Parameters
    ----------
    t : float
        Seconds of the run.
    state : str
        One letter a peer: ``n`` not there yet, ``w`` waiting, ``l`` learning, ``m`` merging, ``d`` draining, ``e``
        ended, ``s`` suspect, ``g`` gone.
    accuracy, loss, distance, steps, round, sent, stale : sequence
        Of each peer: ``distance`` from the optimum, ``sent`` in bytes, ``stale`` the seconds since it was heard of.
    achieved, apart : sequence
        Of each edge: exchanges a second, and how far apart its two models were in the latest exchange.
    link : str
        One letter an edge: ``a`` alive, ``l`` alive, but slower than chance explains, ``s`` suspect, ``g`` gone,
        ``?`` unknown.
    """

    t: float
    state: str
    accuracy: Sequence[Number]
    loss: Sequence[Number]
    distance: Sequence[Number]
    steps: Sequence[Number]
    round: Sequence[Number]
    sent: Sequence[Number]
    stale: Sequence[Number]
    achieved: Sequence[Number]
    apart: Sequence[Number]
    link: str

    @property
    def curves(self) -> dict[str, Any]:
        """Over all peers that are there: least, mean and greatest, root mean squares, and all bytes ever sent."""
        there = [letter not in "ng" for letter in self.state]
        joined = [letter in "al" for letter in self.link]
        return {
            "accuracy": _spread(_known(self.accuracy, there)),
            "loss": _spread(_known(self.loss, there)),
            "distance": _rms(_known(self.distance, there)),
            "apart": _rms(_known(self.apart, joined)),
            "sent": rounded(math.fsum(value for value in self.sent if value is not None)),
        }


PER_PEER = ("accuracy", "loss", "distance", "steps", "round", "sent", "stale")
PER_EDGE = ("achieved", "apart")


def _known(values: Sequence[Number], there: Sequence[bool]) -> list[float]:
    return [value for value, is_there in zip(values, there, strict=True) if is_there and value is not None]


def _spread(values: Sequence[float]) -> list[Number] | None:
    return [rounded(v) for v in (min(values), math.fsum(values) / len(values), max(values))] if values else None


def _rms(values: Sequence[float]) -> Number:
    return rounded(root_mean_square(values)) if values else None


@dataclass(frozen=True, slots=True)
class Frame:
    """A moment as it is kept: written out already, with what thinning asks of it."""

    t: float
    curves: Mapping[str, Any]
    text: str

    @classmethod
    def of(cls, moment: Moment) -> Frame:
        """Write a moment down."""
        curves, t = moment.curves, at(moment.t)
        lists = {key: [rounded(value) for value in getattr(moment, key)] for key in PER_PEER + PER_EDGE}
        return cls(t, curves, told({"t": t, "state": moment.state, **lists, "link": moment.link, "curves": curves}))


def frames_most(most: int, nodes: int, edges: int) -> int:
    """How many frames of such a network there may be, out of ``most``."""
    values = len(PER_PEER) * nodes + len(PER_EDGE) * edges + 1
    return max(FRAMES_MIN, min(most, VALUES_MAX // values))


def thin(frames: Sequence[Frame], most: int) -> list[Frame]:
    """At most so many frames, evenly spread over time, with the first, the last and the extremes of all curves.

    Parameters
    ----------
    most : int
        At least 32, so that there is room for all that is kept in any case.
    """
    if len(frames) <= most:
        return list(frames)
    kept = {0, len(frames) - 1} | _extremes(frames)
    first, last = frames[0].t, frames[-1].t
    room, k = most - len(kept), 0
    for i in range(room):
        wanted = first + (last - first) * (i + 1) / (room + 1)
        while frames[k].t < wanted:
            k += 1
        kept.add(k)
    return [frames[k] for k in sorted(kept)]


def _extremes(frames: Sequence[Frame]) -> set[int]:
    """Where the least and the greatest values of each curve are."""
    found = set()
    for key in ("accuracy", "loss", "distance", "apart"):
        values = [(frame.curves[key], k) for k, frame in enumerate(frames) if frame.curves[key] is not None]
        for column in range(3 if values and isinstance(values[0][0], list) else 1):
            single = [(value[column] if isinstance(value, list) else value, k) for value, k in values]
            found |= {min(single)[1], max(single)[1]} if single else set()
    return found


@dataclass
class Story:
    """A story that grows.

    Parameters
    ----------
    title : str
        The run in a few words.
    live : bool
        Whether it goes on.
    about : list of (str, str)
        What is to be known about the run: label and value.
    nodes, edges : list
        ``{"name", "x", "y"}`` and ``{"a", "b", "asked"}``; places from 0 to 1, y downwards, and exchanges a second.
    promises : list
        ``{"what", "asked", "achieved", "well", "hint"}``.
    merged : mapping or None
        ``{"accuracy", "models"}`` once the models of the peers have been merged.
    over : bool
        Whether the run has ended.
    """

    title: str
    live: bool
    about: list[tuple[str, str]] = field(default_factory=list)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    edges: list[dict[str, Any]] = field(default_factory=list)
    promises: list[dict[str, Any]] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    merged: dict[str, Number] | None = None
    over: bool = False

    def add(self, moment: Moment) -> Frame:
        """Go on by one frame; of several of one time, the latest is kept."""
        frame = Frame.of(moment)
        if self.frames and self.frames[-1].t == frame.t:
            self.frames.pop()
        self.frames.append(frame)
        most = max(2 * FRAMES_MIN, frames_most(FRAMES_MAX, len(self.nodes), len(self.edges)))
        if len(self.frames) > most:
            self.frames = thin(self.frames, most // 2)
        return frame

    def tell(self, events: Iterable[dict[str, Any]]) -> None:
        """Add events."""
        self.events = [*self.events, *events][-EVENTS_MAX:]

    def text(self) -> str:
        """The whole story as JSON that may stand inside a script element."""
        head = {"version": VERSION, "live": self.live, "title": self.title, "about": self.about}
        rest = {"nodes": self.nodes, "edges": self.edges, "promises": self.promises, "events": self.events}
        known = told({**head, **rest, "merged": self.merged, "over": self.over})
        return f'{known[:-1]},"frames":[{",".join(frame.text for frame in self.frames)}]}}'

    def news(self, frame: Frame, events: Sequence[dict[str, Any]]) -> str:
        """A new frame, and what else has changed with it, as JSON."""
        rest = told({"events": events, "promises": self.promises, "merged": self.merged, "over": self.over})
        return f'{{"frame":{frame.text},{rest[1:]}'


def event(t: float, kind: Kind, peer: str, text: str) -> dict[str, Any]:
    """Something that happened, at a second of the run; ``peer`` may be empty."""
    return {"t": at(t), "kind": kind, "peer": peer, "text": text}
