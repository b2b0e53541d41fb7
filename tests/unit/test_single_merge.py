"""Sparse merging by hand arithmetic: when a peer draws, whom, what a merge is, and how long it is waited for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from algorithms.merging import MERGINGS
from algorithms.protocol import (
    Arrival,
    Done,
    Effect,
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
from algorithms.single_merge import SingleMerge
from node.draws import Draws

EDGES = [("a", "b"), ("c", "a")]


@pytest.fixture
def make(make_world):
    """A peer that owns its edge with ``b`` and not the one with ``c``, in two dimensions; r is 1 unless said."""
    make_world.size = 2

    def build(name="a", edges=EDGES, seed=0, rounds=float("inf"), merging="mean", start=(0.0, 0.0), **options):
        place = make_world.place(name, edges, Draws(seed, name))
        options = {"probability": 1.0, **options}
        start = vector(*start)
        return SingleMerge(replace(place, rounds=rounds, options=options, merging=MERGINGS[merging], start=start))

    return build


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def train(peer: SingleMerge, *change: float) -> list[Effect]:
    return list(peer.step(Trained("round", vector(*(change or (0.0, 0.0))), 0.0, 1), 0.0))


def hear(peer: SingleMerge, sender: str, message: Message) -> list[Effect]:
    return list(peer.step(Arrival(sender, message), 0.0))


def all_of(kind, effects) -> list:
    return [effect for effect in effects if isinstance(effect, kind)]


def sent(effects) -> Send:
    (send,) = all_of(Send, effects)
    return send


def goes_on(effects) -> bool:
    return bool(all_of(Train, effects))


# ------------------------------------------------------------------------------------------------------- draws


def test_it_draws_as_often_as_asked_and_everybody_alike(make):
    a = make(probability=0.3, pairing="pull")
    drawn: Counter[str] = Counter()
    for _ in range(4000):
        for send in all_of(Send, train(a)):
            drawn[send.to] += 1
            a.step(Undelivered(send.to, "ask", send.message.number, Reason.TIMEOUT), 0.0)
    # five standard deviations of a binomial count, p = 0.15
    assert all(abs(drawn[name] - 600) < 5 * np.sqrt(4000 * 0.15 * 0.85) for name in ("b", "c"))
    assert a.counters() == {"rounds": 4000, "exchanges": 0}


def test_it_draws_only_who_is_there(make):
    a = make(pairing="pull")
    a.step(PeerDown("c"), 0.0)
    for _ in range(20):
        assert sent(train(a)).to == "b"
        a.step(Tick("patience"), 0.0)
    assert goes_on(a.step(PeerDown("b"), 0.0)) is False
    assert goes_on(train(a))
    a.step(PeerUp("c"), 0.0)
    assert sent(train(a)).to == "c"


@pytest.mark.parametrize(
    ("window", "inside"), [("0:0.1", [0]), ("0.9:1", [9]), ("0.3:0.7", [3, 4, 5, 6]), ("0:1", list(range(10)))]
)
def test_a_window_is_a_part_of_the_rounds(make, window, inside):
    a = make(rounds=10, window=window, pairing="pull")
    drew = []
    for _ in range(10):
        drew.append(bool(all_of(Send, train(a))))
        a.step(Tick("patience"), 0.0)
    assert [t for t, there in enumerate(drew) if there] == inside


def test_outside_the_window_there_is_another_probability(make):
    a = make(rounds=8000, window="0.5:1", probability=0.0, outside=0.25, pairing="pull")
    early, late = 0, 0
    for t in range(8000):
        draws = bool(all_of(Send, train(a)))
        early, late = early + (draws and t < 4000), late + (draws and t >= 4000)
        a.step(Tick("patience"), 0.0)
    assert late == 0
    assert abs(early - 1000) < 5 * np.sqrt(4000 * 0.25 * 0.75)


# -------------------------------------------------------------------------------------------------------- pull


def test_pulling_moves_one_end_half_way(make):
    a, b = make(pairing="pull", edges=[("b", "a")]), make("b", [("b", "a")], pairing="pull")
    (first,) = all_of(Train, a.step(Start(), 0.0))
    assert (first.key, first.at.tolist()) == ("round", [0.0, 0.0])
    train(b, 3.0, -1.0)
    effects = train(a, 1.0, 1.0)
    assert not goes_on(effects)
    assert [(timer.name, timer.delay) for timer in all_of(Timer, effects)] == [("patience", 5.0)]
    question = sent(effects).message
    answer = sent(hear(b, "a", question)).message
    effects = hear(a, "b", answer)
    assert all_of(Train, effects)[0].at.tolist() == [2.0, 0.0]
    assert (a.model(0.0).tolist(), b.model(0.0).tolist()) == ([2.0, 0.0], [3.0, -1.0])
    assert hear(a, "b", answer) == []  # repeated
    assert a.ledger() is None
    assert (a.counters(), b.counters()) == ({"rounds": 1, "exchanges": 1}, {"rounds": 0, "exchanges": 0})
    # neither holds what the other may write
    answer.vectors["x"].fill_(99)
    assert (a.model(0.0).tolist(), b.model(0.0).tolist()) == ([2.0, 0.0], [3.0, -1.0])


def test_an_answer_that_comes_too_late_to_be_waited_for_is_used_beside_the_steps(make):
    a = make(pairing="pull", edges=[("b", "a")])
    question = sent(train(a, 1.0, 1.0)).message
    assert goes_on(a.step(Tick("patience"), 5.0))
    assert hear(a, "b", Message("model", question.number, {"x": vector(3.0, 5.0)})) == []
    a.step(Trained("round", vector(0.5, 0.0), 0.0, 1), 9.0)
    assert a.model(0.0).tolist() == [2.5, 3.0]


def test_the_merging_rule_has_the_last_word(make):
    a = make(pairing="pull", edges=[("b", "a")], merging="variance-corrected")
    question = sent(train(a, 1.0, 3.0)).message
    hear(a, "b", Message("model", question.number, {"x": vector(10.0, 0.0)}))
    plain, wanted = np.array([5.5, 1.5]), 25.0
    stretched = (plain - plain.mean()) * np.sqrt(wanted / plain.var()) + plain.mean()
    np.testing.assert_allclose(a.model(0.0).numpy(), stretched, rtol=1e-14)


# --------------------------------------------------------------------------------------------------- symmetric


def test_an_owner_begins_an_exchange_and_waits_for_it(make):
    a, b = make(edges=[("a", "b")]), make("b", [("a", "b")])
    train(b, 3.0, -1.0)
    effects = train(a, 1.0, 1.0)
    offer = sent(effects)
    assert (offer.message.kind, goes_on(effects)) == ("offer", False)
    reply = sent(hear(b, "a", offer.message))
    assert all_of(Train, hear(a, "b", reply.message))[0].at.tolist() == [2.0, 0.0]
    assert (a.model(0.0).tolist(), b.model(0.0).tolist()) == ([2.0, 0.0], [2.0, 0.0])
    assert (a.ledger() + b.ledger()).tolist() == [0.0, 0.0]
    assert a.counters() == {"rounds": 1, "exchanges": 1, "lost_exchanges": 0}


def test_the_other_end_calls_for_one(make):
    a, b = make(edges=[("a", "b")]), make("b", [("a", "b")], probability=1.0)
    effects = train(b, 3.0, -1.0)
    call = sent(effects).message
    assert (call.kind, call.number, goes_on(effects)) == ("call", 1, False)
    offer = sent(hear(a, "b", call)).message
    assert hear(a, "b", call) == []  # repeated
    effects = hear(b, "a", offer)
    assert goes_on(effects)
    hear(a, "b", sent(effects).message)
    assert (a.model(0.0).tolist(), b.model(0.0).tolist()) == ([1.5, -0.5], [1.5, -0.5])
    assert hear(a, "b", call) == []
    assert sent(train(b)).message.number == 2


def test_draws_of_both_ends_at_one_time_are_one_merge(make):
    a, b = make(edges=[("a", "b")]), make("b", [("a", "b")])
    offer, call = sent(train(a, 2.0, 2.0)).message, sent(train(b, 4.0, 0.0)).message
    assert hear(a, "b", call) == []
    effects = hear(b, "a", offer)
    assert goes_on(effects)
    effects = hear(a, "b", sent(effects).message)
    assert (goes_on(effects), all_of(Send, effects)) == (True, [])
    assert (a.model(0.0).tolist(), a.counters()["exchanges"]) == ([3.0, 1.0], 1)


def test_a_call_that_is_not_heard_is_no_reason_to_wait(make):
    b = make("b", [("a", "b")])
    call = sent(train(b)).message
    assert goes_on(b.step(Undelivered("a", "call", call.number, Reason.UNREACHABLE), 0.0))
    train(b)
    assert goes_on(b.step(PeerDown("a"), 0.0))


def test_a_merge_that_takes_too_long_is_made_beside_the_steps(make):
    a, b = make(edges=[("a", "b")]), make("b", [("a", "b")])
    train(b, 3.0, -1.0)
    offer = sent(train(a, 1.0, 1.0)).message
    assert goes_on(a.step(Tick("patience"), 5.0))
    reply = sent(hear(b, "a", offer)).message
    assert not goes_on(hear(a, "b", reply))
    train(a, 0.5, 0.0)
    assert a.model(0.0).tolist() == [2.5, 0.0]
    assert float((a.ledger() + b.ledger()).norm()) == 0


@pytest.mark.parametrize("kind", ["call", "ask", "model"])
def test_what_nobody_asked_for_does_no_harm(make, kind):
    vectors = {"x": vector(9.0, 9.0)} if kind == "model" else {}
    for pairing in ("pull", "symmetric"):
        a = make(pairing=pairing)
        hear(a, "c", Message(kind, 1, vectors))
        assert a.model(0.0).tolist() == [0.0, 0.0]


# ------------------------------------------------------------------------------------------- crashes and the end


@pytest.mark.parametrize("pairing", ["pull", "symmetric"])
def test_a_snapshot_is_all_there_is(make, pairing):
    a = make(pairing=pairing, rounds=9)
    train(a, 2.0, 4.0)
    a.step(Tick("patience"), 0.0)
    saved = a.snapshot()
    train(a, 9.0, 9.0)
    again = make(pairing=pairing, rounds=9)
    again.restore(saved)
    assert (again.model(0.0).tolist(), again.counters()["rounds"]) == ([2.0, 4.0], 1)
    assert all_of(Train, again.step(Start(recovered=True), 0.0))[0].at.tolist() == [2.0, 4.0]
    assert again.snapshot().numbers["questions"] == saved.numbers["questions"] == (pairing == "pull")


def test_after_its_rounds_it_stays_for_others(make):
    a = make(pairing="pull", rounds=1, probability=0.0)
    effects = train(a, 2.0, 2.0)
    assert [timer.name for timer in all_of(Timer, effects)] == ["stay"]
    assert sent(hear(a, "b", Message("ask", 1))).message.vectors["x"].tolist() == [2.0, 2.0]
    (done,) = all_of(Done, a.step(Tick("stay"), 60.0))
    assert done.vector.tolist() == [2.0, 2.0]


def test_the_end(make):
    a = make(pairing="pull")
    train(a, 2.0, 2.0)
    (done,) = all_of(Done, a.step(Finish(), 0.0))
    assert done.vector.tolist() == [2.0, 2.0]
    assert list(a.step(Tick("patience"), 1.0)) == []
    b = make("b", [("a", "b")])
    train(b)
    assert all_of(Done, b.step(Finish(), 0.0)) == []  # its edge's owner has not said that it is settled
    assert len(all_of(Done, hear(b, "a", Message("settled", 0)))) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"probability": 1.1},
        {"outside": -0.1},
        {"pairing": "push"},
        {"window": "0.5"},
        {"window": "0.9:0.1"},
        {"window": "0:2"},
        {"window": "a:b"},
    ],
)
def test_options_out_of_bounds_are_refused(make, options):
    (name,) = options
    with pytest.raises(Unsuitable, match=f"--set {name}="):
        make(rounds=10, **options)


def test_a_window_needs_rounds(make):
    with pytest.raises(Unsuitable, match="--rounds"):
        make(window="0.9:1")
