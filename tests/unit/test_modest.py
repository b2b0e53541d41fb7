"""MoDeST by hand: what is begun, what is passed over, who is told, and how a run ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from algorithms.compression import CODECS
from algorithms.merging import MERGINGS
from algorithms.message import COUNT_MAX, Message
from algorithms.modest import Modest
from algorithms.protocol import (
    AHEAD,
    Arrival,
    Cancel,
    Delivered,
    Done,
    Effect,
    Finish,
    Open,
    PeerDown,
    Save,
    Send,
    Start,
    Tick,
    Timer,
    Train,
    Trained,
    Unsuitable,
)
from algorithms.view import Standing, View, draw
from node.draws import Draws

NAMES = ("n0", "n1", "n2", "n3")
PAIRS = [("n0", name) for name in NAMES[1:]]
FIRST, *OTHERS = View(NAMES).candidates(1, 50)
"""Who trains round 1 if there is one participant."""


@pytest.fixture
def make(make_world):
    """A peer of four, at zero in two dimensions; rounds have two participants and one aggregator."""
    make_world.size = 2

    def build(name: str = "n0", contact: str = "", **changes) -> Modest:
        options = {"samples": 2, "aggregators": 1, **changes.pop("options", {})}
        place = replace(make_world.place(name, PAIRS, Draws(0, name)), address=f"{name}:1", local_steps=5)
        return Modest(replace(place, options=options, contact=contact, **changes))

    return build


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def hear(peer: Modest, sender: str, kind: str, number: int, *values: float, now: float = 0.0, view=None, **numbers):
    vectors = {"x": vector(*values)} if values else {}
    return list(peer.step(Arrival(sender, Message(kind, number, vectors, numbers, view or {})), now))


def aggregated(peer: Modest, sender: str, number: int, *values: float) -> list[Effect]:
    return hear(peer, sender, "aggregated", number, *values, expected=2)


def trained(peer: Modest, sender: str, number: int, *values: float, expected: int = 2) -> list[Effect]:
    return hear(peer, sender, "trained", number, *values, expected=expected)


def only(kind: type, effects: list[Effect]):
    (found,) = [effect for effect in effects if isinstance(effect, kind)]
    return found


def words(effects: list[Effect]) -> list[tuple[str, str, int]]:
    sends = [effect for effect in effects if isinstance(effect, Send)]
    return [(e.to, e.message.kind, e.message.number) for e in sends if e.message.kind in ("averaged", "learnt")]


def models(effects: list[Effect]) -> list[tuple[str, Message]]:
    return [(e.to, e.message) for e in effects if isinstance(e, Send) and e.message.kind in ("aggregated", "trained")]


def answer(peer: Modest, effects: list[Effect]) -> list[Effect]:
    """Everybody who is pinged answers."""
    pinged = [effect.to for effect in effects if isinstance(effect, Send) and effect.message.kind == "ping"]
    return [more for name in pinged for more in hear(peer, name, "pong", peer.members.estimate, held=0)]


def state(peer: Modest) -> tuple:
    """All but which members have been active."""
    snapshot = peer.snapshot()
    numbers = {name: value for name, value in snapshot.numbers.items() if not name.startswith("member ")}
    return snapshot.vectors["x"].numpy().tobytes(), numbers, [*peer.members.view]


# ------------------------------------------------------------------------------------------- birth, kinds


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ({"samples": 0}, "samples=0 .* whole number from 1"),
        ({"aggregators": -2}, "aggregators=-2 .* whole number from 1"),
        ({"window": 0}, "window=0 .* whole number from 1"),
        ({"success": 0.0}, "success=0 .* above 0 and up to 1"),
        ({"success": 1.5}, "success=1.5 .* above 0 and up to 1"),
        ({"success": float("nan")}, "success=nan .* above 0 and up to 1"),
    ],
)
def test_options_out_of_bounds_are_refused(make, options, needs):
    with pytest.raises(Unsuitable, match=needs):
        make(options=options)


def test_other_merging_rules_are_refused(make):
    rules = [rule for rule in MERGINGS.values() if not rule.linear]
    assert rules
    for rule in rules:
        with pytest.raises(Unsuitable, match="--merging"):
            make(merging=rule)


def test_anybody_who_is_a_member_may_send_anything(make):
    assert isinstance(make(), Open)
    assert {kind.sender for kind in Modest.kinds.values()} == {"member"}
    carriers = {name for name, kind in Modest.kinds.items() if kind.vectors}
    assert carriers == {"aggregated", "trained", "welcome"}
    assert {name for name, kind in Modest.kinds.items() if not kind.view} == {"averaged", "learnt"}


# -------------------------------------------------------------------------------------------- participants


def test_the_first_of_the_first_round_begin_at_once(make):
    for name in NAMES:
        effects = list(make(name).step(Start(), 0.0))
        jobs = [effect for effect in effects if isinstance(effect, Train)]
        assert len(jobs) == (name in (FIRST, OTHERS[0]))
        assert all((job.at.tolist(), job.steps, job.lr_factor, job.fresh) == ([0.0, 0.0], 5, 1.0, True) for job in jobs)


def test_a_participant_trains_and_sends_what_it_gets_to_the_aggregator(make):
    peer = make(options={"decay": 0.5})
    effects = aggregated(peer, "n2", 3, 1.0, 2.0)
    job = only(Train, effects)
    assert (job.at.tolist(), job.lr_factor) == ([1.0, 2.0], 0.25)
    assert only(Save, effects).durable is False
    job.at.fill_(9.0)  # the trainer may
    assert peer.model(0.0).tolist() == [1.0, 2.0]
    effects = list(peer.step(Trained("round", vector(0.5, -1.0), 0.0, 80), 6.0))
    first = peer.members.candidates(4)[0]
    assert first != "n0"
    ((to, message),) = models(answer(peer, effects))
    assert (to, message.kind, message.number, message.numbers) == (first, "trained", 4, {"expected": 2})
    assert message.vectors["x"].tolist() == [1.5, 1.0]
    # as soon as it has been delivered, whoever sent the mean hears that it was learnt
    assert words(list(peer.step(Delivered(first, "trained", 4), 7.0))) == [("n2", "learnt", 3)]
    assert peer.model(0.0).tolist() == [1.0, 2.0]  # the common model


def test_the_first_copy_wins_and_all_who_sent_one_are_told(make):
    peer = make()
    aggregated(peer, "n2", 3, 1.0, 2.0)
    before = state(peer)
    for sender in ("n3", "n3", "n2"):
        assert aggregated(peer, sender, 3, 7.0, 7.0) == []
    assert state(peer) == before
    effects = answer(peer, list(peer.step(Trained("round", vector(0.0, 0.0), 0.0, 80), 6.0)))
    ((to, message),) = models(effects)
    assert message.vectors["x"].tolist() == [1.0, 2.0]
    told = words(list(peer.step(Delivered(to, "trained", 4), 7.0)))
    assert told == [("n2", "learnt", 3), ("n3", "learnt", 3)]
    assert words(aggregated(peer, "n1", 3, 7.0, 7.0)) == [("n1", "learnt", 3)]


def test_a_newer_round_replaces_the_one_that_is_trained(make):
    peer = make()
    aggregated(peer, "n2", 3, 1.0, 2.0)
    effects = aggregated(peer, "n3", 4, 5.0, 6.0)
    assert Cancel("round") in effects
    assert effects.index(Cancel("round")) < effects.index(only(Train, effects))
    assert only(Train, effects).at.tolist() == [5.0, 6.0]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_round_that_was_trained_or_is_over_is_not_begun(make, number):
    peer = make()
    aggregated(peer, "n2", 3, 1.0, 2.0)
    peer.step(Trained("round", vector(0.0, 0.0), 0.0, 80), 6.0)
    hear(peer, "n1", "ping", 5)
    before = state(peer)
    effects = aggregated(peer, "n3", number, 7.0, 7.0)
    assert words(effects) == [("n3", "learnt", number)]
    assert not any(isinstance(effect, Train) for effect in effects)
    assert state(peer) == before


# --------------------------------------------------------------------------------------------- aggregators

MODELS = np.array([[1.0, 0.25], [4.0, -3.0], [2.5, 0.1]])


def test_the_mean_is_sent_to_the_next_participants_and_its_givers_are_told(make):
    peer = make()
    effects = trained(peer, "n1", 4, *MODELS[0])
    assert only(Timer, effects).name == "average"
    assert trained(peer, "n1", 4, *MODELS[1]) == []  # twice from one
    effects = trained(peer, "n2", 4, *MODELS[2])
    assert Cancel("average") in effects
    mean = ((MODELS[0] + MODELS[2]) / 2).tolist()
    sample = peer.members.candidates(4)[:2]
    effects += answer(peer, effects)
    assert sorted(to for to, _ in models(effects)) == sorted(set(sample) - {"n0"})
    for to, message in models(effects):
        assert (message.kind, message.number, message.vectors["x"].tolist()) == ("aggregated", 4, mean)
        assert words(list(peer.step(Delivered(to, "aggregated", 4), 1.0))) in (
            [("n1", "averaged", 4), ("n2", "averaged", 4)],
            [],
        )
    assert peer.model(0.0).tolist() == mean
    assert peer.counters()["exchanges"] == 2


def test_models_that_come_late_change_nothing(make):
    peer = make()
    trained(peer, "n1", 4, *MODELS[0])
    trained(peer, "n2", 4, *MODELS[2])
    before = peer.x.numpy().tobytes()
    for sender, number in (("n3", 4), ("n2", 4), ("n3", 3)):
        assert (sender, "averaged", number) in words(trained(peer, sender, number, 9.0, 9.0))
    assert peer.x.numpy().tobytes() == before


@pytest.mark.parametrize(("success", "enough"), [(1.0, 3), (0.67, 3), (0.6, 2), (0.1, 1)])
def test_an_aggregator_waits_for_so_many(make, success, enough):
    peer = make(options={"success": success})
    for k in range(3):
        trained(peer, f"n{k + 1}", 4, *MODELS[k], expected=3)
        assert (peer.counters()["averaged_rounds"] == 1) == (k + 1 >= enough)
    np.testing.assert_array_equal(peer.x.numpy(), MODELS[:enough].sum(0) / enough)


def test_after_a_while_it_goes_on_with_those_that_it_has(make):
    peer = make()
    timer = only(Timer, trained(peer, "n1", 4, *MODELS[0], expected=3))
    assert timer.delay > 5  # local steps
    trained(peer, "n3", 4, *MODELS[1], expected=3)
    peer.step(Tick("average"), timer.delay)
    np.testing.assert_array_equal(peer.x.numpy(), (MODELS[0] + MODELS[1]) / 2)
    assert list(peer.step(Tick("average"), 99.0)) == []


def test_what_others_have_finished_is_given_up_and_its_givers_are_told(make):
    peer = make()
    trained(peer, "n1", 4, *MODELS[0])
    effects = hear(peer, "n3", "ping", 5)
    assert Cancel("average") in effects
    assert words(effects) == [("n1", "averaged", 4)]
    assert peer.model(0.0).tolist() == [0.0, 0.0]


# ------------------------------------------------------------------------------------------------ members


@pytest.mark.parametrize("number", [AHEAD + 1, COUNT_MAX - 1])
@pytest.mark.parametrize("kind", sorted(Modest.kinds))
def test_what_cannot_be_true_is_not_plausible(make, kind, number):
    peer = make()
    assert not peer.plausible(Message(kind, number))
    assert not peer.plausible(Message(kind, 0, view={"n1": Standing(active=number)}))
    assert not peer.plausible(Message(kind, 0, view={"n1": Standing(counter=number)}))


@pytest.mark.parametrize("number", [AHEAD + 1, COUNT_MAX - 1])
@pytest.mark.parametrize("kind", sorted(set(Modest.kinds) - {"welcome"}))
def test_nor_to_who_has_not_been_welcomed_yet(make, kind, number):
    assert not make("z", contact="n1").plausible(Message(kind, number))


def test_a_welcome_that_nobody_asked_for_changes_nothing(make):
    joiner = make("z", contact="n1")
    joiner.step(Start(), 0.0)
    before = state(joiner)
    assert hear(joiner, "n2", "welcome", 5 * AHEAD, 9.0, 9.0, view={"n3": Standing(7, 9)}) == []
    assert state(joiner) == before
    hear(joiner, "n1", "welcome", 5 * AHEAD, 1.0, 2.0, view={"n3": Standing(7, 9)})
    assert (joiner.held, joiner.x.tolist(), joiner.members.estimate) == (5 * AHEAD, [1.0, 2.0], 5 * AHEAD)
    before = state(joiner)
    assert hear(joiner, "n1", "welcome", 5 * AHEAD + 1, 3.0, 3.0) == []  # nor one that comes twice
    assert state(joiner) == before


def test_a_model_that_is_sent_after_a_join_takes_whoever_joined_along(make):
    peer = make()
    for k in range(20):
        hear(peer, f"m{k}", "join", 3, view={f"m{k}": Standing(3, 1, address="m:1")})
    assert not any(name.startswith("m") for name in peer.members.candidates(4))
    trained(peer, "n1", 4, *MODELS[0])
    effects = trained(peer, "n2", 4, *MODELS[2])
    pinged = {e.to for e in effects if isinstance(e, Send) and e.message.kind == "ping"}
    assert not any(name.startswith("m") for name in pinged)
    sent = [message for _, message in models(answer(peer, effects))]
    assert sent
    assert sum(name.startswith("m") for name in peer.members.candidates(5)) == 20


def test_who_is_reported_gone_is_in_doubt_and_may_refute_it(make):
    peer, other = make("n0"), make("n1")
    peer.step(PeerDown("n1"), 0.0)
    assert peer.members.view["n1"].in_doubt
    effects = list(other.step(Arrival("n0", peer.members.ping("n1")), 0.0))
    assert only(Save, effects).durable is True
    hear(peer, "n1", "pong", 0, held=0, view=only(Send, effects).message.view)
    peer.members.admit()
    assert not peer.members.view["n1"].in_doubt


# ------------------------------------------------------------------------------------------- the end, later


def last(make, name: str, **changes) -> Modest:
    """A peer that has averaged the last round of a run."""
    peer = make(name, rounds=3, **changes)
    givers = [other for other in NAMES if other != name][:2]
    peer.ended = [effect for giver in givers for effect in trained(peer, giver, 4, *MODELS[0])]
    return peer


def test_the_first_aggregator_of_the_last_round_tells_everybody(make):
    first, second = View(NAMES).candidates(4, 50)[:2]
    peer = last(make, first)
    assert sorted(to for to, _ in models(peer.ended)) == sorted(set(NAMES) - {first})
    waiting = last(make, second)
    assert models(waiting.ended) == []
    (spread,) = [effect for effect in waiting.ended if isinstance(effect, Timer) and effect.name == "spread"]
    assert sorted(to for to, _ in models(list(waiting.step(Tick("spread"), spread.delay)))) == sorted(
        set(NAMES) - {second}
    )


def test_everybody_ends_with_the_bytes_of_whoever_has_the_least_lot(make):
    order = sorted(NAMES, key=lambda name: draw(name, 4))
    copies = {order[1]: (1.0, 1.0), order[0]: (2.0, 2.0), order[2]: (3.0, 3.0)}
    peer = make(order[3], rounds=3)
    for sender, values in copies.items():
        aggregated(peer, sender, 4, *values)
    assert peer.x.tolist() == [2.0, 2.0]
    second = last(make, order[1])  # its own is not yet with others
    assert Cancel("spread") in aggregated(second, order[2], 4, 3.0, 3.0)
    assert second.x.tolist() == [3.0, 3.0]
    spreading = last(make, order[0])  # its own is
    assert aggregated(spreading, order[2], 4, 3.0, 3.0) == []
    assert spreading.x.tolist() == MODELS[0].tolist()


def test_after_the_last_round_nothing_is_begun_and_then_it_is_done(make):
    peer = make("n0", rounds=3)
    aggregated(peer, "n2", 2, 1.0, 2.0)
    effects = aggregated(peer, "n3", 4, 5.0, 6.0)
    assert {"round", "look"} <= {effect.name for effect in effects if isinstance(effect, Cancel)}
    timer = only(Timer, effects)
    for effects in (aggregated(peer, "n1", 3, 7.0, 7.0), trained(peer, "n1", 4, 7.0, 7.0)):
        assert not any(isinstance(effect, Train | Timer) for effect in effects)
        assert words(effects)
    assert only(Done, list(peer.step(Tick(timer.name), timer.delay))).vector.tolist() == [5.0, 6.0]
    assert list(peer.step(Arrival("n1", Message("ping", 4)), 99.0)) == []


def test_who_leaves_takes_nothing_on_and_is_done_when_all_is_settled(make):
    peer = make("n0")
    aggregated(peer, "n2", 3, 1.0, 2.0)
    effects = list(peer.step(Finish(), 1.0))
    told = [effect.to for effect in effects if isinstance(effect, Send) and effect.message.kind == "standing"]
    assert aggregated(peer, "n2", 4, 9.0, 9.0) == []
    for name in told:
        assert list(peer.step(Delivered(name, "standing", 3), 2.0)) == []
    effects = list(peer.step(Trained("round", vector(1.0, 0.0), 0.0, 80), 6.0))
    ((to, message),) = models(answer(peer, effects))
    assert (to != "n0", message.vectors["x"].tolist()) == (True, [2.0, 2.0])
    peer.step(Delivered(to, "trained", 4), 7.0)
    assert only(Done, hear(peer, to, "averaged", 4)).vector.tolist() == [1.0, 2.0]


def test_a_snapshot_keeps_the_model_and_what_was_done(make):
    peer = make("n0")
    aggregated(peer, "n2", 3, 1.0, 2.0)
    trained(peer, "n1", 4, *MODELS[0])
    trained(peer, "n2", 4, *MODELS[2])
    hear(peer, "n3", "trained", 2, 0.0, 0.0, expected=2, view={"z": Standing(3, 1, address="z:1")})
    saved, later = peer.snapshot(), make("n0")
    peer.x.fill_(99.0)  # a snapshot's vectors are its own
    later.restore(saved)
    mean = ((MODELS[0] + MODELS[2]) / 2).tolist()
    assert (later.held, later.model(0.0).tolist()) == (4, mean)
    effects = list(later.step(Start(recovered=True), 0.0))
    assert any(isinstance(effect, Save) and effect.durable for effect in effects)
    assert later.members.own.counter == 1
    assert "z" in later.members.candidates(4)
    assert words(aggregated(later, "n2", 3, 7.0, 7.0)) == [("n2", "learnt", 3)]
    assert words(trained(later, "n3", 4, 7.0, 7.0)) == [("n3", "averaged", 4)]
    counters = later.counters()
    assert (counters["rounds"], counters["exchanges"], counters["averaged_rounds"]) == (3, 2, 1)
    assert later.model(0.0).tolist() == mean


def test_what_is_sent_is_rounded_by_the_codec(make):
    peer = make(codec=CODECS["half-float16"])
    aggregated(peer, "n2", 3, 1.0, 2.0)
    effects = answer(peer, list(peer.step(Trained("round", vector(1e-5, 1 / 3), 0.0, 80), 6.0)))
    ((_, message),) = models(effects)
    assert message.vectors["x"].tolist() == vector(1 + 1e-5, 2 + 1 / 3).half().double().tolist()
