"""Who is drawn where: the nodes and edges of a story, from a plan or from what peers say of each other."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from node.watch.answer import Answer
from node.watch.story import rounded

if TYPE_CHECKING:
    from topology.plan import Plan

NODES_MAX = 2000
"""Peers that are told of are not drawn beyond so many: names cost who makes them up nothing."""
GOLDEN = math.pi * (3 - math.sqrt(5))
OPEN = ("modest",)
"""Algorithms whose peers know others without being their neighbours; see :func:`node.place.is_open`."""


class Scene:
    """Nodes and edges in the order in which they are drawn; both only grow.

    Parameters
    ----------
    plan : Plan, optional
        Without one, all comes from the peers.
    """

    def __init__(self, plan: Plan | None = None) -> None:
        self.nodes: list[dict[str, Any]] = place_plan(plan) if plan else []
        self.position: dict[str, int] = {node["name"]: k for k, node in enumerate(self.nodes)}
        self.pairs: list[tuple[str, str]] = [(edge.a, edge.b) for edge in plan.edges] if plan else []
        self.asked: list[float | None] = [None] * len(self.pairs)
        self._joined = set(self.pairs)
        self._planned = plan is not None

    @property
    def edges(self) -> list[dict[str, Any]]:
        """As a story has them."""
        at = self.position
        return [
            {"a": at[a], "b": at[b], "asked": rounded(asked)}
            for (a, b), asked in zip(self.pairs, self.asked, strict=True)
        ]

    def without_edges(self) -> Scene:
        """The same peers in the same places, alone."""
        alone = Scene()
        alone.nodes, alone.position = self.nodes, self.position
        return alone

    def meet(self, heard: Mapping[str, Answer]) -> bool:
        """Take in who and what edges are heard of; whether anything is new."""
        before = (len(self.nodes), len(self.pairs), tuple(self.asked))
        for name, answer in heard.items():
            open_ = answer.algorithm in OPEN
            for each in (name, *answer.peers) if open_ or not self._planned else ():
                self.append(each)
        if not self._planned:
            for name, answer in heard.items():
                for other in answer.peers if answer.algorithm not in OPEN else ():
                    self.join(name, other)
        self._ask(heard)
        return before != (len(self.nodes), len(self.pairs), tuple(self.asked))

    def append(self, name: str) -> None:
        """One more peer, if there is room and it is not there yet."""
        if name in self.position or len(self.nodes) >= NODES_MAX:
            return
        self.position[name] = len(self.nodes)
        self.nodes.append({"name": name, "x": 0.5, "y": 0.5})
        if self._planned:  # beside the plan's, which stay where they are
            self.nodes[-1] |= _on_circle(GOLDEN * len(self.nodes))
        else:
            for k, node in enumerate(self.nodes):
                node |= _on_circle(2 * math.pi * k / len(self.nodes))

    def join(self, a: str, b: str) -> None:
        """One more edge between two that are there, if it is not there yet."""
        if a in self.position and b in self.position and a != b and not {(a, b), (b, a)} & self._joined:
            self._joined.add((a, b))
            self.pairs.append((a, b))
            self.asked.append(None)

    def _ask(self, heard: Mapping[str, Answer]) -> None:
        """Learn how often edges are to exchange, from the first end that knows it."""
        for k, (a, b) in enumerate(self.pairs):
            for one, other in ((a, b), (b, a)):
                if self.asked[k] is None and one in heard and other in heard[one].peers:
                    self.asked[k] = heard[one].peers[other].asked_hz


def place_plan(plan: Plan) -> list[dict[str, Any]]:
    """The nodes of a plan where ``gradvine plan --draw`` has them; on a circle where nothing can be drawn."""
    names = [node.name for node in plan.nodes]
    try:
        from topology.drawing.places import place_nodes
    except ImportError:  # the planner's packages are not there
        circle = (_on_circle(2 * math.pi * k / len(names)) for k in range(len(names)))
        return [{"name": name, **spot} for name, spot in zip(names, circle, strict=True)]
    spots = place_nodes(plan)
    middle, span = (spots.max(0) + spots.min(0)) / 2, float((spots.max(0) - spots.min(0)).max()) or 1.0
    places = 0.5 + (spots - middle) / span * (1, -1)
    return [
        {"name": name, "x": round(float(x), 4), "y": round(float(y), 4)}
        for name, (x, y) in zip(names, places, strict=True)
    ]


def _on_circle(angle: float) -> dict[str, float]:
    """Clockwise from the top."""
    return {"x": round(0.5 + 0.5 * math.sin(angle), 4), "y": round(0.5 - 0.5 * math.cos(angle), 4)}
