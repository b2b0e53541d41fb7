"""The guard: who may say what, and that every refusal is counted."""

import logging
import math
from dataclasses import replace

import pytest
import torch

from algorithms.compression import CODECS
from algorithms.layout import Layout, Slot
from algorithms.protocol import COUNT_MAX, Kind, Message, Reason
from node.errors import ConfigError
from node.guard import STRANGER, Guard
from node.wire.framing import VERSION, encode
from node.wire.views import STANDING_BYTES_MAX, VIEW_BYTES_MAX, VIEW_GROWTH

SIZE = 4
LAYOUT = Layout((Slot("w", (SIZE,), "weight", 0),), "float32")
KINDS = {
    "offer": Kind("owner", ("model",), ("lost",), ("weight",)),
    "reply": Kind("peer", ("change",)),
    "hello": Kind("neighbour"),
    "sample": Kind("member", ("model", "other")),
}
TELLING = {"news": Kind("member", ("model",), view=True), "hush": Kind("member", ("model",))}
# "me" owns the edge with "mine"; "its" owns the edge with "me"; "far" is a member without an edge
OWNERS = {"mine": True, "its": False}
MEMBERS = ("me", "mine", "its", "far")


class Refusals(list):
    def __call__(self, sender, reason):
        self.append((sender, reason))


@pytest.fixture
def refused():
    return Refusals()


@pytest.fixture
def make_guard(refused):
    def make(**changes):
        settings = {
            "run": "r",
            "plan_digest": "p",
            "layout": LAYOUT,
            "codec": CODECS["none"],
            "inbox_bytes_max": 100,
            "refused": refused,
        }
        settings |= changes
        return Guard("me", OWNERS, MEMBERS, settings.pop("kinds", KINDS), **settings)

    return make


def header_of(guard, kind="offer", number=1, **changes):
    spec = (KINDS | TELLING)[kind]
    vectors = {name: torch.zeros(SIZE) for name in spec.vectors}
    numbers = dict.fromkeys((*spec.counts, *spec.reals), 0.0)
    return replace(encode(Message(kind, number, vectors, numbers), guard.terms).header, **changes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sender", ["mine", "its", "far", "me", "nobody"])
def test_roles(make_guard, refused, kind, sender):
    allowed = {"offer": {"its"}, "reply": {"mine"}, "hello": {"mine", "its"}, "sample": {"mine", "its", "far"}}
    guard = make_guard()
    if sender in allowed[kind]:
        assert guard.admit(sender, header_of(guard, kind)) is None
        assert refused == []
    else:
        assert guard.admit(sender, header_of(guard, kind)) is Reason.NOT_MY_NEIGHBOUR
        assert refused == [(STRANGER if sender == "nobody" else sender, Reason.NOT_MY_NEIGHBOUR)]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": VERSION + 1}, Reason.WRONG_VERSION),
        ({"run": "../r"}, Reason.WRONG_RUN),
        ({"plan": "q"}, Reason.WRONG_RUN),
        ({"layout": "m"}, Reason.WRONG_LAYOUT),
        ({"kind": "unheard-of"}, Reason.MALFORMED),
        ({"size_bytes": 10**10}, Reason.TOO_LARGE),
        ({"size_bytes": 4 * SIZE + 1}, Reason.TOO_LARGE),
        ({"size_bytes": 4 * SIZE - 1}, Reason.MALFORMED),
        ({"vectors": ("another",)}, Reason.MALFORMED),
        ({"vectors": ()}, Reason.MALFORMED),
        ({"vectors": ("model", "model")}, Reason.MALFORMED),
        ({"dtype": "float64"}, Reason.MALFORMED),
        ({"number": COUNT_MAX}, Reason.MALFORMED),
        ({"numbers": {}}, Reason.MALFORMED),
        ({"numbers": {"lost": 0.0}}, Reason.MALFORMED),
        ({"numbers": {"lost": 0.0, "weight": 0.0, "more": 0.0}}, Reason.MALFORMED),
        ({"numbers": {"lost": 0.5, "weight": 0.0}}, Reason.MALFORMED),
        ({"numbers": {"lost": -1.0, "weight": 0.0}}, Reason.MALFORMED),
        ({"numbers": {"lost": float(COUNT_MAX), "weight": 0.0}}, Reason.MALFORMED),
        ({"numbers": {"lost": math.nan, "weight": 0.0}}, Reason.MALFORMED),
        ({"numbers": {"lost": 0.0, "weight": math.inf}}, Reason.MALFORMED),
    ],
)
def test_headers(make_guard, refused, changes, reason):
    guard = make_guard()
    assert guard.admit("its", header_of(guard)) is None
    assert guard.admit("its", replace(header_of(guard), **changes)) is reason
    assert refused == [("its", reason)]


