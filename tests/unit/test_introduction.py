"""What those who want to join are told, and what they believe: whatever comes in, nothing else is raised."""

from __future__ import annotations

import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from algorithms.compression import CODECS
from algorithms.layout import Layout, Slot
from algorithms.protocol import Reason
from node.guard import Guard
from node.wire import introduction
from node.wire.framing import VERSION, Malformed
from node.wire.introduction import Introducer, Introduction, ask, introduce, read_introduction
from node.wire.transport import Undelivered
from protos import peer_pb2
from topology.plan import plan_to_json
from topology.planning import build_plan

PLAN = build_plan("ring", 4)
TEXT = plan_to_json(PLAN).encode()
AT = "10.0.0.7:7700"


def guard(refused, open_=True, strangers_max=1000):
    return Guard(
        "n0",
        {"n1": True, "n3": False},
        [node.name for node in PLAN.nodes],
        {},
        run="r",
        plan_digest=PLAN.digest,
        layout=Layout((Slot("w", (2,), "weight", 0),), "float32"),
        codec=CODECS["none"],
        inbox_bytes_max=100,
        refused=lambda *each: refused.append(each),
        open_=open_,
        strangers_max=strangers_max,
    )


def test_who_joins_is_told_the_run_and_its_plan():
    refused = []
    answer = Introducer(guard(refused), PLAN).answer("x", ask())
    assert read_introduction(answer, AT) == Introduction("n0", AT, "r", PLAN)
    assert refused == []


@pytest.mark.parametrize(
    ("caller", "request_", "reason"),
    [
        ("n0", ask(), Reason.NOT_MY_NEIGHBOUR),
        ("a stranger", ask(), Reason.NOT_MY_NEIGHBOUR),
        ("X", ask(), Reason.NOT_MY_NEIGHBOUR),
        ("x", b"", Reason.WRONG_VERSION),
        ("x", peer_pb2.Stranger(version=VERSION + 1).SerializeToString(), Reason.WRONG_VERSION),
        ("x", b"\xff", Reason.MALFORMED),
        ("x", ask() + bytes([0x52, 62, *bytes(62)]), Reason.MALFORMED),  # a field unknown to us, too long
    ],
)
def test_who_asks_wrongly_is_refused_with_a_code_and_counted(caller, request_, reason):
    refused = []
    answer = Introducer(guard(refused), PLAN).answer(caller, request_)
    assert peer_pb2.Introduction.FromString(answer) == peer_pb2.Introduction(code=reason.name)
    with pytest.raises(Undelivered) as refusal:
        read_introduction(answer, AT)
    assert refusal.value.reason is reason
    assert [each for _, each in refused] == [reason]


def test_nobody_joins_a_run_that_is_closed_has_too_many_or_a_plan_too_large(monkeypatch):
    def reason(answer):
        return peer_pb2.Code.Name(peer_pb2.Introduction.FromString(answer).code)

    refused = []
    assert reason(Introducer(guard(refused, open_=False), None).answer("n1", ask())) == "NOT_MY_NEIGHBOUR"
    few = Introducer(guard(refused, strangers_max=1), PLAN)
    assert [reason(few.answer(name, ask())) for name in ("x", "y", "x", "n1")] == [
        "ACCEPTED",
        "BUSY",
        "ACCEPTED",
        "ACCEPTED",
    ]
    monkeypatch.setattr(introduction, "PLAN_BYTES_MAX", len(zlib.compress(TEXT)) - 1)
    assert reason(Introducer(guard(refused), PLAN).answer("x", ask())) == "TOO_LARGE"


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff",
        introduce("N0", "r", zlib.compress(TEXT)),
        introduce("n0\n", "r", zlib.compress(TEXT)),
        introduce("n0", "", zlib.compress(TEXT)),
        introduce("n0", "r", b""),
        introduce("n0", "r", TEXT),
        introduce("n0", "r", zlib.compress(TEXT)[:-1]),
        introduce("n0", "r", zlib.compress(TEXT) + b"!"),
        introduce("n0", "r", zlib.compress(b"\xff")),
        introduce("n0", "r", zlib.compress(b"{}")),
        introduce("n0", "r", zlib.compress(b"[" * 100_000)),
        introduce("n0", "r", zlib.compress(TEXT.replace(b'"n1"', b'"n2"', 1))),
        introduce("n0", "r", bytes(introduction.INTRODUCTION_BYTES_MAX)),
    ],
)
def test_an_answer_that_is_no_introduction_is_malformed(answer):
    with pytest.raises(Malformed):
        read_introduction(answer, AT)


def test_a_code_of_a_later_version_is_no_use_in_trying_again():
    with pytest.raises(Undelivered) as refusal:
        read_introduction(b"\x08\x63", AT)
    assert not refusal.value.reason.transient


def test_a_plan_is_not_unpacked_beyond_its_bound(monkeypatch):
    monkeypatch.setattr(introduction, "JSON_BYTES_MAX", 2**20)
    answer = introduce("n0", "r", zlib.compress(b" " * 2**26))
    tracemalloc.start()
    try:
        with pytest.raises(Malformed):
            read_introduction(answer, AT)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    at_the_bound = TEXT + b" " * (2**20 - len(TEXT) - 1)
    assert read_introduction(introduce("n0", "r", zlib.compress(at_the_bound)), AT).plan == PLAN


@settings(max_examples=200)
@given(st.data())
def test_nothing_but_malformed_and_refusals_is_raised(data):
    whole = introduce("n0", "r", zlib.compress(TEXT))
    place = data.draw(st.integers(0, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[place] ^= data.draw(st.integers(1, 255))
    for answer in (bytes(damaged), whole[:place], data.draw(st.binary(max_size=100))):
        try:
            told = read_introduction(answer, AT)
        except (Malformed, Undelivered):
            continue
        assert told.plan == PLAN  # zlib's checksum holds, so that only a name or the run can be another
