"""What a link does to the bytes that go over it, in virtual time: exactly when, in which order, and what a cut is."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from node.links.link import IN_FLIGHT_BYTES_MAX, PIECE_BYTES_MAX, PIECE_BYTES_MIN, Link
from node.links.relay import hold, relay

Stream = trio.StapledStream


def run(test: Callable[..., Awaitable[None]], *args: object) -> None:
    """In time that passes only when nothing else is left to do, and stops where that is never."""
    clock = trio.testing.MockClock(autojump_threshold=0)

    async def bounded() -> None:
        with trio.fail_after(1e6):
            await test(*args)

    trio.run(bounded, clock=clock)


class Ends:
    """The caller and the called of one connection, as they see it."""

    def __init__(self, nursery: trio.Nursery, link: Link, *, lockstep: bool = False) -> None:
        make = trio.testing.lockstep_stream_pair if lockstep else trio.testing.memory_stream_pair
        self.caller, near = make()
        far, self.called = make()
        self.over = trio.Event()
        nursery.start_soon(self._carry, link, near, far)

    async def _carry(self, link: Link, near: Stream, far: Stream) -> None:
        await relay(link, "a", "b", (near, far))
        await near.aclose()
        await far.aclose()
        self.over.set()


async def read(stream: Stream, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := await stream.receive_some(size - len(data))):
        data += more
    return data


async def nothing_comes(stream: Stream, seconds: float) -> None:
    with trio.move_on_after(seconds) as waiting:
        pytest.fail(f"there came {await stream.receive_some()!r}")
    assert waiting.cancelled_caught


@pytest.mark.parametrize(
    ("delay", "bandwidth", "size", "arrives_at"),
    [
        (0.0, math.inf, 10, 0.0),
        (0.5, math.inf, 10_000_000, 0.5),
        (0.5, 1000.0, 3000, 3.5),
        (0.0, 2**20, 2**21, 2.0),
        (3.0, 1.0, 4, 7.0),
    ],
)
def test_bytes_arrive_after_the_delay_and_their_transmission(delay, bandwidth, size, arrives_at) -> None:
    async def test() -> None:
        link = Link("a", "b", delay, bandwidth)
        async with trio.open_nursery() as nursery:
            ends = Ends(nursery, link)
            for sender, receiver in ((ends.caller, ends.called), (ends.called, ends.caller)):
                begun = trio.current_time()
                await sender.send_all(b"x" * size)
                assert len(await read(receiver, size)) == size
                assert trio.current_time() - begun == pytest.approx(arrives_at, abs=1e-6)
                await trio.sleep(100.0)  # what one has sent must not help the other
            assert link.carried == 2 * size
            nursery.cancel_scope.cancel()

    run(test)


def test_connections_share_a_link_and_directions_do_not() -> None:
    async def test() -> None:
        link, done = Link("a", "b", bandwidth=1000.0), {}

        async def receive(name: str, stream: Stream, size: int) -> None:
            await read(stream, size)
            done[name] = trio.current_time() - begun

        async with trio.open_nursery() as nursery:
            ends = [Ends(nursery, link) for _ in range(3)]
            begun = trio.current_time()
            async with trio.open_nursery() as receivers:
                for k, each in enumerate(ends):
                    await each.caller.send_all(b"x" * 1024 * 10)
                    receivers.start_soon(receive, f"{k}", each.called, 1024 * 10)
                await ends[0].called.send_all(b"y" * 5000)
                receivers.start_soon(receive, "back", ends[0].caller, 5000)
            nursery.cancel_scope.cancel()
        assert done["back"] == pytest.approx(5.0)
        assert sorted(done[k] for k in "012") == pytest.approx([28 * 1.024, 29 * 1.024, 30 * 1.024])

    run(test)


def test_a_shorter_delay_lets_nothing_overtake() -> None:
    async def test() -> None:
        link = Link("a", "b", 10.0)
        async with trio.open_nursery() as nursery:
            ends = Ends(nursery, link)
            await ends.caller.send_all(b"first")
            await trio.sleep(1.0)
            link.delay = 0.0
            await ends.caller.send_all(b"second")
            assert await read(ends.called, 11) == b"firstsecond"
            assert trio.current_time() == pytest.approx(10.0)
            nursery.cancel_scope.cancel()

    run(test)


def test_one_direction_ends_and_the_other_goes_on() -> None:
    async def test() -> None:
        async with trio.open_nursery() as nursery:
            ends = Ends(nursery, Link("a", "b", 2.0))
            await ends.caller.send_all(b"question")
            await ends.caller.send_eof()
            assert await read(ends.called, 100) == b"question"
            assert trio.current_time() == pytest.approx(2.0)
            await ends.called.send_all(b"answer")
            assert await read(ends.caller, 6) == b"answer"
            assert not ends.over.is_set()
            await ends.called.send_eof()
            await ends.over.wait()
            assert trio.current_time() == pytest.approx(6.0)

    run(test)


@pytest.mark.parametrize("delay", [0.0, 0.2])
def test_a_cut_holds_everything_back_and_closes_nothing(delay: float) -> None:
    async def test() -> None:
        link = Link("a", "b", delay)
        async with trio.open_nursery() as nursery:
            ends = Ends(nursery, link)
            await ends.caller.send_all(b"0")
            await trio.sleep(0.1)
            link.cut()
            await ends.caller.send_all(b"1")
            await ends.called.send_all(b"x")
            await trio.sleep(0.1)
            await ends.caller.send_all(b"2")
            await ends.caller.send_eof()
            if not delay:
                assert await read(ends.called, 1) == b"0"
            await nothing_comes(ends.called, 1000.0)
            await nothing_comes(ends.caller, 1000.0)
            link.heal()
            assert await read(ends.called, 100) == (b"012" if delay else b"12")
            assert await read(ends.caller, 1) == b"x"
            nursery.cancel_scope.cancel()

    run(test)


def test_who_is_behind_a_cut_does_not_learn_that_the_other_has_gone() -> None:
    async def test() -> None:
        link = Link("a", "b")
        async with trio.open_nursery() as nursery:
            ends = Ends(nursery, link)
            await ends.caller.send_all(b"0")
            assert await read(ends.called, 1) == b"0"
            link.cut()
            await ends.caller.aclose()
            await nothing_comes(ends.called, 1000.0)
            assert not ends.over.is_set()
            link.heal()
            assert await ends.called.receive_some() == b""
            await ends.called.aclose()
            await ends.over.wait()
        assert link.connections == 0

    run(test)


class Resetting(trio.abc.ReceiveStream):
    """A stream that its other end has reset."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        raise trio.BrokenResourceError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("cut", [False, True])
