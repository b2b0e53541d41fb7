"""How a peer that knows one address of a run that is under way gets to know the run.

Theory of operation
-------------------
A certificate holds one name, and whoever connects by gRPC has to say which one it expects. A peer that joins does not
know whom it will find, so it connects twice: by Python's own TLS, to read from a certificate of the run's authority who
is there, and then by gRPC, to ask that peer and no other for an introduction. In plaintext the answer's word is taken.

Whatever time can mend, such as a member that is not up yet, is tried again for as long as the peer has to wait.

Invariant
---------
Nothing is believed of anybody whom the authority has not signed, and nothing is sent to it but the own certificate.
"""

from __future__ import annotations

import ssl

import grpc
import grpc.aio
import trio

from algorithms.protocol import Reason
from node.errors import NetworkError
from node.guard import NAME
from node.wire.bridge import Bridge, Closed, open_bridge
from node.wire.framing import Malformed
from node.wire.grpc import REASONS, dial
from node.wire.introduction import INTRODUCTION_BYTES_MAX, Introduction, ask, read_introduction
from node.wire.limits import Limits
from node.wire.server import CLAIM, SERVICE
from node.wire.tls import Identity
from node.wire.transport import Undelivered

ATTEMPT_S, PAUSE_S = 5.0, 0.5
"""Longest time of one attempt, and the time between two."""

REFUSALS = {
    Reason.NOT_MY_NEIGHBOUR: "does not let {name} in: only runs of algorithms that let peers come and go can be "
    "joined, and only by names that are not denied there",
    Reason.WRONG_VERSION: "speaks another version of the protocol: run the same gradvine on both",
    Reason.MALFORMED: "gives no answer that makes sense: run the same gradvine on both",
    Reason.TOO_LARGE: "can't tell its plan, which is too large: only runs with a smaller one can be joined",
}


async def find_run(address: str, name: str, identity: Identity | None, wait_s: float) -> Introduction:
    """Ask whoever is at an address what run it is in.

    Parameters
    ----------
    address : str
        ``HOST:PORT`` of any member.
    name : str
        The peer that asks.
    identity : Identity or None
        Its key and certificate. None is explicit plaintext.
    wait_s : float
        How long to try, where nobody answers; once in any case.

    Raises
    ------
    NetworkError
        When nobody answers, or not with an introduction.
    """
    last_s = trio.current_time() + wait_s - PAUSE_S
    async with open_bridge() as bridge:
        while True:
            try:
                return await _attempt(bridge, address, name, identity)
            except Undelivered as failure:
                if trio.current_time() > last_s or not failure.reason.transient:
                    raise NetworkError(_why(address, name, wait_s, failure.reason)) from None
            await trio.sleep(PAUSE_S)


def _why(address: str, name: str, wait_s: float, reason: Reason) -> str:
    if reason.transient:
        return (
            f"no peer introduces itself at {address} within {wait_s:g}s ({reason.value}): write the address of one "
            "that runs, and use certificates of the same authority, or --insecure, on both."
        )
    said = REFUSALS.get(reason, f"refuses: {reason.value}").format(name=name)
    return f"the peer at {address} {said}."


async def _attempt(bridge: Bridge, address: str, name: str, identity: Identity | None) -> Introduction:
    with trio.move_on_after(ATTEMPT_S):
        proven = await who_is_there(address, identity) if identity else ""
        if proven == name:
            raise NetworkError(f"{address} is where {name} itself is: write the address of another member.")
        try:
            introduction = await bridge.call(_ask, address, proven, name, identity)
        except Malformed:
            raise Undelivered(Reason.MALFORMED) from None
        except Closed:
            raise Undelivered(Reason.UNREACHABLE) from None
        if proven and introduction.contact != proven:
            raise Undelivered(Reason.MALFORMED)
        return introduction
    raise Undelivered(Reason.TIMEOUT)


async def _ask(address: str, proven: str, name: str, identity: Identity | None) -> Introduction:
    """In asyncio."""
    found = await call_once("Introduce", ask(), INTRODUCTION_BYTES_MAX, ATTEMPT_S, address, proven, name, identity)
    return read_introduction(found, address)


async def call_once(
    method: str,
    request: bytes,
    answer_bytes_max: int,
    wait_s: float,
    address: str,
    proven: str,
    name: str,
    identity: Identity | None,
) -> bytes:
    """In asyncio: the answer to one call of a peer of which only the address is known; raises :class:`Undelivered`.

    ``proven`` is the name in its certificate, and ``name`` the caller's, which it only claims in plaintext.
    """
    options = dict(Limits().channel_options()) | {"grpc.max_receive_message_length": answer_bytes_max}
    metadata = () if identity else ((CLAIM, name),)
    async with dial(proven, address, identity, options.items()) as channel:
        try:
            return bytes(await channel.unary_unary(f"/{SERVICE}/{method}")(request, timeout=wait_s, metadata=metadata))
        except grpc.aio.AioRpcError as error:
            raise Undelivered(REASONS.get(error.code(), Reason.UNREACHABLE)) from None


async def who_is_there(address: str, identity: Identity) -> str:
    """The name in the certificate at an address, which the run's authority has signed.

    Raises
    ------
    NetworkError
        When it has not, when the certificate is no peer's, or the peer is denied.
    Undelivered
        When nobody is there who speaks TLS.
    """
    host, _, port = address.rpartition(":")
    context = identity.context()
    try:
        async with await trio.open_tcp_stream(host.strip("[]"), int(port)) as plain:
            secure = trio.SSLStream(plain, context)
            await secure.do_handshake()
            shown = secure.getpeercert()
    except (OSError, UnicodeError):  # the latter for what can't be a host's name
        raise Undelivered(Reason.UNREACHABLE) from None
    except trio.BrokenResourceError as error:
        raise _broken(address, error.__cause__) from None
    names = [value for kind, value in shown.get("subjectAltName", ()) if kind == "DNS"]
    if len(names) != 1 or not NAME.match(names[0]):
        raise NetworkError(f"the certificate at {address} is no peer's: write the address of a member.")
    if names[0] in identity.papers.denied:
        raise NetworkError(f"{names[0]}, who is at {address}, is among the --denied: write another member's address.")
    return str(names[0])


def _broken(address: str, cause: BaseException | None) -> Exception:
    """What a handshake that failed says."""
    if isinstance(cause, ssl.SSLCertVerificationError):
        return NetworkError(
            f"the certificate at {address} is not to be trusted ({cause.verify_message}): use one of the run's own "
            "authority."
        )
    return Undelivered(Reason.UNREACHABLE)
