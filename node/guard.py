"""What may enter: who, over which edge, how much, of which run, with which numbers in it.

Theory of operation
-------------------
The wire asks the guard four times, cheap questions before dear ones: :meth:`Guard.enter` when a call begins,
:meth:`Guard.admit` when its header is there, :meth:`Guard.reserve` for room in the inbox, all before a byte of the body
is read; then :meth:`Guard.check` with the message. The guard knows the plan's edges and the algorithm's
:class:`~algorithms.protocol.Kind` table, and asks the algorithm only whether a message can be true.

Where membership is open, whoever proves a name is a member. Names are then without number, but not those that the guard
keeps: the first so many, besides the plan's.

Invariants
----------
* The guard refuses; it never alters a message.
* Every refusal passes :meth:`Guard.refuse`: it is counted, and logged at most once a second a sender.
* What waits in the inbox is bounded in bytes, in messages, and in messages of one sender.
* A name that is known stays known: what was counted under it is taken off under it.
"""

from __future__ import annotations

import logging
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping

import torch

from algorithms.layout import Layout
from algorithms.protocol import COUNT_MAX, Codec, Kind, Message, Reason
from node.errors import ConfigError
from node.wire.framing import DTYPE_NAMES, VERSION, Header, Terms
from node.wire.tls import OPERATOR
from node.wire.views import STANDING_BYTES_MAX, VIEW_BYTES_MAX, VIEW_GROWTH

log = logging.getLogger(__name__)

NAME = re.compile(r"[a-z0-9-]{1,63}\Z")
STRANGER = "a stranger"
"""Whoever is no member of the run, in counters and logs: so that both stay bounded. No peer can be called that."""


