"""Messages as frames: a header, the view if any, then the bodies of the vectors in chunks. Pure: no network in here.

Theory of operation
-------------------
A message travels as a stream of ``Frame {oneof {Header header = 1; bytes body = 2; bytes view = 3;}}``, which any gRPC
client can read and write. The protobuf runtime sees headers and views only: it would copy a body several times, so body
frames are written and read by hand (tag, length, bytes), straight from a vector's memory and straight into a fresh one.

Invariants
----------
* Whatever bytes come in, :class:`Malformed` is the only thing that is raised.
* The checksum covers the header's fields, the view and the body: a flipped bit anywhere is refused.
* Nothing is allocated that the header has not announced, and nothing written beyond it.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import xxhash
from google.protobuf.message import DecodeError

from algorithms.protocol import Message, Reason, Vector
from node.wire.transport import Undelivered
from node.wire.views import VIEW_BYTES_MAX, VIEW_GROWTH, read_view, write_view
from protos import peer_pb2

VERSION = 1
"""Major version of the wire format."""

CHUNK_BYTES = 2**19
CHUNK_BYTES_MAX = 2**20
HEADER_BYTES_MAX = 2**12

WIRE_DTYPES: Mapping[str, torch.dtype] = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
DTYPE_NAMES = {dtype: name for name, dtype in WIRE_DTYPES.items()}

HEADER_TAG, BODY_TAG, VIEW_TAG = 0x0A, 0x12, 0x1A  # fields 1, 2 and 3 of a Frame, all length-delimited

assert sys.byteorder == "little", "values travel little-endian, as they lie in memory"


class Malformed(Exception):
    """What came in is not a message. The text is for our own log; the sender gets a code."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What both ends of a call must agree on.

    Parameters
    ----------
    run : str
        The run's id.
    plan, layout : str
        Digests of the plan and of the vectors' layout.
    dtype : str
        Of the values on the wire, which the run's codec fixes.
    """

    run: str
    plan: str
    layout: str
    dtype: str


@dataclass(frozen=True, slots=True)
class Header:
    """All that is known of a message before its body; the fields are those of ``peer.proto``."""

    version: int
    run: str
    plan: str
    layout: str
    kind: str = ""
    number: int = 0
    numbers: Mapping[str, float] | None = None
    vectors: tuple[str, ...] = ()
    dtype: str = ""
    size_bytes: int = 0
    checksum: int = 0
    view_bytes: int = 0

    @property
    def following_bytes(self) -> int:
        """Of the whole message but its header: the view and the vectors."""
        return self.view_bytes + self.size_bytes

    @property
    def memory_bytes(self) -> int:
        """What the message takes up at most, once it is there."""
        return self.view_bytes * VIEW_GROWTH + self.size_bytes

    def seal(self) -> xxhash.xxh3_64:
        """The checksum so far: of every field, in a form in which two different headers never look the same."""
        numbers = sorted((self.numbers or {}).items())
        words = [self.run, self.plan, self.layout, self.kind, *(name for name, _ in numbers), *self.vectors, self.dtype]
        texts = [word.encode() for word in words]
        sizes = (self.size_bytes, self.view_bytes, len(numbers), len(self.vectors), *map(len, texts))
        whole = (self.version, self.number, *sizes)
        reals = [value for _, value in numbers]
        return xxhash.xxh3_64(struct.pack(f"<{len(whole)}Q{len(reals)}d", *whole, *reals) + b"".join(texts))


def read_header(data: bytes | memoryview) -> Header:
    """A serialised header.

    Raises
    ------
    Malformed
        When it is none, or longer than 4 KiB, or announces a view above 1 MiB.
    """
    if len(data) > HEADER_BYTES_MAX:
        raise Malformed(f"a header of {len(data)} bytes")
    try:
        raw = peer_pb2.Header.FromString(bytes(data))
    except DecodeError:
        raise Malformed("no header") from None
    if raw.view_bytes > VIEW_BYTES_MAX:
        raise Malformed(f"a view of {raw.view_bytes} bytes announced")
    return Header(
        version=raw.version,
        run=raw.run,
        plan=raw.plan,
        layout=raw.layout,
        kind=raw.kind,
        number=raw.number,
        numbers=dict(raw.numbers),
        vectors=tuple(raw.vectors),
        dtype=raw.dtype,
        size_bytes=raw.size_bytes,
        checksum=raw.checksum,
        view_bytes=raw.view_bytes,
    )


def open_header(frame: bytes) -> Header:
    """The header in the first frame of a message; raises :class:`Malformed` like :func:`read_header`."""
    return read_header(_unwrap(frame, HEADER_TAG))


# ------------------------------------------------------------------------------------------ outgoing


class Outgoing:
    """A message ready to be sent, any number of times; its body frames are made while they are read.

    Attributes
    ----------
    header : Header
        What is sent first.
    """

    def __init__(self, header: Header, view: bytes, bodies: tuple[memoryview, ...], chunk_bytes: int) -> None:
        self.header = header
        self._view = view
        self._bodies = bodies
        self._chunk_bytes = chunk_bytes

    def frames(self) -> Iterator[bytes]:
        """The header's frame, the view's, then the body's: one copy a chunk, none of a whole vector."""
        yield _wrap(HEADER_TAG, _serialise(self.header))
        if self._view:
            yield _wrap(VIEW_TAG, self._view)
        for body in self._bodies:
            for start in range(0, len(body), self._chunk_bytes):
                yield _wrap(BODY_TAG, body[start : start + self._chunk_bytes])


