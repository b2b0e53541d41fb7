"""Stories of runs that never were, in every respect like those of real ones.

Peers on an exponential graph learn, get closer to each other, and send; some leave and come back.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

Story = dict[str, Any]
RECENT_S, JUDGED_S = 10.0, 30.0
"""A live frame has the rates of so many seconds; no edge is called slow before so many."""


def four(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


class Run:
    """A run of so many peers, one frame a second.

    Parameters
    ----------
    n : int
        Peers, at least 4; n3 goes at ``gone[0]`` and is back at ``gone[1]``, in seconds.
    rates : bool
        Whether edges have clocks.
    """

    def __init__(self, n: int, gone: tuple[float, float] = (math.inf, math.inf), rates: bool = True) -> None:
        self.n, self.gone, self.rates = n, gone, rates
        self.random = np.random.default_rng(5)
        hops = [2**k for k in range(math.ceil(math.log2(n)))]
        pairs = {(min(i, (i + hop) % n), max(i, (i + hop) % n)) for i in range(n) for hop in hops}
        self.pairs = sorted(pairs)
        self.asked = self.random.uniform(0.4, 1.6, len(self.pairs))
        self.live = True
        self.pace = self.random.uniform(0.8, 1.15, n)

    def story(self, seconds: float, frames: int, live: bool = True) -> Story:
        """The story so far, with so many frames."""
        angles = 2 * math.pi * np.arange(self.n) / self.n
        places = [{"x": four(0.5 + 0.5 * math.sin(a)), "y": four(0.5 - 0.5 * math.cos(a))} for a in angles]
        asked = [four(rate) if self.rates else None for rate in self.asked]
        self.live = live
        told = [self.frame(t) for t in np.linspace(1, seconds, frames)]
        return {
            "version": 1,
            "live": live,
            "title": f"gossip on digits, {self.n} peers",
            "about": [
                ["algorithm", "gossip"],
                ["topology", f"exponential, {len(self.pairs)} edges"],
                ["task", "digits, Dirichlet split, α = 0.1"],
                ["codec", "none"],
                ["learning rate", "0.1"],
                ["seed", "5"],
            ],
            "nodes": [{"name": f"n{k}", **place} for k, place in enumerate(places)],
            "edges": [{"a": a, "b": b, "asked": rate} for (a, b), rate in zip(self.pairs, asked, strict=True)],
            "promises": self.promises(told[-1]),
            "frames": told,
            "events": self.events(seconds),
            "merged": None if live else {"accuracy": 0.964, "models": self.n},
            "over": not live,
        }

    def frame(self, t: float) -> dict[str, Any]:
        """How the run is at a second."""
        gone = self.gone[0] <= t < self.gone[1]
        there = np.array([not (gone and k == 3) for k in range(self.n)])
        state = "".join("l" if here else "g" for here in there)
        doubted = gone and t < self.gone[0] + 4
        touched = np.array([3 in pair for pair in self.pairs])
        accuracy = 0.97 - 0.85 * np.exp(-t * self.pace / 9) + self.random.normal(0, 0.006, self.n)
        loss = 2.4 * np.exp(-t * self.pace / 8) + self.random.uniform(0.05, 0.12, self.n)
        apart = 3 * np.exp(-t / 15) * self.random.uniform(0.5, 1.3, len(self.pairs)) + 0.05
        span = min(t, RECENT_S) if self.live else t
        achieved = self.random.poisson(self.asked * span) / span
        achieved[-1] = 0.35 * self.asked[-1]
        cut = gone & touched
        link = np.where(cut, "s" if doubted else "g", "a")
        if t >= JUDGED_S and self.rates and not cut[-1]:
            link[-1] = "l"
        sent = np.round(t * 41_000 * self.pace)
        return {
            "t": round(float(t), 3),
            "state": state,
            "accuracy": [four(v) if here else None for v, here in zip(accuracy, there, strict=True)],
            "loss": [four(v) if here else None for v, here in zip(loss, there, strict=True)],
            "distance": [None] * self.n,
            "steps": [int(four(v)) for v in np.round(t * 20 * self.pace)],
            "round": [None] * self.n,
            "sent": [int(four(v)) for v in sent],
            "stale": [four(t - self.gone[0]) if not here else four(self.random.uniform(0, 1)) for here in there],
            "achieved": [None if away else four(v) for v, away in zip(achieved, cut, strict=True)],
            "apart": [four(v) for v in apart],
            "link": "".join(link),
            "curves": {
                "accuracy": spread(accuracy[there]),
                "loss": spread(loss[there]),
                "distance": None,
                "apart": four(math.sqrt(np.mean(apart**2))),
                "sent": four(sent.sum()),
            },
        }

    def events(self, seconds: float) -> list[dict[str, Any]]:
        """What has happened until then."""
        told = [(0.4 + 0.01 * k, "joined", f"n{k}", f"n{k} answers") for k in range(self.n)]
        told += [
            (1.2 + 0.01 * k, "learning", f"n{k}", f"n{k} has found its neighbours and learns") for k in range(self.n)
        ]
        told += [
            (self.gone[0] - 2, "suspect", "n3", "n1 doubts n3"),
            (self.gone[0], "gone", "n3", "n3 does not answer any more"),
            (self.gone[1], "back", "n3", "n3 answers again, 212 local steps behind"),
        ]
        a, b = self.pairs[-1]
        told.append((34.0, "slow", f"n{a}", f"n{a} – n{b} keeps 35 % of its rate"))
        events = [
            {"t": round(t, 3), "kind": kind, "peer": peer, "text": text} for t, kind, peer, text in told if t <= seconds
        ]
        return sorted(events, key=lambda event: event["t"])

    def promises(self, frame: dict[str, Any]) -> list[dict[str, Any]]:
        """What the plan promised, and how it is kept."""
        shares = [v / r for v, r in zip(frame["achieved"], self.asked, strict=True) if v is not None]
        slowest = f"{min(shares):.0%}"
        rows = [
            (
                "exchanges a second",
                f"{self.asked.sum():.3g}",
                f"{sum(v or 0 for v in frame['achieved']):.3g}",
                True,
                "of the whole network",
            ),
            ("slowest edge", "80 %", slowest.replace("%", " %"), False, "of its rate"),
            ("χ1·χ2 of the rates", "0.31", "0.33", True, "at most ½"),
            ("exchange time, 99 %", "0.5 units", "0.12 units", True, "of the slowest peer"),
            ("local steps behind", "0", "–", None, "not measured"),
        ]
        return [dict(zip(("what", "asked", "achieved", "well", "hint"), row, strict=True)) for row in rows]


def spread(values: np.ndarray) -> list[float]:
    """Least, mean and greatest."""
    return [four(values.min()), four(values.mean()), four(values.max())]


def news(frame: dict[str, Any], story: Story, events: list[dict[str, Any]] | None = None) -> str:
    """A frame as the stream tells it."""
    rest = {key: story[key] for key in ("promises", "merged", "over")}
    return json.dumps({"frame": frame, "events": events or [], **rest})


def write_report(path: Path, story: Story, sections: str = "") -> Path:
    """The report of a run that is over, as a file."""
    from node.watch.page import compose_page

    text = json.dumps(story, separators=(",", ":")).replace("<", "\\u003c")
    path.write_text(compose_page(story["title"], text, sections))
    return path
