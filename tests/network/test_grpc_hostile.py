"""Callers that keep to no rules: each is refused with its reason, counted, and nothing of it is delivered."""

import contextlib
import math
import os

import grpc
import grpc.aio
import pytest
import torch
import trio

from algorithms.protocol import Message, Reason
from node.wire.bridge import open_bridge
from node.wire.framing import CHUNK_BYTES_MAX
from node.wire.limits import Limits
from node.wire.transport import Undelivered
from protos import peer_pb2

pytestmark = pytest.mark.trio


def changed(frames, **fields):
    """The frames with other header fields; the checksum stays that of the honest header."""
    frame = peer_pb2.Frame.FromString(frames[0])
    for name in fields:
        frame.header.ClearField(name)
    frame.header.MergeFrom(peer_pb2.Header(**fields))
    return [frame.SerializeToString(), *frames[1:]]


def flipped(frame, bit):
    flipped = bytearray(frame)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


HEADERS = {
    "another-version": ({"version": 2}, Reason.WRONG_VERSION),
    "another-run": ({"run": "s"}, Reason.WRONG_RUN),
    "another-plan": ({"plan": "q"}, Reason.WRONG_RUN),
    "another-layout": ({"layout": "l"}, Reason.WRONG_LAYOUT),
    "unknown-kind": ({"kind": "pickle"}, Reason.MALFORMED),
    "path-as-kind": ({"kind": "../../etc/passwd\0"}, Reason.MALFORMED),
    "not-our-role": ({"kind": "reply", "vectors": ["change"], "numbers": {}}, Reason.NOT_MY_NEIGHBOUR),
    "ten-gigabytes": ({"size_bytes": 10**10}, Reason.TOO_LARGE),
    "one-byte-less": ({"size_bytes": 23}, Reason.MALFORMED),
    "another-dtype": ({"dtype": "float64"}, Reason.MALFORMED),
    "another-vector": ({"vectors": ["models"]}, Reason.MALFORMED),
    "half-a-count": ({"numbers": {"lost": 0.5}}, Reason.MALFORMED),
    "nan-count": ({"numbers": {"lost": math.nan}}, Reason.MALFORMED),
    "a-view": ({"view_bytes": 9}, Reason.MALFORMED),  # offers have none
    "another-number": ({"number": 2}, Reason.MALFORMED),  # caught by the checksum
}


@pytest.mark.parametrize("case", HEADERS)
async def test_headers(wires, case):
    fields, reason = HEADERS[case]
    async with wires.pair() as (a, b):
        await refused(b, changed(b.frames(), **fields), reason)
        await a.transport.send("b", a.offer())


BODIES = {
    "truncated": lambda frames: frames[:-1],
    "no-body": lambda frames: frames[:1],
    "extra-bytes": lambda frames: [*frames, frames[-1]],
    "another-header": lambda frames: [frames[0], *frames],
    "a-view": lambda frames: [frames[0], peer_pb2.Frame(view=b"\x0a\x03\x0a\x01a").SerializeToString(), *frames[1:]],
    "body-first": lambda frames: frames[1:],
    "nothing": lambda frames: [],
    "an-empty-frame": lambda frames: [frames[0], b"", *frames[1:]],
    "garbage": lambda frames: [b"\x80\x04\x95garbage"],
    "garbage-body": lambda frames: [frames[0], os.urandom(24)],
    "long-chunk": lambda frames: [frames[0], peer_pb2.Frame(body=bytes(CHUNK_BYTES_MAX + 1)).SerializeToString()],
    "swapped": lambda frames: [frames[0], frames[2], frames[1], *frames[3:]],
    "long-header": lambda frames: changed(frames, kind="k" * 10_000),
}


@pytest.mark.parametrize("case", BODIES)
async def test_bodies(wires, case):
    async with wires.pair() as (a, b):
        honest = b.frames(Message("offer", 1, {"model": torch.arange(6.0)}, {"lost": 0}))
        await refused(b, BODIES[case](honest), Reason.MALFORMED)
        await a.transport.send("b", a.offer())


