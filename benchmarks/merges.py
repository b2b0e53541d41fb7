"""Worlds of peers that only end, each at its time, and then merge; and the check of what has come of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import networkx as nx
import torch

from algorithms.compression import CODECS
from algorithms.final_merge import FinalMerge
from algorithms.layout import Layout, Slot
from algorithms.merging import MERGINGS
from algorithms.protocol import (
    Done,
    Edge,
    Effect,
    Event,
    Finish,
    Kind,
    Limits,
    Place,
    Send,
    Snapshot,
    Start,
    Tempo,
    Tick,
    Timer,
    Vector,
)
from node.draws import Draws
from node.testbed.simulated import Physics, SimulatedPeer
from node.testbed.virtual import World

LIMITS = Limits(reply_first=2.0, retry_first=0.1, retry_max=5.0, linger=60.0)
EVER = 20_000.0


class Still:
    """Learns nothing, and is done after so many units."""

    kinds: ClassVar[Mapping[str, Kind]] = {}
    options: ClassVar[Mapping[str, float]] = {}
    defaults: ClassVar[Mapping[str, float]] = {}
    tempo = Tempo()

    def __init__(self, place: Place, until: float) -> None:
        self.x, self._until = place.start, until

    def step(self, event: Event, now: float) -> list[Effect]:
        """End in time, or when told to."""
        if isinstance(event, Start):
            return [Timer("over", self._until)]
        return [Done(self.x.clone())] if isinstance(event, (Finish, Tick)) else []

    def model(self, now: float) -> Vector:
        """The start."""
        return self.x.clone()

    def ledger(self) -> None:
        """Nothing is conserved."""

    def counters(self) -> dict[str, float]:
        """Nothing is counted."""
        return {}

    def snapshot(self) -> Snapshot:
        """The start."""
        return Snapshot({"x": self.x.clone()})

    def restore(self, snapshot: Snapshot) -> None:
        """Take up a snapshot."""
        self.x = snapshot.vectors["x"].clone()


class Idle:
    """No peer has any work."""

    eager = False

    def snapshot(self, name: str) -> Snapshot:
        """Nothing."""
        return Snapshot()

    def restore(self, name: str, snapshot: Snapshot) -> None:
        """Nothing to restore."""


class Counted(World):
    """Counts the messages of each kind, and knows when each peer ended."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.sent: dict[str, int] = {}
        self.ended_at: dict[str, float] = {}
        super().__init__(*args, **kwargs)

    def _send(self, peer: SimulatedPeer, effect: Send) -> None:
        self.sent[effect.message.kind] = self.sent.get(effect.message.kind, 0) + 1
        super()._send(peer, effect)

    @property
    def last_end(self) -> float:
        """When the last peer that has come to an end did so."""
        return max(self.ended_at.values())

    def feed(self, name: str, event: Event) -> None:
        """Hand a peer an event."""
        self._feed(self.peers[name], event)

    def _done(self, peer: SimulatedPeer, effect: Done) -> None:
        self.ended_at[peer.name] = self.now
        super()._done(peer, effect)


@dataclass
class Merge:
    """Peers over a graph, whose models differ by six orders of magnitude between their values."""

    graph: nx.Graph
    seed: int = 0
    physics: Physics = Physics()
    size: int = 6
    dtype: str = "float32"
    codec: str = "none"
    limits: Limits = LIMITS
    ends: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.names = sorted(self.graph)
        generator = torch.Generator().manual_seed(self.seed)
        scale = torch.logspace(-3, 3, self.size, dtype=torch.float64)
        self.layout = Layout((Slot("x", (self.size,), "weight", 0),), self.dtype)
        dtype = self.layout.torch_dtype
        self.starts = {
            name: (torch.rand(self.size, generator=generator, dtype=torch.float64).add_(0.5) * scale).to(dtype)
            for name in self.names
        }
        neighbours = {name: sorted(self.graph[name]) for name in self.names}
        births = {name: partial(self._be_born, name) for name in self.names}
        self.world = Counted(births, neighbours, Idle(), self.seed, self.physics)

    def _be_born(self, name: str, draws: Draws) -> FinalMerge:
        place = Place(
            name=name,
            start=self.starts[name],
            neighbours={other: Edge(1, 0.1, True) for other in self.graph[name]},
            nodes=tuple(self.names),
            edges=(),
            chi1=1.0,
            chi2=1.0,
            layout=self.layout,
            merging=MERGINGS["mean"],
            codec=CODECS[self.codec],
            draw=draws,
            limits=self.limits,
        )
        return FinalMerge(Still(place, self.ends.get(name, 1.0)), place)

    def run(self, until: float = EVER) -> Merge:
        """From the start on, until all that live have ended."""
        self.world.start()
        while self.alive():
            assert self.world.now < until, f"not over at {until}: {self.alive()}"
            self.world.run(self.world.now + 1.0)
        return self

    def alive(self) -> list[str]:
        """Who has neither ended nor died."""
        return [name for name, peer in self.world.peers.items() if peer.alive]

    def ended(self) -> dict[str, FinalMerge]:
        """Who has come to an end by itself; all of these have a merged model."""
        ended = {name: peer.algorithm for name, peer in self.world.peers.items() if peer.done is not None}
        assert all(each.merged is not None for each in ended.values())
        return ended

    def mean_of(self, members: tuple[str, ...]) -> Vector:
        """Their starts' mean, worked out directly in float64; shape ``(d,)``."""
        return torch.stack([self.starts[name].double() for name in members]).mean(0)

    def error(self) -> float:
        """The largest relative error of any peer's merged model as the mean of those whose names it bears."""
        merged = {(each.members, each.merged.numpy().tobytes()): each for each in self.ended().values()}
        errors = [0.0]
        for (members, _), each in merged.items():
            exact = self.mean_of(members)
            errors.append(float(((each.merged.double() - exact).abs() / exact.abs()).max()))
        return max(errors)

    def wrongs(self) -> list[str]:
        """What is not as promised: in each part of the network that is left, one mean of all that are left, and more.

        Only where who has died stayed away, and nobody was thought dead who was not.
        """
        ended, found = self.ended(), []
        for part in nx.connected_components(self.graph.subgraph(ended)):
            models = {ended[name].merged.numpy().tobytes() for name in part}
            members = {ended[name].members for name in part}
            if len(models) != 1 or len(members) != 1:
                found.append(f"{len(models)} models with {len(members)} lists of members among {sorted(part)}")
            found += [f"{part - set(who)} are left out" for who in members if part - set(who)]
        if self.error() > (1e-7 if self.dtype == "float32" else 1e-14):
            found.append(f"relative error {self.error()}")
        return found

    def order(self, name: str) -> None:
        """Tell a peer to end the run of all."""
        self.world.feed(name, Finish(lead=True))
