"""What an algorithm is: a pure machine that takes events and answers with effects.

Theory of operation
-------------------
An algorithm never waits, never reads a clock, never opens a socket. Its peer feeds it one event at a
time through :meth:`Algorithm.step` together with the time, exhausts the effects that come back, and
carries them out: sends messages, sets timers, trains. The same object therefore runs unchanged in a
real peer (threads, gRPC, mTLS) and in virtual time, where thousands of peers share one process.

Invariants
----------
* Times and delays are in *plan units*; one unit is the mean duration of one local step.
* A vector that is handed over, in either direction, is never written again by whoever handed it over,
  and never kept by whoever received it: copy what you keep.
* Setting a timer again replaces it; nothing of a cancelled timer or training key ever arrives.

Events and effects are plain slotted dataclasses, not frozen ones: they are made by the hundred thousand
and freezing costs three times as much. Treat them as immutable all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch

from algorithms.layout import Layout
from algorithms.message import AHEAD as AHEAD
from algorithms.message import COUNT_MAX as COUNT_MAX
from algorithms.message import Kind as Kind
from algorithms.message import Message as Message
from algorithms.message import Reason as Reason
from algorithms.message import Vector as Vector

# ------------------------------------------------------------------------------------------ events


@dataclass(slots=True)
class Start:
    """The first event of a life; ``recovered`` after :meth:`Algorithm.restore`."""

    recovered: bool = False


@dataclass(slots=True)
class Tick:
    """A timer that was set has run out."""

    name: str


@dataclass(slots=True)
class Trained:
    """Local steps are done. ``change`` is end − at: exchanges may have moved the vector meanwhile."""

    key: str
    change: Vector
    loss: float
    samples: int


@dataclass(slots=True)
class Gradient:
    """One gradient, at the point that was asked for, over so many samples."""

    key: str
    value: Vector
    loss: float
    samples: int = 0


@dataclass(slots=True)
class Arrival:
    """A message came in; its sender is proven, and the guard has checked it against its :class:`Kind`."""

    sender: str
    message: Message


@dataclass(slots=True)
class Delivered:
    """The receiver has taken the message in."""

    to: str
    kind: str
    number: int


@dataclass(slots=True)
class Undelivered:
    """The message was refused, or no answer came in time (then it may have arrived all the same)."""

    to: str
    kind: str
    number: int
    reason: Reason


@dataclass(slots=True)
class PeerUp:
    """A neighbour that was gone answers again."""

    name: str


@dataclass(slots=True)
class PeerDown:
    """A neighbour no longer answers."""

    name: str


@dataclass(slots=True)
class Finish:
    """The run is over: settle what is open, then answer :class:`Done`.

    Parameters
    ----------
    merge : bool
        Whether the peer takes part in a final merge of all models, where there is one; if not, it only leaves.
    lead : bool
        Whether it begins the merge at once, and ends the run of all others with it.
    """

    merge: bool = True
    lead: bool = False


Event: TypeAlias = Start | Tick | Trained | Gradient | Arrival | Delivered | Undelivered | PeerUp | PeerDown | Finish


# ----------------------------------------------------------------------------------------- effects


@dataclass(slots=True)
class Save:
    """Take a snapshot here; a ``durable`` one is on disk before the next :class:`Send`, whatever the durability."""

    durable: bool = False


@dataclass(slots=True)
class Send:
    """Send a message; :class:`Delivered` or :class:`Undelivered` follows."""

    to: str
    message: Message


@dataclass(slots=True)
class Timer:
    """Ask for a :class:`Tick` of this name after ``delay`` units, replacing one of the same name."""

    name: str
    delay: float


@dataclass(slots=True)
class Train:
    """Ask for local steps from the point ``at``, which the trainer may overwrite. One at a time per peer.

    ``lr_factor`` multiplies the optimiser's rate; ``fresh`` empties its momentum first. Where ``rho`` is above 0, steps
    are those of sharpness-aware minimisation with this radius (Foret et al., ICLR 2021, arXiv:2010.01412).
    """

    key: str
    at: Vector
    steps: int
    lr_factor: float = 1.0
    fresh: bool = False
    rho: float = 0.0


@dataclass(slots=True)
class Compute:
    """Ask for one gradient at ``at``."""

    key: str
    at: Vector


@dataclass(slots=True)
class Cancel:
    """Forget the timer or the training of this name."""

    name: str


@dataclass(slots=True)
class Meet:
    """A member that is not in the plan, or not where the plan says, is reached at ``address``, ``HOST:PORT``."""

    name: str
    address: str


@dataclass(slots=True)
class Part:
    """A member has left: nobody needs to watch it any more."""

    name: str


@dataclass(slots=True)
class Report:
    """Numbers for the run record."""

    values: Mapping[str, float]


@dataclass(slots=True)
class Done:
    """The algorithm has finished; ``vector`` is its last word."""

    vector: Vector


Effect: TypeAlias = Save | Send | Timer | Train | Compute | Cancel | Meet | Part | Report | Done


# ----------------------------------------------------------------------------------- an algorithm


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge as one of its ends sees it.

    Parameters
    ----------
    rate : float
        Exchanges per unit of time.
    weight : float
        Entry of the mixing matrix.
    owned : bool
        Whether this end runs the edge's clock and starts its exchanges.
    """

    rate: float
    weight: float
    owned: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds and waits, all times in plan units.

    Parameters
    ----------
    offers_out_max : int
        Own offers under way at once; more diverge at a hub when messages take time.
    ticks_due_max : int
        Ticks of one edge that are kept to be served later; more are counted as missed.
    retry_first, retry_max : float
        First and longest back-off after a message that could not be delivered.
    reply_first : float
        Longest wait for a reply while no reply time of the edge is known.
    linger : float
        Longest time between :class:`Finish` and :class:`Done`.
    """

    offers_out_max: int = 2
    ticks_due_max: int = 1000
    retry_first: float = 0.1
    retry_max: float = 20.0
    reply_first: float = 5.0
    linger: float = 60.0

    def backoff(self, tries: int) -> float:
        """How long to wait before the next attempt, after so many doublings of the first wait."""
        return min(self.retry_first * 2.0 ** min(tries, 60), self.retry_max)


class Codec(Protocol):
    """How vectors are rounded before they are used and sent; one file in ``algorithms/compression``."""

    name: str

    def wire_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype of the values on the wire for a vector of ``dtype``."""

    def round(self, vector: Vector) -> Vector:
        """The vector as its receiver will see it, in its own dtype; a new one unless nothing is rounded."""


