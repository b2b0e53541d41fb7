"""What is known of members, as bytes: a ``View`` of ``peer.proto``. Pure: no network in here.

Of a view that comes in nothing is believed but its form: whether it can be true is the algorithm's to say.
"""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import DecodeError

from algorithms.protocol import COUNT_MAX
from algorithms.view import Standing
from protos import peer_pb2
from topology.plan import NAME, is_address

VIEW_BYTES_MAX = 2**20
"""Of one message's view, which travels as a single frame: some 20,000 members with their addresses."""

VIEW_GROWTH = 32
"""A view may take up so many times its bytes in memory: 8 as a rule, 22 where all in it is as short as can be; while it
is read it is there once more, as protobuf has it."""

ADDRESS_MAX = 255
STANDING_BYTES_MAX = 400
"""Of one member's, with the longest name and address and the largest numbers."""


def write_view(view: Mapping[str, Standing]) -> bytes:
    """A view, in the order of names: equal views are equal bytes."""
    standings = [_write(name, view[name]) for name in sorted(view)]
    return peer_pb2.View(standings=standings).SerializeToString()


def read_view(data: bytes) -> dict[str, Standing]:
    """A view that has come in.

    Raises
    ------
    ValueError
        When it is none, or names nobody or somebody twice, or has an address or a number that can't be one.
    """
    try:
        raw = peer_pb2.View.FromString(data)
    except DecodeError:
        raise ValueError("no view") from None
    view = {one.name: _read(one) for one in raw.standings}
    if len(view) < len(raw.standings):
        raise ValueError("a member twice in a view")
    return view


def _write(name: str, standing: Standing) -> peer_pb2.Standing:
    active, counter, left, address, doubted = standing
    return peer_pb2.Standing(
        name=name, active=active + 1, counter=counter + 1, left=left, address=address, doubted=doubted + 1
    )


def _read(raw: peer_pb2.Standing) -> Standing:
    if not NAME.fullmatch(raw.name):
        raise ValueError("a member without a name in a view")
    if max(raw.active, raw.counter, raw.doubted) > COUNT_MAX:
        raise ValueError("a number too large in a view")
    if raw.address and not _sane(raw.address):
        raise ValueError("an address in a view that is none")
    return Standing(raw.active - 1, raw.counter - 1, raw.left, raw.address, raw.doubted - 1)


def _sane(address: str) -> bool:
    return len(address) <= ADDRESS_MAX and is_address(address)