def test_a_stream_that_breaks_ends_both_but_not_across_a_cut(cut: bool) -> None:
    async def test() -> None:
        link = Link("a", "b")
        if cut:
            link.cut()
        far, called = trio.testing.memory_stream_pair()
        near = trio.StapledStream(trio.testing.memory_stream_pair()[0], Resetting())
        async with trio.open_nursery() as nursery:

            async def carry() -> None:
                await relay(link, "a", "b", (near, far))
                await far.aclose()

            nursery.start_soon(carry)
            if cut:
                await nothing_comes(called, 1000.0)
                assert link.connections == 1
                link.heal()
            assert await called.receive_some() == b""
        assert link.connections == 0

    run(test)


def test_a_reset_takes_its_time_and_overtakes_nothing() -> None:
    async def test() -> None:
        send, receive = trio.testing.memory_stream_pair()
        far, called = trio.testing.memory_stream_pair()

        class Broken(Resetting):
            async def receive_some(self, max_bytes: int | None = None) -> bytes:
                return await receive.receive_some(max_bytes) or await super().receive_some()

        async with trio.open_nursery() as nursery:
            near = trio.StapledStream(trio.testing.memory_stream_pair()[0], Broken())
            nursery.start_soon(relay, Link("a", "b", 5.0), "a", "b", (near, far))
            await send.send_all(b"hello")
            await trio.sleep(0.1)
            await send.aclose()
            begun = trio.current_time()
            assert await read(called, 5) == b"hello"
            assert trio.current_time() - begun == pytest.approx(4.9)
            assert await called.receive_some() == b""
            assert trio.current_time() - begun == pytest.approx(5.0)

    run(test)


@pytest.mark.parametrize(("bandwidth", "arrives_at"), [(1000.0, 2.0 + 5.0), (math.inf, 2.0)])
def test_a_new_bandwidth_holds_at_once(bandwidth: float, arrives_at: float) -> None:
    async def test() -> None:
        link = Link("a", "b", bandwidth=10.0)
        async with trio.open_nursery() as nursery:
            ends, begun = Ends(nursery, link), trio.current_time()
            await ends.caller.send_all(b"x" * (1024 + 5000))  # the first piece alone would take 102 s
            await trio.sleep(2.0)
            link.bandwidth = bandwidth
            assert len(await read(ends.called, 6024)) == 6024
            assert trio.current_time() - begun == pytest.approx(arrives_at)
            nursery.cancel_scope.cancel()

    run(test)


