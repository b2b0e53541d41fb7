"""The story of a run that is over, out of its record.

Peers report now and then, each at moments of its own: a frame shows the latest report of each. What happened between is
in ``events.jsonl``, in units where time was virtual; of daemons only the order is known, and the end of one is told at
its last report.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from node.keeping_up import too_few
from node.testbed.experiment import REFERENCES
from node.testbed.record import read_events
from node.watch.answer import NUMBER_MAX
from node.watch.promises import Achieved, promise
from node.watch.scene import Scene
from node.watch.story import Frame, Kind, Moment, Number, Story, event, frames_most, rounded, thin

if TYPE_CHECKING:
    from node.testbed.runs import Run

FRAMES_MAX = 150
LOOKED_AT = 2
"""So many times the frames are looked at, so that little is lost between them."""

TURNS: Mapping[str, tuple[str, Kind, str]] = {
    "joined": ("l", "joined", "{} joins"),
    "left": ("e", "left", "{} leaves"),
    "stopped": ("g", "gone", "{} stops for good"),
    "crashed": ("g", "crashed", "{} crashes"),
    "restarted": ("l", "back", "{} is back"),
}
"""What events in virtual time make of a peer, and how they are told."""


@dataclass(frozen=True)
class Course:
    """What one peer has reported, and how it was when.

    Parameters
    ----------
    lines : sequence of mapping
        Its reports, in the order of time.
    turns : sequence of (float, str)
        From which second on it was in which state.
    """

    lines: Sequence[Mapping[str, Any]]
    turns: Sequence[tuple[float, str]]

    def at(self, t: float) -> Mapping[str, Any]:
        """The latest report at a second; an empty one before the first."""
        k = bisect_right(self.lines, t + 1e-6, key=_seconds)
        return self.lines[k - 1] if k else {}

    def state(self, t: float) -> str:
        """Its letter."""
        letter = "l" if self.at(t) else "n"
        for since, turned in self.turns:
            if since <= t + 1e-6:
                letter = turned
        return letter


def _seconds(line: Mapping[str, Any]) -> float:
    return float(line["seconds"])


def recorded_story(run: Run) -> Story:
    """The story of a run.

    Raises
    ------
    StorageError
        When its events can't be read.
    """
    scene = _scene(run)
    unit_s = run.unit_s
    begin, end = _span(run)
    events, turns = _happened(run, unit_s, end)
    courses = {name: Course(run.lines.get(name, ()), turns.get(name, ())) for name in scene.position}
    rates = _asked(run)
    scene.asked = [rates[pair] / unit_s if unit_s and pair in rates else None for pair in scene.pairs]
    story = Story(run.title, False, _about(run, unit_s), scene.nodes, scene.edges, over=True)
    most = frames_most(FRAMES_MAX, len(scene.nodes), len(scene.pairs))
    if times := _times(run, LOOKED_AT * most, begin, end):
        moments = [_moment(scene, courses, t) for t in times if t < end]
        moments.append(_moment(scene, courses, end, over=True))
        story.frames = thin([Frame.of(moment) for moment in moments], most)
    story.tell(sorted(events, key=lambda one: one["t"]))
    story.promises = promise(run.plan if scene.pairs else None, _achieved(run, unit_s))
    merged = run.summary.get("merged")
    if merged:
        story.merged = {"accuracy": rounded(run.summary["merged_accuracy"]), "models": merged["members"]}
    return story


def _scene(run: Run) -> Scene:
    """The plan's; without one, whoever has reported, with an edge between those that have exchanged."""
    scene = Scene(run.plan)
    if run.summary["algorithm"] in REFERENCES:  # whose peers are alone
        scene = scene.without_edges()
    for name in sorted(run.lines, key=lambda name: (len(name), name)):
        scene.append(name)
    if run.plan is None:
        for name, lines in run.lines.items():
            for key in ("exchanges_with", "distance_to"):
                for other in _mapping(lines[-1] if lines else {}, key):
                    scene.join(name, other)
    return scene


def _span(run: Run) -> tuple[float, float]:
    ends = [(_seconds(lines[0]), _seconds(lines[-1])) for lines in run.lines.values() if lines]
    return min((first for first, _ in ends), default=0.0), max((last for _, last in ends), default=0.0)


def _times(run: Run, most: int, begin: float, end: float) -> list[float]:
    """As many moments as a peer has reported at, unless that is too many."""
    reports = max((len(lines) for lines in run.lines.values()), default=0)
    count = min(reports, most)
    return [begin + (end - begin) * k / max(1, count - 1) for k in range(count)]


