"""The bridge between trio and asyncio: results, errors, cancellation both ways, and nothing left behind."""

import asyncio
import threading

import pytest
import trio

from node.wire.bridge import Closed, open_bridge

pytestmark = pytest.mark.trio


async def test_results_and_errors_cross():
    async def divide(a, b):
        await asyncio.sleep(0)
        return a / b

    async with open_bridge() as bridge:
        assert await bridge.call(divide, 6, b=3) == 2
        with pytest.raises(ZeroDivisionError):
            await bridge.call(divide, 1, 0)


async def test_many_calls_at_once_do_not_wait_for_each_other():
    async def meet(barrier, n):
        barrier.append(n)
        while len(barrier) < 50:
            await asyncio.sleep(0)
        return n

    async with open_bridge() as bridge:
        barrier, results = [], []

        async def one(n):
            results.append(await bridge.call(meet, barrier, n))

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                for n in range(50):
                    nursery.start_soon(one, n)
        assert sorted(results) == list(range(50))


async def test_cancelled_in_trio_it_has_ended_in_asyncio():
    ended = []

    async def wait():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    async with open_bridge() as bridge:
        with trio.move_on_after(0.01) as scope:
            await bridge.call(wait)
        assert scope.cancelled_caught
        assert ended == [True]


async def test_a_cancellation_that_comes_too_late_loses_no_result():
    async def stubborn():
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            return "done all the same"

    async with open_bridge() as bridge:
        with trio.move_on_after(0.01):
            assert await bridge.call(stubborn) == "done all the same"


async def test_a_call_from_a_cancelled_scope_does_not_begin():
    begun = []

    async def begin():
        begun.append(True)

    async with open_bridge() as bridge:
        with trio.CancelScope() as scope:
            scope.cancel()
            await bridge.call(begin)
        assert begun == []


async def test_cancelled_in_asyncio_it_is_closed_in_trio():
    async def cancel_itself():
        asyncio.current_task().cancel()
        await asyncio.sleep(1)

    async with open_bridge() as bridge:
        with pytest.raises(Closed):
            await bridge.call(cancel_itself)


async def test_what_is_posted_runs_in_trio():
    async with open_bridge() as bridge:
        arrived = trio.Event()
        threads = []

        async def post():
            bridge.post(lambda: (threads.append(threading.current_thread()), arrived.set()))

        await bridge.call(post)
        await arrived.wait()
        assert threads == [threading.current_thread()]


async def test_closing_cancels_what_runs_and_leaves_nothing():
    ended = []

    async def wait():
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append(True)

    async def begin():
        begin.task = asyncio.create_task(wait())
        await asyncio.sleep(0)

    before = threading.active_count()
    async with open_bridge() as bridge:
        await bridge.call(begin)
        assert threading.active_count() > before
    assert ended == [True]
    assert "grpc-aio" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(Closed):
        await bridge.call(begin)