def encode(message: Message, terms: Terms, chunk_bytes: int = CHUNK_BYTES) -> Outgoing:
    """Prepare a message for the wire.

    Parameters
    ----------
    message : Message
        Its vectors, each ``(d,)``, have been rounded by the codec: narrowing them to ``terms.dtype`` loses nothing.
        Those of a ``whole`` one keep their own dtype.
    terms : Terms
        Of the run that it belongs to.
    chunk_bytes : int
        Longest body of a frame, at most 1 MiB.

    Raises
    ------
    Undelivered
        As ``TOO_LARGE``, when its view has more than 1 MiB: others determine how many members there seem to be.
    """
    assert 0 < chunk_bytes <= CHUNK_BYTES_MAX
    view = write_view(message.view)
    if len(view) > VIEW_BYTES_MAX:
        raise Undelivered(Reason.TOO_LARGE)
    whole = next((DTYPE_NAMES[vector.dtype] for vector in message.vectors.values()), terms.dtype)
    dtype = whole if message.whole else terms.dtype
    bodies = tuple(_memory(vector.detach().to(WIRE_DTYPES[dtype])) for vector in message.vectors.values())
    header = Header(
        version=VERSION,
        run=terms.run,
        plan=terms.plan,
        layout=terms.layout,
        kind=message.kind,
        number=message.number,
        numbers={name: float(value) for name, value in message.numbers.items()},
        vectors=tuple(message.vectors),
        dtype=dtype,
        size_bytes=sum(map(len, bodies)),
        view_bytes=len(view),
    )
    checksum = header.seal()
    for part in (memoryview(view), *bodies):
        checksum.update(part)
    return Outgoing(replace(header, checksum=checksum.intdigest()), view, bodies, chunk_bytes)


# ------------------------------------------------------------------------------------------ incoming