async def test_flipped_bits(wires):
    async with wires.pair() as (_, b):
        frames = b.frames()
        for index, frame in enumerate(frames):
            for bit in range(0, 8 * len(frame), 29):
                code = await b.call([*frames[:index], flipped(frame, bit), *frames[index + 1 :]])
                assert code in Reason.__members__, (index, bit)
        assert b.counts.received_all == []
        assert b.guard.waiting == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
async def test_values_that_are_not_finite(wires, value):
    async with wires.pair() as (_, b):
        vector = torch.ones(b.size)
        vector[3] = value
        await refused(b, b.frames(Message("offer", 1, {"model": vector}, {"lost": 0})), Reason.NOT_FINITE)


@pytest.mark.parametrize("sender", ["b", "nobody", "", "../a", "n" * 5000])
async def test_strangers(wires, sender):
    async with wires.pair() as (_, b):
        await refused(b, b.frames(), Reason.NOT_MY_NEIGHBOUR, sender)


@pytest.mark.parametrize(
    ("fields", "code"), [({}, "ACCEPTED"), ({"run": "s"}, "WRONG_RUN"), ({"layout": "l"}, "WRONG_LAYOUT")]
)
async def test_pings(wires, fields, code):
    async with wires.pair() as (_, b):
        header = peer_pb2.Frame.FromString(changed(b.frames(), **fields)[0]).header
        assert await b.call([header.SerializeToString()], "Ping") == code
        assert await b.call([b"\xff"], "Ping") == "MALFORMED"


async def test_ten_announced_gigabytes_are_neither_read_nor_allocated(wires):
    async with wires.pair() as (_, b):
        read = []

        def frames():
            yield changed(b.frames(), size_bytes=10**10)[0]
            for _ in range(100):
                read.append(1)
                yield peer_pb2.Frame(body=bytes(2**20)).SerializeToString()

        before = resident_bytes()
        assert await b.call(frames()) == "TOO_LARGE"
        assert len(read) < 100
        assert resident_bytes() - before < 64 * 2**20


async def test_a_pickle_is_never_opened(wires, tmp_path):
    import pickle

    canary = tmp_path / "canary"

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(canary),)

    async with wires.pair() as (_, b):
        bomb = pickle.dumps(Bomb())
        await b.call([bomb])
        await b.call([b.frames()[0], peer_pb2.Frame(body=bomb).SerializeToString()])
        assert b.counts.received_all == []
        assert not canary.exists()


@pytest.mark.parametrize("method", ["Deliver", "Ping", "Health/Check"])
@pytest.mark.parametrize("tls", [False, True])
async def test_a_hundred_half_open_calls_do_not_keep_others_out(wires, method, tls):
    path = "/grpc.health.v1.Health/Check" if method == "Health/Check" else f"/gradvine.peer.v1.Peer/{method}"
    async with wires.pair(tls=tls, size=1000) as (a, b):
        certificate = wires.certificates / "c"
        header, *_ = b.frames()
        files = [(certificate / file).read_bytes() for file in ("ca.pem", "key.pem", "cert.pem")]

        async def open_half():
            channels, calls = [], []
            for _ in range(20):
                channel = b.channel(grpc.ssl_channel_credentials(*files) if tls else None)
                channels.append(channel)
                for _ in range(5):
                    call = channel.stream_unary(path)(metadata=(("gradvine-name", "c"),))
                    calls.append(call)
                    await call.wait_for_connection()
                    if method == "Deliver":
                        with contextlib.suppress(grpc.aio.AioRpcError):  # it may have been refused already
                            await call.write(header)
            return channels, calls

        async def close(channels):
            for channel in channels:
                await channel.close()

        with trio.fail_after(15):
            channels, _ = await b.bridge.call(open_half)
            for number in range(20):
                await a.transport.send("b", a.offer(number))
                assert (await b.take())[1].number == number
            await b.bridge.call(close, channels)


