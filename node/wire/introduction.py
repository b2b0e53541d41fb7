"""What a member tells a peer that knows one address and wants to join: who it is, which run this is, and its plan.

Theory of operation
-------------------
Whoever has a certificate of the run's authority may ask, and whoever knows run and plan takes part like any other
member; how it becomes one is the algorithm's business. A plan travels as the JSON that a plan file holds, compressed.

Invariant
---------
An introduction is read like a file from anybody: it is bounded, also when unpacked, and sound as a whole or
:class:`~node.wire.framing.Malformed`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from algorithms.protocol import Reason
from node.guard import NAME, STRANGER, Guard
from node.wire.framing import VERSION, Malformed
from node.wire.greeting import reason_of
from node.wire.transport import Undelivered
from protos import peer_pb2
from topology.plan import Plan, plan_from_json, plan_to_json
from topology.records import PlanError

PLAN_BYTES_MAX = 2**21
"""Of a plan as it travels; a ring of 10,000 peers takes 140 kB."""
JSON_BYTES_MAX = 2**26
"""Of a plan's text, however small it travels."""
INTRODUCTION_BYTES_MAX = PLAN_BYTES_MAX + 2**10
STRANGER_BYTES_MAX = 2**6


@dataclass(frozen=True, slots=True)
class Introduction:
    """What a peer knows of a run that it is about to join.

    Parameters
    ----------
    contact, address : str
        The member that says so, and where it is reached.
    run : str
        The run's id.
    plan : Plan
        Its plan.
    """

    contact: str
    address: str
    run: str
    plan: Plan


class Introducer:
    """A member's answers to those who want to join.

    Parameters
    ----------
    guard : Guard
        Knows the member and its run, and who may ask; counts refusals.
    plan : Plan, optional
        The run's; None where nobody can join.
    """

    def __init__(self, guard: Guard, plan: Plan | None) -> None:
        self._guard = guard
        self._open = plan is not None
        packed = zlib.compress(plan_to_json(plan).encode()) if plan else b""
        self._too_large = len(packed) > PLAN_BYTES_MAX
        self._introduction = b"" if self._too_large else introduce(guard.name, guard.terms.run, packed)

    def answer(self, caller: str, request: bytes) -> bytes:
        """The answer to a caller's request, whatever that is."""
        finding = self._against(caller) or self._against_request(request)
        if finding is None:
            return self._introduction
        reason = self._guard.refuse(caller, *finding)
        return peer_pb2.Introduction(code=reason.name).SerializeToString()

    def _against(self, caller: str) -> tuple[Reason, str] | None:
        if not self._open:
            return Reason.NOT_MY_NEIGHBOUR, "nobody can join this run"
        if not self._guard.is_member(caller):
            return Reason.NOT_MY_NEIGHBOUR, "nobody who could join"
        if self._guard.known_as(caller) == STRANGER:
            return Reason.BUSY, "too many have joined"
        return None

    def _against_request(self, request: bytes) -> tuple[Reason, str] | None:
        try:
            version = read_stranger(request)
        except Malformed as error:
            return Reason.MALFORMED, str(error)
        if version != VERSION:
            return Reason.WRONG_VERSION, f"speaks version {version}, not {VERSION}"
        if self._too_large:
            return Reason.TOO_LARGE, "the plan is too large to be told"
        return None


def introduce(name: str, run: str, packed: bytes) -> bytes:
    """An introduction; ``packed`` is the plan's text, compressed."""
    return peer_pb2.Introduction(code="ACCEPTED", name=name, run=run, plan=packed).SerializeToString()


def ask() -> bytes:
    """The request for an introduction."""
    return peer_pb2.Stranger(version=VERSION).SerializeToString()


def read_stranger(data: bytes) -> int:
    """The version that whoever asks speaks; raises :class:`Malformed`."""
    if len(data) > STRANGER_BYTES_MAX:
        raise Malformed(f"a question of {len(data)} bytes")
    try:
        return int(peer_pb2.Stranger.FromString(data).version)
    except DecodeError:
        raise Malformed("no question") from None


def read_introduction(data: bytes, address: str) -> Introduction:
    """The answer of a member at an address.

    Raises
    ------
    Malformed
        When it is none, or an introduction that can't be used.
    Undelivered
        When it is a refusal.
    """
    if len(data) > INTRODUCTION_BYTES_MAX:
        raise Malformed(f"an introduction of {len(data)} bytes")
    try:
        raw = peer_pb2.Introduction.FromString(data)
    except DecodeError:
        raise Malformed("no introduction") from None
    if raw.code != peer_pb2.ACCEPTED:
        raise Undelivered(reason_of(raw.code))
    if not (NAME.match(raw.name) and NAME.match(raw.run)):
        raise Malformed("an introduction without names")
    return Introduction(raw.name, address, raw.run, _unpack(raw.plan))


def _unpack(packed: bytes) -> Plan:
    reader = zlib.decompressobj()
    try:
        text = reader.decompress(packed, JSON_BYTES_MAX)
        if not reader.eof or reader.unused_data:
            raise Malformed("a plan that is cut short, too long, or followed by something")
        return plan_from_json(text.decode())
    except (zlib.error, UnicodeDecodeError, PlanError):
        raise Malformed("no plan") from None
