"""Batons by hand: who is sent a model, who is told what became of it, and when it is let go."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from algorithms.membership import Membership
from algorithms.message import Message, Reason
from algorithms.protocol import Cancel, Delivered, Effect, Send, Timer, Undelivered
from algorithms.relay import AT_ONCE, Baton, Relay
from algorithms.view import Standing, draw
from node.draws import Draws

NAMES = [f"n{i}" for i in range(6)]
PAIRS = [("n0", name) for name in NAMES[1:]]
NUMBER = 4
Z1, Z2 = sorted((f"z{k}" for k in range(100)), key=lambda name: draw(name, NUMBER))[-2:]
"""Two who join, and come after all others in the order of the round."""

X = torch.tensor([1.0, 2.0], dtype=torch.float64)


class Carrier:
    """The relay of one peer, what it hands to the peer itself, and the order in which its round samples the others."""

    def __init__(self, make_world, name: str = "n0") -> None:
        draws = Draws(0, name)
        place = replace(make_world.place(name, PAIRS, draws), address=f"{name}:1")
        self.members = Membership(place, 50, draws("members"))
        self.taken: list[tuple[str, Message]] = []
        self.relay = Relay(name, self.members, place.limits, draws("members"), self._take)
        self.relay.round_time = 1.0
        self.name, self.order = name, self.members.candidates(NUMBER)
        self.others = [other for other in self.order if other != name]

    def _take(self, sender: str, message: Message, now: float) -> list[Effect]:
        self.taken.append((sender, message))
        return []

    def hand_on(self, wanted: int, givers: tuple[str, ...] = (), kind: str = "aggregated") -> Baton:
        baton = Baton(kind, NUMBER, X, wanted, list(givers))
        self.asked = sends(self.relay.hand_on(baton, 0.0), "ping")
        return baton

    def answer(self, *names: str) -> list[Effect]:
        return [effect for name in names for effect in self.relay.heard(name, Message("pong"), 0.1)]

    def silence(self, kind: str, *names: str) -> list[Effect]:
        return [e for name in names for _ in range(2) for e in self.relay.ring(f"ping {kind} {name}", 1.0)]

    def delivered(self, name: str, kind: str = "aggregated") -> list[Effect]:
        return self.relay.hear_of(Delivered(name, kind, NUMBER), 0.2)

    def lost(self, name: str, reason: Reason = Reason.TIMEOUT) -> list[Effect]:
        return self.relay.hear_of(Undelivered(name, "aggregated", NUMBER, reason), 0.2)


@pytest.fixture
def carrier(make_world) -> Carrier:
    """Of a peer that comes last in the order of the round."""
    first = Carrier(make_world)
    return Carrier(make_world, first.order[-1])


def sends(effects: list[Effect], kind: str) -> list[str]:
    return [effect.to for effect in effects if isinstance(effect, Send) and effect.message.kind == kind]


def message_to(effects: list[Effect], name: str) -> Message:
    (found,) = [e.message for e in effects if isinstance(e, Send) and e.to == name and e.message.kind != "ping"]
    return found


def timers(effects: list[Effect]) -> dict[str, float]:
    return {effect.name: effect.delay for effect in effects if isinstance(effect, Timer)}


# --------------------------------------------------------------------------------------------- handing on


def test_a_model_goes_to_the_first_that_answer(carrier):
    carrier.hand_on(2)
    assert carrier.asked == carrier.order[:2]
    assert sends(carrier.answer(carrier.order[0]), "aggregated") == []
    effects = carrier.answer(carrier.order[1])
    assert sends(effects, "aggregated") == carrier.order[:2]
    message = message_to(effects, carrier.order[0])
    assert (message.number, message.numbers, message.vectors["x"].tolist()) == (NUMBER, {"expected": 2}, [1.0, 2.0])
    assert "watch aggregated" in timers(effects)


def test_its_givers_are_told_once_when_another_peer_has_it(carrier):
    carrier.hand_on(2, givers=("n9", "n8"))
    effects = carrier.answer(*carrier.order[:2])
    assert sends(effects, "averaged") == []
    assert carrier.relay.carries("aggregated")
    effects = carrier.delivered(carrier.order[0])
    assert [(e.to, e.message.kind, e.message.number) for e in effects] == [
        ("n9", "averaged", NUMBER),
        ("n8", "averaged", NUMBER),
    ]
    assert not carrier.relay.carries("aggregated")
    assert carrier.delivered(carrier.order[1]) == []
    assert len(carrier.relay) == 1


def test_who_gave_a_model_to_train_hears_of_the_round_that_was_learnt(carrier):
    carrier.hand_on(1, givers=("n9",), kind="trained")
    carrier.answer(carrier.order[0])
    (told,) = carrier.delivered(carrier.order[0], "trained")
    assert (told.to, told.message.kind, told.message.number) == ("n9", "learnt", NUMBER - 1)


def test_the_peer_itself_is_not_another_one(make_world):
    name = Carrier(make_world).order[0]
    carrier = Carrier(make_world, name)
    carrier.hand_on(2, givers=("n9",))
    effects = carrier.answer(carrier.others[0])
    ((sender, message),) = carrier.taken
    assert (sender, message.kind, message.number) == (name, "aggregated", NUMBER)
    assert carrier.members.estimate == NUMBER
    assert sends(effects, "averaged") == []
    assert sends(carrier.delivered(carrier.others[0]), "averaged") == ["n9"]


def test_unless_it_is_the_only_one(make_world):
    carrier = Carrier(make_world, Carrier(make_world).order[0])
    baton = Baton("trained", NUMBER, X, 1, ["n9"])
    assert sends(carrier.relay.hand_on(baton, 0.0), "learnt") == ["n9"]
    assert len(carrier.taken) == 1


def test_a_word_lets_go_of_it_and_an_older_one_does_not(carrier):
    carrier.hand_on(1)
    carrier.answer(carrier.order[0])
    carrier.delivered(carrier.order[0])
    carrier.relay.take_word("n9", Message("averaged", NUMBER), 1.0)
    carrier.relay.take_word("n9", Message("learnt", NUMBER - 1), 1.0)
    assert len(carrier.relay) == 1
    assert Cancel("watch aggregated") in carrier.relay.take_word("n9", Message("learnt", NUMBER), 1.0)
    assert len(carrier.relay) == 0


def test_what_others_have_finished_is_let_go_and_its_givers_are_told(carrier):
    carrier.hand_on(1, givers=("n9",))
    assert carrier.relay.drop_overtaken(0.0) == []
    carrier.members.estimate = NUMBER + 1
    assert sends(carrier.relay.drop_overtaken(0.0), "averaged") == ["n9"]
    assert len(carrier.relay) == 0


# ------------------------------------------------------------------------------------------------ again


def test_after_a_while_there_is_another_sample_and_who_is_new_in_it_gets_the_model(carrier):
    carrier.hand_on(2)
    effects = carrier.answer(*carrier.order[:2])
    wait = timers(effects)["watch aggregated"]
    carrier.delivered(carrier.order[0])
    carrier.delivered(carrier.order[1])
    assert sends(carrier.relay.ring("watch aggregated", wait), "ping") == carrier.order[:2]
    effects = carrier.silence("aggregated", carrier.order[0]) + carrier.answer(*carrier.order[1:3])
    assert sends(effects, "aggregated") == [carrier.order[2]]
    assert timers(effects)["watch aggregated"] > wait
    assert carrier.relay.repeats == 1


def test_what_was_lost_is_sent_again_and_what_was_refused_is_not(carrier):
    carrier.hand_on(2)
    carrier.answer(*carrier.order[:2])
    first, second = carrier.order[:2]
    delays = [timers(carrier.lost(first))[f"again aggregated {first}"] for _ in range(40)]
    assert sends(carrier.relay.ring(f"again aggregated {first}", 1.0), "aggregated") == [first]
    assert delays[0] < delays[3] < delays[6]
    assert max(delays) <= 1.5 * 20
    assert carrier.lost(second, Reason.WRONG_RUN) == []
    assert carrier.relay.ring(f"again aggregated {second}", 1.0) == []
    carrier.delivered(first)
    assert carrier.relay.ring(f"again aggregated {first}", 1.0) == []


def test_who_missed_an_earlier_model_is_not_sent_the_next_one(carrier):
    """Its timer may still run; the next sample does not have it."""
    carrier.hand_on(1)
    carrier.answer(carrier.order[0])
    carrier.lost(carrier.order[0])
    newer = Baton("aggregated", NUMBER + 1, X, 1, [])
    carrier.relay.hand_on(newer, 1.0)
    asked = next(iter(name for name in carrier.members.candidates(NUMBER + 1) if name != carrier.order[0]))
    for name in carrier.members.candidates(NUMBER + 1):
        if name == asked:
            break
        carrier.silence("aggregated", name)
    carrier.answer(asked)
    assert carrier.relay.ring(f"again aggregated {carrier.order[0]}", 2.0) == []


def test_who_comes_back_gets_it_once_more(carrier):
    carrier.hand_on(2)
    first, second = carrier.order[:2]
    carrier.answer(first, second)
    carrier.delivered(first)
    carrier.delivered(second)
    carrier.members.hear(first, Message("standing", NUMBER, view={first: Standing(NUMBER, 1)}), joins_wait=True)
    carrier.answer(first)
    carrier.relay.ring("watch aggregated", 9.0)
    assert sends(carrier.answer(first, second), "aggregated") == [first]


def test_a_mean_for_which_too_few_are_found_waits_and_then_goes_to_those(carrier):
    carrier.hand_on(4)
    dead, alive = carrier.others[1:], carrier.others[0]
    effects = carrier.answer(alive) + carrier.silence("aggregated", *dead)
    assert sends(effects, "aggregated") == []
    # itself and one more of four: as many again are missing
    assert timers(effects)["watch aggregated"] == pytest.approx(carrier.relay.patience)
    carrier.relay.ring("watch aggregated", 9.0)
    effects = carrier.answer(alive) + carrier.silence("aggregated", *dead)
    assert sends(effects, "aggregated") == [alive]
    assert message_to(effects, alive).numbers == {"expected": 2}
    assert len(carrier.taken) == 1


def test_who_leaves_sends_at_once_and_lets_go_when_there_is_nobody(carrier):
    carrier.members.write(left=True)
    carrier.hand_on(2)
    effects = carrier.answer(carrier.others[0]) + carrier.silence("aggregated", *carrier.others[1:])
    assert sends(effects, "aggregated") == [carrier.others[0]]
    carrier.hand_on(2)
    carrier.silence("aggregated", *carrier.others)
    assert len(carrier.relay) == 0
    assert carrier.taken == []


# ------------------------------------------------------------------------------------------------- views


def join(carrier: Carrier, name: str) -> None:
    news = {name: Standing(NUMBER, 1, address=f"{name}:1")}
    carrier.members.hear(carrier.others[-1], Message("trained", NUMBER, view=news), joins_wait=False)


def test_who_gets_a_later_view_gets_all_that_it_lacks(carrier):
    """The first message to one of them is still on its way when somebody else is told more."""
    join(carrier, Z1)
    carrier.hand_on(2)
    first, second, third = carrier.others[:3]
    assert Z1 in message_to(carrier.answer(first, second), first).view
    carrier.delivered(second)
    join(carrier, Z2)
    carrier.relay.ring("watch aggregated", 9.0)
    carrier.members.told(third, carrier.members.view.version - 1)  # it knows the one
    effects = carrier.silence("aggregated", second) + carrier.answer(first, third)
    assert Z2 in message_to(effects, third).view
    carrier.lost(first)
    (again,) = carrier.relay.ring(f"again aggregated {first}", 10.0)
    assert {Z1, Z2} <= set(again.message.view)


def test_a_receipt_for_an_earlier_view_does_not_count_for_a_later_one(carrier):
    carrier.hand_on(2)
    first, second, third = carrier.others[:3]
    carrier.answer(first, second)
    join(carrier, Z1)
    carrier.relay.ring("watch aggregated", 9.0)
    carrier.silence("aggregated", second)
    carrier.answer(first, third)
    carrier.delivered(first)  # of the message from before that
    assert Z1 in carrier.members.lacking([first], NUMBER)
    carrier.delivered(third)
    assert Z1 not in carrier.members.lacking([third], NUMBER)


# ------------------------------------------------------------------------------------------------ for all


def test_a_message_for_all_goes_out_a_few_at_a_time_until_everybody_has_it(carrier):
    to = [f"m{k}" for k in range(AT_ONCE + 3)]
    message = Message("aggregated", NUMBER, {"x": X}, {"expected": 0})
    out = sends(carrier.relay.spread(message, list(to)), "aggregated")
    assert len(out) == AT_ONCE
    effects = carrier.lost(out[0])
    (again,) = timers(effects)
    out += sends(effects, "aggregated")
    for name in out[1:3]:
        out += sends(carrier.delivered(name), "aggregated")
    assert sorted(out) == sorted(to)
    assert len(carrier.relay) == 0
    assert carrier.relay.ring(again, 1.0) == [Send(out[0], message)]
    assert carrier.delivered(out[0]) == []


def test_receipts_of_other_messages_do_not_send_it_on(carrier):
    message = Message("aggregated", NUMBER, {"x": X}, {"expected": 0})
    carrier.relay.spread(message, [f"m{k}" for k in range(AT_ONCE + 3)])
    assert carrier.relay.hear_of(Delivered("m1", "learnt", NUMBER), 1.0) == []
    assert carrier.relay.hear_of(Delivered("m1", "aggregated", NUMBER - 1), 1.0) == []
    assert len(carrier.relay) == 3


def test_a_model_that_is_under_way_is_not_sent_to_the_same_peers_again(carrier):
    carrier.hand_on(2)
    first = carrier.others[:2]
    assert sends(carrier.answer(*first), "aggregated") == first
    carrier.relay.ring("watch aggregated", 50.0)
    assert sends(carrier.answer(*first), "aggregated") == []
    carrier.lost(first[0])
    assert sends(carrier.relay.ring(f"again aggregated {first[0]}", 60.0), "aggregated") == first[:1]
