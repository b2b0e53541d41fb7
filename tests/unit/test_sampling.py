"""Samplings by hand: who is asked, who is asked again, who is given up, and how long that takes."""

from __future__ import annotations

from statistics import median

import pytest

from algorithms.protocol import Cancel, Limits, Message, Reason, Send, Timer
from algorithms.sampling import TRIPS_MIN, Sampler

LONGEST = 5.0


class Asking:
    """A sampler of peer ``me``, and what has come of it."""

    def __init__(self) -> None:
        self.found: list[tuple[str, list[str]]] = []
        self.failed: list[str] = []
        limits = Limits(reply_first=LONGEST)
        self.sampler = Sampler("me", limits, lambda name: Message("ping", 7), self.failed.append)

    def begin(self, wanted: int, *candidates: str, key: str = "k", now: float = 0.0) -> list[str]:
        def then(sample: list[str], now: float) -> list:
            self.found.append((key, sample))
            return []

        return asked(self.sampler.begin(key, wanted, candidates, then, now))


@pytest.fixture
def asking() -> Asking:
    return Asking()


def asked(effects: list) -> list[str]:
    return [effect.to for effect in effects if isinstance(effect, Send)]


def waits(effects: list) -> dict[str, float]:
    return {effect.name: effect.delay for effect in effects if isinstance(effect, Timer)}


def test_it_asks_as_many_as_are_wanted_and_is_done_when_they_have_answered(asking):
    assert asking.begin(2, "a", "b", "c") == ["a", "b"]
    assert asked(asking.sampler.heard("b", 0.1, answered=True)) == []
    assert asking.found == []
    asking.sampler.heard("a", 0.2, answered=True)
    assert asking.found == [("k", ["b", "a"])]
    assert asking.failed == []


def test_the_peer_itself_answers_at_once(asking):
    assert asking.begin(1, "me", "a") == []
    assert asking.found == [("k", ["me"])]


def test_who_is_silent_is_asked_twice_and_then_the_next_instead(asking):
    effects = asking.sampler.begin("k", 1, ["a", "b"], lambda sample, now: [], 0.0)
    assert waits(effects) == {"ping k a": LONGEST / 2}
    effects = asking.sampler.ring("k", "a", 2.5)
    assert asked(effects) == ["a"]
    assert waits(effects) == {"ping k a": LONGEST / 2}
    assert asking.failed == []
    assert asked(asking.sampler.ring("k", "a", 5.0)) == ["b"]
    assert asking.failed == ["a"]


def test_it_ends_when_nobody_is_left(asking):
    asking.begin(2, "a", "b")
    asking.sampler.heard("b", 0.1, answered=True)
    for _ in range(2):
        assert asking.found == []
        asking.sampler.ring("k", "a", 2.5)
    assert asking.found == [("k", ["b"])]
    assert asking.begin(3) == []
    assert asking.found[1:] == [("k", [])]


def test_who_speaks_up_late_counts_all_the_same(asking):
    asking.begin(1, "a", "b")
    for _ in range(2):
        asking.sampler.ring("k", "a", 2.5)
    asking.sampler.heard("a", 5.1, answered=False)
    assert asking.found == [("k", ["a"])]


def test_a_refusal_for_good_is_enough_and_others_are_waited_out(asking):
    asking.begin(1, "a", "b", "c")
    assert asked(asking.sampler.undelivered("a", Reason.UNREACHABLE, 0.1)) == []  # perhaps it is there in a moment
    asking.sampler.ring("k", "a", 2.5)
    assert asked(asking.sampler.undelivered("a", Reason.UNREACHABLE, 2.6)) == ["b"]
    assert asked(asking.sampler.undelivered("b", Reason.WRONG_RUN, 2.7)) == ["c"]
    assert asking.failed == ["a", "b"]


def test_a_new_sampling_of_a_key_replaces_the_old_one(asking):
    asking.begin(1, "a")
    asking.begin(1, "b")
    asking.sampler.heard("a", 0.1, answered=True)
    assert asking.found == []
    assert asking.sampler.ring("k", "a", 2.5) == []


