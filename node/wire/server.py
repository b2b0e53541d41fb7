"""A peer's port: where messages, pings, health checks and reflection come in. All of it runs in asyncio.

Theory of operation
-------------------
Every call is first told apart by its caller and counted in; what one caller has too many of is refused at once, before
anything of it is read. A call that has asked for nothing yet is no different: every method, the unary ones too, is
served as a stream whose first message is read here, under a deadline: grpc.aio itself would wait for it for ever.

Invariants
----------
* No caller can hold more calls than its share, nor for longer than its message deserves: nobody can use up the server.
* A refusal is a code; no text of an exception leaves the process.
* Room in the inbox is taken before a body is read and given back unless the message is handed over.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

from algorithms.protocol import Message, Reason
from node.guard import STRANGER, Guard
from node.pace import Agreement, Pace
from node.wire.ending import Finisher
from node.wire.framing import Header, Incoming, Malformed, open_header
from node.wire.greeting import answer, greeting_bytes_max, read_greeting
from node.wire.introduction import Introducer
from node.wire.limits import Limits
from node.wire.tls import OPERATOR, Identity

log = logging.getLogger(__name__)

END: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs lack it

SERVICE = "gradvine.peer.v1.Peer"
CLAIM = "gradvine-name"
"""Metadata key with which a caller says who it is where there is no TLS to prove it."""

INLINE_BYTES_MAX = 2**23
"""Larger messages are looked at in a worker thread: other calls go on meanwhile."""

RECEIPTS: dict[Reason | None, bytes] = {
    reason: answer(reason.name if reason else "ACCEPTED")
    for reason in (None, *Reason)
    if reason not in (Reason.UNREACHABLE, Reason.TIMEOUT)
}


class Observer(Protocol):
    """Who counts. Both are called from threads of the wire's own, and must be quick."""

    def sent(self, to: str, kind: str, size_bytes: int, seconds: float) -> None:
        """A neighbour has taken a message; ``seconds`` is how long it took from encoding to receipt."""

    def received(self, sender: str, kind: str, size_bytes: int) -> None:
        """A message has been put into the inbox."""


