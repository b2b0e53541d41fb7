"""A connection over a link: two streams, of which each gets what the other sends, later and at the link's pace.

Theory of operation
-------------------
Each direction reads a piece, waits until the link has sent it, and hands it on when it has arrived. Without a delay one
task does all that. With one, what is in flight lies in a queue, and a second task hands it on for as long as there is
something in it. The end of a stream travels like a piece and ends one direction only; so does a reset, which ends both
when it has arrived.

Over a link that is cut nothing is handed on and nothing is closed, and what is in flight stays there, so that the peers
find out as they would if a cable were pulled; once it is whole again bytes that were sent before arrive late, as they
would from a TCP that has kept trying. A connection of which one end has meanwhile gone is closed then.

Invariants
----------
* Bytes come out in the order in which they went in, also when the delay becomes shorter.
* Each direction holds at most ``Link.in_flight_bytes_max`` and one piece; then it stops reading.
"""

from __future__ import annotations

from collections import deque

import trio

from node.links.link import Link


class Direction:
    """One direction of a connection.

    Parameters
    ----------
    link : Link
    sender : str
        Whose bytes these are.
    source, sink : HalfCloseableStream
        Where they come from and go to.
    nursery : Nursery
        Of the connection; it is cancelled when one of the streams breaks.
    """

    def __init__(
        self,
        link: Link,
        sender: str,
        source: trio.abc.HalfCloseableStream,
        sink: trio.abc.HalfCloseableStream,
        nursery: trio.Nursery,
    ) -> None:
        self._link, self._sender, self._source, self._sink, self._nursery = link, sender, source, sink, nursery
        self._in_flight: deque[tuple[float, bytes]] = deque()  # when each arrives
        self._in_flight_bytes = 0
        self._arrived = trio.Event()

    async def run(self, early: bytes = b"") -> None:
        """Carry bytes until the stream ends, those first that were read already."""
        try:
            step = self._link.piece_bytes
            for start in range(0, len(early), step):
                await self._carry(early[start : start + step])
            while data := await self._receive():
                await self._carry(data)
            await self._carry(b"")
        except trio.BrokenResourceError:
            await self._break()

    async def _receive(self) -> bytes:
        try:
            return bytes(await self._source.receive_some(self._link.piece_bytes))
        except trio.BrokenResourceError:
            await self._carry(b"")  # the news travels behind what was sent
            await self._drain(0)
            raise

    async def _carry(self, data: bytes) -> None:
        arrives_at = await self._link.send(self._sender, len(data))
        if not self._in_flight and arrives_at <= trio.current_time():
            await self._hand_on(data)
            return
        if not self._in_flight:
            self._nursery.start_soon(self._arrive)
        self._in_flight.append((arrives_at, data))
        self._in_flight_bytes += len(data)
        await self._drain(self._link.in_flight_bytes_max)

    async def _drain(self, bytes_max: float) -> None:
        """Wait until no more than so much is in flight; with 0, no end of a stream either."""
        while self._in_flight_bytes > bytes_max or (self._in_flight and not bytes_max):
            self._arrived = trio.Event()
            await self._arrived.wait()

    async def _arrive(self) -> None:
        try:
            while self._in_flight:
                arrives_at, data = self._in_flight[0]
                await trio.sleep_until(arrives_at)
                await self._hand_on(data)
                self._in_flight.popleft()
                self._in_flight_bytes -= len(data)
                self._arrived.set()
        except trio.BrokenResourceError:
            await self._break()

    async def _hand_on(self, data: bytes) -> None:
        await self._link.healed()
        if data:
            await self._sink.send_all(data)
            self._link.carried += len(data)
        else:
            await self._sink.send_eof()

    async def _break(self) -> None:
        await self._link.healed()  # who is behind a cut does not learn of it
        self._nursery.cancel_scope.cancel()


async def relay(
    link: Link,
    caller: str,
    called: str,
    streams: tuple[trio.abc.HalfCloseableStream, trio.abc.HalfCloseableStream],
    early: bytes = b"",
) -> None:
    """Carry bytes over a link, both ways, until both streams have ended or one has broken.

    Parameters
    ----------
    caller, called : str
        The peers at its ends.
    streams : pair of HalfCloseableStream
        To the caller, and to the called.
    early : bytes
        What has been read from the caller before.
    """
    near, far = streams
    link.connections += 1
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Direction(link, caller, near, far, nursery).run, early)
            nursery.start_soon(Direction(link, called, far, near, nursery).run)
    finally:
        link.connections -= 1


async def hold(link: Link, stream: trio.abc.ReceiveStream, bytes_max: int) -> bytes | None:
    """Wait for as long as a link is cut; what a caller has sent by then, or None if it has given up.

    A call over a link that is cut has not arrived, so it leaves nothing behind.
    """
    early = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_when_healed, link, nursery.cancel_scope)
        try:
            while len(early) < bytes_max:
                data = await stream.receive_some(bytes_max - len(early))
                if not data:
                    return None
                early += data
        except trio.BrokenResourceError:
            return None
        finally:
            if len(early) < bytes_max:
                nursery.cancel_scope.cancel()
    return bytes(early)


async def _cancel_when_healed(link: Link, scope: trio.CancelScope) -> None:
    await link.healed()
    scope.cancel()
