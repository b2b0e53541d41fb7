"""The network of real peers: gRPC with mTLS, seen from trio.

Theory of operation
-------------------
:func:`open_grpc` listens on one port and keeps a channel to each neighbour, all in the asyncio thread behind the
bridge. A message crosses the bridge once on its way out and once on its way in; its chunks never do. gRPC itself
connects, probes and reconnects; a send has a deadline, after which it is the sender's algorithm that knows what to do.

Invariants
----------
* A neighbour that hangs delays nobody but the senders of messages to it, and those until their deadline.
* The name behind an address is proven by its certificate, or the connection fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import trio

from algorithms.protocol import Message, Reason
from node.errors import NetworkError
from node.guard import Guard
from node.pace import Agreement, Pace
from node.wire.bridge import Bridge, Closed, open_bridge
from node.wire.ending import Ending, Finisher
from node.wire.framing import Malformed, Outgoing, encode
from node.wire.greeting import greet, greeting_bytes_max, read_answer, reason_of
from node.wire.introduction import Introducer
from node.wire.limits import Limits
from node.wire.server import CLAIM, INLINE_BYTES_MAX, SERVICE, Observer, PeerService
from node.wire.tls import Identity
from node.wire.transport import Undelivered
from protos import peer_pb2
from topology.plan import Plan

REASONS = {
    grpc.StatusCode.DEADLINE_EXCEEDED: Reason.TIMEOUT,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Reason.BUSY,
    grpc.StatusCode.UNIMPLEMENTED: Reason.WRONG_VERSION,
}
"""What a failed call means; everything else is UNREACHABLE."""


@dataclass(slots=True)
class _Encoding:
    """Of a message under way: to how many, and what it looks like on the wire."""

    sends: int = 0
    outgoing: Outgoing | None = None
    turn: trio.Lock = field(default_factory=trio.Lock)


class GrpcTransport:
    """One peer's end of the network, a :class:`~node.wire.transport.Transport`; made by :func:`open_grpc`."""

    def __init__(
        self,
        name: str,
        addresses: Mapping[str, str],
        guard: Guard,
        identity: Identity | None,
        observer: Observer,
        limits: Limits,
        bridge: Bridge,
        agreement: Agreement,
        introducer: Introducer,
        ending: Ending,
    ) -> None:
        self.port = 0
        self._addresses = dict(addresses)
        self._guard = guard
        self._identity = identity
        self._observer = observer
        self._limits = limits
        self._bridge = bridge
        self._agreement = agreement
        self._introducer = introducer
        self._ending = ending
        self._metadata = () if identity else ((CLAIM, name),)
        self._channels: dict[tuple[str, str], Any] = {}  # of grpc.aio.Channel, by name and address
        self._turns = {to: trio.Semaphore(limits.sends_max) for to in addresses}
        self._under_way: dict[int, _Encoding] = {}  # by the message's id
        self._put, self._inbox = trio.open_memory_channel[tuple[str, Message, int]](float("inf"))  # the guard bounds it

    # ------------------------------------------------------------------------------------- in trio

    async def send(self, to: str, message: Message) -> None:
        """Hand a message to a neighbour's inbox; see :meth:`node.wire.transport.Transport.send`."""
        start = trio.current_time()
        encoding = self._under_way.setdefault(id(message), _Encoding())
        encoding.sends += 1
        try:
            outgoing = await self._encode(message, encoding)
            wait_s = self._limits.wait_s(outgoing.header.following_bytes)
            turn = self._turns.get(to, nullcontext())  # of somebody who has not said where it is, none is needed
            await self._ask(to, wait_s, self._deliver, outgoing, turn)
        finally:
            encoding.sends -= 1
            if not encoding.sends:
                del self._under_way[id(message)]
        self._observer.sent(to, message.kind, outgoing.header.size_bytes, trio.current_time() - start)

    async def ping(self, to: str, wait_s: float | None = None) -> None:
        """Ask whether a neighbour is there and in the same run; raises like :meth:`send`.

        Both tell each other what they know of the run's pace.
        """
        request = greet(self._guard.terms, self._agreement.known)
        no_turn = nullcontext()  # behind long sends it would not be answered in time
        pace = await self._ask(to, wait_s or self._limits.wait_s(), self._greet, request, no_turn)
        if not pace.fits(self._guard.members):
            raise Undelivered(Reason.MALFORMED)
        self._agreement.hear(to, pace)

    def meet(self, to: str, address: str) -> None:
        """From now on ``to`` is reached at ``address``; see :meth:`node.wire.transport.Transport.meet`."""
        self._addresses[to] = address
        self._turns.setdefault(to, trio.Semaphore(self._limits.sends_max))

    async def receive(self) -> AsyncIterator[tuple[str, Message]]:
        """Messages as they come in, each with its proven sender."""
        async for sender, message, room in self._inbox:
            self._guard.release(sender, room)
            yield sender, message
            del message  # or it would stay in memory until the next one comes

    async def reload(self) -> None:
        """Read the certificates and the list of the denied again; connect anew where they have changed.

        Raises
        ------
        NetworkError
            When they can't be used; then everything stays as it was.
        """
        if self._identity is not None and self._identity.reload():
            await self._bridge.call(self._hang_up)

    async def _ask(
        self, to: str, wait_s: float, method: Any, request: Any, turn: AbstractAsyncContextManager[None]
    ) -> Pace:
        denied = self._identity is not None and to in self._identity.papers.denied
        if denied or to not in self._addresses:
            raise Undelivered(Reason.UNREACHABLE)
        receipt = None
        with trio.move_on_after(wait_s):
            async with turn:
                try:
                    receipt = await self._bridge.call(method, to, request, wait_s)
                except Closed:
                    raise Undelivered(Reason.UNREACHABLE) from None
        if receipt is None:
            raise Undelivered(Reason.TIMEOUT)
        code, pace = receipt
        if code != peer_pb2.ACCEPTED:
            raise Undelivered(reason_of(code))
        return pace

    async def _encode(self, message: Message, encoding: _Encoding) -> Outgoing:
        """Once, however many are sent the same message at the same time."""
        terms = self._guard.terms
        if sum(vector.nbytes for vector in message.vectors.values()) <= INLINE_BYTES_MAX:
            encoding.outgoing = encoding.outgoing or encode(message, terms)
            return encoding.outgoing
        async with encoding.turn:
            if encoding.outgoing is None:
                encoding.outgoing = await trio.to_thread.run_sync(encode, message, terms)
        return encoding.outgoing

    def put(self, sender: str, message: Message, room: int) -> None:
        """Put a message into the inbox; a peer that has stopped taking them out has lost it, like any network."""
        try:
            self._put.send_nowait((sender, message, room))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._guard.release(sender, room)

    def shut(self) -> None:
        """End :meth:`receive` once the inbox is empty."""
        self._put.close()

    # ---------------------------------------------------------------------------------- in asyncio

    async def listen(self, bind: str) -> grpc.aio.Server:
        """Start serving; the bound port is :attr:`port`."""

        def take(sender: str, message: Message, room: int) -> None:
            self._bridge.post(self.put, sender, message, room)

        def hear(sender: str, pace: Pace) -> None:
            self._bridge.post(self._agreement.hear, sender, pace)

        finisher = Finisher(self._guard, self._ending, lambda: self._bridge.post(self._ending.ordered.set))
        # The shares of all callers fit in, so that no caller can use up the server with calls within its own.
        calls_max = 64 + self._guard.callers_max * (self._limits.sends_max + self._limits.other_calls_max)
        server = grpc.aio.server(options=self._limits.server_options(), maximum_concurrent_rpcs=calls_max)
        seen = (self._guard, self._identity, self._observer, self._limits)
        service = PeerService(*seen, take, self._agreement, hear, self._introducer, finisher)
        await service.attach(server)
        try:
            if self._identity is not None:
                self.port = server.add_secure_port(bind, self._identity.server_credentials())
            else:
                self.port = server.add_insecure_port(bind)
        except RuntimeError:
            raise NetworkError(
                f"can't listen on {bind}: the port is taken, or the address is not this machine's."
            ) from None
        await server.start()
        return server

    async def close(self, server: grpc.aio.Server) -> None:
        """Stop serving and calling."""
        await asyncio.gather(server.stop(self._limits.grace_s), self._hang_up())

    async def _hang_up(self) -> None:
        channels, self._channels = self._channels, {}
        await asyncio.gather(*(channel.close(self._limits.grace_s) for channel in channels.values()))

    async def _deliver(self, to: str, outgoing: Outgoing, timeout_s: float) -> tuple[int, Pace]:
        call = self._channel(to).stream_unary(f"/{SERVICE}/Deliver")(timeout=timeout_s, metadata=self._metadata)
        try:
            for frame in outgoing.frames():
                await call.write(frame)
            await call.done_writing()
        except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
            pass  # the answer came before the end: it says why
        return await self._receipt(call)

    async def _greet(self, to: str, request: bytes, timeout_s: float) -> tuple[int, Pace]:
        return await self._receipt(
            self._channel(to).unary_unary(f"/{SERVICE}/Ping")(request, timeout=timeout_s, metadata=self._metadata)
        )

    async def _receipt(self, call: Any) -> tuple[int, Pace]:
        try:
            return read_answer(await call, greeting_bytes_max(len(self._guard.members)))
        except grpc.aio.AioRpcError as error:
            raise Undelivered(REASONS.get(error.code(), Reason.UNREACHABLE)) from None
        except Malformed:
            raise Undelivered(Reason.MALFORMED) from None

    def _channel(self, to: str) -> Any:
        address = self._addresses[to]
        key = to, address
        if key not in self._channels:
            self._channels[key] = dial(to, address, self._identity, self._limits.channel_options())
        return self._channels[key]