class PeerService:
    """The methods of ``peer.proto``, and the standard ones beside them.

    Parameters
    ----------
    guard : Guard
        Says who and what may enter.
    identity : Identity or None
        None where callers only claim their names.
    observer : Observer
        Counts what was received.
    limits : Limits
        How long a call may take.
    take : callable
        ``take(sender, message, room)`` puts a message into the inbox; whoever takes it out releases its room.
    agreement : Agreement
        What callers are told of the run's pace.
    hear : callable
        ``hear(sender, pace)`` takes in what a caller knows of it.
    introducer : Introducer
        Answers those who want to join.
    finisher : Finisher
        Answers an operator who wants to end the run.
    """

    def __init__(
        self,
        guard: Guard,
        identity: Identity | None,
        observer: Observer,
        limits: Limits,
        take: Callable[[str, Message, int], None],
        agreement: Agreement,
        hear: Callable[[str, Pace], None],
        introducer: Introducer,
        finisher: Finisher,
    ) -> None:
        self._guard = guard
        self._identity = identity
        self._observer = observer
        self._limits = limits
        self._take = take
        self._agreement = agreement
        self._hear = hear
        self._introducer, self._finisher = introducer, finisher
        self._other_calls: Counter[str] = Counter()

    async def attach(self, server: grpc.aio.Server) -> None:
        """Register every method with a server that has not started."""
        health = HealthServicer()
        await health.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
        standard = _Shelf()
        health_pb2_grpc.add_HealthServicer_to_server(health, standard)
        names = (SERVICE, "grpc.health.v1.Health", reflection.SERVICE_NAME)
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(ReflectionServicer(names), standard)
        methods = {name: self._counted(handler) for name, handler in standard.methods.items()}
        for name, who in (("Introduce", self._introducer), ("Finish", self._finisher)):
            methods[f"/{SERVICE}/{name}"] = self._counted(self._answered_by(who))
        methods[f"/{SERVICE}/Deliver"] = grpc.stream_unary_rpc_method_handler(self.deliver)
        methods[f"/{SERVICE}/Ping"] = grpc.stream_unary_rpc_method_handler(self.ping)
        server.add_generic_rpc_handlers((_Router(methods),))

    # ---------------------------------------------------------------------------------- peer.proto

    async def deliver(self, _: object, context: Any) -> bytes:
        """Take one message in, or say why not."""
        sender = self._caller(context)
        reason = self._guard.enter(sender)
        if reason is not None:
            return RECEIPTS[reason]
        try:
            reason = await self._message(sender, context)
        except Malformed as error:
            reason = self._guard.refuse(sender, Reason.MALFORMED, str(error))
        except TimeoutError:
            self._guard.refuse(sender, Reason.TIMEOUT, "a message that did not come to its end")
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED)
        except Exception:
            log.exception("a message of %s could not be taken in", sender)
            await context.abort(grpc.StatusCode.INTERNAL)
        finally:
            self._guard.leave(sender)
        return RECEIPTS[reason]

    async def ping(self, _: object, context: Any) -> bytes:
        """Say whether the caller is of this run, and what is known of the run's pace."""
        caller, nodes = self._caller(context), self._guard.members
        if not self._guard.is_member(caller):  # whose greeting is not worth reading
            return RECEIPTS[self._guard.refuse(caller, Reason.NOT_MY_NEIGHBOUR, "no other member of the run")]
        async with self._counted_in(context):
            try:
                with Deadline(self._limits.wait_s()):
                    header, pace = read_greeting(await _first(context), greeting_bytes_max(len(nodes)))
            except Malformed as error:
                return RECEIPTS[self._guard.refuse(caller, Reason.MALFORMED, str(error))]
            reason = self._guard.greet(caller, header)
            if reason is None and not pace.fits(nodes):
                reason = self._guard.refuse(caller, Reason.MALFORMED, "durations that can't be true")
            if reason is not None:
                return RECEIPTS[reason]
            self._hear(caller, pace)
            return answer("ACCEPTED", self._agreement.known)

    def _answered_by(self, who: Introducer | Finisher) -> Any:
        """A method that needs to know no more than who asks for what."""

        async def respond(request: bytes, context: Any) -> bytes:
            return who.answer(self._caller(context), request)

        return grpc.unary_unary_rpc_method_handler(respond, bytes)

    async def _message(self, sender: str, context: Any) -> Reason | None:
        with Deadline(self._limits.wait_s()) as deadline:
            header = open_header(await _first(context))
            room = header.memory_bytes
            reason = self._guard.admit(sender, header) or self._guard.reserve(sender, room)
            if reason is not None:
                return reason
            handed_over = False
            try:
                deadline.extend(self._limits.wait_s(header.following_bytes))
                message, reason = await self._body(sender, header, context)
                if reason is None:
                    self._take(sender, message, room)
                    handed_over = True
                    self._observer.received(sender, header.kind, header.size_bytes)
            finally:
                if not handed_over:
                    self._guard.release(sender, room)
            return reason

    async def _body(self, sender: str, header: Header, context: Any) -> tuple[Message, Reason | None]:
        layout = self._guard.layout
        incoming = Incoming(header, layout.size, layout.torch_dtype)
        while (frame := await context.read()) is not END:
            incoming.feed(frame)

        def judge() -> tuple[Message, Reason | None]:
            message = incoming.finish()
            return message, self._guard.check(sender, message)

        if header.memory_bytes <= INLINE_BYTES_MAX:
            return judge()
        return await asyncio.get_running_loop().run_in_executor(None, judge)

    # ------------------------------------------------------------------------------ who calls, how often

    def _caller(self, context: Any) -> str:
        if self._identity is not None:
            return self._identity.caller(context.auth_context()) or STRANGER
        return str(dict(context.invocation_metadata()).get(CLAIM, STRANGER))

    @asynccontextmanager
    async def _counted_in(self, context: Any) -> AsyncIterator[None]:
        caller = self._caller(context)
        key = caller if caller == OPERATOR else self._guard.known_as(caller)  # no stranger can use up its share
        if self._other_calls[key] >= self._limits.other_calls_max:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED)
        self._other_calls[key] += 1
        try:
            yield
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED)
        except (DecodeError, Malformed):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT)
        finally:
            self._other_calls[key] -= 1

    def _counted(self, handler: Any) -> Any:
        """The same method, its caller counted in; a unary request is read as a stream of one."""

        async def request(context: Any) -> Any:
            with Deadline(self._limits.wait_s()):
                return handler.request_deserializer(await _first(context))

        async def answer_once(_: object, context: Any) -> Any:
            async with self._counted_in(context):
                return await handler.unary_unary(await request(context), context)

        async def answer_often(_: object, context: Any) -> None:
            async with self._counted_in(context):
                await handler.unary_stream(await request(context), context)

        async def converse(requests: Any, context: Any) -> AsyncIterator[Any]:
            async with self._counted_in(context):
                async for response in handler.stream_stream(map_async(handler.request_deserializer, requests), context):
                    yield response

        if not handler.response_streaming:
            return grpc.stream_unary_rpc_method_handler(answer_once, None, handler.response_serializer)
        respond = converse if handler.request_streaming else answer_often
        return grpc.stream_stream_rpc_method_handler(respond, None, handler.response_serializer)


async def map_async(fn: Callable[[bytes], Any], items: Any) -> AsyncIterator[Any]:
    """Apply a function to what an asynchronous iterator gives."""
    async for item in items:
        yield fn(item)


async def _first(context: Any) -> bytes:
    frame = await context.read()
    if frame is END:
        raise Malformed("a call that asks for nothing")
    return bytes(frame)


class Deadline:
    """A block of asyncio code that raises TimeoutError when it lasts too long; Python 3.10 has none that can be moved.

    Parameters
    ----------
    seconds : float
        From now.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._passed = False

    def __enter__(self) -> Deadline:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._timer = self._arm(self._seconds)
        return self

    def extend(self, seconds: float) -> None:
        """Let it last that long from now on."""
        self._timer.cancel()
        self._timer = self._arm(seconds)

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        self._timer.cancel()
        if self._passed and kind is asyncio.CancelledError:
            if sys.version_info >= (3, 11):
                self._task.uncancel()
            raise TimeoutError from None

    def _arm(self, seconds: float) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, self._expire)

    def _expire(self) -> None:
        self._passed = True
        self._task.cancel()


class _Router(grpc.GenericRpcHandler):
    def __init__(self, methods: dict[str, Any]) -> None:
        self._methods = methods

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._methods.get(handler_call_details.method)


class _Shelf:
    """What the generated code of a standard service takes for a server: it only puts the methods down."""

    def __init__(self) -> None:
        self.methods: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Not needed: the same methods come by name."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Keep the methods under their full names."""
        self.methods.update({f"/{service}/{name}": handler for name, handler in handlers.items()})