class Incoming:
    """A message that is coming in.

    Parameters
    ----------
    header : Header
        As announced; every field is checked against the rest of the message, not against what the run allows.
    size : int
        The dimension d of every vector.
    dtype : torch.dtype
        Of the run's vectors; narrower values on the wire are widened to it.

    Raises
    ------
    Malformed
        When the announced size is not that of the announced vectors; then nothing has been allocated.
    """

    def __init__(self, header: Header, size: int, dtype: torch.dtype) -> None:
        wire_dtype = WIRE_DTYPES.get(header.dtype)
        if wire_dtype is None:
            raise Malformed("an unknown dtype")
        if len(set(header.vectors)) < len(header.vectors):
            raise Malformed("two vectors of one name")
        if header.size_bytes != len(header.vectors) * size * wire_dtype.itemsize:
            raise Malformed(f"{header.size_bytes} bytes announced for {len(header.vectors)} vectors of {size} values")
        self._header = header
        self._dtype = dtype
        self._vectors = [_fresh(size, wire_dtype) for _ in header.vectors]
        self._room = [_memory(vector) for vector in self._vectors]  # what is still to be written of each vector
        self._view = b""
        self._checksum = header.seal()
        self.missing_bytes = header.following_bytes

    def feed(self, frame: bytes) -> None:
        """Take in the frame of the view, or write one of the body to where it belongs; raises :class:`Malformed`."""
        if len(self._view) < self._header.view_bytes:
            self._feed_view(frame)
        else:
            self._feed_body(frame)

    def _feed_view(self, frame: bytes) -> None:
        view = _unwrap(frame, VIEW_TAG)
        if len(view) != self._header.view_bytes:
            raise Malformed(f"a view of {len(view)} bytes, {self._header.view_bytes} were announced")
        self._view = bytes(view)
        self._checksum.update(view)
        self.missing_bytes -= len(view)

    def _feed_body(self, frame: bytes) -> None:
        chunk = _unwrap(frame, BODY_TAG)
        if not 0 < len(chunk) <= CHUNK_BYTES_MAX:  # empty ones could go on for ever
            raise Malformed(f"a chunk of {len(chunk)} bytes")
        if len(chunk) > self.missing_bytes:
            raise Malformed("a body longer than announced")
        self._checksum.update(chunk)
        self.missing_bytes -= len(chunk)
        while chunk:
            room = self._room[0]
            part, chunk = chunk[: len(room)], chunk[len(room) :]
            room[: len(part)] = part
            self._room[0] = room[len(part) :]
            if not self._room[0]:
                del self._room[0]

    def finish(self) -> Message:
        """The message, once its stream has ended; raises :class:`Malformed` when it is not as announced."""
        if self.missing_bytes:
            raise Malformed(f"{self.missing_bytes} bytes less than announced")
        if self._checksum.intdigest() != self._header.checksum:
            raise Malformed("a checksum that does not fit")
        try:
            view = read_view(self._view)
        except ValueError as error:
            raise Malformed(str(error)) from None
        vectors = {n: v.to(self._dtype) for n, v in zip(self._header.vectors, self._vectors, strict=True)}
        return Message(self._header.kind, self._header.number, vectors, dict(self._header.numbers or {}), view)


# ------------------------------------------------------------------------------------------- bytes


def _fresh(size: int, dtype: torch.dtype) -> Vector:
    # numpy asks for huge pages and torch does not: first touching a large vector costs a third of the time.
    return torch.from_numpy(np.empty(size * dtype.itemsize, np.uint8)).view(dtype)


def _memory(vector: Vector) -> memoryview:
    return vector.view(torch.uint8).numpy().data


def _serialise(header: Header) -> bytes:
    fields = {name: getattr(header, name) for name in Header.__slots__}
    data = peer_pb2.Header(**fields).SerializeToString()
    assert len(data) <= HEADER_BYTES_MAX, f"a header of {len(data)} bytes"
    return data


def _wrap(tag: int, content: bytes | memoryview) -> bytes:
    prefix, length = [tag], len(content)
    while length >= 0x80:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return b"".join((bytes(prefix), content))


def _unwrap(frame: bytes, tag: int) -> memoryview:
    if not frame or frame[0] != tag:
        raise Malformed("a frame of another kind than was due")
    length = 0
    for at in range(1, min(len(frame), 6)):
        length |= (frame[at] & 0x7F) << 7 * (at - 1)
        if frame[at] < 0x80:
            break
    else:
        raise Malformed("a frame without a length")
    content = memoryview(frame)[at + 1 :]
    if len(content) != length:
        raise Malformed("a frame of another length than it says")
    return content