def _moment(scene: Scene, courses: Mapping[str, Course], t: float, *, over: bool = False) -> Moment:
    lines = {name: course.at(t) for name, course in courses.items()}
    state = {name: course.state(t) for name, course in courses.items()}
    if over:
        state = {name: "e" if letter == "l" else letter for name, letter in state.items()}

    def each(key: str) -> list[Number]:
        return [_number(line.get(key)) for line in lines.values()]

    return Moment(
        t=t,
        state="".join(state.values()),
        accuracy=each("accuracy"),
        loss=each("loss"),
        distance=each("distance"),
        steps=each("gradients"),
        round=each("rounds"),
        sent=each("bytes_sent"),
        stale=[max(0.0, t - _seconds(line)) if line else None for line in lines.values()],
        achieved=[_achieved_hz(lines[a], b) for a, b in scene.pairs],
        apart=[_apart(lines, a, b) for a, b in scene.pairs],
        link="".join(
            _link(state[a] + state[b], lines[a], b, asked)
            for (a, b), asked in zip(scene.pairs, scene.asked, strict=True)
        ),
    )


def _link(states: str, line: Mapping[str, Any], other: str, asked: Number) -> str:
    if "g" in states:
        return "g"
    if "n" in states:
        return "?"
    count = _count(line, other)
    return "l" if asked and count is not None and too_few(count, asked * _seconds(line)) else "a"


def _count(line: Mapping[str, Any], other: str) -> Number:
    return _number(_mapping(line, "exchanges_with").get(other))


def _achieved_hz(line: Mapping[str, Any], other: str) -> Number:
    count = _count(line, other)
    return None if count is None or not _seconds(line) else count / _seconds(line)


def _apart(lines: Mapping[str, Mapping[str, Any]], a: str, b: str) -> Number:
    near, far = _mapping(lines[a], "distance_to").get(b), _mapping(lines[b], "distance_to").get(a)
    return _number(far if near is None else near)


def _mapping(line: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = line.get(key)
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> Number:
    return float(value) if isinstance(value, int | float) and abs(value) <= NUMBER_MAX else None


# ------------------------------------------------------------------------------------------------ what happened


def _happened(
    run: Run, unit_s: float | None, end: float
) -> tuple[list[dict[str, Any]], dict[str, list[tuple[float, str]]]]:
    """The events as they are told, and what they made of each peer."""
    events: list[dict[str, Any]] = []
    turns: dict[str, list[tuple[float, str]]] = {}
    lost = set(run.summary["lost_peers"])
    for one in read_events(run.folder):
        name, what = str(one.get("peer")), str(one.get("event"))
        units = _number(one.get("units"))
        if what in TURNS and unit_s and units is not None:
            letter, kind, text = TURNS[what]
            t = units * unit_s
            turns.setdefault(name, []).append((t, letter))
            events.append(event(t, kind, name, text.format(name)))
    for name, lines in run.lines.items():
        known = turns.setdefault(name, [])
        last = _seconds(lines[-1]) if lines else 0.0
        if name in lost and not (known and known[-1][1] in "eg"):
            known.append((last, "g"))
            events.append(event(last, "lost", name, f"{name} was lost: it has left no final state"))
    if merged := run.summary.get("merged"):
        events.append(event(end, "merged", "", f"the models of {merged['members']} peers were merged"))
    return [*events, event(end, "over", "", "the run is over")], turns


def _asked(run: Run) -> dict[tuple[str, str], float]:
    """Exchanges a unit of each edge; none where edges have no clocks, so that nobody has counted any."""
    return run.asked if run.edges else {}


def _about(run: Run, unit_s: float | None) -> list[tuple[str, str]]:
    summary, plan = run.summary, run.plan
    about = [("algorithm", str(summary["algorithm"])), ("task", str(summary["task"]))]
    if plan:
        about += [("topology", f"{plan.family}, {len(plan.edges)} edges"), ("rates", plan.rates.policy)]
    about += [("transport", str(summary["transport"] or "unknown")), ("seed", str(summary["seed"]))]
    if unit_s:
        about += [("unit of time", f"{unit_s:.4g} s")]
    return about


def _achieved(run: Run, unit_s: float | None) -> Achieved:
    last = [lines[-1] for lines in run.lines.values() if lines]
    times = [_number(line.get("exchange_p99_units")) for line in last]
    return Achieved(
        str(run.summary["algorithm"]),
        unit_s,
        _asked(run),
        run.edges,
        "the whole run",
        [time for time in times if time is not None],
        [late for lines in run.lines.values() if (late := _late(lines)) is not None],
    )


def _late(lines: Sequence[Mapping[str, Any]]) -> float | None:
    """Units a unit by which local steps were late; a peer that is started again sums up from 0 on."""
    told = [late for line in lines if (late := _number(line.get("behind_units"))) is not None]
    units = _number(lines[-1].get("units")) if lines else None
    if not told or not units:
        return None
    return math.fsum(now - before if now >= before else now for before, now in pairwise([0.0, *told])) / units
