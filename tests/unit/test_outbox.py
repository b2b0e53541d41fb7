"""What goes out is counted: vectors as they travel, and what is known of members apart."""

import pytest
import torch
import trio

from algorithms.protocol import Delivered, Message, Reason, Send, Undelivered
from algorithms.view import Standing
from node.figures import Figures
from node.outbox import Outbox
from node.wire.transport import Undelivered as NotDelivered
from protos import peer_pb2

VIEW = {"n7": Standing(300, 1, False, "10.0.0.7:7700"), "n12": Standing(active=2, doubted=0)}
RAW = peer_pb2.View(
    standings=[
        peer_pb2.Standing(name="n12", active=3, doubted=1),
        peer_pb2.Standing(name="n7", active=301, counter=2, address="10.0.0.7:7700"),
    ]
)


class Line:
    async def send(self, to, message):
        await trio.lowlevel.checkpoint()
        if to == "gone":
            raise NotDelivered(Reason.UNREACHABLE)


class Members:
    def heard(self, name):
        pass

    def undelivered(self, name, reason):
        pass


@pytest.mark.trio
async def test_vectors_and_views_are_counted_apart():
    figures, outcomes = Figures(), []
    outbox = Outbox(Line(), Members(), figures, outcomes.append, wire_share=0.5)
    async with trio.open_nursery() as nursery:
        outbox.send(Send("n1", Message("welcome", 1, {"x": torch.zeros(10)}, view=VIEW)), nursery)
        outbox.send(Send("n1", Message("standing", 2, view=VIEW)), nursery)
        outbox.send(Send("gone", Message("ping", 3)), nursery)
        assert (figures.sends, figures.sends_bytes) == (3, 40)
    assert (figures.messages_sent, figures.bytes_sent) == (3, 20)
    assert figures.view_bytes_sent == 2 * len(RAW.SerializeToString())
    assert (figures.sends, figures.sends_bytes, figures.undelivered) == (0, 0, {"gone": 1})
    assert sorted(outcomes, key=lambda outcome: outcome.number) == [
        Delivered("n1", "welcome", 1),
        Delivered("n1", "standing", 2),
        Undelivered("gone", "ping", 3, Reason.UNREACHABLE),
    ]
