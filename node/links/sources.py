"""Which peer a connection comes from, told by its address.

Containers change their addresses when they are started anew or put back on a network, and get those of others. So a
name is believed only while it still resolves to the address; if it does not, all names are resolved again.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable

import trio

PATIENCE_S = 2.0
"""Names that are not resolved by then belong to peers that are not there."""


async def resolve(name: str) -> set[str]:
    """The addresses of a host; none when it is not known."""
    try:
        found = await trio.socket.getaddrinfo(name, None, type=trio.socket.SOCK_STREAM)
    except OSError:
        return set()
    return {plain(str(entry[4][0])) for entry in found}


def plain(address: str) -> str:
    """An IP address in one form, IPv4 as such also where a socket shows it as IPv6.

    >>> plain("::ffff:10.0.0.7")
    '10.0.0.7'
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)


class Sources:
    """The peers' names by their addresses.

    Parameters
    ----------
    names : iterable of str
        Which are host names as well.
    resolve : callable
        Gives a host's addresses.
    """

    def __init__(self, names: Iterable[str], resolve: Callable[[str], Awaitable[set[str]]] = resolve) -> None:
        self._names, self._resolve = list(names), resolve
        self._by_address: dict[str, str] = {}
        self._turn = trio.Lock()
        self._passes = 0  # begun

    async def who(self, address: str) -> str | None:
        """The peer at an IP address; None when it is nobody's."""
        address = plain(address)
        name = self._by_address.get(address)
        with trio.move_on_after(PATIENCE_S):
            if name is not None and address in await self._resolve(name):
                return name
        begun = self._passes
        async with self._turn:
            if self._passes == begun:  # one that began later has seen all that this one would
                self._passes += 1
                await self._resolve_all()
        return self._by_address.get(address)

    async def _resolve_all(self) -> None:
        found: dict[str, set[str]] = {}

        async def look_up(name: str) -> None:
            found[name] = await self._resolve(name)

        with trio.move_on_after(PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for name in self._names:
                    nursery.start_soon(look_up, name)
        kept = {address: name for address, name in self._by_address.items() if name not in found}  # no word of it came
        self._by_address = kept | {address: name for name, addresses in found.items() for address in addresses}