def test_numbers_up_to_their_bound_are_let_in(make_guard):
    guard = make_guard()
    numbers = {"lost": COUNT_MAX - 1.0, "weight": -1e308}
    assert guard.admit("its", header_of(guard, number=COUNT_MAX - 1, numbers=numbers)) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("at", [0, SIZE - 1])
def test_values_that_are_not_finite(make_guard, refused, value, at):
    vector = torch.ones(SIZE)
    vector[at] = value
    assert make_guard().check("its", Message("offer", vectors={"model": vector})) is Reason.NOT_FINITE
    assert refused == [("its", Reason.NOT_FINITE)]


def test_infinities_that_cancel_are_found(make_guard):
    vector = torch.tensor([math.inf, -math.inf, 0.0, 0.0])
    assert make_guard().check("its", Message("offer", vectors={"model": vector})) is Reason.NOT_FINITE


@pytest.mark.parametrize("values", [[3e38] * SIZE, [1e-45] * SIZE, [0.0] * SIZE])
def test_finite_values_pass_though_their_sum_overflows(make_guard, refused, values):
    assert make_guard().check("its", Message("offer", vectors={"model": torch.tensor(values)})) is None
    assert refused == []


def test_norms_are_bounded_where_a_bound_is_set(make_guard):
    guard = make_guard(norm_max=5.0)
    assert guard.check("its", Message("offer", vectors={"model": torch.tensor([3.0, 4.0, 0.0, 0.0])})) is None
    assert guard.check("its", Message("offer", vectors={"model": torch.full((SIZE,), 1e38)})) is Reason.TOO_LARGE


def test_what_can_not_be_true_is_refused_last(make_guard, refused):
    asked = []

    def plausible(message):
        asked.append(message.number)
        return message.number != 13

    guard = make_guard(plausible=plausible)
    assert guard.check("its", Message("offer", 12)) is None
    assert guard.check("its", Message("offer", 13)) is Reason.IMPLAUSIBLE
    assert guard.check("its", Message("offer", 13, {"model": torch.full((SIZE,), math.nan)})) is Reason.NOT_FINITE
    assert asked == [12, 13]
    assert [reason for _, reason in refused] == [Reason.IMPLAUSIBLE, Reason.NOT_FINITE]


def test_the_guard_alters_nothing(make_guard):
    vector = torch.tensor([1.0, math.nan, 3e38, 0.0])
    before = vector.clone()
    make_guard(norm_max=1.0).check("its", Message("offer", vectors={"model": vector}))
    assert torch.equal(vector.nan_to_num(7), before.nan_to_num(7))


def test_calls_at_once_are_bounded_for_each(make_guard, refused):
    guard = make_guard()
    assert [guard.enter("its") for _ in range(3)] == [None, None, Reason.BUSY]
    assert guard.enter("mine") is None
    guard.leave("its")
    assert guard.enter("its") is None
    assert refused == [("its", Reason.BUSY)]


def test_strangers_share_one_bound(make_guard):
    guard = make_guard()
    assert [guard.enter(name) for name in ("x", "y", "z")] == [None, None, Reason.BUSY]


def test_the_inbox_is_bounded_in_bytes(make_guard, refused):
    guard = make_guard(inbox_bytes_max=100)
    assert [guard.reserve("its", 40) for _ in range(3)] == [None, None, Reason.BUSY]
    guard.release("its", 40)
    assert guard.reserve("mine", 60) is None
    assert refused == [("its", Reason.BUSY)]


def test_the_inbox_is_bounded_in_messages(make_guard):
    guard = make_guard(waiting_max=3, waiting_each_max=2)
    assert [guard.reserve("its", 0) for _ in range(3)] == [None, None, Reason.BUSY]
    assert [guard.reserve("mine", 0) for _ in range(2)] == [None, Reason.BUSY]
    assert guard.waiting == 3


def test_an_inbox_too_small_for_one_message_is_a_mistake(make_guard):
    assert make_guard(inbox_bytes_max=2 * 4 * SIZE)
    with pytest.raises(ConfigError, match="32"):
        make_guard(inbox_bytes_max=2 * 4 * SIZE - 1)


@pytest.mark.parametrize(("kind", "reason"), [("news", None), ("hush", Reason.MALFORMED)])
def test_views_in_messages_that_may_have_one(make_guard, kind, reason):
    guard = make_guard(kinds=TELLING, inbox_bytes_max=2**26)
    assert guard.admit("its", header_of(guard, kind)) is None
    assert guard.admit("its", header_of(guard, kind, view_bytes=7)) is reason


def test_the_inbox_has_room_for_the_largest_view(make_guard):
    largest = 4 * SIZE + VIEW_GROWTH * VIEW_BYTES_MAX
    guard = make_guard(kinds=TELLING, inbox_bytes_max=largest, open_=True)
    assert header_of(guard, "news", view_bytes=VIEW_BYTES_MAX).memory_bytes == largest
    with pytest.raises(ConfigError, match=str(largest)):
        make_guard(kinds=TELLING, inbox_bytes_max=largest - 1, open_=True)