def test_a_link_that_is_cut_again_before_anything_got_through_stays_cut() -> None:
    async def test() -> None:
        link = Link("a", "b")
        async with trio.open_nursery() as nursery:
            ends = Ends(nursery, link)
            link.cut()
            await ends.caller.send_all(b"1")
            await trio.sleep(1.0)
            link.heal()
            link.cut()
            await nothing_comes(ends.called, 1000.0)
            nursery.cancel_scope.cancel()

    run(test)


@pytest.mark.parametrize(
    ("delay", "bandwidth", "under_way"),
    [(0.0, math.inf, 0), (10.0, math.inf, IN_FLIGHT_BYTES_MAX), (10.0, 1e5, 1e6), (1e-3, 1e6, 1e3)],
)
def test_who_sends_into_a_receiver_that_takes_nothing_has_to_wait(delay, bandwidth, under_way) -> None:
    async def test() -> None:
        link, taken = Link("a", "b", delay, bandwidth), 0

        async def send(stream: Stream) -> None:
            nonlocal taken
            while True:
                await stream.send_all(b"x" * 1000)
                taken += 1000

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, Ends(nursery, link, lockstep=True).caller)
            await trio.sleep(10_000.0)
            nursery.cancel_scope.cancel()
        assert under_way <= taken <= under_way + 2 * PIECE_BYTES_MAX + 2000

    run(test)


@pytest.mark.parametrize("bandwidth", [1.0, 5e3, 1e6, 1e12, math.inf])
def test_pieces_are_small_where_others_would_wait_for_long(bandwidth: float) -> None:
    piece = Link("a", "b", bandwidth=bandwidth).piece_bytes
    assert PIECE_BYTES_MIN <= piece <= PIECE_BYTES_MAX
    assert piece <= max(bandwidth / 10, PIECE_BYTES_MIN)


CHANGES = st.one_of(
    st.tuples(st.just("send"), st.binary(min_size=1, max_size=5000)),
    st.tuples(st.just("delay"), st.sampled_from([0.0, 0.01, 3.0])),
    st.tuples(st.just("bandwidth"), st.sampled_from([100.0, 1e5, math.inf])),
    st.tuples(st.sampled_from(["cut", "heal"]), st.none()),
    st.tuples(st.just("wait"), st.sampled_from([0.0, 0.015, 1.0, 7.0])),
)


@given(changes=st.lists(CHANGES, max_size=30))
def test_whatever_happens_bytes_come_out_as_they_went_in(changes: list[tuple[str, object]]) -> None:
    async def test() -> None:
        link, sent = Link("a", "b"), b""
        async with trio.open_nursery() as nursery:
            ends = Ends(nursery, link)
            for what, value in changes:
                if what == "send":
                    await ends.caller.send_all(value)
                    sent += value
                elif what == "wait":
                    await trio.sleep(value)
                elif what in ("cut", "heal"):
                    getattr(link, what)()
                else:
                    setattr(link, what, value)
            link.heal()
            await ends.caller.send_eof()
            assert await read(ends.called, 10**9) == sent
            nursery.cancel_scope.cancel()

    run(test)


# ---------------------------------------------------------------------------- calls while the link is cut


def test_a_call_is_held_until_the_link_is_whole_with_what_was_said_first() -> None:
    async def test() -> None:
        link = Link("a", "b")
        link.cut()
        caller, near = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:

            async def speak() -> None:
                await trio.sleep(1.0)
                await caller.send_all(b"hello")
                await trio.sleep(1.0)
                link.heal()

            nursery.start_soon(speak)
            assert await hold(link, near, 100) == b"hello"
            assert trio.current_time() == pytest.approx(2.0)
            await caller.send_all(b" there")
            assert await near.receive_some() == b" there"

    run(test)


def test_a_call_that_is_given_up_leaves_nothing_behind() -> None:
    async def test() -> None:
        link = Link("a", "b")
        link.cut()
        for said in (b"", b"hello"):
            caller, near = trio.testing.memory_stream_pair()
            await caller.send_all(said)
            await caller.aclose()
            assert await hold(link, near, 100) is None
        assert trio.current_time() == 0.0

    run(test)


def test_a_call_that_says_much_is_read_only_so_far() -> None:
    async def test() -> None:
        link = Link("a", "b")
        link.cut()
        caller, near = trio.testing.memory_stream_pair()
        await caller.send_all(b"x" * 150)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.sleep, 5.0))
            with trio.move_on_after(3.0) as waiting:
                await hold(link, near, 100)
            assert waiting.cancelled_caught
            assert len(await near.receive_some()) == 50

    run(test)
