"""FedAvg by hand arithmetic: who says what to whom, what is averaged, and what is passed over."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from algorithms.compression import CODECS
from algorithms.fedavg import Fedavg, Fedsam
from algorithms.protocol import (
    Arrival,
    Cancel,
    Delivered,
    Done,
    Finish,
    Message,
    Reason,
    Save,
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

PAIRS = [("a", "b"), ("b", "c")]
"""The server ``a`` has no edge with ``c``: it makes no difference."""


@pytest.fixture
def make(make_world):
    """A peer of ``a``, ``b`` and ``c``, at zero in two dimensions; ``a`` is the server."""
    make_world.size = 2

    def build(name: str, rule: type[Fedavg] = Fedavg, **changes) -> Fedavg:
        place = make_world.place(name, PAIRS, Draws(0, name))
        return rule(replace(place, **{"options": rule.options, "local_steps": 5, **changes}))

    return build


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def train(peer: Fedavg, *change: float) -> list:
    return list(peer.step(Trained("round", vector(*change), 0.0, 80), 0.0))


def hear(peer: Fedavg, sender: str, kind: str, number: int, *values: float) -> list:
    return list(peer.step(Arrival(sender, Message(kind, number, {"x": vector(*values)})), 0.0))


def only(kind, effects):
    (found,) = [effect for effect in effects if isinstance(effect, kind)]
    return found


def test_a_client_trains_tells_the_server_and_waits(make):
    c = make("c")
    effects = list(c.step(Start(), 0.0))
    first = only(Train, effects)
    assert (first.at.tolist(), first.steps, first.lr_factor, first.rho) == ([0.0, 0.0], 5, 1.0, 0.0)
    assert only(Save, effects).durable is False
    (said,) = train(c, 3.0, 1.0)
    assert (said.to, said.message.kind, said.message.number) == ("a", "update", 1)
    assert said.message.vectors["x"].tolist() == [3.0, 1.0]
    assert c.model(0.0).tolist() == [0.0, 0.0]  # the common model is the old one until there is a new one


def test_the_server_waits_for_everybody_and_sends_the_mean(make):
    a, updates = make("a"), np.array([[1.0, -2.0], [4.0, 8.0], [4.0, 3.0]])
    a.step(Start(), 0.0)
    assert train(a, *updates[0]) == []
    assert hear(a, "c", "update", 1, *updates[2]) == []
    effects = hear(a, "b", "update", 1, *updates[1])
    wanted = updates.mean(0).tolist()
    sends = [effect for effect in effects if isinstance(effect, Send)]
    assert [(s.to, s.message.kind, s.message.number) for s in sends] == [("b", "average", 1), ("c", "average", 1)]
    assert all(send.message.vectors["x"].tolist() == wanted for send in sends)
    assert only(Train, effects).at.tolist() == wanted
    assert a.counters() == {"rounds": 1, "exchanges": 2}
    # the trainer may overwrite what it was given, and what was sent stays as it is
    only(Train, effects).at.fill_(9)
    assert a.model(0.0).tolist() == wanted == sends[0].message.vectors["x"].tolist()


def test_a_client_goes_on_from_the_mean_with_a_smaller_step(make):
    c = make("c", Fedsam, options={"decay": 0.5, "rho": 0.25})
    c.step(Start(), 0.0)
    train(c, 3.0, 1.0)
    nxt = only(Train, hear(c, "a", "average", 1, 5.0, 6.0))
    assert (nxt.at.tolist(), nxt.steps, nxt.lr_factor, nxt.rho) == ([5.0, 6.0], 5, 0.5, 0.25)
    (said,) = train(c, 1.0, 0.0)
    assert (said.message.number, said.message.vectors["x"].tolist()) == (2, [6.0, 6.0])
    assert only(Train, hear(c, "a", "average", 2, 0.0, 0.0)).lr_factor == 0.25


def test_a_server_that_is_told_twice_counts_once(make):
    a = make("a")
    a.step(Start(), 0.0)
    train(a, 0.0, 0.0)
    for _ in range(3):
        assert hear(a, "b", "update", 1, 3.0, 3.0) == []
    effects = hear(a, "c", "update", 1, 6.0, 0.0)
    assert only(Train, effects).at.tolist() == [3.0, 1.0]


@pytest.mark.parametrize(
    ("name", "sender", "kind", "number"),
    [
        ("a", "b", "update", 1),  # of a round that is over
        ("a", "b", "update", 3),  # of one to come
        ("c", "a", "average", 1),
        ("c", "a", "average", 3),
        ("c", "b", "average", 2),  # b is no server
        ("c", "b", "update", 2),  # and c is none
    ],
)
def test_what_is_not_of_this_round_is_passed_over(make, name, sender, kind, number):
    peer = make(name)
    peer.round = 1
    peer.step(Start(), 0.0)
    train(peer, 1.0, 1.0)
    before = peer.snapshot()
    assert hear(peer, sender, kind, number, 7.0, 7.0) == []
    assert peer.snapshot().numbers == before.numbers
    assert peer.model(0.0).tolist() == before.vectors["x"].tolist()
    if name == "a":  # nor is it kept for later
        hear(peer, "c", "update", 2, 1.0, 1.0)
        assert only(Train, hear(peer, "b", "update", 2, 1.0, 1.0)).at.tolist() == [1.0, 1.0]


def test_what_was_lost_is_said_again_and_what_was_refused_is_not(make):
    c = make("c")
    c.step(Start(), 0.0)
    (said,) = train(c, 3.0, 1.0)
    again = only(Timer, c.step(Undelivered("a", "update", 1, Reason.TIMEOUT), 1.0))
    assert again.delay > 0
    assert only(Send, c.step(Tick(again.name), 2.0)) == said
    assert list(c.step(Undelivered("a", "update", 1, Reason.MALFORMED), 3.0)) == []


def test_codecs_round_what_is_sent_and_everybody_has_the_same(make):
    a, fine = make("a", codec=CODECS["half"]), vector(1 / 3, 1 / 7)
    a.step(Start(), 0.0)
    train(a, *fine.tolist())
    hear(a, "b", "update", 1, 0.0, 0.0)
    effects = hear(a, "c", "update", 1, 0.0, 0.0)
    sent = [effect.message.vectors["x"] for effect in effects if isinstance(effect, Send)]
    assert all(torch.equal(x, only(Train, effects).at) for x in sent)
    assert torch.equal(sent[0], (fine / 3).to(torch.bfloat16).double())
    assert not torch.equal(sent[0], fine / 3)


def test_rounds_end_it_and_so_does_the_end_of_the_run(make):
    c = make("c", rounds=1)
    c.step(Start(), 0.0)
    train(c, 3.0, 1.0)
    c.step(Delivered("a", "update", 1), 0.0)
    assert only(Done, hear(c, "a", "average", 1, 5.0, 6.0)).vector.tolist() == [5.0, 6.0]
    assert list(c.step(Finish(), 9.0)) == []
    b = make("b")
    b.step(Start(), 0.0)
    ended = list(b.step(Finish(), 9.0))
    assert (only(Cancel, ended).name, only(Done, ended).vector.tolist()) == ("round", [0.0, 0.0])


def test_the_server_stays_until_its_last_mean_is_heard(make):
    a = make("a", rounds=1)
    a.step(Start(), 0.0)
    train(a, 3.0, 0.0)
    hear(a, "b", "update", 1, 3.0, 0.0)
    effects = hear(a, "c", "update", 1, 0.0, 6.0)
    assert [effect for effect in effects if isinstance(effect, Train | Done)] == []
    assert list(a.step(Delivered("b", "average", 1), 0.0)) == []
    again = only(Timer, a.step(Undelivered("c", "average", 1, Reason.TIMEOUT), 1.0))
    assert only(Send, a.step(Tick(again.name), 2.0)).to == "c"
    assert only(Done, a.step(Delivered("c", "average", 1), 3.0)).vector.tolist() == [2.0, 2.0]


def test_the_server_does_not_stay_for_ever_at_the_end(make):
    a = make("a", rounds=1)
    a.step(Start(), 0.0)
    train(a, 3.0, 0.0)
    hear(a, "b", "update", 1, 3.0, 0.0)
    wait = only(Timer, hear(a, "c", "update", 1, 0.0, 6.0))
    assert wait.delay == 60.0
    assert only(Done, a.step(Tick(wait.name), 60.0)).vector.tolist() == [2.0, 2.0]


def test_a_snapshot_holds_the_last_average_and_its_round(make):
    c = make("c")
    c.step(Start(), 0.0)
    train(c, 3.0, 1.0)
    hear(c, "a", "average", 1, 5.0, 6.0)
    kept = c.snapshot()
    train(c, 1.0, 1.0)
    hear(c, "a", "average", 2, 0.0, 0.0)
    assert kept.vectors["x"].tolist() == [5.0, 6.0]
    again = make("c")
    again.restore(kept)
    assert only(Train, again.step(Start(recovered=True), 5.0)).at.tolist() == [5.0, 6.0]
    (said,) = train(again, 1.0, 1.0)
    assert (said.message.number, said.message.vectors["x"].tolist()) == (2, [6.0, 7.0])


def test_an_average_that_comes_while_the_round_is_done_again_ends_that(make):
    """A client that fell back behind its own update trains once more; the mean with that update is on its way."""
    c = make("c")
    c.step(Start(recovered=True), 0.0)
    effects = hear(c, "a", "average", 1, 5.0, 6.0)
    kinds = [type(effect) for effect in effects]
    assert kinds.index(Cancel) < kinds.index(Train), "one training at a time"
    assert only(Cancel, effects).name == "round"


# ------------------------------------------------------------------------------------------------- sampling


class Picks:
    """A random generator that has decided already."""

    def __init__(self, *picks: list[int]) -> None:
        self.picks = list(picks)

    def choice(self, among: int, size: int, replace: bool) -> list[int]:
        pick = self.picks.pop(0)
        assert (among, size, replace) == (3, len(pick), False)
        return pick


def sampling(make, name: str, *picks: list[int], **changes) -> Fedavg:
    options = {"decay": 0.5, "samples": len(picks[0]) if picks else 2}
    return make(name, options=options, draw=lambda purpose: Picks(*picks), **changes)


def said(effects: list) -> list[tuple[str, str, int, list[float]]]:
    sends = [effect for effect in effects if isinstance(effect, Send)]
    return [(send.to, send.message.kind, send.message.number, send.message.vectors["x"].tolist()) for send in sends]


def test_the_server_asks_only_whom_it_has_drawn_and_tells_everybody_at_last(make):
    picks = Picks([2, 1], [2, 0])
    a = make("a", options={"decay": 0.5, "samples": 2}, draw=lambda purpose: picks, rounds=2)
    begun = list(a.step(Start(), 0.0))
    assert said(begun) == [("b", "average", 0, [0.0, 0.0]), ("c", "average", 0, [0.0, 0.0])]
    assert not any(isinstance(effect, Train) for effect in begun), "it was not drawn itself"
    assert hear(a, "c", "update", 1, 4.0, 0.0) == []
    second = hear(a, "b", "update", 1, 2.0, 6.0)
    assert said(second) == [("c", "average", 1, [3.0, 3.0])]
    assert (only(Train, second).at.tolist(), only(Train, second).lr_factor) == ([3.0, 3.0], 0.5)
    assert hear(a, "b", "update", 2, 9.0, 9.0) == [], "nobody has asked b"
    assert train(a, 1.0, -1.0) == []
    last = hear(a, "c", "update", 2, 2.0, 0.0)
    assert said(last) == [("b", "average", 2, [3.0, 1.0]), ("c", "average", 2, [3.0, 1.0])]
    assert a.counters() == {"rounds": 2, "exchanges": 3}
    assert picks.picks == []


def test_a_client_waits_until_it_is_asked_and_skips_the_rounds_of_others(make):
    c = sampling(make, "c")
    assert list(c.step(Start(), 0.0)) == []
    assert c.counters()["rounds"] == 0
    first = only(Train, hear(c, "a", "average", 0, 1.0, 2.0))
    assert (first.at.tolist(), first.lr_factor) == ([1.0, 2.0], 1.0)
    assert hear(c, "a", "average", 0, 1.0, 2.0) == [], "it came twice"
    assert said(train(c, 1.0, 0.0)) == [("a", "update", 1, [2.0, 2.0])]
    later = only(Train, hear(c, "a", "average", 3, 5.0, 6.0))
    assert (later.at.tolist(), later.lr_factor, c.counters()["rounds"]) == ([5.0, 6.0], 0.125, 3)
    assert hear(c, "a", "average", 2, 0.0, 0.0) == [], "late"
    assert hear(c, "b", "average", 9, 0.0, 0.0) == [], "b is no server"
    assert said(train(c, 1.0, 0.0)) == [("a", "update", 4, [6.0, 6.0])]


def test_who_was_never_asked_waits_after_a_restart_and_who_was_does_its_round_again(make):
    idle, asked = sampling(make, "b"), sampling(make, "c")
    hear(asked, "a", "average", 4, 5.0, 6.0)
    again = {}
    for peer, name in ((idle, "b"), (asked, "c")):
        again[name] = sampling(make, name)
        again[name].restore(peer.snapshot())
    assert list(again["b"].step(Start(recovered=True), 0.0)) == []
    assert only(Train, hear(again["b"], "a", "average", 0, 0.0, 0.0)).lr_factor == 1.0
    repeated = only(Train, again["c"].step(Start(recovered=True), 0.0))
    assert (repeated.at.tolist(), repeated.lr_factor) == ([5.0, 6.0], 0.0625)


def test_what_was_asked_is_asked_again_until_it_is_heard(make):
    a = sampling(make, "a", [1, 2])
    first = said(list(a.step(Start(), 0.0)))
    a.step(Delivered("b", "average", 0), 0.1)
    again = only(Timer, a.step(Undelivered("c", "average", 0, Reason.UNREACHABLE), 0.1))
    assert said(list(a.step(Tick(again.name), 0.2))) == first[1:]


@pytest.mark.parametrize("samples", [-1, 4])
def test_there_must_be_as_many_peers_as_are_sampled(make, samples):
    with pytest.raises(Unsuitable, match=f"samples={samples} can't be used: write how many of the 3 peers"):
        make("a", options={"samples": samples})
