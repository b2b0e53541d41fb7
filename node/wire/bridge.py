"""The only file that knows two event loops: trio, where the peer lives, and asyncio, where grpc.aio lives.

Theory of operation
-------------------
grpc.aio needs an asyncio loop; it gets one in a thread of its own. Whatever crosses the bridge costs about 100 µs, so
whole messages cross it, never their chunks: :meth:`Bridge.call` runs a coroutine on the other side and waits for it,
:meth:`Bridge.post` drops something into trio and waits for nothing.

Invariants
----------
* Cancelled in trio: the coroutine is cancelled in asyncio, and has ended before the trio task goes on.
* Cancelled in asyncio, or the bridge gone: the trio task gets :class:`Closed`, never a hang.
* When :func:`open_bridge` is left, no task and no thread is.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, NoReturn, ParamSpec, TypeVar

import outcome
import trio

P = ParamSpec("P")
T = TypeVar("T")


class Closed(Exception):
    """The other side has gone."""


class Bridge:
    """From trio to an asyncio loop in a thread, and back; made by :func:`open_bridge`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._trio = trio.lowlevel.current_trio_token()

    async def call(self, fn: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """In trio: run a coroutine function in asyncio and return what it returns.

        Raises
        ------
        Closed
            When the coroutine was cancelled in asyncio, or the bridge is closed.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        waiter = trio.lowlevel.current_task()
        job: asyncio.Task[T]
        raise_cancel: Callable[[], NoReturn] | None = None

        def start() -> None:
            nonlocal job
            job = self._loop.create_task(fn(*args, **kwargs))
            job.add_done_callback(end)

        def end(_: asyncio.Task[T]) -> None:
            result: outcome.Outcome[T]
            if not job.cancelled():
                result = outcome.capture(job.result)
            elif raise_cancel is not None:
                result = outcome.capture(raise_cancel)
            else:
                result = outcome.Error(Closed("cancelled on the other side"))
            self.post(trio.lowlevel.reschedule, waiter, result)

        def abort(cancel: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
            nonlocal raise_cancel
            raise_cancel = cancel
            self._loop.call_soon_threadsafe(
                lambda: job.cancel()
            )  # start() has run before: the loop is first in, first out
            return trio.lowlevel.Abort.FAILED  # end() wakes the waiter

        try:
            self._loop.call_soon_threadsafe(start)
        except RuntimeError:
            raise Closed("the bridge is closed") from None
        result: T = await trio.lowlevel.wait_task_rescheduled(abort)
        return result

    def post(self, fn: Callable[..., object], *args: object) -> None:
        """In asyncio: run a function in trio, soon; it must not raise.

        Raises
        ------
        Closed
            When trio has ended.
        """
        try:
            self._trio.run_sync_soon(fn, *args)
        except trio.RunFinishedError:
            raise Closed("trio has ended") from None


@asynccontextmanager
async def open_bridge() -> AsyncIterator[Bridge]:
    """A bridge to a fresh asyncio loop, which ends with the block; what still runs there then is cancelled."""
    loop = asyncio.new_event_loop()
    bridge = Bridge(loop)
    thread = threading.Thread(target=loop.run_forever, name="grpc-aio", daemon=True)
    thread.start()
    try:
        yield bridge
    finally:
        with trio.CancelScope(shield=True):
            await bridge.call(_end_all)
            loop.call_soon_threadsafe(loop.stop)
            await trio.to_thread.run_sync(thread.join)
        loop.close()


async def _end_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in sorted(tasks, key=id):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    loop = asyncio.get_running_loop()
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()
