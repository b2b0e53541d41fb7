"""A ping's request, and receipts, as bytes; a ping and its receipt also carry what both know of the run's pace."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from algorithms.protocol import Reason
from node.pace import Pace
from node.wire.framing import VERSION, Header, Malformed, Terms
from protos import peer_pb2

TERMS_BYTES_MAX, STEP_BYTES_MAX = 2**12, 80
"""Of a greeting's terms, and of one peer's duration, however long its name is."""


def greeting_bytes_max(members: int) -> int:
    """The size of a ping, and of its answer, in a plan of so many peers."""
    return TERMS_BYTES_MAX + members * STEP_BYTES_MAX


def greet(terms: Terms, pace: Pace) -> bytes:
    """The request of a ping."""
    run, plan, layout = terms.run, terms.plan, terms.layout
    greeting = peer_pb2.Greeting(version=VERSION, run=run, plan=plan, layout=layout, pace=_wrap(pace))
    return greeting.SerializeToString()


def read_greeting(data: bytes, bytes_max: int) -> tuple[Header, Pace]:
    """The request of a ping: what the caller is part of, and what it knows, which need not be true.

    Raises
    ------
    Malformed
        When it is none, or longer than ``bytes_max``.
    """
    raw = _parse(peer_pb2.Greeting, data, bytes_max)
    return Header(raw.version, raw.run, raw.plan, raw.layout), _unwrap(raw.pace)


def answer(code: str, pace: Pace = Pace()) -> bytes:
    """A receipt."""
    return peer_pb2.Receipt(code=code, pace=_wrap(pace)).SerializeToString()


def read_answer(data: bytes, bytes_max: int) -> tuple[int, Pace]:
    """A receipt's code, and what whoever wrote it knows; raises :class:`Malformed` like :func:`read_greeting`."""
    raw = _parse(peer_pb2.Receipt, data, bytes_max)
    return int(raw.code), _unwrap(raw.pace)


def reason_of(code: int) -> Reason:
    """Why something was refused, by the code of an answer that does not accept it."""
    try:
        return Reason[peer_pb2.Code.Name(code)]
    except (KeyError, ValueError):
        return Reason.MALFORMED  # a newer peer's code that we do not know: no use in trying again


def _parse(kind: Any, data: bytes, bytes_max: int) -> Any:
    if len(data) > bytes_max:
        raise Malformed(f"a greeting of {len(data)} bytes")
    try:
        return kind.FromString(data)
    except DecodeError:
        raise Malformed("no greeting") from None


def _wrap(pace: Pace) -> peer_pb2.Pace | None:
    return peer_pb2.Pace(step_seconds=dict(pace.step_s), unit_seconds=pace.unit_s) if pace != Pace() else None


def _unwrap(raw: Any) -> Pace:
    return Pace(dict(raw.step_seconds), raw.unit_seconds)