def dial(to: str, address: str, identity: Identity | None, options: Iterable[tuple[str, Any]]) -> Any:
    """In asyncio: a channel to an address; unless it is plaintext, only one behind which ``to`` proves to be."""
    if identity is None:
        return grpc.aio.insecure_channel(address, [*options])
    expected = ("grpc.ssl_target_name_override", to)
    return grpc.aio.secure_channel(address, identity.channel_credentials(), [*options, expected])


@asynccontextmanager
async def open_grpc(
    *,
    name: str,
    bind: str,
    addresses: Mapping[str, str],
    guard: Guard,
    identity: Identity | None,
    observer: Observer,
    limits: Limits = Limits(),
    bridge: Bridge | None = None,
    agreement: Agreement | None = None,
    plan: Plan | None = None,
    ending: Ending | None = None,
) -> AsyncIterator[GrpcTransport]:
    """Listen, and be able to reach the neighbours.

    Parameters
    ----------
    name : str
        The peer's own name.
    bind : str
        ``HOST:PORT`` to listen on; port 0 is any free one, which ``transport.port`` then tells.
    addresses : mapping of str to str
        ``HOST:PORT`` of everybody that is sent to.
    guard : Guard
        Says what may enter, and counts what may not.
    identity : Identity or None
        Key and certificate. None is explicit plaintext: then callers only claim their names.
    observer : Observer
        Counts messages.
    limits : Limits
        Waits and bounds.
    bridge : Bridge, optional
        To share one asyncio thread among several peers of one process.
    agreement : Agreement, optional
        What pings and their answers carry; by default this peer knows nothing of the run's pace.
    plan : Plan, optional
        Told to whoever wants to join; by default nobody can.
    ending : Ending, optional
        How an operator ends the run; by default none can.

    Raises
    ------
    NetworkError
        When the port can't be listened on, or the certificate is for another name.
    """
    if identity is not None and identity.name != name:
        raise NetworkError(f"the certificate is for {identity.name}, this peer is {name}: give it its own.")
    async with _shared(bridge) as crossing:
        agreed = agreement or Agreement(guard.members)
        introducer = Introducer(guard, plan)
        own = (name, addresses, guard, identity, observer, limits)
        transport = GrpcTransport(*own, crossing, agreed, introducer, ending or Ending())
        server = await crossing.call(transport.listen, bind)
        try:
            yield transport
        finally:
            with trio.CancelScope(shield=True):
                await crossing.call(transport.close, server)
            transport.shut()


@asynccontextmanager
async def _shared(bridge: Bridge | None) -> AsyncIterator[Bridge]:
    if bridge is not None:
        yield bridge
    else:
        async with open_bridge() as own:
            yield own
