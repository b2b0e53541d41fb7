"""Messages that are lost on purpose."""

from __future__ import annotations

import math

import numpy as np
import pytest
import trio

from algorithms.protocol import Message, Reason
from node.wire.lossy import LossyTransport
from node.wire.transport import Undelivered


class Line:
    """Carries everything, or refuses it all."""

    def __init__(self, reason=None):
        self.reason, self.sent, self.pings = reason, [], 0

    async def send(self, to, message):
        if self.reason:
            raise Undelivered(self.reason)
        self.sent.append(message.number)

    async def ping(self, to, wait_s=None):
        self.pings += 1

    async def receive(self):
        yield "n1", Message("offer", 7)


async def send_all(lossy, count):
    """The numbers of the messages whose sender heard nothing."""
    unheard = []
    for number in range(count):
        try:
            await lossy.send("n1", Message("offer", number))
        except Undelivered as error:
            unheard += [number] if error.reason is Reason.TIMEOUT else []
    return unheard


@pytest.mark.trio
@pytest.mark.parametrize("drop", [0.1, 0.5, 0.9])
async def test_so_many_are_lost_half_of_them_after_they_have_arrived(drop):
    count = 4000
    line = Line()
    unheard = set(await send_all(LossyTransport(line, drop, np.random.default_rng(3)), count))
    arrived = set(line.sent)
    assert len(arrived | unheard) == count, "what is not lost arrives"

    def near(found, probability):
        return abs(found - count * probability) < 4 * math.sqrt(count * probability * (1 - probability))

    assert near(len(unheard), drop)
    assert near(len(unheard - arrived), drop / 2)
    assert near(len(unheard & arrived), drop / 2)


@pytest.mark.trio
async def test_the_same_draws_lose_the_same_messages():
    first, second = [await send_all(LossyTransport(Line(), 0.3, np.random.default_rng(5)), 100) for _ in range(2)]
    assert first == second != []


@pytest.mark.trio
async def test_a_refusal_comes_through():
    lossy = LossyTransport(Line(Reason.BUSY), 0.0, np.random.default_rng(0))
    with pytest.raises(Undelivered, match="busy"):
        await lossy.send("n1", Message("offer"))


@pytest.mark.trio
async def test_pings_and_what_comes_in_are_left_alone():
    line = Line()
    lossy = LossyTransport(line, 0.99, np.random.default_rng(0))
    for _ in range(100):
        await lossy.ping("n1")
    assert line.pings == 100
    with trio.fail_after(5):
        assert [(sender, message.number) async for sender, message in lossy.receive()] == [("n1", 7)]