class Merging(Protocol):
    """How models are merged: a weighted mean, and what is added to it; one file in ``algorithms/merging``."""

    name: str
    share: float
    """The part of the difference by which each end of an exchange moves."""
    linear: bool
    """Whether the weighted mean is all, and nobody needs to ask for a correction."""

    def correction(
        self, merged: Vector, own: Vector, received: Sequence[Vector], own_weight: float, layout: Layout
    ) -> Vector:
        """What to add to ``merged``, the weighted mean of the own model and those received; a new vector."""


@dataclass(frozen=True, slots=True)
class Place:
    """What a peer tells its algorithm at birth: plain data.

    Parameters
    ----------
    name : str
        The peer's name.
    start : Vector
        The initial model, shape ``(d,)``.
    neighbours : mapping of str to Edge
        The peer's edges by the neighbour's name.
    nodes : tuple of str
        All peers of the plan.
    edges : tuple of (str, str, float)
        All edges of the plan: owner, other end, rate.
    chi1, chi2 : float
        Of the rate Laplacian that is run.
    layout : Layout
        Where the model's tensors sit in the vector.
    merging, codec : Merging, Codec
        The run's merging rule and compression.
    options : mapping
        The algorithm's own options (``--set key=value``), already checked against ``Algorithm.options``.
    local_steps : int
        Local steps in one ``Train``.
    limits : Limits
        Bounds and waits.
    draw : callable
        ``draw(purpose)`` is this peer's random generator for that purpose; its state is saved and restored.
    constants : mapping of str to float
        Constants of a convex task: ``L`` and ``mu``; empty otherwise.
    keep_ledger : bool
        Whether to keep the vector that the ledger needs.
    rounds : float
        The round after which the algorithm is done by itself, if it has rounds.
    contraction : callable
        ``contraction()`` is the second largest absolute eigenvalue of the mixing matrix, worked out when asked for.
    address : str
        Where others reach this peer, ``HOST:PORT``.
    contact : str
        The member through which this peer joins a run that is under way; empty for a founder.
    """

    name: str
    start: Vector
    neighbours: Mapping[str, Edge]
    nodes: tuple[str, ...]
    edges: tuple[tuple[str, str, float], ...]
    chi1: float
    chi2: float
    layout: Layout
    merging: Merging
    codec: Codec
    draw: Callable[[str], np.random.Generator]
    options: Mapping[str, float | int | str] = field(default_factory=dict)
    local_steps: int = 1
    limits: Limits = Limits()
    constants: Mapping[str, float] = field(default_factory=dict)
    keep_ledger: bool = True
    rounds: float = math.inf
    contraction: Callable[[], float] = lambda: math.nan
    address: str = ""
    contact: str = ""


