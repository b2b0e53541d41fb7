"""Open membership over real sockets: who is let in without being in the plan, and what is said of members."""

import pytest
import torch

from algorithms.protocol import Kind, Message, Reason
from algorithms.view import Standing
from node.wire.authority import make_certificates
from node.wire.tls import Identity
from node.wire.views import VIEW_GROWTH
from protos import peer_pb2

pytestmark = pytest.mark.trio

KINDS = {"welcome": Kind("member", ("x",), view=True), "standing": Kind("member", view=True), "ping": Kind("member")}
VIEW = {"n7": Standing(3, 1, False, "10.0.0.7:7700"), "gone": Standing(2, 5, True, "", 4)}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certs")
    make_certificates(["a", "b", "c", "newcomer", "denied"], folder)
    return folder


async def test_a_view_arrives_as_it_was_sent(wires):
    async with wires.pair(kinds=KINDS) as (a, b):
        for message in (Message("welcome", 7, {"x": torch.arange(6.0)}, view=VIEW), Message("standing", 8, view=VIEW)):
            await a.transport.send("b", message)
            sender, received = await b.take()
            assert (sender, received.number, received.view) == ("a", message.number, VIEW)
        assert a.counts.sent_all == [("b", "welcome", 24), ("b", "standing", 0)]
        assert b.counts.received_all == [("a", "welcome", 24), ("a", "standing", 0)]
        assert b.guard.waiting == 0


async def test_a_long_view_is_read_beside_other_calls(wires):
    view = {f"peer-{number}": Standing(number, 0, False, f"10.0.0.1:{number + 1}") for number in range(20_000)}
    async with wires.pair(kinds=KINDS, open_=True) as (a, b):
        await a.transport.send("b", Message("standing", 1, view=view))
        assert (await b.take())[1].view == view


VIEWS = {
    "none-announced": lambda header, view: [header],
    "twice": lambda header, view: [header, view, view],
    "cut": lambda header, view: [header, view[:-1]],
    "garbage": lambda header, view: [header, view[:2] + b"\xff" * (len(view) - 2)],
    "as-a-body": lambda header, view: [header, b"\x12" + view[1:]],
}


@pytest.mark.parametrize("case", VIEWS)
async def test_views_that_are_none(wires, case):
    async with wires.pair(kinds=KINDS) as (_, b):
        frames = b.frames(Message("standing", 1, view=VIEW))
        assert await b.call(VIEWS[case](*frames)) == "MALFORMED"
        assert (b.counts.refused_all, b.counts.received_all, b.guard.waiting) == ([("a", Reason.MALFORMED)], [], 0)
        assert await b.call(frames) == "ACCEPTED"


async def test_a_view_takes_room_in_the_inbox(wires):
    async with wires.pair(kinds=KINDS, open_=True, inbox_bytes_max=VIEW_GROWTH * 2**20 + 24) as (_, b):
        view = {f"{number:063}": Standing() for number in range(10_000)}  # two thirds of the largest
        assert await b.call(b.frames(Message("standing", 1, view=view))) == "ACCEPTED"
        assert await b.call(b.frames(Message("standing", 2, view=view))) == "BUSY"
        assert (await b.take())[1].number == 1
        assert await b.call(b.frames(Message("standing", 3, view=view))) == "ACCEPTED"


@pytest.mark.parametrize(("open_", "code"), [(True, "ACCEPTED"), (False, "NOT_MY_NEIGHBOUR")])
async def test_a_name_that_is_not_in_the_plan(wires, open_, code):
    async with wires.pair(tls=True, kinds=KINDS, open_=open_) as (_, b):
        credentials = Identity.load(wires.certificates / "newcomer").channel_credentials()
        assert await b.call(b.frames(Message("ping", 1)), credentials=credentials) == code
        header = peer_pb2.Frame.FromString(b.frames(Message("ping", 1))[0]).header
        assert await b.call([header.SerializeToString()], "Ping", credentials=credentials) == code
        assert b.counts.received_all == [("newcomer", "ping", 0)] * open_


async def test_who_is_denied_is_no_member_where_membership_is_open(wires, tmp_path):
    denied = tmp_path / "denied"
    denied.write_text("denied\n")
    async with wires.pair(tls=True, kinds=KINDS, open_=True, denied=denied) as (_, b):
        credentials = Identity.load(wires.certificates / "denied").channel_credentials()
        for method in ("Deliver", "Ping"):
            assert await b.call(b.frames(Message("ping", 1)), method, credentials=credentials) == "NOT_MY_NEIGHBOUR"
        assert b.counts.received_all == []


async def test_members_beyond_those_that_can_be_told_apart_are_put_off(wires):
    async with wires.pair(kinds=KINDS, open_=True, strangers_max=2) as (_, b):
        frames = b.frames(Message("ping", 1))
        codes = [await b.call(frames, sender=name) for name in ("x", "y", "z", "a", "x")]
        assert codes == ["ACCEPTED", "ACCEPTED", "BUSY", "ACCEPTED", "ACCEPTED"]


async def test_what_can_not_be_true_is_refused_and_gives_its_room_back(wires):
    async with wires.pair(kinds=KINDS, open_=True, plausible=lambda message: "n7" not in message.view) as (_, b):
        assert await b.call(b.frames(Message("standing", 1, view=VIEW)), sender="x") == "IMPLAUSIBLE"
        assert (b.counts.refused_all, b.counts.received_all) == ([("x", Reason.IMPLAUSIBLE)], [])
        assert b.guard.waiting == 0
        assert await b.call(b.frames(Message("standing", 1)), sender="x") == "ACCEPTED"
