"""Coming, going and keeping in touch, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from algorithms.membership import Membership
from algorithms.message import Message, Reason
from algorithms.presence import ALONE, CALM_MAX, PROBES, PROBES_MAX, Presence
from algorithms.protocol import Cancel, Delivered, Effect, Save, Send, Timer, Undelivered
from algorithms.view import Standing
from node.draws import Draws

FOUNDERS = [f"n{i}" for i in range(8)]
PAIRS = [("n0", name) for name in FOUNDERS[1:]]
TELL = 2
X = torch.tensor([3.0], dtype=torch.float64)


class Peer:
    """The presence of one peer that holds the model of a round, and its membership."""

    def __init__(self, make_world, name: str = "n0", contact: str = "", held: int = 0) -> None:
        draws = Draws(0, name)
        place = replace(make_world.place(name, PAIRS, draws), address=f"{name}:1", contact=contact, local_steps=5)
        self.members, self.held = Membership(place, 50, draws("members")), held
        self.presence = Presence(place, self.members, TELL, lambda: self.held, lambda: X, draws("members"))
        self.shortest = 6 * place.local_steps + 2 * place.limits.reply_first

    def look(self) -> list[Effect]:
        return self.presence.ring("look")

    def pong(self, sender: str, held: int) -> None:
        self.presence.take_pong(sender, Message("pong", 0, numbers={"held": held}), 0.0)


@pytest.fixture
def peer(make_world) -> Peer:
    return Peer(make_world)


@pytest.fixture
def joiner(make_world) -> Peer:
    return Peer(make_world, "z", contact="n3")


def sends(effects: list[Effect]) -> list[tuple[str, str]]:
    return [(effect.to, effect.message.kind) for effect in effects if isinstance(effect, Send)]


def asked(effects: list[Effect]) -> set[str]:
    return {to for to, kind in sends(effects) if kind == "ping"}


def wait(effects: list[Effect], name: str = "look") -> float:
    (found,) = [effect.delay for effect in effects if isinstance(effect, Timer) and effect.name == name]
    return found


# ----------------------------------------------------------------------------------------- coming and going


def test_a_founder_only_begins_to_look(peer):
    effects = peer.presence.begin(recovered=False)
    assert len(effects) == 1
    assert peer.shortest <= wait(effects) <= 2 * peer.shortest


def test_who_comes_back_tells_some_of_its_new_counter(peer):
    effects = peer.presence.begin(recovered=True)
    assert Save(durable=True) in effects
    told = [effect for effect in effects if isinstance(effect, Send)]
    assert len(told) == TELL
    assert all(effect.message.view == {"n0": Standing(0, 1, False, "n0:1")} for effect in told)


def test_who_joins_asks_its_contact_and_then_others_or_it_again(joiner):
    effects = joiner.presence.begin(recovered=False)
    assert sends(effects) == [("n3", "join")]
    (message,) = [effect.message for effect in effects if isinstance(effect, Send)]
    assert message.view == {"z": Standing(0, 1, False, "z:1")}
    assert wait(effects, "join") > 0
    tries = [sends(joiner.presence.ring("join")) for _ in range(60)]
    assert {to for ((to, kind),) in tries} == set(FOUNDERS)
    assert 10 < sum(to == "n3" for ((to, _),) in tries) < 50
    assert joiner.presence.asked("n3")


def test_who_is_welcomed_tells_some_and_asks_no_more(joiner):
    joiner.presence.begin(recovered=False)
    effects = joiner.presence.welcomed()
    assert Cancel("join") in effects
    assert [kind for _, kind in sends(effects)] == ["standing"] * TELL
    assert not joiner.members.newcomer
    assert not joiner.presence.asked("n3")
    joiner.presence._ask_for_model("n3")
    assert joiner.presence.welcomed() == []  # a member that wanted a newer model


def test_who_is_asked_gives_everything_once_it_has_something(peer, joiner):
    peer.held = 4
    peer.members.hear("n1", Message("trained", 4, view={"y": Standing(4, 1, address="y:1")}), joins_wait=False)
    (effect,) = peer.presence.take_join("z", Message("join"), 0.0)
    assert (effect.to, effect.message.kind, effect.message.number) == ("z", "welcome", 4)
    assert effect.message.vectors == {"x": X}
    assert set(effect.message.view) == {"n1", "y"}
    assert joiner.presence.take_join("y", Message("join"), 0.0) == []


def test_who_leaves_tells_some_and_waits_until_they_have_heard(peer):
    effects = peer.presence.leave()
    assert {Cancel("join").name, Cancel("look").name} == {e.name for e in effects if isinstance(e, Cancel)}
    told = [effect for effect in effects if isinstance(effect, Send)]
    assert all(effect.message.view["n0"].left for effect in told)
    assert peer.presence.unheard
    peer.presence.hear_of(Delivered(told[0].to, "ping", 0))
    peer.presence.hear_of(Delivered(told[0].to, "standing", 0))
    assert peer.presence.unheard
    peer.presence.hear_of(Undelivered(told[1].to, "standing", 0, Reason.TIMEOUT))
    assert not peer.presence.unheard


def test_a_ping_is_answered_with_what_the_peer_has(peer):
    peer.held, peer.members.estimate = 3, 4
    (effect,) = peer.presence.take_ping("n5", Message("ping"), 0.0)
    assert (effect.to, effect.message) == ("n5", Message("pong", 4, numbers={"held": 3}))
    peer.members.write()
    (effect,) = peer.presence.take_ping("n5", Message("ping"), 0.0)
    assert effect.message.view == {"n0": Standing(4, 1, False, "n0:1")}


# ---------------------------------------------------------------------------------------- looking for news


def test_while_there_are_news_it_looks_rarely_and_asks_a_few(peer):
    longest = 0.0
    for number in range(1, 6):
        peer.members.estimate = number
        effects = peer.look()
        assert len(asked(effects)) == PROBES
        assert wait(effects) <= 2 * CALM_MAX * peer.shortest
        longest = max(longest, wait(effects))
    assert longest >= CALM_MAX * peer.shortest


def test_when_there_are_none_it_asks_soon_again_and_more_each_time(make_world):
    peer = Peer(make_world)
    for k in range(200):
        peer.members.hear("n1", Message("trained", 1, view={f"m{k}": Standing(1, 1)}), joins_wait=False)
    peer.look()
    counts = []
    for _ in range(8):
        effects = peer.look()
        counts.append(len(asked(effects)))
        assert peer.shortest <= wait(effects) <= 2 * peer.shortest
    assert counts == [min(TELL * 2**k, PROBES_MAX) for k in range(1, 9)]


def test_then_whoever_has_just_come_is_asked_too(peer):
    """It waits for a model to be sent, of which there may be none."""
    peer.members.hear("z", Message("ping", view={"z": Standing(0, 1, address="z:1")}), joins_wait=True)
    assert "z" not in peer.members.others(100)
    assert {name for _ in range(4) for name in asked(peer.look())} >= {"z"}


def test_a_newer_model_is_asked_for_when_nothing_is_new_twice(peer):
    peer.members.estimate = 9
    peer.look()
    for silences in (1, 2):
        peer.pong("n4", 3)
        peer.pong("n5", 7)
        peer.pong("n6", 5)
        assert [to for to, kind in sends(peer.look()) if kind == "join"] == ["n5"] * (silences == 2)
    assert peer.presence.asked("n5")
    peer.look()
    peer.held = 7
    peer.pong("n5", 7)
    assert [to for to, kind in sends(peer.look()) if kind == "join"] == []


@pytest.mark.parametrize(("behind", "looks"), [(0, 2), (1, 3), (3, 5), (4, 6), (20, 6)])
def test_who_has_an_older_model_waits_longer_before_it_goes_on(peer, behind, looks):
    peer.members.estimate = 30
    peer.held = 30 - behind
    peer.look()
    for _ in range(looks):
        assert not peer.presence.revive
        peer.look()
    assert peer.presence.revive
    peer.members.estimate += 1
    peer.look()
    assert not peer.presence.revive


def test_nobody_goes_on_with_an_old_model_while_somebody_has_a_newer_one(peer):
    for _ in range(3):
        peer.look()
    assert peer.presence.revive
    peer.pong("n4", 1)
    assert [to for to, kind in sends(peer.look()) if kind == "join"] == ["n4"]
    assert not peer.presence.revive
    peer.look()  # it has not sent it, and is not there any more
    assert peer.presence.revive


def test_it_counts_the_looks_that_nobody_answers(peer):
    peer.members.estimate = 1
    peer.look()
    for k in range(ALONE):
        assert peer.presence.alone == k
        peer.look()
    assert peer.presence.alone == ALONE
    peer.pong("n4", 0)
    peer.look()
    assert peer.presence.alone == 0


def test_who_has_not_been_let_in_never_goes_on_by_itself(joiner):
    for _ in range(20):
        joiner.look()
    assert joiner.presence.silences >= 10
    assert not joiner.presence.revive
