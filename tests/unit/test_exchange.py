"""Pieces of the exchange that a transcript tells badly: waits, back-offs, clocks, bounds, nonsense from outside."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from algorithms.edges import OwnedEdge
from algorithms.exchange import Exchanges
from algorithms.protocol import (
    Arrival,
    Delivered,
    Limits,
    Message,
    PeerDown,
    PeerUp,
    Reason,
    Save,
    Send,
    Start,
    Tick,
    Timer,
    Undelivered,
)
from node.draws import Draws


@pytest.fixture
def bare(make_world):
    """Exchanges of one peer over given edges, whose state is one number."""
    make_world.size = 1

    def build(name: str, pairs: list[tuple[str, str]]) -> tuple[Exchanges, torch.Tensor]:
        x = torch.zeros(1, dtype=torch.float64)
        place = make_world.place(name, pairs, Draws(0, name))
        return Exchanges(place, lambda now: x, lambda sign, w, now: x.add_(sign * 0.5 * w)), x

    return build


def number(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def reply(k: int, w: float = 0.0, before: int = 0, life: int = 0) -> Arrival:
    return Arrival("b", Message("reply", k, {"w": number(w)}, {"before": before, "life": life}))


def offer(k: int, m: float = 0.0, life: int = 0) -> Arrival:
    return Arrival("a", Message("offer", k, {"m": number(m)}, {"life": life}))


def timers(effects) -> dict[str, float]:
    return {effect.name: effect.delay for effect in effects if isinstance(effect, Timer)}


# ------------------------------------------------------------------------------------------ waits and clocks


def test_reply_wait_is_the_median_and_four_deviations():
    edge = OwnedEdge()
    edge.reply_times.extend([1.0, 2.0, 3.0, 4.0, 100.0])
    # median 3, absolute deviations 2 1 0 1 97: their median is 1
    assert edge.reply_wait(Limits(), receipt_time=50.0) == 3.0 + 4 * 1.0
    edge.reply_times.clear()
    edge.reply_times.extend([1e-6] * 9)
    assert edge.reply_wait(Limits(retry_first=0.1), receipt_time=50.0) == 0.1


def test_reply_wait_at_first_follows_the_receipt_within_bounds():
    edge, limits = OwnedEdge(), Limits(retry_first=0.1, reply_first=5.0)
    assert [edge.reply_wait(limits, time) for time in (0.001, 0.5, 2.0)] == [0.1, 2.0, 5.0]


def test_old_reply_times_are_forgotten():
    edge = OwnedEdge()
    edge.reply_times.extend([50.0] * 20 + [1.0] * 32)
    assert edge.reply_wait(Limits(), 0.0) == 1.0


def test_back_off_doubles_up_to_a_bound():
    edge, limits = OwnedEdge(), Limits(retry_first=0.1, retry_max=20.0)
    delays = []
    for edge.tries in (0, 1, 2, 7, 8, 10_000):
        delays.append(edge.backed_off(0.1, limits))
    assert delays == [0.1, 0.2, 0.4, 12.8, 20.0, 20.0]


def test_back_off_of_an_edge_is_jittered_doubled_and_reset(bare):
    exchanges, _ = bare("a", [("a", "b")])
    exchanges.step(Tick("clock b"), 0.0)
    delays = []
    for _ in range(12):
        delays.append(timers(exchanges.step(Undelivered("b", "offer", 1, Reason.BUSY), 0.0))["retry b"])
        exchanges.step(Tick("retry b"), 0.0)
    expected = np.minimum(0.1 * 2.0 ** np.arange(12), 20.0)
    assert (np.array(delays) >= 0.5 * expected).all()
    assert (np.array(delays) <= 1.5 * expected).all()
    assert len({round(delay / wanted, 6) for delay, wanted in zip(delays, expected, strict=True)}) > 6
    # one that was delivered shows that the other end can be reached
    exchanges.step(Delivered("b", "offer", 1), 0.0)
    exchanges.step(Tick("retry b"), 0.0)
    assert timers(exchanges.step(Undelivered("b", "offer", 1, Reason.BUSY), 0.0))["retry b"] <= 0.15


def test_clocks_are_poisson_and_never_wait(bare, make_world):
    make_world.rate = 4.0
    exchanges, _ = bare("a", [("a", "b")])
    times = [timers(exchanges.step(Start(), 0.0))["clock b"]]
    for _ in range(3999):
        times.append(times[-1] + timers(exchanges.step(Tick("clock b"), times[-1]))["clock b"])
    delays = np.diff(times)
    # of an exponential variable mean and deviation are the same, and half of it is below ln 2 of the mean
    assert np.mean(delays) == pytest.approx(0.25, rel=0.06)
    assert np.std(delays) == pytest.approx(0.25, rel=0.1)
    assert np.median(delays) == pytest.approx(0.25 * np.log(2), rel=0.1)


def test_a_tick_that_is_handled_late_puts_off_no_other(bare, make_world):
    make_world.rate = 4.0
    exchanges, _ = bare("a", [("a", "b")])
    now = timers(exchanges.step(Start(), 0.0))["clock b"]
    for _ in range(4000):
        now += 0.1
        now += timers(exchanges.step(Tick("clock b"), now))["clock b"]
    # in the long run as many as there would be without: each lateness is taken off the delays that follow
    assert 4000 / now == pytest.approx(4.0, rel=0.06)


def test_ticks_that_are_due_are_bounded_and_counted(bare, make_world):
    make_world.limits = dataclasses.replace(make_world.limits, ticks_due_max=3)
    exchanges, _ = bare("a", [("a", "b")])
    for _ in range(10):
        exchanges.step(Tick("clock b"), 0.0)
    # one was offered at once, three wait
    assert (exchanges.owned["b"].due, exchanges.counters()["missed_ticks"]) == (3, 6)


# ------------------------------------------------------------------------------------------ who owns what


def test_ends_of_an_edge_have_their_parts(bare):
    exchanges, _ = bare("b", [("a", "b"), ("b", "c"), ("c", "d")])
    assert (list(exchanges.owned), list(exchanges.answered)) == (["c"], ["a"])
    assert list(timers(exchanges.step(Start(), 0.0))) == ["clock c"]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_offers_out_are_bounded_in_order_of_ticks(bare, make_world, most):
    make_world.limits = dataclasses.replace(make_world.limits, offers_out_max=most)
    exchanges, _ = bare("a", [("a", other) for other in "bcde"])
    sent = []
    for other in "dceb":
        sent += [e.to for e in exchanges.step(Tick(f"clock {other}"), 0.0) if isinstance(e, Send)]
    assert sent == list("dce")[:most]


def test_a_save_comes_before_every_send_that_depends_on_it(bare):
    a, _ = bare("a", [("a", "b")])
    b, _ = bare("b", [("a", "b")])
    for effects in (a.step(Tick("clock b"), 0.0), b.step(offer(1), 0.0)):
        kinds = [type(effect) for effect in effects if isinstance(effect, Save | Send)]
        assert kinds == [Save, Send]
    # a repeated reply says nothing new
    assert [type(effect) for effect in b.step(offer(1), 0.0)] == [Send]


# ------------------------------------------------------------------------------------------ nonsense


@pytest.mark.parametrize(
    "event",
    [
        reply(0, w=8.0),
        reply(2, w=8.0),
        reply(1, w=8.0, life=1),
        reply(1, w=8.0, before=1),
        reply(1, w=8.0, before=7),
        Arrival("b", Message("offer", 1, {"m": number(8.0)}, {"life": 0})),
        Arrival("b", Message("settled", 1)),
        Arrival("z", Message("offer", 1, {"m": number(8.0)}, {"life": 0})),
        Arrival("z", Message("reply", 1, {"w": number(8.0)}, {"life": 0, "before": 0})),
        Delivered("b", "offer", 9),
        Delivered("z", "offer", 1),
        Undelivered("b", "offer", 9, Reason.TIMEOUT),
        Undelivered("z", "offer", 1, Reason.TIMEOUT),
        PeerUp("z"),
        Tick("something else"),
    ],
)
def test_what_is_not_expected_changes_nothing(bare, event):
    exchanges, x = bare("a", [("a", "b")])
    exchanges.step(Tick("clock b"), 0.0)
    before = exchanges.snapshot().numbers
    assert exchanges.step(event, 1.0) == []
    assert (x.item(), exchanges.snapshot().numbers) == (0.0, before)
    # and the exchange still completes
    exchanges.step(reply(1, w=8.0), 1.0)
    assert x.item() == -4.0


def test_a_reply_of_the_right_number_is_applied_once(bare):
    exchanges, x = bare("a", [("a", "b")])
    exchanges.step(Tick("clock b"), 0.0)
    for _ in range(3):
        exchanges.step(reply(1, w=8.0), 1.0)
    assert (x.item(), exchanges.counters()["exchanges"]) == (-4.0, 1)


def test_a_neighbour_that_goes_and_comes_while_nothing_is_under_way_changes_nothing(bare):
    exchanges, _ = bare("a", [("a", "b")])
    assert exchanges.step(PeerDown("b"), 0.0) == exchanges.step(PeerUp("b"), 0.0) == []


def test_what_is_parked_is_named(bare):
    exchanges, _ = bare("a", [("a", "c"), ("a", "b")])
    exchanges.step(Tick("clock c"), 0.0)
    exchanges.step(Tick("clock b"), 0.0)
    exchanges.step(Undelivered("c", "offer", 1, Reason.UNREACHABLE), 0.0)
    assert exchanges.unsettled() == ["b", "c"]
    exchanges.step(reply(1), 0.0)
    assert exchanges.unsettled() == ["c"]
    assert not exchanges.settled


def test_a_kept_difference_is_dropped_when_the_next_offer_acknowledges_it(bare):
    exchanges, x = bare("b", [("a", "b")])
    exchanges.step(offer(1, m=8.0), 0.0)
    first = exchanges.answered["a"].w
    assert first.item() == 8.0
    exchanges.step(offer(2, m=4.0), 0.0)
    assert (exchanges.answered["a"].w.item(), x.item()) == (0.0, 4.0)
    assert list(exchanges.snapshot().vectors) == ["w.a"]


def test_a_distance_is_that_of_the_two_ends_in_the_latest_exchange_answered_here(bare):
    exchanges, x = bare("b", [("a", "b")])
    assert exchanges.distances() == {}
    x.fill_(1.0)
    exchanges.step(offer(1, 4.0), 0.0)
    assert exchanges.distances() == {"distance/a": 3.0}
    exchanges.step(offer(2, -4.0), 1.0)  # x is 2.5 now
    assert exchanges.distances() == {"distance/a": 6.5}