@dataclass(slots=True)
class Snapshot:
    """All that an algorithm must find again after a crash. Its vectors are its own: nobody else writes them."""

    vectors: dict[str, Vector] = field(default_factory=dict)
    numbers: dict[str, int | float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tempo:
    """What a rule asks of time and of the rates, where users say nothing else.

    Parameters
    ----------
    exchanges_per_step : float or None
        How often a peer exchanges per unit; None: at the plan's own rates.
    trains : bool
        Whether it takes local steps; if it only computes gradients, how long these take says nothing about its unit.
    exchange_units_max : float
        Units that an exchange may take without harm.
    chi1_chi2_max : float
        What χ1·χ2 of the rates must not exceed.
    rounds : bool
        Whether it goes on in rounds, so that a run may end after a number of them.
    """

    exchanges_per_step: float | None = 1.0
    trains: bool = True
    exchange_units_max: float = math.inf
    chi1_chi2_max: float = math.inf
    rounds: bool = False


class Unsuitable(Exception):
    """An algorithm can't run where it was placed; the text is one sentence that says what would do."""


@runtime_checkable
class Algorithm(Protocol):
    """A learning rule. ``algorithms/gossip.py`` is the shortest complete example."""

    kinds: ClassVar[Mapping[str, Kind]]
    options: ClassVar[Mapping[str, float | int | str]]
    """The rule's own options and their defaults."""
    defaults: ClassVar[Mapping[str, float]]
    """Settings of local training that the rule wants where users say nothing: ``local_steps``, ``momentum``."""
    tempo: ClassVar[Tempo]

    def __init__(self, place: Place) -> None:
        """Be born; raises :class:`Unsuitable` where the rule can't run."""

    def step(self, event: Event, now: float) -> Iterable[Effect]:
        """Take one event; the only way in. The peer exhausts the effects, then carries them out."""

    def model(self, now: float) -> Vector:
        """What to evaluate and publish; a new vector."""

    def ledger(self) -> Vector | None:
        """What is conserved over all peers, None where nothing is."""

    def counters(self) -> Mapping[str, float]:
        """Figures for the run record, for example ``exchanges`` and ``lost_exchanges``."""

    def snapshot(self) -> Snapshot: ...

    def restore(self, snapshot: Snapshot) -> None: ...


@runtime_checkable
class Open(Algorithm, Protocol):
    """A learning rule whose members may come and go: any peer with a certificate of the run's authority is one."""

    def plausible(self, message: Message) -> bool:
        """Whether what a message says can be true; asked in any thread, at any time, before it is taken in."""
