"""The proxy between peers: whoever connects to one of its ports reaches the peer behind it over their link.

A connection from an address that is nobody's is refused, since nobody could say over which link it should go.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import socket
from collections.abc import Iterable
from functools import partial

import trio

from node.errors import NetworkError
from node.links.doors import Door
from node.links.link import PIECE_BYTES_MAX, Link
from node.links.relay import hold, relay
from node.links.sources import Sources
from node.links.table import Links

log = logging.getLogger(__name__)

CONNECT_S = 5.0
"""Longest time to reach a peer."""

EARLY_BYTES_MAX = 2**16
"""Read from a caller whose link is cut, to see whether it has given up."""

STRANGERS_MAX = 1000
"""Addresses of strangers that are remembered, so that each is told of once."""


class Proxy:
    """Carries connections between peers.

    Parameters
    ----------
    links : Links
    sources : Sources
        Who has which address.

    Attributes
    ----------
    refused : int
        Connections that came from nobody.
    """

    def __init__(self, links: Links, sources: Sources) -> None:
        self._links, self._sources = links, sources
        self._strangers: set[str] = set()
        self.refused = 0

    async def serve(self, open_doors: Iterable[tuple[Door, list[trio.SocketListener]]]) -> None:
        """Let in whoever comes, for ever."""
        async with trio.open_nursery() as nursery:
            for door, listeners in open_doors:
                nursery.start_soon(trio.serve_listeners, partial(self._answer, door), listeners)

    async def _answer(self, door: Door, near: trio.SocketStream) -> None:
        async with near:
            try:
                address = near.socket.getpeername()[0]
            except OSError:
                return  # it has gone already
            source = door.source or await self._sources.who(address)
            if source is None:
                self._refuse(address)
                return
            link = self._links.between(source, door.target)
            early = await hold(link, near, EARLY_BYTES_MAX) if link.is_cut else b""
            if early is not None:
                await self._connect(link, source, door, near, early)

    async def _connect(self, link: Link, source: str, door: Door, near: trio.SocketStream, early: bytes) -> None:
        host, _, port = door.address.rpartition(":")
        try:
            with trio.fail_after(CONNECT_S):
                far = await trio.open_tcp_stream(host.strip("[]"), int(port))
        except (OSError, UnicodeError, trio.TooSlowError) as error:
            log.debug("%s can't reach %s at %s: %s", source, door.target, door.address, error)
            return
        async with far:
            for stream in (near, far):
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, PIECE_BYTES_MAX)
            await relay(link, source, door.target, (near, far), early)

    def _refuse(self, address: str) -> None:
        self.refused += 1
        if address not in self._strangers and len(self._strangers) < STRANGERS_MAX:
            self._strangers.add(address)
            log.warning("a connection from %s is refused: no peer of the plan is there", address)


async def open_door(door: Door) -> list[trio.SocketListener]:
    """Listen there.

    Raises
    ------
    NetworkError
        When the address can't be used.
    """
    host, _, port = door.listen.rpartition(":")
    try:
        return await trio.open_tcp_listeners(int(port), host=host.strip("[]"))
    except (OSError, UnicodeError) as error:  # the latter for a host such as a..b
        reason = getattr(error, "strerror", None) or error
        raise NetworkError(f"can't listen on {door.listen}: {reason}.") from None


def allow_many_connections() -> None:
    """As many open files as this process may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