def test_a_view_has_no_more_members_than_a_closed_run(make_guard):
    guard = make_guard(kinds=TELLING, inbox_bytes_max=2**26)
    largest = len(guard.members) * STANDING_BYTES_MAX
    assert guard.admit("its", header_of(guard, "news", view_bytes=largest)) is None
    assert guard.admit("its", header_of(guard, "news", view_bytes=largest + 1)) is Reason.TOO_LARGE


def test_vectors_of_whole_messages_do_not_heed_the_codec(make_guard):
    guard = make_guard(kinds={"sum": Kind("neighbour", vectors=("x",), whole=True)}, codec=CODECS["half"])
    sent = [encode(Message("sum", 1, {"x": torch.zeros(SIZE)}, whole=whole), guard.terms) for whole in (True, False)]
    assert [outgoing.header.size_bytes for outgoing in sent] == [4 * SIZE, 2 * SIZE]
    assert [guard.admit("its", outgoing.header) for outgoing in sent] == [None, Reason.MALFORMED]


def test_half_the_bytes_are_due_where_the_codec_halves(make_guard):
    guard = make_guard(codec=CODECS["half"])
    assert guard.admit("its", header_of(guard)) is None
    assert header_of(guard).size_bytes == 2 * SIZE


def test_one_line_a_second_and_sender_is_logged(make_guard, refused, caplog):
    times = iter([10.0, 10.5, 10.9, 11.0, 11.0])
    guard = make_guard(clock=lambda: next(times))
    with caplog.at_level(logging.WARNING):
        for sender in ("its", "its", "its", "its", "mine"):
            guard.refuse(sender, Reason.MALFORMED)
    assert [record.getMessage() for record in caplog.records] == [
        "refused a call of its: malformed",
        "refused a call of its: malformed (and 2 more)",
        "refused a call of mine: malformed",
    ]
    assert len(refused) == 5


def test_a_strangers_name_reaches_neither_log_nor_counter(make_guard, refused, caplog):
    make_guard().refuse("evil\nname" * 1000, Reason.NOT_MY_NEIGHBOUR)
    assert refused == [(STRANGER, Reason.NOT_MY_NEIGHBOUR)]
    assert "evil" not in caplog.text


@pytest.mark.parametrize("sender", ["mine", "far", "newcomer", "me", STRANGER, "", "N7", "n" * 64, "n\n", "../n"])
def test_who_is_a_member_where_membership_is_open(make_guard, refused, sender):
    guard, closed = make_guard(open_=True), make_guard()
    assert guard.is_member(sender) is (sender in ("mine", "far", "newcomer"))
    assert closed.is_member(sender) is (sender in ("mine", "far"))
    reason = None if guard.is_member(sender) else Reason.NOT_MY_NEIGHBOUR
    header = header_of(guard, "sample")
    assert (guard.greet(sender, header), guard.admit(sender, header)) == (reason, reason)
    assert closed.admit("newcomer", header) is Reason.NOT_MY_NEIGHBOUR
    assert guard.admit("newcomer", header_of(guard, "hello")) is Reason.NOT_MY_NEIGHBOUR  # it has no edge


def test_newcomers_have_shares_of_their_own(make_guard, refused):
    guard = make_guard(open_=True)
    for name in ("x", "y"):
        assert [guard.enter(name) for _ in range(3)] == [None, None, Reason.BUSY]
    assert refused == [("x", Reason.BUSY), ("y", Reason.BUSY)]


def test_only_so_many_newcomers_are_told_apart_and_the_first_stay(make_guard, refused):
    guard = make_guard(open_=True, strangers_max=2)
    header = header_of(guard, "sample")
    names = ["x", "y", "z", "x", "mine", "y", "z"]
    reasons = [guard.admit(name, header) for name in names]
    assert reasons == [None, None, Reason.BUSY, None, None, None, Reason.BUSY]
    assert refused == [(STRANGER, Reason.BUSY)] * 2
    assert guard.greet("z", header) is Reason.BUSY
    assert [guard.enter(name) for name in ("z1", "z2", "z3", "x")] == [None, None, Reason.BUSY, None]


def test_room_is_given_back_under_the_name_it_was_taken_under(make_guard):
    guard = make_guard(open_=True, strangers_max=1, waiting_each_max=1)
    for name in ("x", "y"):  # the second shares with all others
        assert [guard.reserve(name, 10) for _ in range(2)] == [None, Reason.BUSY]
        guard.release(name, 10)
    assert guard.waiting == 0
    assert [guard.reserve(name, 100) for name in ("x", "mine")] == [None, Reason.BUSY]