def test_a_sampling_that_another_ones_end_has_ended_is_over(asking):
    """One answer is due to two samplings, and what follows from the first makes the second pointless."""
    sampler = asking.sampler
    sampler.begin("k", 1, ["a"], lambda sample, now: sampler.stop("l"), 0.0)
    asking.begin(1, "a", key="l")
    sampler.heard("a", 0.1, answered=True)
    assert asking.found == []


def test_one_that_another_ones_end_has_replaced_goes_on(asking):
    sampler = asking.sampler
    begin_again = []
    sampler.begin("k", 1, ["a"], lambda sample, now: begin_again.extend(asking.begin(1, "b", key="l")) or [], 0.0)
    asking.begin(1, "a", key="l")
    sampler.heard("a", 0.1, answered=True)
    assert (asking.found, begin_again) == ([], ["b"])
    sampler.heard("b", 0.2, answered=True)
    assert asking.found == [("l", ["b"])]


# ----------------------------------------------------------------------------------------------- patience


def trip(asking: Asking, begun: float, lasts: float, repeated: bool = False) -> None:
    asking.begin(1, "a", now=begun)
    if repeated:
        asking.sampler.ring("k", "a", begun + lasts / 2)
    asking.sampler.heard("a", begun + lasts, answered=True)


def test_patience_is_twice_the_median_and_five_deviations(asking):
    """While there are few answers, half the median stands in for their deviation if that is less."""
    trips = [0.5, 0.6, 0.55, 0.01, 0.52, 0.9, 0.58, 0.61, 0.56]
    assert len(trips) > TRIPS_MIN
    assert asking.sampler.patience == LONGEST
    for k, lasts in enumerate(trips):
        trip(asking, 10.0 * k, lasts)
        middle = median(trips[: k + 1])
        spread = median(abs(one - middle) for one in trips[: k + 1])
        if k + 1 < TRIPS_MIN:
            spread = max(spread, middle / 2)
        assert asking.sampler.patience == pytest.approx(2 * (middle + 5 * spread))


def test_the_first_answer_of_all_tells_how_long_the_others_have(asking):
    asking.begin(2, "a", "b")
    effects = asking.sampler.heard("a", 0.2, answered=True)
    assert asking.sampler.patience == pytest.approx(2 * (0.2 + 5 * 0.1))
    assert waits(effects)["ping k b"] == pytest.approx(asking.sampler.patience / 2)
    assert "ping k b" not in [effect.name for effect in effects if isinstance(effect, Cancel)]
    asking.begin(2, "c", "d", now=1.0)
    assert waits(asking.sampler.heard("c", 1.1, answered=True)) == {}


def test_patience_has_bounds(asking):
    for k in range(TRIPS_MIN):
        trip(asking, 10.0 * k, 1e-6)
    assert asking.sampler.patience == LONGEST / 10
    for k in range(TRIPS_MIN, 200):
        trip(asking, 10.0 * k, 4.0)
    assert asking.sampler.patience == LONGEST


def test_answers_to_repeated_pings_count_from_the_first(asking):
    """Otherwise only quick answers would count, and patience would shrink below what most take."""
    for k in range(TRIPS_MIN):
        trip(asking, 10.0 * k, 0.8, repeated=True)
    assert asking.sampler.patience == pytest.approx(1.6)


def test_patience_follows_a_network_that_becomes_slower_than_it(asking):
    """All answers come too late at first."""
    for k in range(100):
        trip(asking, 10.0 * k, 0.3)
    slow = 1.0
    assert asking.sampler.patience < slow
    for k in range(100, 200):
        asking.begin(1, "a", now=10.0 * k)
        for _ in range(2):
            asking.sampler.ring("k", "a", 10.0 * k)
        asking.sampler.heard("a", 10.0 * k + slow, answered=True)
    assert asking.sampler.patience == pytest.approx(2 * slow)


def test_what_a_peer_says_of_itself_is_no_answer_to_a_ping(asking):
    for k in range(TRIPS_MIN):
        asking.begin(1, "a", now=10.0 * k)
        asking.sampler.heard("a", 10.0 * k + 0.1, answered=False)
    assert asking.sampler.patience == LONGEST
    assert len(asking.found) == TRIPS_MIN