class Guard:
    """The rules of one peer's door.

    Parameters
    ----------
    name : str
        The peer itself.
    owners : mapping of str to bool
        Its neighbours, and whether the peer owns the edge with each.
    members : collection of str
        All nodes of the plan.
    kinds : mapping of str to Kind
        The algorithm's messages.
    run, plan_digest : str
        What a sender must have in common with the peer, with the layout's digest.
    layout : Layout
        Of every vector.
    codec : Codec
        Fixes the values' dtype on the wire.
    inbox_bytes_max : int
        Bytes of vectors and views that may be on their way in or wait to be taken out.
    refused : callable
        ``refused(sender, reason)`` counts; the sender is a member's name or ``STRANGER``.
    calls_max : int
        Calls of one sender at once.
    waiting_max, waiting_each_max : int
        Messages in the inbox, of all senders and of each.
    norm_max : float, optional
        Bound on the Euclidean norm of every vector.
    open_ : bool
        Whether membership is open: then any proven name is a member's, in the plan or not.
    strangers_max : int
        How many members that are not in the plan can be told apart; later ones are refused.
    plausible : callable
        ``plausible(message)`` is whether what a message says can be true; asked in any thread.
    clock : callable
        Seconds, for the log's rate limit.

    Raises
    ------
    ConfigError
        When the inbox could not hold a single message.
    """

    def __init__(
        self,
        name: str,
        owners: Mapping[str, bool],
        members: Collection[str],
        kinds: Mapping[str, Kind],
        *,
        run: str,
        plan_digest: str,
        layout: Layout,
        codec: Codec,
        inbox_bytes_max: int,
        refused: Callable[[str, Reason], None],
        calls_max: int = 2,
        waiting_max: int = 64,
        waiting_each_max: int = 8,
        norm_max: float | None = None,
        open_: bool = False,
        strangers_max: int = 1_000,
        plausible: Callable[[Message], bool] = lambda message: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert all(kind.sender in ("owner", "peer", "neighbour", "member") for kind in kinds.values())
        wire_dtype = codec.wire_dtype(layout.torch_dtype)
        self.name = name
        self.members = frozenset(members)
        self.layout = layout
        self.terms = Terms(run, plan_digest, layout.digest, DTYPE_NAMES[wire_dtype])
        self._owners = dict(owners)
        self._kinds = dict(kinds)
        self._dtypes = wire_dtype, layout.torch_dtype  # of a kind's vectors, and of one whose vectors travel whole
        self._inbox_bytes_max = inbox_bytes_max
        self._refused = refused
        self._calls_max = calls_max
        self._waiting_max = waiting_max
        self._waiting_each_max = waiting_each_max
        self._norm_max = norm_max
        self._open = open_
        self._strangers_max = strangers_max
        self._plausible = plausible
        self._newcomers: set[str] = set()
        self._clock = clock
        self._calls: Counter[str] = Counter()
        self._inbox = threading.Lock()  # room is taken where calls are served and given back where messages are used
        self._waiting: Counter[str] = Counter()
        self._waiting_bytes = 0
        self._logged: dict[str, tuple[float, int]] = {}  # sender: when a line was written, refusals since
        largest = max(map(self._memory_bytes_max, kinds.values()), default=0)
        if inbox_bytes_max < largest:
            raise ConfigError(
                f"inbox = {inbox_bytes_max} can't be used: write at least {largest}, the largest message."
            )

    # ------------------------------------------------------------------------------------------- members

    def is_member(self, name: str) -> bool:
        """Whether this is another member's name; that the sender has it, the wire has proven."""
        proven = self._open and name != OPERATOR and NAME.match(name) is not None
        return name != self.name and (name in self.members or proven)

    def known_as(self, sender: str) -> str:
        """The name under which whatever concerns a sender is counted: its own or ``STRANGER``."""
        if sender in self.members or sender in self._newcomers:
            return sender
        if not self.is_member(sender) or len(self._newcomers) >= self._strangers_max:
            return STRANGER
        self._newcomers.add(sender)
        return sender

    @property
    def callers_max(self) -> int:
        """How many callers are told apart, at most."""
        return len(self.members) + (self._strangers_max if self._open else 0)

    # ------------------------------------------------------------------------------------ before the body

    def enter(self, sender: str) -> Reason | None:
        """Count a call in; None means that :meth:`leave` must follow."""
        key = self.known_as(sender)
        if self._calls[key] >= self._calls_max:
            return self.refuse(sender, Reason.BUSY, "too many calls at once")
        self._calls[key] += 1
        return None

    def leave(self, sender: str) -> None:
        """Count a call out."""
        self._calls[self.known_as(sender)] -= 1

    def greet(self, sender: str, header: Header) -> Reason | None:
        """Whether a ping comes from a member of the same run."""
        return self._verdict(sender, self._of_another_run(sender, header))

    def admit(self, sender: str, header: Header) -> Reason | None:
        """Whether a message with this header may come from this sender; looks at nothing else, changes nothing."""
        return self._verdict(sender, self._of_another_run(sender, header) or self._against_kind(sender, header))

    def reserve(self, sender: str, room: int) -> Reason | None:
        """Take so many bytes of the inbox; None means that :meth:`release` must follow, once. Safe in any thread."""
        key = self.known_as(sender)
        with self._inbox:
            full = (
                self._waiting_bytes + room > self._inbox_bytes_max
                or self._waiting.total() >= self._waiting_max
                or self._waiting[key] >= self._waiting_each_max
            )
            if not full:
                self._waiting[key] += 1
                self._waiting_bytes += room
        return self.refuse(sender, Reason.BUSY, "the inbox is full") if full else None

    def release(self, sender: str, room: int) -> None:
        """Give room in the inbox back. Safe in any thread."""
        with self._inbox:
            self._waiting[self.known_as(sender)] -= 1
            self._waiting_bytes -= room

    @property
    def waiting(self) -> int:
        """Messages that are on their way in or wait in the inbox."""
        return self._waiting.total()

    # ------------------------------------------------------------------------------------- after the body

    def check(self, sender: str, message: Message) -> Reason | None:
        """Whether every value is finite, every vector's norm in bounds, and the whole plausible."""
        for name, vector in message.vectors.items():
            # A finite sum proves that all values are finite, forty times as fast as looking at each of them.
            if not (math.isfinite(vector.sum().item()) or bool(torch.isfinite(vector).all())):
                return self.refuse(sender, Reason.NOT_FINITE, f"{name} has values that are not finite")
            if self._norm_max is not None and _norm(vector) > self._norm_max:
                return self.refuse(sender, Reason.TOO_LARGE, f"{name} has a norm above {self._norm_max}")
        if not self._plausible(message):
            return self.refuse(sender, Reason.IMPLAUSIBLE, f"{message.kind} says what can't be true")
        return None

    # ------------------------------------------------------------------------------------------ refusals

    def refuse(self, sender: str, reason: Reason, why: str = "") -> Reason:
        """Count a refusal, log it unless a line about this sender was written within a second, return its reason."""
        key = self.known_as(sender)
        self._refused(key, reason)
        now = self._clock()
        last, since = self._logged.get(key, (-math.inf, 0))
        if now - last < 1:
            self._logged[key] = (last, since + 1)
            return reason
        self._logged[key] = (now, 0)
        more = f" (and {since} more)" if since else ""
        # Who is busy is asked again: nothing is wrong with anybody.
        level = logging.DEBUG if reason is Reason.BUSY else logging.WARNING
        log.log(level, "refused a call of %s: %s%s%s", key, reason.value, why and f", {why}", more)
        return reason

    def _verdict(self, sender: str, finding: tuple[Reason, str] | None) -> Reason | None:
        return finding and self.refuse(sender, *finding)

    def _of_another_run(self, sender: str, header: Header) -> tuple[Reason, str] | None:
        if not self.is_member(sender):
            return Reason.NOT_MY_NEIGHBOUR, "no other member of the run"
        if self.known_as(sender) == STRANGER:
            return Reason.BUSY, f"already {self._strangers_max} members that are not in the plan"
        if header.version != VERSION:
            return Reason.WRONG_VERSION, f"speaks version {header.version}, not {VERSION}"
        if header.run != self.terms.run:
            return Reason.WRONG_RUN, "of another run"
        if header.plan != self.terms.plan:
            return Reason.WRONG_RUN, "has another plan"
        if header.layout != self.terms.layout:
            return Reason.WRONG_LAYOUT, "has another layout"
        return None

    def _against_kind(self, sender: str, header: Header) -> tuple[Reason, str] | None:
        kind = self._kinds.get(header.kind)
        if kind is None:
            return Reason.MALFORMED, "no kind of message of this algorithm"
        if not self._may_send(sender, kind.sender):
            return Reason.NOT_MY_NEIGHBOUR, f"may not send {header.kind}"
        expected_bytes = self._vectors_bytes(kind)
        if header.size_bytes > expected_bytes:
            return Reason.TOO_LARGE, f"{header.size_bytes} bytes announced, {expected_bytes} are due"
        if header.size_bytes < expected_bytes or sorted(header.vectors) != sorted(kind.vectors):
            return Reason.MALFORMED, f"not the vectors of {header.kind}"
        if header.view_bytes and not kind.view:
            return Reason.MALFORMED, f"a view in {header.kind}"
        if header.memory_bytes > self._memory_bytes_max(kind):
            return Reason.TOO_LARGE, f"a view of {header.view_bytes} bytes"
        if header.dtype != DTYPE_NAMES[self._dtypes[kind.whole]]:
            return Reason.MALFORMED, "values of another type"
        if header.number >= COUNT_MAX or not _fit(header.numbers or {}, kind):
            return Reason.MALFORMED, f"not the numbers of {header.kind}"
        return None

    def _memory_bytes_max(self, kind: Kind) -> int:
        names_bytes = VIEW_BYTES_MAX if self._open else min(VIEW_BYTES_MAX, len(self.members) * STANDING_BYTES_MAX)
        return self._vectors_bytes(kind) + kind.view * names_bytes * VIEW_GROWTH

    def _vectors_bytes(self, kind: Kind) -> int:
        return len(kind.vectors) * self.layout.size * self._dtypes[kind.whole].itemsize

    def _may_send(self, sender: str, role: str) -> bool:
        if role == "member":
            return True
        owned = self._owners.get(sender)
        return owned is not None and (role == "neighbour" or owned == (role == "peer"))


def _fit(numbers: Mapping[str, float], kind: Kind) -> bool:
    return (
        numbers.keys() == {*kind.counts, *kind.reals}
        and all(math.isfinite(value) for value in numbers.values())
        and all(0 <= numbers[name] < COUNT_MAX and numbers[name] == int(numbers[name]) for name in kind.counts)
    )


def _norm(vector: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(vector, dtype=torch.float64))
