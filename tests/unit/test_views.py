"""Views: what goes in comes out, in the bytes of peer.proto, and nothing else ever does."""

import itertools
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.protocol import COUNT_MAX
from algorithms.view import UNKNOWN, Standing
from node.wire.memory import view_size_bytes
from node.wire.views import VIEW_BYTES_MAX, VIEW_GROWTH, read_view, write_view
from protos import peer_pb2

NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=63)
ENDS = st.sampled_from([-1, 0, 126, 127, 128, 2**14 - 2, 2**14 - 1, 2**14, 2**21 - 1, 2**35 - 1, COUNT_MAX - 1])
COUNTS = ENDS | st.integers(-1, COUNT_MAX - 1)
HOSTS = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789.-", min_size=1, max_size=249) | st.just("[fe80::7:1]")
ADDRESSES = st.just("") | st.builds("{}:{}".format, HOSTS, st.integers(1, 65535))
VIEWS = st.dictionaries(NAMES, st.builds(Standing, COUNTS, COUNTS, st.booleans(), ADDRESSES, COUNTS), max_size=6)


@given(view=VIEWS)
def test_round_trip(view):
    assert read_view(write_view(view)) == view


@given(view=VIEWS)
def test_the_size_is_known_before(view):
    assert view_size_bytes(view) == len(write_view(view))


@given(view=VIEWS)
def test_the_same_view_is_the_same_bytes(view):
    assert write_view(dict(reversed(view.items()))) == write_view(view)


def test_anybody_can_read_the_numbers_one_more_so_that_nothing_is_said_in_no_byte():
    view = {"b": Standing(5, 2, True, "10.0.0.1:7700", 1), "a": UNKNOWN}
    one, other = peer_pb2.View.FromString(write_view(view)).standings
    assert one == peer_pb2.Standing(name="a")
    assert other == peer_pb2.Standing(name="b", active=6, counter=3, left=True, address="10.0.0.1:7700", doubted=2)


def test_fields_of_newer_peers_are_ignored():
    standing = peer_pb2.Standing(name="a", active=1).SerializeToString() + b"\x38\x07"  # field 7, the number 7
    assert read_view(b"\x0a" + bytes([len(standing)]) + standing) == {"a": Standing(active=0)}


@given(data=st.binary(max_size=200))
@settings(max_examples=300)
def test_arbitrary_bytes_are_a_view_or_a_value_error(data):
    try:
        view = read_view(data)
    except ValueError:
        return
    assert read_view(write_view(view)) == view


@pytest.mark.parametrize(
    "fields",
    [
        {"name": ""},
        {"name": "A"},
        {"name": "a\n"},
        {"name": "../a"},
        {"name": "é"},
        {"name": "a" * 64},
        {"active": COUNT_MAX + 1},
        {"counter": 2**64 - 1},
        {"doubted": COUNT_MAX + 1},
        {"address": "10.0.0.1"},
        {"address": ":7700"},
        {"address": "10.0.0.1:"},
        {"address": "10.0.0.1:0"},
        {"address": "10.0.0.1:65536"},
        {"address": "10.0.0.1:7700\n"},
        {"address": "10.0.0.1:٧٧"},  # digits, but not ASCII
        {"address": "höst:7700"},
        {"address": "unix:/run/socket:7700"},
        {"address": "a b:7700"},
        {"address": "fe80::1:7700"},
        {"address": "a" * 251 + ":7700"},
    ],
    ids=repr,
)
def test_standings_that_are_none(fields):
    honest = {"name": "a", "active": COUNT_MAX, "counter": 1, "doubted": COUNT_MAX, "address": "a" * 250 + ":7700"}
    read_view(peer_pb2.View(standings=[peer_pb2.Standing(**honest)]).SerializeToString())
    with pytest.raises(ValueError, match="view"):
        read_view(peer_pb2.View(standings=[peer_pb2.Standing(**honest | fields)]).SerializeToString())


def test_nobody_is_in_a_view_twice():
    with pytest.raises(ValueError, match="twice"):
        read_view(peer_pb2.View(standings=[peer_pb2.Standing(name="a", active=n) for n in (1, 2)]).SerializeToString())


def test_no_view_takes_up_more_memory_than_is_set_aside_for_it():
    shortest = itertools.product("abcdefghijklmnopqrstuvwxyz0123456789-", repeat=3)
    data = write_view(dict.fromkeys(map("".join, shortest), UNKNOWN))
    assert VIEW_BYTES_MAX / 4 < len(data) < VIEW_BYTES_MAX
    tracemalloc.start()
    try:
        view = read_view(data)
        assert tracemalloc.get_traced_memory()[1] < VIEW_GROWTH * len(data)
    finally:
        tracemalloc.stop()
    assert len(view) == 37**3
