"""Membership by hand: what is believed, what waits, what is refuted, and what others are told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from algorithms.membership import JOINED_MAX, Membership
from algorithms.protocol import AHEAD, Meet, Message, Part, Save
from algorithms.view import Standing
from node.draws import Draws

FOUNDERS = [("a", "b"), ("b", "c")]
WINDOW = 10


@pytest.fixture
def make(make_world):
    def build(name: str = "a", contact: str = "") -> Membership:
        draws = Draws(0, name)
        place = replace(make_world.place(name, FOUNDERS, draws), address=f"{name}:1", contact=contact)
        return Membership(place, WINDOW, draws("members"))

    return build


@pytest.fixture
def members(make) -> Membership:
    return make()


def say(number: int = 0, view: Mapping[str, Standing] | None = None, kind: str = "aggregated") -> Message:
    return Message(kind, number, view=view or {})


def hear(members: Membership, sender: str, number: int = 0, wait: bool = False, **view: Standing) -> list:
    return members.hear(sender, say(number, view), joins_wait=wait)


# ------------------------------------------------------------------------------------------ what is believed


@pytest.mark.parametrize(
    "message",
    [
        say(number=AHEAD + 6),
        say(view={"b": Standing(active=AHEAD + 6)}),
        say(view={"b": Standing(counter=AHEAD + 1)}),
        say(view={"z": Standing(counter=AHEAD)}),  # nobody knows z, so that its counter is -1
        say(view={"b": Standing(doubted=AHEAD + 1)}),
        Message("pong", 0, numbers={"held": AHEAD + 6}),
    ],
)
def test_far_rounds_and_counters_are_not_believed(members, message):
    members.estimate = 5
    assert not members.plausible(message)


@pytest.mark.parametrize(
    "message",
    [
        say(number=AHEAD + 5, view={"b": Standing(AHEAD + 5, AHEAD, doubted=AHEAD), "z": Standing(0, AHEAD - 1)}),
        Message("pong", 0, numbers={"held": AHEAD + 5}),
    ],
)
def test_near_ones_are(members, message):
    members.estimate = 5
    assert members.plausible(message)


def test_who_joins_believes_a_welcome_and_nothing_else_that_is_far(make):
    joiner = make("z", contact="a")
    far = {"b": Standing(active=5 * AHEAD)}
    assert joiner.plausible(say(5 * AHEAD, far, "welcome"))
    assert not joiner.plausible(say(5 * AHEAD, kind="aggregated"))
    assert not joiner.plausible(say(0, far, "ping"))
    joiner.newcomer = False
    assert not joiner.plausible(say(5 * AHEAD, far, "welcome"))


def test_too_many_members_are_not_believed(members):
    crowd = {f"m{k}": Standing(0, 1) for k in range(JOINED_MAX + 1)}
    assert not members.plausible(say(view=crowd))
    del crowd["m0"]
    assert members.plausible(say(view=crowd))
    assert members.plausible(say(view={**crowd, "b": Standing(1)}))
    members.hear("b", say(view=crowd), joins_wait=True)  # those who wait count as well
    assert members.plausible(say(view=crowd))
    assert not members.plausible(say(view={"one-more": Standing(0, 1)}))
    assert members.plausible(say())


# ----------------------------------------------------------------------------------------------- joining


def test_whoever_speaks_is_active_in_the_newest_round(members):
    hear(members, "b", 4)
    hear(members, "c", 2)
    assert (members.estimate, members.view["b"].active, members.view["c"].active) == (4, 4, 4)


def test_a_view_says_what_round_it_is(members):
    hear(members, "b", 4, c=Standing(active=9))
    assert members.estimate == 9


def test_who_joins_waits_until_a_model_has_been_sent(members):
    z = Standing(3, 1, address="z:1")
    effects = hear(members, "z", 3, wait=True, z=z)
    assert effects == [Meet("z", "z:1")]
    assert "z" not in members.candidates(3)
    members.admit()
    assert "z" in members.candidates(3)
    assert members.view["z"] == z


def test_who_comes_with_a_model_does_not_wait(members):
    hear(members, "b", 3, z=Standing(3, 1, address="z:1"))
    assert "z" in members.candidates(3)


def test_who_waits_and_says_so_again_is_no_news(members):
    """Else what it was told meanwhile would count as lost each time."""
    z = Standing(3, 1, address="z:1")
    assert len(hear(members, "z", 3, wait=True, z=z)) == 1
    members.returned.clear()
    members.told("z", 5)
    assert hear(members, "z", 4, wait=True, z=z._replace(active=4)) == []
    assert members.returned == set()
    assert members.lacking(["z"], 4) == {}
    members.admit()
    assert members.view["z"].active == 4


def test_who_waits_and_comes_back_once_more_is_news(members):
    hear(members, "z", 3, wait=True, z=Standing(3, 1, address="z:1"))
    assert hear(members, "z", 3, wait=True, z=Standing(3, 2, address="z:2")) == [Meet("z", "z:2")]
    members.admit()
    assert members.view["z"].address == "z:2"


def test_who_leaves_is_gone_at_once(members):
    assert hear(members, "b", 3, wait=True, b=Standing(3, 1, left=True)) == [Part("b")]
    assert "b" not in members.candidates(3)
    assert members.present == 2


# ------------------------------------------------------------------------------------------ doubt and lies


def test_doubt_puts_a_member_last_and_its_next_counter_ends_it(members):
    order = members.candidates(1)
    first = next(name for name in order if name != "a")
    members.doubt(first)
    assert members.candidates(1) == [*(name for name in order if name != first), first]
    assert members.astray(5) == [first]
    hear(members, first, 1, **{first: Standing(1, 1)})
    assert members.candidates(1) == order
    assert members.astray(5) == []


def test_nobody_doubts_itself_or_strangers(members):
    members.doubt("a")
    members.doubt("stranger")
    assert not members.own.in_doubt
    assert "stranger" not in members.view


@pytest.mark.parametrize(
    ("lie", "counter"),
    [
        (Standing(doubted=0), 1),
        (Standing(doubted=7), 8),
        (Standing(counter=4, left=True), 5),
        (Standing(counter=0, left=True), 1),
        (Standing(counter=0, address="elsewhere:1"), 1),
        (Standing(counter=9, doubted=12), 13),
    ],
)
def test_a_lie_about_oneself_is_refuted_with_a_larger_counter(members, lie, counter):
    effects = hear(members, "b", 3, a=lie)
    assert effects == [Save(durable=True)]
    assert members.own == Standing(3, counter, False, "a:1", lie.doubted)
    assert not members.own.in_doubt
    assert members.refuted == 1
    assert hear(members, "c", 3, a=lie) == []  # it has been
    assert members.view.of("a").merge(lie) == members.own  # and everybody who reads both believes it


@pytest.mark.parametrize("truth", [Standing(active=2), Standing(0, 0), Standing(2, -1)])
def test_what_is_true_of_oneself_is_not_refuted(members, truth):
    assert hear(members, "b", 3, a=truth) == []
    assert members.own.counter == 0


def test_who_has_left_and_is_said_to_be_there_leaves_again(members):
    members.write(left=True)
    hear(members, "b", 3, a=Standing(3, 6, address="a:1"))
    assert (members.own.counter, members.own.left) == (7, True)


def test_a_member_in_doubt_is_told_so_when_it_is_asked(members):
    assert members.ping("b") == Message("ping", 0)
    members.doubt("b")
    assert members.ping("b").view == {"b": Standing(0, 0, doubted=0)}
    members.write()
    assert members.ping("c").view == {"a": members.own}


# ------------------------------------------------------------------------------------------ what others lack


def test_what_was_told_is_not_told_again_until_its_hearer_comes_back(members):
    hear(members, "b", 3, z=Standing(3, 1, address="z:1"))
    assert set(members.lacking(["b", "c"], 3)) == {"b", "z"}
    members.told("c", members.view.version)
    assert members.lacking(["c"], 3) == {}
    assert set(members.lacking(["b", "c"], 3)) == {"b", "z"}
    members.returned.clear()
    hear(members, "c", 3, c=Standing(3, 1))
    assert members.returned == {"c"}
    assert set(members.lacking(["c"], 3)) == {"b", "c", "z"}


def test_members_who_are_quiet_for_longer_than_the_window_are_not_sampled(members):
    hear(members, "b", WINDOW)
    assert set(members.candidates(WINDOW)) == {"a", "b", "c"}
    assert set(members.candidates(WINDOW + 1)) == {"a", "b"}
    members.estimate = WINDOW + 1
    assert members.astray(5) == ["c"]


def test_a_snapshot_brings_everything_back(make, members):
    hear(members, "b", 12, z=Standing(3, 1, address="z:1"), c=Standing(9, 2, True), b=Standing(doubted=0))
    members.write()
    later = make()
    assert later.restore(members.snapshot()) == [Meet("z", "z:1")]
    assert dict(later.view) == dict(members.view)
    assert (later.estimate, later.newcomer) == (12, False)
    assert later.candidates(12) == members.candidates(12)
