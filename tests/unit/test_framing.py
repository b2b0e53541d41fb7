"""Frames: what goes in comes out, and nothing else ever does."""

import struct

import pytest
import torch
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.protocol import COUNT_MAX, Message, Reason
from algorithms.view import UNKNOWN, Standing
from node.wire.framing import CHUNK_BYTES_MAX, Incoming, Malformed, Terms, encode, open_header, read_header
from node.wire.transport import Undelivered
from node.wire.views import VIEW_BYTES_MAX
from protos import peer_pb2

SIZE = 5
VIEW = {"n7": Standing(3, 1, False, "10.0.0.7:7700", 0), "n12": Standing(active=4)}
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=63)


def terms(dtype="float32"):
    return Terms("run-1", "sha256:" + "a" * 64, "sha256:" + "b" * 64, dtype)


def decode(frames, size=SIZE, dtype=torch.float32):
    first, *rest = frames
    incoming = Incoming(open_header(first), size, dtype)
    for frame in rest:
        incoming.feed(frame)
    return incoming.finish()


def same(one, other):
    return (
        (one.kind, one.number, one.numbers, one.view) == (other.kind, other.number, other.numbers, other.view)
        and list(one.vectors) == list(other.vectors)
        and all(torch.equal(vector, other.vectors[name]) for name, vector in one.vectors.items())
    )


def example(view=None):
    model = torch.arange(SIZE, dtype=torch.float32)
    return Message("offer", 7, {"model": model}, {"lost": 2.0, "weight": 0.25}, view or {})


@given(
    kind=NAMES,
    number=st.integers(0, COUNT_MAX - 1),
    numbers=st.dictionaries(NAMES, st.floats(allow_nan=False), max_size=4),
    vectors=st.dictionaries(NAMES, st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=3), max_size=3),
    members=st.sets(st.sampled_from(sorted(VIEW))),
    chunk_bytes=st.integers(1, 40),
)
def test_round_trip(kind, number, numbers, vectors, members, chunk_bytes):
    tensors = {name: torch.tensor(values) for name, values in vectors.items()}
    message = Message(kind, number, tensors, numbers, {name: VIEW[name] for name in members})
    frames = list(encode(message, terms(), chunk_bytes).frames())
    assert same(decode(frames, size=3), message)


@pytest.mark.parametrize("narrow", ["bfloat16", "float16"])
def test_narrow_values_are_widened_to_the_runs_dtype(narrow):
    values = torch.tensor([1.0, -0.5, 0.0, 1.5, -2.0], dtype=torch.float64)
    outgoing = encode(Message("offer", vectors={"model": values}), terms(narrow))
    assert outgoing.header.size_bytes == 2 * SIZE
    received = decode(outgoing.frames(), dtype=torch.float64).vectors["model"]
    assert received.dtype == torch.float64
    assert torch.equal(received, values)


def test_any_grpc_client_can_read_and_write_the_frames():
    first, *bodies = [peer_pb2.Frame.FromString(frame) for frame in encode(example(), terms(), 7).frames()]
    assert first.header.kind == "offer"
    assert b"".join(body.body for body in bodies) == struct.pack("<5f", 0, 1, 2, 3, 4)
    assert same(decode([frame.SerializeToString() for frame in (first, *bodies)]), example())


def test_a_view_comes_between_header_and_body():
    first, view, body = [peer_pb2.Frame.FromString(frame) for frame in encode(example(VIEW), terms()).frames()]
    assert (first.header.size_bytes, first.header.view_bytes) == (4 * SIZE, len(view.view))
    assert [standing.name for standing in peer_pb2.View.FromString(view.view).standings] == sorted(VIEW)
    assert len(body.body) == 4 * SIZE
    assert same(decode([frame.SerializeToString() for frame in (first, view, body)]), example(VIEW))


@pytest.mark.parametrize("view", [{}, VIEW], ids=["no-view", "view"])
def test_the_checksum_is_the_documented_one(view):
    texts = [
        b"run-1",
        b"sha256:" + b"a" * 64,
        b"sha256:" + b"b" * 64,
        b"offer",
        b"lost",
        b"weight",
        b"model",
        b"float32",
    ]
    _, *between, _ = encode(example(view), terms()).frames()
    known = b"".join(peer_pb2.Frame.FromString(frame).view for frame in between)
    words = [1, 7, 20, len(known), 2, 1, *map(len, texts)]
    form = struct.pack(f"<{len(words)}Q2d", *words, 2.0, 0.25) + b"".join(texts)
    body = struct.pack("<5f", 0, 1, 2, 3, 4)
    assert encode(example(view), terms()).header.checksum == xxhash.xxh3_64_intdigest(form + known + body)


def test_the_body_is_not_copied_before_it_is_read():
    vector = torch.zeros(SIZE)
    frames = encode(Message("offer", vectors={"model": vector}), terms()).frames()
    next(frames)
    vector.fill_(1)
    assert next(frames).endswith(struct.pack("<5f", 1, 1, 1, 1, 1))


def test_what_is_received_has_memory_of_its_own():
    frames = list(encode(example(), terms()).frames())
    decode(frames).vectors["model"].fill_(9)
    assert same(decode(frames), example())


@given(data=st.binary(max_size=300))
@settings(max_examples=300)
def test_arbitrary_bytes_are_malformed_headers(data):
    with pytest.raises(Malformed):
        decode([data])


@given(bodies=st.lists(st.binary(max_size=30), max_size=5), view=st.sampled_from([{}, VIEW]))
@settings(max_examples=300)
def test_arbitrary_bytes_are_malformed_bodies(bodies, view):
    first, *_ = encode(example(view), terms()).frames()
    with pytest.raises(Malformed):
        decode([first, *bodies])


