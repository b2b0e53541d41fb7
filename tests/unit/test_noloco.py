"""NoLoCo by hand arithmetic: who meets whom, what an outer step is, and whom nobody waits for."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from algorithms.merging import MERGINGS
from algorithms.noloco import Noloco
from algorithms.protocol import (
    AHEAD,
    Arrival,
    Delivered,
    Done,
    Finish,
    Message,
    PeerDown,
    PeerUp,
    Reason,
    Send,
    Start,
    Tick,
    Timer,
    Train,
    Trained,
    Undelivered,
    Unsuitable,
)
from node.draws import Draws

NAMES = ("a", "b", "c", "d")


@pytest.fixture
def make(make_world):
    """A peer of four, at zero in two dimensions."""
    make_world.size = 2

    def build(
        name: str = "a", nodes: tuple[str, ...] = NAMES, rounds: float = 100, merging="mean", **options
    ) -> Noloco:
        place = make_world.place(name, list(pairwise(nodes)), Draws(0, name))
        return Noloco(replace(place, nodes=nodes, rounds=rounds, options=options, merging=MERGINGS[merging]))

    return build


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def train(peer: Noloco, *change: float, now: float = 0.0) -> list:
    return list(peer.step(Trained("outer", vector(*change), 0.0, 1), now))


def outer(number: int, delta: tuple, phi: tuple) -> Message:
    return Message("outer", number, {"delta": vector(*delta), "phi": vector(*phi)})


def hear(peer: Noloco, sender: str, message: Message, now: float = 0.0) -> list:
    return list(peer.step(Arrival(sender, message), now))


def all_of(kind, effects) -> list:
    return [effect for effect in effects if isinstance(effect, kind)]


def test_groups_part_the_peers_and_everybody_is_met(make):
    names = tuple(f"n{i}" for i in range(7))
    peers = {name: make(name, names) for name in names}
    met, alone = Counter(), Counter()
    for step in range(2100):
        groups = {name: set(peer.group(step)) for name, peer in peers.items()}
        for name, group in groups.items():
            assert len(group) <= 1
            assert all(groups[other] == {name} for other in group)
            met.update((name, other) for other in group)
            alone[name] += not group
    # of 2100 steps each pair meets in a seventh, 300 ± 16, and each peer is alone in as many
    assert len(met) == 42
    assert all(abs(count - 300) < 80 for count in [*met.values(), *alone.values()])


def test_a_group_of_all(make):
    assert sorted(make(group=0).group(5)) == ["b", "c", "d"]
    assert sorted(make(group=9).group(5)) == ["b", "c", "d"]


def test_an_outer_step(make):
    a = make(alpha=0.5, beta=0.8, gamma=0.6)
    (first,) = all_of(Train, a.step(Start(), 0.0))
    assert (first.key, first.at.tolist()) == ("outer", [0.0, 0.0])
    (b,) = a.group(0)
    effects = train(a, 2.0, -1.0)
    (sent,) = all_of(Send, effects)
    assert (sent.to, sent.message.kind, sent.message.number) == (b, "outer", 1)
    assert {key: value.tolist() for key, value in sent.message.vectors.items()} == {"delta": [2, -1], "phi": [0, 0]}
    assert all_of(Train, effects) == []
    (again,) = all_of(Train, hear(a, b, outer(1, (4.0, 1.0), (1.0, 10.0))))
    # 0.8 · (3, 0) + 0.6 · (0.5, 5)
    torch.testing.assert_close(a.model(0.0), vector(2.7, 3.0))
    assert again.at.tolist() == a.model(0.0).tolist()
    # alone: half of the last, and 0.8 of the own
    a.step(PeerDown(a.group(1)[0]), 0.0)
    train(a, 1.0, 1.0)
    torch.testing.assert_close(a.model(0.0), vector(2.7 + 1.35 + 0.8, 3.0 + 1.5 + 0.8))
    assert a.counters() == {"rounds": 2, "exchanges": 1, "missed_models": 1}


def test_nothing_that_was_handed_over_is_kept_or_written(make):
    a = make(gamma=0.0, alpha=0.0, beta=1.0)
    (b,) = a.group(0)
    change, theirs = vector(2.0, 2.0), outer(1, (4.0, 4.0), (9.0, 9.0))
    hear(a, b, theirs)
    theirs.vectors["delta"].fill_(99)
    sent = all_of(Send, a.step(Trained("outer", change, 0.0, 1), 0.0))[0].message
    change.fill_(99)
    assert a.model(0.0).tolist() == [3.0, 3.0]
    train(a, 1.0, 1.0)
    a.model(0.0).fill_(99)
    assert (sent.vectors["delta"].tolist(), sent.vectors["phi"].tolist()) == ([2.0, 2.0], [0.0, 0.0])
    assert a.model(0.0).tolist() == [3.0, 3.0]


def test_what_is_not_for_this_step_or_from_this_group_counts_for_nothing(make):
    a = make()
    (b,) = a.group(0)
    train(a, 1.0, 1.0)
    stranger = next(name for name in NAMES[1:] if name != b)
    assert hear(a, stranger, outer(1, (1.0, 1.0), (1.0, 1.0))) == []
    assert hear(a, b, outer(0, (1.0, 1.0), (1.0, 1.0))) == []
    assert a.counters()["rounds"] == 0
    hear(a, b, outer(1, (1.0, 1.0), (0.0, 0.0)))
    assert a.counters()["rounds"] == 1
    assert hear(a, b, outer(1, (5.0, 5.0), (5.0, 5.0))) == []


def test_the_deadline_ends_a_wait_and_who_missed_it_is_not_waited_for(make):
    a = make(group=0)
    (deadline,) = all_of(Timer, train(a, 1.0, 1.0))
    assert (deadline.name, deadline.delay) == ("deadline", 5.0)
    assert all_of(Train, hear(a, "b", outer(1, (1.0, 1.0), (0.0, 0.0)))) == []
    assert all_of(Train, hear(a, "c", outer(1, (1.0, 1.0), (0.0, 0.0)))) == []
    assert len(all_of(Train, a.step(Tick("deadline"), 5.0))) == 1
    # d is not waited for, until it is heard: late, but that is enough
    train(a, 1.0, 1.0, now=6.0)
    hear(a, "b", outer(2, (1.0, 1.0), (0.0, 0.0)), now=6.0)
    assert len(all_of(Train, hear(a, "c", outer(2, (1.0, 1.0), (0.0, 0.0)), now=6.0))) == 1
    hear(a, "d", outer(1, (1.0, 1.0), (0.0, 0.0)), now=6.5)
    train(a, 1.0, 1.0, now=7.0)
    hear(a, "b", outer(3, (1.0, 1.0), (0.0, 0.0)), now=7.0)
    assert all_of(Train, hear(a, "c", outer(3, (1.0, 1.0), (0.0, 0.0)), now=7.0)) == []
    assert len(all_of(Train, hear(a, "d", outer(3, (1.0, 1.0), (0.0, 0.0)), now=7.0))) == 1
    assert a.counters() == {"rounds": 3, "exchanges": 7, "missed_models": 2}


def test_who_is_gone_or_out_of_reach_is_not_waited_for(make):
    a = make(group=0)
    train(a, 1.0, 1.0)
    a.step(PeerDown("b"), 0.0)
    a.step(Undelivered("c", "outer", 1, Reason.UNREACHABLE), 0.0)
    assert all_of(Train, a.step(Undelivered("d", "outer", 1, Reason.TIMEOUT), 0.0)) == []
    assert len(all_of(Train, a.step(PeerDown("d"), 0.0))) == 1
    a.step(PeerUp("d"), 0.0)
    assert all_of(Train, train(a, 1.0, 1.0)) == []


def test_a_message_is_repeated_until_it_is_heard_or_another_follows(make):
    a = make(group=0)
    train(a, 1.0, 1.0)
    (again,) = all_of(Timer, a.step(Undelivered("b", "outer", 1, Reason.TIMEOUT), 0.0))
    assert 0.05 <= again.delay <= 0.15
    assert [send.message.number for send in all_of(Send, a.step(Tick(again.name), 0.0))] == [1]
    a.step(Delivered("b", "outer", 1), 0.0)
    assert list(a.step(Tick(again.name), 0.0)) == []
    assert list(a.step(Undelivered("c", "outer", 1, Reason.WRONG_RUN), 0.0)) == []
    assert list(a.step(Tick("again c"), 0.0)) == []
    a.step(Tick("deadline"), 9.0)
    train(a, 1.0, 1.0, now=10.0)
    assert list(a.step(Undelivered("d", "outer", 1, Reason.TIMEOUT), 10.0)) == []


def test_who_was_left_behind_goes_on_where_the_others_are(make):
    a = make()
    partner_at = {step: a.group(step)[0] for step in range(10)}
    hear(a, partner_at[1], outer(2, (1.0, 1.0), (0.0, 0.0)))
    assert all_of(Send, train(a, 1.0, 1.0))[0].message.number == 1  # one step ahead is nothing unusual
    hear(a, partner_at[0], outer(1, (1.0, 1.0), (0.0, 0.0)))
    hear(a, partner_at[8], outer(9, (1.0, 1.0), (0.0, 0.0)))
    effects = train(a, 1.0, 1.0)
    assert all_of(Send, effects)[0].message.number == 9
    assert len(all_of(Train, effects)) == 1  # the other one's part has been there
    assert a.counters() == {"rounds": 9, "exchanges": 2, "missed_models": 0}


def test_a_snapshot_is_all_there_is(make):
    a = make(alpha=0.5, beta=1.0)
    a.step(PeerDown(a.group(0)[0]), 0.0)
    train(a, 2.0, 4.0)
    train(a, 9.0, 9.0)  # the second step is under way
    saved = a.snapshot()
    again = make(alpha=0.5, beta=1.0)
    again.restore(saved)
    a.phi.fill_(99)
    a.delta.fill_(99)
    assert again.counters() == {"rounds": 1, "exchanges": 0, "missed_models": 1}
    assert all_of(Train, again.step(Start(recovered=True), 0.0))[0].at.tolist() == [2.0, 4.0]
    again.step(PeerDown(again.group(1)[0]), 0.0)
    train(again, 0.0, 0.0)
    assert again.model(0.0).tolist() == [3.0, 6.0]


def test_the_end(make):
    a = make(rounds=1)
    (b,) = a.group(0)
    train(a, 2.0, 2.0)
    effects = hear(a, b, outer(1, (2.0, 2.0), (0.0, 0.0)))
    assert (all_of(Train, effects), all_of(Done, effects), all_of(Timer, effects)[0].name) == ([], [], "linger")
    (done,) = all_of(Done, a.step(Delivered(b, "outer", 1), 0.0))
    torch.testing.assert_close(done.vector, vector(1.4, 1.4))
    assert list(a.step(Finish(), 0.0)) == []


def test_finish_leaves_the_step_under_way(make):
    a = make()
    train(a, 2.0, 2.0)
    a.step(Finish(), 0.0)
    (done,) = all_of(Done, a.step(Tick("linger"), 60.0))
    assert done.vector.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    "options", [{"alpha": 1.0}, {"alpha": -0.1}, {"beta": 0.0}, {"gamma": -1.0}, {"group": 1}, {"group": -2}]
)
def test_options_out_of_bounds_are_refused(make, options):
    (name,) = options
    with pytest.raises(Unsuitable, match=f"--set {name}="):
        make(**options)


def test_other_merging_rules_are_refused(make):
    with pytest.raises(Unsuitable, match="--merging variance-corrected"):
        make(merging="variance-corrected")


@pytest.mark.parametrize(("ahead", "follows"), [(AHEAD, True), (AHEAD + 2, False), (2**53 - 1, False)])
def test_a_step_too_far_ahead_is_not_believed(make, ahead, follows):
    peer = make(rounds=math.inf)
    list(peer.step(Start(), 0.0))
    partner = next(name for name in peer.group(ahead - 1) if name != "a")
    list(peer.step(Arrival(partner, outer(ahead, (0, 0), (0, 0))), 0.0))
    train(peer, 0, 0)
    assert (peer.round > 0) is follows
