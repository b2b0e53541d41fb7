"""How an operator's command reaches a peer, whichever it is, and has it end the run."""

from __future__ import annotations

import trio

from algorithms.protocol import Reason
from node.errors import ConfigError, NetworkError, UserError
from node.wire.bridge import Closed, open_bridge
from node.wire.ending import RECEIPT_BYTES_MAX, give_order, read_receipt
from node.wire.framing import Malformed
from node.wire.joining import call_once, who_is_there
from node.wire.tls import OPERATOR, Identity
from node.wire.transport import Undelivered

WAIT_S = 5.0

REFUSALS: dict[Reason, tuple[type[UserError], str]] = {
    Reason.NOT_MY_NEIGHBOUR: (
        NetworkError,
        "lets nobody but the operator end its run: write --certs with the operator's folder, as gradvine certs made it",
    ),
    Reason.WRONG_RUN: (
        ConfigError,
        "is in a run without a final merge, which can't be ended so: send each daemon a SIGTERM",
    ),
    Reason.BUSY: (NetworkError, "does not learn yet, or leaves, or has too many calls: try again, or another peer"),
    Reason.WRONG_VERSION: (NetworkError, "speaks another version of the protocol: run the same gradvine on both"),
    Reason.MALFORMED: (NetworkError, "gives no answer that makes sense: run the same gradvine on both"),
}


async def finish_run(address: str, identity: Identity | None) -> tuple[str, int]:
    """Have a peer end its run.

    Parameters
    ----------
    address : str
        ``HOST:PORT`` of any peer of the run.
    identity : Identity or None
        The operator's key and certificate. None is explicit plaintext.

    Returns
    -------
    (str, int)
        The peer's proven name, empty in plaintext, and how many live neighbours it has.

    Raises
    ------
    UserError
        When it does not.
    """
    try:
        with trio.fail_after(WAIT_S):
            async with open_bridge() as bridge:
                proven = await who_is_there(address, identity) if identity else ""
                return proven, await bridge.call(_order, address, proven, identity)
    except (Closed, trio.TooSlowError):
        reason = Reason.UNREACHABLE
    except Malformed:
        reason = Reason.MALFORMED
    except Undelivered as failure:
        reason = failure.reason
    if reason not in REFUSALS:
        raise NetworkError(
            f"no peer answers at {address} ({reason.value}): write where its neighbours reach it, and use certificates "
            "of the same authority, or --insecure, as the run does."
        )
    kind, said = REFUSALS[reason]
    raise kind(f"the peer at {address} {said}.")


async def _order(address: str, proven: str, identity: Identity | None) -> int:
    """In asyncio."""
    return read_receipt(
        await call_once("Finish", give_order(), RECEIPT_BYTES_MAX, WAIT_S, address, proven, OPERATOR, identity)
    )
