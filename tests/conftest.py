"""What several test folders share: small worlds in virtual time, and a program that they drive."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import settings

from algorithms.compression import CODECS
from algorithms.gossip import Gossip
from algorithms.layout import Layout, Slot
from algorithms.merging import MERGINGS
from algorithms.protocol import Algorithm, Compute, Edge, Gradient, Limits, Place, Snapshot, Train, Trained
from node.draws import Draws
from node.testbed.simulated import Physics
from node.testbed.virtual import World

torch.set_num_threads(1)
settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")


class PullWork:
    """Local steps that pull each peer a tenth of the way towards a target of its own: the mean target is best."""

    eager = False

    def __init__(self, names: list[str], size: int, dtype: torch.dtype) -> None:
        random = np.random.default_rng(7)
        self.targets = {name: torch.from_numpy(random.normal(size=size)).to(dtype) for name in names}

    def train(self, jobs: Mapping[str, Train]) -> dict[str, Trained]:
        return {
            name: Trained(job.key, (self.targets[name] - job.at) * (1 - 0.9**job.steps), 0.0, job.steps)
            for name, job in jobs.items()
        }

    def compute(self, name: str, job: Compute) -> Gradient:
        return Gradient(job.key, job.at - self.targets[name], 0.0)

    def snapshot(self, name: str) -> Snapshot:
        return Snapshot()

    def restore(self, name: str, snapshot: Snapshot) -> None:
        pass


@dataclass
class WorldMaker:
    """Builds a :class:`World` over edges given as (owner, other end)."""

    size: int = 5
    dtype: str = "float64"
    codec: str = "none"
    rate: float = 1.0
    limits: Limits = field(default_factory=Limits)

    def place(self, name: str, pairs: list[tuple[str, str]], draws: Draws) -> Place:
        names = sorted({end for pair in pairs for end in pair})
        neighbours = {
            other: Edge(self.rate, 0.1, owner == name)
            for owner, end in pairs
            if name in (owner, end)
            for other in [end if owner == name else owner]
        }
        layout = Layout((Slot("x", (self.size,), "weight", 0),), self.dtype)
        return Place(
            name=name,
            start=torch.zeros(self.size, dtype=layout.torch_dtype),
            neighbours=neighbours,
            nodes=tuple(names),
            edges=tuple((a, b, self.rate) for a, b in pairs),
            chi1=1.0,
            chi2=1.0,
            layout=layout,
            merging=MERGINGS["mean"],
            codec=CODECS[self.codec],
            draw=draws,
            limits=self.limits,
        )

    def __call__(
        self,
        pairs: list[tuple[str, str]],
        *,
        seed: int = 0,
        physics: Physics = Physics(),
        algorithm: Callable[[Place], Algorithm] = Gossip,
    ) -> World:
        names = sorted({end for pair in pairs for end in pair})
        neighbours = {name: [b if a == name else a for a, b in pairs if name in (a, b)] for name in names}
        births = {name: lambda draws, name=name: algorithm(self.place(name, pairs, draws)) for name in names}
        work = PullWork(names, self.size, torch.float64 if self.dtype == "float64" else torch.float32)
        return World(births, neighbours, work, seed, physics)


@pytest.fixture
def make_world() -> WorldMaker:
    """A maker of small worlds; change its fields before calling it."""
    return WorldMaker()


@pytest.fixture
def ring() -> Callable[[int], list[tuple[str, str]]]:
    """The edges of a ring of n peers."""
    return lambda n: [(f"n{i}", f"n{(i + 1) % n}") for i in range(n)]


@pytest.fixture
def star() -> Callable[[int], list[tuple[str, str]]]:
    """The edges of a star of n peers, owned by the leaves."""
    return lambda n: [(f"n{i}", "n0") for i in range(1, n)]


@pytest.fixture(scope="session")
def promtool() -> str:
    """Prometheus' own judge of configurations and rules."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    return found
