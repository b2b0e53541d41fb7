"""Makes the story of a run that goes on out of what its peers answer, second by second.

Peers are only ever asked; that nobody watches, or somebody does, is all the same to them. A peer that does not answer
any more had ended if it was merging, draining or at the end of its time when it was last heard of, and is gone if not.
One that drains was told to end, and may be started again: the run is over when all have finished, or have been silent
for long.
Where rounds end a run without a merge nothing tells its peers' end from their death: that they fall silent together is
taken for the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median_high
from typing import TYPE_CHECKING, Any

from node.keeping_up import too_few
from node.testbed.rates import EdgeRate
from node.watch.answer import Answer
from node.watch.counts import JUDGED_S, KEPT_S, RECENT_S, Counted
from node.watch.happened import tell_change
from node.watch.known import AWAY, Known, judge
from node.watch.promises import Achieved, promise
from node.watch.scene import Scene
from node.watch.story import Frame, Moment, Number, Story, event

if TYPE_CHECKING:
    from topology.plan import Plan

AHEAD_S = 2.0
"""The story's clock follows the peers' when these are so far ahead."""
OVER_S = 15.0
"""When nobody has answered for so long, the run is over."""
TOGETHER_S = 10.0
WORSE = "asg"


@dataclass(frozen=True, slots=True)
class News:
    """What a look has brought: a frame, events, and whether the story itself is to be told again."""

    frame: Frame
    events: list[dict[str, Any]]
    whole: bool


class Follower:
    """Follows a run.

    Parameters
    ----------
    keys : collection of str
        What the peers that are asked are called: names of the plan, or addresses where it has none.
    plan : Plan, optional
        The run's.
    """

    def __init__(self, keys: list[str], plan: Plan | None = None) -> None:
        self._keys, self._plan = keys, plan
        self._begin()

    def _begin(self) -> None:
        plan, names = self._plan, [node.name for node in self._plan.nodes] if self._plan else []
        self._scene = Scene(plan)
        self._named: dict[str, str] = {key: key for key in self._keys if key in names}
        self._peers = {name: Known(asked=name in self._keys) for name in names}
        self._counted = [Counted() for _ in self._scene.pairs]
        self._slow: set[tuple[str, str]] = set()
        self._t, self._looked_s, self._heard_s = 0.0, 0.0, 0.0
        self._gone_s: dict[str, float] = {}
        self._ended = False
        size = f"{len(names)} peers" if plan else f"{len(self._keys)} addresses"
        self.story = Story(size, live=True, nodes=self._scene.nodes, edges=self._scene.edges)

    def take(self, answers: Mapping[str, Answer], now_s: float, concluded: bool = False) -> News:
        """Take in what everybody has answered at a moment, by keys; whoever is missing has not.

        Parameters
        ----------
        now_s : float
            Seconds of the watcher's own clock.
        concluded : bool
            Whether somebody knows that the run is over, so that nobody need be silent for a while before that is said.
        """
        heard = self._by_name(answers)
        learning = [answer.seconds for answer in heard.values() if answer.phase == "learning"]
        before_s = [peer.figures.seconds for peer in self._peers.values() if peer.figures]
        if self._ended and any(seconds < median_high(before_s or [0.0]) - OVER_S for seconds in learning):
            self._begin()  # another run at the same addresses
            heard = self._by_name(answers)
        whole = self._scene.meet(heard)
        self._meet()
        self._run_on(heard, now_s)
        before = {name: (peer.state, peer.figures) for name, peer in self._peers.items()}
        for name, peer in self._peers.items():
            peer.hear(heard.get(name), now_s)
        doubts = self._doubts()
        for name, peer in self._peers.items():
            peer.state = judge(peer, doubts.get(name, ("", ""))[0], now_s)
        events = [
            told
            for name, peer in self._peers.items()
            for told in tell_change(self._t, name, *before[name], peer, doubts.get(name, ("", ""))[1])
        ]
        self._count()
        events += self._say_slow() + self._end(now_s, events, concluded)
        # The peers of another run wait for each other before they learn, and the run that was over goes on so long.
        self._ended = self.story.over or (self._ended and not learning)
        whole |= self._describe()
        self.story.tell(events)
        self._sum_up()
        return News(self.story.add(self._moment(now_s)), events, whole)

    @property
    def met(self) -> bool:
        """Whether anybody has ever answered."""
        return any(peer.answer for peer in self._peers.values())

    # ------------------------------------------------------------------------------------------ who is there

    def _by_name(self, answers: Mapping[str, Answer]) -> dict[str, Answer]:
        """Answers by the peers' names; who answers in place of another has not answered."""
        heard: dict[str, Answer] = {}
        for key, answer in answers.items():
            taken = answer.name in self._named.values()
            if self._named.get(key, "" if taken else answer.name) == answer.name and answer.name not in heard:
                self._named[key] = answer.name
                heard[answer.name] = answer
        return heard

    def _meet(self) -> None:
        """Keep up with the scene."""
        reached = set(self._named.values())
        for node in self._scene.nodes[len(self._peers) :]:
            self._peers[node["name"]] = Known(asked=False)
        for name in reached & self._peers.keys():
            self._peers[name].asked = True
        self._counted += [Counted() for _ in self._scene.pairs[len(self._counted) :]]

    def _run_on(self, heard: Mapping[str, Answer], now_s: float) -> None:
        """The story's clock goes like the watcher's while the run does; half of those who learn may push it on."""
        clocks = [answer.seconds for answer in heard.values() if answer.phase != "waiting"]
        theirs = median_high(clocks) if clocks else 0.0
        if self._t and not self.story.over:
            self._t += max(0.0, now_s - self._looked_s)
        if theirs > self._t + AHEAD_S or not self._t:
            self._t = theirs
        self._looked_s = now_s
        if heard or not self._heard_s:
            self._heard_s = now_s

    def _doubts(self) -> dict[str, tuple[str, str]]:
        """Of each peer, the worst that those who learn say of it, and who says so."""
        said: dict[str, tuple[str, str]] = {}
        for name, peer in self._peers.items():
            if peer.answer is None or peer.missed or peer.answer.phase != "learning":
                continue
            for other, word in peer.answer.peers.items():
                worst = said.get(other, ("", ""))[0]
                if WORSE.find(word.state[0]) > WORSE.find(worst or "-"):
                    said[other] = (word.state[0], name)
        return said

    # ---------------------------------------------------------------------------------------------- the edges

    def _count(self) -> None:
        """Read the counts of all edges whose ends both learn, and forget those of others."""
        for (a, b), counted in zip(self._scene.pairs, self._counted, strict=True):
            owner = self._peers[a]
            learn = owner.state in "ls" and self._peers[b].state in "ls"
            word = owner.answer.peers.get(b) if owner.answer and learn else None
            if owner.answer is None or word is None or word.exchanges is None or owner.silent(self._looked_s):
                counted.forget()
            else:
                counted.add(owner.answer.seconds, word.exchanges)

    def _say_slow(self) -> list[dict[str, Any]]:
        """Edges that have been slow for long, told once until they have recovered."""
        found, told = set(), []
        for (a, b), asked, counted in zip(self._scene.pairs, self._scene.asked, self._counted, strict=True):
            tally = counted.over(KEPT_S)
            learn = self._peers[a].state == self._peers[b].state == "l"
            if not asked or not learn or tally is None or tally.seconds < JUDGED_S:
                continue
            if too_few(tally.count, asked * tally.seconds):
                found.add((a, b))
                share = tally.rate_hz / asked
                text = f"{a} – {b} makes {share:.0%} of its exchanges: {tally.rate_hz:.3g} a second, not {asked:.3g}"
                told += [event(self._t, "slow", a, text)] if (a, b) not in self._slow else []
        self._slow = found
        return told

    def _link(self, a: str, b: str) -> str:
        """The worst that either end says of the other, or that the edge is slow."""
        if "g" in (states := self._peers[a].state + self._peers[b].state):
            return "g"
        if set(states) & set("new"):
            return "?"
        worst = max(self._says(a, b), self._says(b, a), key=WORSE.find)
        return "l" if worst == "a" and (a, b) in self._slow else worst

    def _says(self, name: str, other: str) -> str:
        peer = self._peers[name]
        word = peer.answer.peers.get(other) if peer.answer and not peer.missed else None
        return word.state[0] if word else "?"

    def _apart(self, a: str, b: str) -> Number:
        """Of the latest exchange, as its owner has measured it, or the other end."""
        for one, other in ((a, b), (b, a)):
            figures = self._peers[one].figures
            word = figures.peers.get(other) if figures else None
            if word and word.distance is not None:
                return word.distance
        return None

    # ------------------------------------------------------------------------------------------- what is told

    def _end(self, now_s: float, events: list[dict[str, Any]], concluded: bool) -> list[dict[str, Any]]:
        """Whether the run is over; the peers that fell silent together at its end have ended."""
        self._gone_s |= {one["peer"]: now_s for one in events if one["kind"] == "gone"}
        there = {name: peer for name, peer in self._peers.items() if peer.asked and peer.state != "n"}
        over = bool(there) and all(peer.state in AWAY for peer in there.values())
        certain = all(peer.finished for peer in self._peers.values() if peer.asked)
        over = over and (certain or now_s - self._heard_s >= OVER_S)
        if concluded:
            over = True
            for peer in there.values():
                peer.state = "g" if peer.state == "g" else "e"
        for peer in self._peers.values():  # nobody tells any more of who can't be asked
            peer.state = "e" if over and not peer.asked and peer.state in "ls" else peer.state
        if not over or self.story.over:
            self.story.over = over
            return []
        self.story.over = True
        gone = [name for name, peer in there.items() if peer.state == "g"]
        last_s = max((self._gone_s[name] for name in gone), default=now_s)
        together = [name for name in gone if last_s - self._gone_s[name] <= TOGETHER_S]
        if len(together) >= 2 and 2 * len(together) > len(there):
            for name in together:
                self._peers[name].state = "e"
        return [event(self._t, "over", "", "the run is over")]

    def _describe(self) -> bool:
        """Title and facts, as soon as they are known; whether they have changed."""
        spoken = [peer.answer for peer in self._peers.values() if peer.answer]
        story, scene, about = self.story, self._scene, list[tuple[str, str]]()
        if spoken:
            (algorithm, task, run), _ = Counter((a.algorithm, a.task, a.run) for a in spoken).most_common(1)[0]
            story.title = f"{algorithm} on {task}, {len(scene.nodes)} peers"
            about = [("algorithm", algorithm), ("task", task)]
        if self._plan:
            about += [("topology", f"{self._plan.family}, {len(self._plan.edges)} edges")]
            about += [("rates", self._plan.rates.policy)]
        if spoken:
            about += [("run", run)]
            unit_s = next((a.unit_seconds for a in spoken if a.unit_seconds), None)
            about += [("unit of time", f"{unit_s:.4g} s")] if unit_s else []
        changed = about != story.about
        story.about, story.nodes = about, scene.nodes
        if changed or len(story.edges) != len(scene.pairs) or any(e["asked"] is None for e in story.edges):
            story.edges = scene.edges
        return changed

    def _sum_up(self) -> None:
        """The promises and the merge; what was achieved while peers learnt stands when they have ended."""
        there = [peer for peer in self._peers.values() if peer.there]
        answers = [peer.figures for peer in there if peer.figures]
        achieved = self._achieved(answers, there)
        states = {peer.state for peer in self._peers.values()}
        if "m" not in states and (achieved.edges or "e" not in states):
            self.story.promises = promise(self._plan, achieved)
        models = max((answer.models_merged for answer in answers), default=0)
        if models:
            self.story.merged = {"accuracy": None, "models": models}

    def _achieved(self, answers: Sequence[Answer], peers: Sequence[Known]) -> Achieved:
        units_s = [answer.unit_seconds for answer in answers if answer.unit_seconds]
        unit_s = median_high(units_s) if units_s else None
        asked: dict[tuple[str, str], float] = {}
        edges = []
        for (a, b), hz, counted in zip(self._scene.pairs, self._scene.asked, self._counted, strict=True):
            if hz and unit_s:
                asked[a, b] = hz * unit_s
                tally = counted.over(KEPT_S)
                edges += [EdgeRate(a, b, asked[a, b], tally.count, tally.seconds / unit_s)] if tally else []
        return Achieved(
            answers[0].algorithm if answers else "",
            unit_s,
            asked,
            edges,
            "the last minute",
            [answer.exchange_p99_units for answer in answers if answer.exchange_p99_units is not None],
            [peer.pace.late for peer in peers if peer.pace.late is not None],
        )

    def _moment(self, now_s: float) -> Moment:
        peers = list(self._peers.values())
        figures = [peer.figures for peer in peers]
        recent = [counted.over(RECENT_S) for counted in self._counted]
        return Moment(
            t=self._t,
            state="".join(peer.state for peer in peers),
            accuracy=[None if a is None else a.accuracy for a in figures],
            loss=[None if a is None else a.loss for a in figures],
            distance=[None if a is None else a.distance for a in figures],
            steps=[None if a is None else a.gradients for a in figures],
            round=[None if a is None else a.round for a in figures],
            sent=[None if a is None else a.bytes_sent for a in figures],
            stale=[now_s - peer.heard_s if peer.answer else None for peer in peers],
            achieved=[None if tally is None else tally.rate_hz for tally in recent],
            apart=[self._apart(a, b) for a, b in self._scene.pairs],
            link="".join(self._link(a, b) for a, b in self._scene.pairs),
        )
