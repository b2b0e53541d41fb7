"""What the virtual world is made of: its peers, their work and its laws; the world itself is in ``virtual.py``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, cast

from algorithms.protocol import Algorithm, Compute, Gradient, Message, Open, Snapshot, Train, Trained, Vector
from node.draws import Draws
from node.wire.memory import Faults


class Workbench(Protocol):
    """Where local steps are computed."""

    eager: bool
    """Whether all jobs that are under way may be computed as soon as one of them is due."""

    def train(self, jobs: Mapping[str, Train]) -> dict[str, Trained]:
        """Local steps of one or more peers, by their names."""

    def compute(self, name: str, job: Compute) -> Gradient:
        """One gradient."""

    def snapshot(self, name: str) -> Snapshot:
        """The optimiser's state of one peer."""

    def restore(self, name: str, snapshot: Snapshot) -> None:
        """Take it up again."""


@dataclass(slots=True)
class Saved:
    """A snapshot of everything that one peer needs."""

    algorithm: Snapshot
    workbench: Snapshot
    draws: dict[str, str]


@dataclass(slots=True)
class Job:
    """Local steps under way; computed early or when they are due."""

    effect: Train
    result: Trained | None = None


@dataclass(slots=True)
class SimulatedPeer:
    """One peer of the world.

    Parameters
    ----------
    leaving : bool
        Whether it has been told that the run is over for it.
    stopped : bool
        Whether it is gone for good.
    missing : set of str
        Neighbours that it does not reach, as far as it knows.
    life : int
        Counts crashes; whatever was meant for an earlier life is dropped.
    timers : dict
        The token of the newest setting of each timer.
    messages_sent, bytes_sent, view_bytes_sent, steps_done, samples_seen, loss : int or float
        For the record; bytes are those of vectors, and ``loss`` is the mean over the latest local steps.
    refused : int
        Messages that it refused because they can't be true.
    reported : dict of str to float
        The newest of what the algorithm itself wants recorded.
    open : bool
        Whether its algorithm is one whose members may come and go.
    """

    name: str
    algorithm: Algorithm
    draws: Draws
    alive: bool = True
    leaving: bool = False
    stopped: bool = False
    missing: set[str] = field(default_factory=set)
    life: int = 0
    timers: dict[str, object] = field(default_factory=dict)
    job: Job | None = None
    computing: Compute | None = None
    saved: Saved | None = None
    done: Vector | None = None
    messages_sent: int = 0
    bytes_sent: int = 0
    view_bytes_sent: int = 0
    steps_done: int = 0
    samples_seen: int = 0
    loss: float = float("nan")
    refused: int = 0
    reported: dict[str, float] = field(default_factory=dict)
    open: bool = field(init=False)

    def __post_init__(self) -> None:
        self.open = isinstance(self.algorithm, Open)

    def believes(self, message: Message) -> bool:
        """Whether its algorithm finds that what a message says can be true."""
        return not self.open or cast(Open, self.algorithm).plausible(message)


@dataclass(frozen=True, slots=True)
class Physics:
    """How the world behaves, in plan units.

    Parameters
    ----------
    faults : Faults
        What the network does to messages.
    wire_share : float
        How much of a vector's bytes travels, with the run's codec.
    step_jitter : float
        Local steps last one unit each, times a factor uniform within this of 1.
    exact : bool
        Snapshots at every Save, not every ``snapshot_every``.
    snapshot_every : float
        Time between periodic snapshots.
    noticed_after : float
        How long neighbours take to notice that a peer has gone or is back.
    crashes : bool
        Whether peers may crash; snapshots are only taken if so.
    silent : bool
        Whether a peer that is gone leaves its senders to wait for their deadline, like a machine that is off, instead
        of refusing their messages at once.
    """

    faults: Faults = Faults()
    wire_share: float = 1.0
    step_jitter: float = 0.0
    exact: bool = False
    snapshot_every: float = 10.0
    noticed_after: float = 1.0
    crashes: bool = False
    silent: bool = False
