"""How an operator ends a run: one order to one peer, which the final merge carries to all others.

Theory of operation
-------------------
Whoever proves the name ``operator`` by a certificate of the run's authority may give the order to any peer. The peer
answers at once, and begins a wave of the final merge that ends the run of everybody whom it reaches. Orders that come
later change nothing. The operator is no member of the run and can do nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import trio
from google.protobuf.message import DecodeError

from algorithms.protocol import Reason
from node.guard import Guard
from node.wire.framing import VERSION, Malformed
from node.wire.greeting import reason_of
from node.wire.tls import OPERATOR
from node.wire.transport import Undelivered
from protos import peer_pb2

ORDER_BYTES_MAX = RECEIPT_BYTES_MAX = 2**6


@dataclass
class Ending:
    """What a peer's daemon and its port know in common of an early end.

    Parameters
    ----------
    possible : bool
        Whether the run has a final merge.
    neighbours : int or None
        How many are live; None while the peer does not learn yet, or leaves.
    ordered : trio.Event
        Set when the order has come.
    """

    possible: bool = False
    neighbours: int | None = None
    ordered: trio.Event = field(default_factory=trio.Event)


class Finisher:
    """A peer's answers to orders.

    Parameters
    ----------
    guard : Guard
        Counts refusals.
    ending : Ending
        Whether the order can be taken.
    take : callable
        Called when it is.
    """

    def __init__(self, guard: Guard, ending: Ending, take: Callable[[], None]) -> None:
        self._guard, self._ending, self._take = guard, ending, take

    def answer(self, caller: str, order: bytes) -> bytes:
        """To an order of the caller."""
        finding = self._against(caller, order)
        if finding is not None:
            return peer_pb2.Receipt(code=self._guard.refuse(caller, *finding).name).SerializeToString()
        self._take()
        return peer_pb2.Receipt(code="ACCEPTED", neighbours=self._ending.neighbours).SerializeToString()

    def _against(self, caller: str, order: bytes) -> tuple[Reason, str] | None:
        if caller != OPERATOR:
            return Reason.NOT_MY_NEIGHBOUR, "only the operator ends a run"
        try:
            version = _read_order(order)
        except Malformed as error:
            return Reason.MALFORMED, str(error)
        if version != VERSION:
            return Reason.WRONG_VERSION, f"speaks version {version}, not {VERSION}"
        if not self._ending.possible:
            return Reason.WRONG_RUN, "a run without a final merge can't be ended so"
        if self._ending.neighbours is None:
            return Reason.BUSY, "the peer does not learn now"
        return None


def give_order() -> bytes:
    """The request."""
    return peer_pb2.Order(version=VERSION).SerializeToString()


def _read_order(data: bytes) -> int:
    if len(data) > ORDER_BYTES_MAX:
        raise Malformed(f"an order of {len(data)} bytes")
    try:
        return int(peer_pb2.Order.FromString(data).version)
    except DecodeError:
        raise Malformed("no order") from None


def read_receipt(data: bytes) -> int:
    """How many neighbours the peer has that has taken the order.

    Raises
    ------
    Malformed
        When the answer is none.
    Undelivered
        When it is a refusal.
    """
    if len(data) > RECEIPT_BYTES_MAX:
        raise Malformed(f"a receipt of {len(data)} bytes")
    try:
        receipt = peer_pb2.Receipt.FromString(data)
    except DecodeError:
        raise Malformed("no receipt") from None
    if receipt.code != peer_pb2.ACCEPTED:
        raise Undelivered(reason_of(receipt.code))
    return int(receipt.neighbours)