@given(view=st.binary(min_size=1, max_size=60))
@settings(max_examples=300)
def test_arbitrary_bytes_are_a_view_or_malformed(view):
    first, body = [peer_pb2.Frame.FromString(frame) for frame in encode(example(), terms()).frames()]
    first.header.view_bytes = len(view)
    checksum = read_header(first.header.SerializeToString()).seal()
    checksum.update(view + body.body)
    first.header.checksum = checksum.intdigest()
    frames = [frame.SerializeToString() for frame in (first, peer_pb2.Frame(view=view), body)]
    try:
        message = decode(frames)
    except Malformed:
        return
    assert same(message, example(message.view))


@given(cut=st.integers(1, 400), data=st.data(), view=st.sampled_from([{}, VIEW]))
def test_frames_cut_anywhere_are_malformed(cut, data, view):
    whole = b"".join(encode(example(view), terms()).frames())
    cut = 1 + cut % (len(whole) - 1)
    with pytest.raises(Malformed):
        decode([whole[:cut], whole[cut:]] if data.draw(st.booleans()) else [bytes([byte]) for byte in whole[:cut]])


def test_every_flipped_bit_is_refused():
    frames = list(encode(example(VIEW), terms(), chunk_bytes=8).frames())
    for index, frame in enumerate(frames):
        for bit in range(8 * len(frame)):
            flipped = bytearray(frame)
            flipped[bit // 8] ^= 1 << bit % 8
            with pytest.raises(Malformed):
                decode([*frames[:index], bytes(flipped), *frames[index + 1 :]])


@pytest.mark.parametrize(
    "change",
    [
        lambda frames: frames[:-1],
        lambda frames: [*frames, frames[-1]],
        lambda frames: [frames[0], frames[2], frames[1], *frames[3:]],
        lambda frames: [frames[0], *frames],
        lambda frames: frames[1:],
        lambda frames: [*frames, b"\x12\x00"],
        lambda frames: [*frames[:-1], b"\x12\x80\x80\x80\x80\x80\x00"],
    ],
    ids=["shorter", "longer", "swapped", "two-headers", "no-header", "empty-chunk", "endless-length"],
)
def test_streams_that_are_no_message(change):
    frames = list(encode(example(), terms(), chunk_bytes=4).frames())
    assert same(decode(frames), example())
    with pytest.raises(Malformed):
        decode(change(frames))


@pytest.mark.parametrize(
    "change",
    [
        lambda header, view, body: [header, body],
        lambda header, view, body: [header, view, view, body],
        lambda header, view, body: [header, body, view],
        lambda header, view, body: [header, view[:-1], body],
        lambda header, view, body: [header, b"\x1a\x02" + view[2:4], b"\x1a\x02" + view[4:6], body],
        lambda header, view, body: [header, b"\x1a\x00", view, body],
        lambda header, view, body: [header, view],
        lambda header, view, body: [header],
    ],
    ids=["no-view", "two-views", "body-first", "cut", "in-two-frames", "empty-view", "no-body", "nothing"],
)
def test_streams_with_views_that_are_no_message(change):
    frames = list(encode(example(VIEW), terms()).frames())
    assert same(decode(frames), example(VIEW))
    with pytest.raises(Malformed):
        decode(change(*frames))


def test_a_view_that_was_not_announced_is_refused():
    header, body = encode(example(), terms()).frames()
    _, view, _ = encode(example(VIEW), terms()).frames()
    with pytest.raises(Malformed):
        decode([header, view, body])


def test_a_view_is_at_most_one_mebibyte():
    count, rest = divmod(VIEW_BYTES_MAX, 67)  # a member with a name of 63, of whom nothing is known
    whole = {f"{number:063}": UNKNOWN for number in range(count)} | {"a" * (rest - 4): UNKNOWN}
    outgoing = encode(example(whole), terms())
    assert outgoing.header.view_bytes == VIEW_BYTES_MAX
    assert same(decode(outgoing.frames()), example(whole))
    whole["b"] = UNKNOWN
    with pytest.raises(Undelivered) as refusal:
        encode(example(whole), terms())
    assert refusal.value.reason is Reason.TOO_LARGE
    with pytest.raises(Malformed, match="view"):
        read_header(peer_pb2.Header(view_bytes=VIEW_BYTES_MAX + 1).SerializeToString())


def test_a_chunk_is_at_most_one_mebibyte():
    size = CHUNK_BYTES_MAX // 4 + 1
    body = bytes(4 * size)
    first, *_ = encode(Message("offer", vectors={"model": torch.zeros(size)}), terms()).frames()
    with pytest.raises(Malformed, match="chunk"):
        decode([first, peer_pb2.Frame(body=body).SerializeToString()], size)


@pytest.mark.parametrize(
    "fields",
    [{"size_bytes": 10**10}, {"dtype": "int8"}, {"vectors": ["model", "model"], "size_bytes": 40}, {"vectors": []}],
)
def test_nothing_is_allocated_for_a_header_that_contradicts_itself(fields):
    raw = peer_pb2.Frame.FromString(next(encode(example(), terms()).frames())).header
    for name in fields:
        raw.ClearField(name)
    raw.MergeFrom(peer_pb2.Header(**fields))
    with pytest.raises(Malformed):
        Incoming(read_header(raw.SerializeToString()), SIZE, torch.float32)


def test_a_long_header_is_refused():
    with pytest.raises(Malformed):
        read_header(peer_pb2.Header(kind="k" * 5000).SerializeToString())