async def test_a_stalled_body_is_given_up_and_its_room_given_back(wires):
    async with wires.pair(limits=Limits(patience_s=0.2)) as (_, b):
        frames = b.frames()

        async def stall():
            async with b.channel(None) as channel:
                call = channel.stream_unary("/gradvine.peer.v1.Peer/Deliver")(metadata=(("gradvine-name", "a"),))
                await call.write(frames[0])
                await call.write(frames[1])
                try:
                    return await call
                except grpc.aio.AioRpcError as error:
                    return error.code()

        assert await b.bridge.call(stall) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert b.counts.refused_all == [("a", Reason.TIMEOUT)]
        assert b.guard.waiting == 0
        assert await b.call(frames) == "ACCEPTED"


async def test_a_body_that_breaks_off_gives_its_room_back(wires):
    async with wires.pair() as (_, b):
        frames = b.frames()

        async def break_off():
            async with b.channel(None) as channel:
                call = channel.stream_unary("/gradvine.peer.v1.Peer/Deliver")(metadata=(("gradvine-name", "a"),))
                for frame in frames[:2]:
                    await call.write(frame)
                call.cancel()

        await b.bridge.call(break_off)
        with trio.fail_after(20):
            while b.guard.waiting:
                await trio.sleep(0.01)
        assert b.counts.received_all == []
        assert await b.call(frames) == "ACCEPTED"


async def test_no_text_of_an_exception_leaves_the_process(wires, monkeypatch):
    async with wires.pair() as (_, b):
        monkeypatch.setattr(b.guard, "check", lambda *_: 1 / 0)

        async def ask():
            async with b.channel(None) as channel:
                call = channel.stream_unary("/gradvine.peer.v1.Peer/Deliver")(
                    iter(b.frames()), metadata=(("gradvine-name", "a"),)
                )
                with pytest.raises(grpc.aio.AioRpcError) as failure:
                    await call
                return failure.value

        error = await b.bridge.call(ask)
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "division" not in (error.details() or "")
        assert b.guard.waiting == 0


async def test_a_receipt_that_is_none_is_undelivered(wires):
    async def answer(_, context):
        return b"\xff\xff\xff"

    class Garbage(grpc.GenericRpcHandler):
        def service(self, details):
            return grpc.stream_unary_rpc_method_handler(answer)

    async def listen():
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((Garbage(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        return server, port

    async with open_bridge() as bridge:
        server, port = await bridge.call(listen)
        async with wires.peer(bridge, "a", {"b": f"127.0.0.1:{port}"}, owned=True) as a:
            for ask in (lambda: a.transport.ping("b"), lambda: a.transport.send("b", a.offer())):
                with pytest.raises(Undelivered) as failure:
                    await ask()
                assert failure.value.reason is Reason.MALFORMED
        await bridge.call(server.stop, 0)


@pytest.mark.parametrize("method", ["Check", "Watch"])
async def test_a_health_check_that_asks_for_nothing_is_told_no_more_than_a_code(wires, method):
    async with wires.pair() as (_, b):

        async def ask():
            async with b.channel(None) as channel:
                call = channel.stream_stream(f"/grpc.health.v1.Health/{method}")(iter(()), timeout=20)
                with pytest.raises(grpc.aio.AioRpcError) as failure:
                    await call.read()
                return failure.value

        error = await b.bridge.call(ask)
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert not error.details()


async def refused(peer, frames, reason, sender="a"):
    """Assert that this call is answered with the reason, counted once, and that nothing arrives."""
    assert await peer.call(frames, sender=sender) == reason.name
    assert [refusal for _, refusal in peer.counts.refused_all] == [reason]
    assert peer.counts.received_all == []
    assert peer.guard.waiting == 0


def resident_bytes():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
