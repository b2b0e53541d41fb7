"""Two peers on this machine's sockets, and a caller that keeps to no rules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import torch
import trio

from algorithms.compression import CODECS
from algorithms.layout import Layout, Slot
from algorithms.protocol import Kind, Message, Reason
from node.guard import Guard
from node.pace import Agreement, Pace
from node.wire.authority import make_certificates
from node.wire.bridge import Bridge, open_bridge
from node.wire.ending import Ending
from node.wire.framing import encode
from node.wire.grpc import GrpcTransport, open_grpc
from node.wire.limits import Limits
from node.wire.tls import Identity
from protos import peer_pb2
from topology.plan import Plan

KINDS = {"offer": Kind("owner", ("model",), ("lost",)), "reply": Kind("peer", ("change",)), "hello": Kind("neighbour")}


@dataclass
class Counts:
    """An observer, and the guard's callback."""

    sent_all: list[tuple[str, str, int]] = field(default_factory=list)
    received_all: list[tuple[str, str, int]] = field(default_factory=list)
    refused_all: list[tuple[str, Reason]] = field(default_factory=list)

    def sent(self, to: str, kind: str, size_bytes: int, seconds: float) -> None:
        assert seconds >= 0
        self.sent_all.append((to, kind, size_bytes))

    def received(self, sender: str, kind: str, size_bytes: int) -> None:
        self.received_all.append((sender, kind, size_bytes))

    def refused(self, sender: str, reason: Reason) -> None:
        self.refused_all.append((sender, reason))


@dataclass
class Peer:
    """One end: ``a`` owns its edges, so that it may send offers."""

    transport: GrpcTransport
    guard: Guard
    counts: Counts
    bridge: Bridge
    identity: Identity | None
    size: int
    agreement: Agreement

    def offer(self, number: int = 1, value: float = 1.0) -> Message:
        return Message("offer", number, {"model": torch.full((self.size,), value)}, {"lost": 0.0})

    def frames(self, message: Message | None = None) -> list[bytes]:
        """A message to this peer as an honest neighbour would send it."""
        return list(encode(message or self.offer(), self.guard.terms, 8).frames())

    async def take(self) -> tuple[str, Message]:
        with trio.fail_after(20):
            async for sender, message in self.transport.receive():
                return sender, message
        raise AssertionError("the inbox has been closed")

    def channel(self, credentials: grpc.ChannelCredentials | None) -> Any:
        """To this peer, in asyncio."""
        target = f"127.0.0.1:{self.transport.port}"
        options = [("grpc.ssl_target_name_override", "b"), ("grpc.use_local_subchannel_pool", 1)]
        if credentials is None:
            return grpc.aio.insecure_channel(target, options)
        return grpc.aio.secure_channel(target, credentials, options)

    async def call(
        self,
        frames: Iterable[bytes],
        method: str = "Deliver",
        sender: str = "a",
        credentials: grpc.ChannelCredentials | None = None,
    ) -> str:
        """Send these bytes; the receipt's code or the call's status."""

        async def go() -> str:
            async with self.channel(credentials) as channel:
                call = channel.stream_unary(f"/gradvine.peer.v1.Peer/{method}")(
                    iter(frames), metadata=(("gradvine-name", sender),), timeout=20
                )
                try:
                    return peer_pb2.Code.Name(peer_pb2.Receipt.FromString(await call).code)
                except grpc.aio.AioRpcError as error:
                    return error.code().name

        return await self.bridge.call(go)


class Wires:
    """Opens peers; every test has its own."""

    def __init__(self, certificates: Path) -> None:
        self.certificates = certificates

    @asynccontextmanager
    async def peer(
        self,
        bridge: Bridge,
        name: str,
        others: dict[str, str],
        *,
        owned: bool,
        size: int = 6,
        tls: bool = False,
        limits: Limits = Limits(),
        bind: str = "127.0.0.1:0",
        denied: Path | None = None,
        run: str = "r",
        knows: Pace = Pace(),
        plan: Plan | None = None,
        ending: Ending | None = None,
        kinds: Mapping[str, Kind] = KINDS,
        **guard_changes: Any,
    ) -> AsyncIterator[Peer]:
        counts = Counts()
        layout = Layout((Slot("w", (size,), "weight", 0),), "float32")
        settings = {"codec": CODECS["none"], "inbox_bytes_max": 2**28, "refused": counts.refused} | guard_changes
        guard = Guard(
            name,
            dict.fromkeys(others, owned),
            {"a", "b", "c"},
            kinds,
            run=run,
            plan_digest="p",
            layout=layout,
            **settings,
        )
        agreement = Agreement(guard.members, knows)
        identity = Identity.load(self.certificates / name, denied) if tls else None
        async with open_grpc(
            name=name,
            bind=bind,
            addresses=others,
            guard=guard,
            identity=identity,
            observer=counts,
            limits=limits,
            bridge=bridge,
            agreement=agreement,
            plan=plan,
            ending=ending,
        ) as transport:
            yield Peer(transport, guard, counts, bridge, identity, size, agreement)

    @asynccontextmanager
    async def pair(self, *, size: int = 6, tls: bool = False, **of_b: Any) -> AsyncIterator[tuple[Peer, Peer]]:
        """``a``, which owns the edge, and ``b``."""
        async with (
            open_bridge() as bridge,
            self.peer(bridge, "b", {"a": "127.0.0.1:1", "c": ""}, owned=False, size=size, tls=tls, **of_b) as b,
            self.peer(bridge, "a", {"b": f"127.0.0.1:{b.transport.port}"}, owned=True, size=size, tls=tls) as a,
        ):
            yield a, b


@pytest.fixture(scope="session")
def certificates(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    make_certificates(["a", "b", "c"], folder)
    return folder


@pytest.fixture
def wires(certificates) -> Wires:
    return Wires(certificates)
