"""Views of the members: whatever way news travel, everybody ends up with the same, and draws the same samples."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from algorithms.view import UNKNOWN, Standing, View, draw

FOUNDERS, JOINERS = ("n0", "n1", "n2", "n3"), ("m0", "m1")
EVERYTHING = -1
"""A round from before the first: with it, ``since`` leaves nothing out."""

ROUNDS, WINDOWS, COUNTERS = st.integers(-1, 12), st.integers(1, 6), st.integers(-1, 3)
ADDRESSES = st.sampled_from(["", "a:1", "b:2"])
STANDINGS = st.builds(Standing, ROUNDS, COUNTERS, st.booleans(), ADDRESSES, COUNTERS)
ACTIVITY = st.builds(Standing, ROUNDS)  # nothing else is said of most members most of the time
NEWS = st.lists(st.tuples(st.sampled_from(FOUNDERS + JOINERS), STANDINGS | ACTIVITY), max_size=12)


def tell(view: View, news: Mapping[str, Standing] | Iterable[tuple[str, Standing]]) -> View:
    for name, standing in news.items() if isinstance(news, Mapping) else news:
        view.learn(name, standing)
    return view


def knowing(news: Iterable[tuple[str, Standing]]) -> View:
    return tell(View(FOUNDERS), news)


def samples(view: View, first: int, window: int) -> list[list[str]]:
    """Who is drawn in a round and all that follow, until nobody was active lately."""
    return [view.candidates(number, window) for number in range(first, 14 + window)]


# ------------------------------------------------------------------------------------------------- merging


@given(STANDINGS, STANDINGS, STANDINGS)
def test_merging_is_commutative_associative_and_idempotent(a, b, c):
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(a) == a == a.merge(UNKNOWN)


@given(STANDINGS, STANDINGS)
def test_merging_takes_the_largest_of_each_register(a, b):
    """Worked out by the registers' definition, not by comparing tuples."""
    merged = a.merge(b)
    assert (merged.active, merged.doubted) == (max(a.active, b.active), max(a.doubted, b.doubted))
    assert merged.counter == max(a.counter, b.counter)
    newest = [one[1:4] for one in (a, b) if one.counter == merged.counter]
    assert merged[1:4] in newest
    if len(newest) == 2 and a.left != b.left:
        assert merged.left


@given(NEWS, NEWS, NEWS)
def test_views_merge_in_any_order_and_as_often_as_you_like(one, two, three):
    a, b, c = knowing(one), knowing(two), knowing(three)
    assert tell(tell(knowing(one), b), c) == tell(knowing(three), tell(knowing(two), a))
    assert tell(tell(knowing(one), a), a) == a
    assert tell(knowing([]), one + two + one + three) == tell(knowing(three), two[::-1] + one[::-1])


@given(NEWS)
def test_nothing_ever_goes_back_and_only_news_count(news):
    view = View(FOUNDERS)
    for name, standing in news:
        before, version, known = view.of(name), view.version, len(view)
        changed = view.learn(name, standing)
        after = view.of(name)
        assert changed == (after != before)
        assert (view.version, view.of(name)) == (version + changed, before.merge(standing))
        assert len(view) >= known
        assert after.active >= max(before.active, standing.active)
        assert after[1:4] >= max(before[1:4], standing[1:4])
        assert after.doubted >= max(before.doubted, standing.doubted)
        assert not any(view.learn(name, again) for again in (standing, before))


def test_a_member_joins_is_doubted_speaks_up_and_leaves():
    view = View(FOUNDERS)
    assert view.of("m0") == UNKNOWN
    assert not UNKNOWN.present
    assert (view["n0"].present, view["n0"].in_doubt) == (True, False)
    states = []
    for news in (
        Standing(4, 1, False, "a:1"),
        Standing(doubted=1),
        Standing(6),  # that somebody heard of it long ago does not clear it
        Standing(9, 2, False, "b:2"),
        Standing(doubted=1),  # an old doubt, late
        Standing(counter=3, left=True),
        Standing(9, 2, False, "b:2"),
    ):
        view.learn("m0", news)
        states.append((view["m0"].present, view["m0"].in_doubt))
    assert states == [(True, False), (True, True), (True, True), (True, False), (True, False)] + [(False, False)] * 2
    assert view["m0"] == Standing(9, 3, True, "", 1)


# ------------------------------------------------------------------------------------ what a receiver lacks


@given(NEWS, NEWS)
def test_who_gets_all_that_has_changed_has_exactly_the_same(old, new):
    sender = knowing(old)
    receiver = tell(View(FOUNDERS), sender.since(0, EVERYTHING))
    assert receiver == sender
    version = sender.version
    tell(sender, new)
    assert tell(receiver, sender.since(version, EVERYTHING)) == sender


@given(NEWS, NEWS, st.integers(0, 12), st.integers(0, 6), WINDOWS)
def test_what_is_left_out_changes_no_sample(old, new, number, further, window):
    """Over two messages, the first in an earlier round than the second."""
    sender, receiver = knowing(old), View(FOUNDERS)
    tell(receiver, sender.since(0, number - window))
    assert samples(receiver, number, window) == samples(sender, number, window)
    version, number = sender.version, number + further
    tell(sender, new)
    tell(receiver, sender.since(version, number - window))
    assert samples(receiver, number, window) == samples(sender, number, window)


@given(NEWS, NEWS, NEWS, st.integers(0, 12), WINDOWS, st.randoms(use_true_random=False))
def test_nor_does_it_in_any_order_twice_or_through_a_third_peer(old, new, own, number, window, random):
    sender, oldest = knowing(old), number - window
    first, version = sender.since(0, oldest), sender.version
    second = tell(sender, new).since(version, oldest)
    pieces = [*first.items(), *second.items()] * 2
    random.shuffle(pieces)
    wanted = samples(sender, number, window)
    assert samples(tell(View(FOUNDERS), pieces), number, window) == wanted
    # the third peer knows something itself: whoever hears of both has what both have
    third = knowing(own)
    tell(third, pieces)
    both = tell(tell(View(FOUNDERS), sender), own)
    assert samples(tell(View(FOUNDERS), third.since(0, oldest)), number, window) == samples(both, number, window)


def test_only_what_is_lacking_is_sent():
    view = View(FOUNDERS)
    assert view.since(0, EVERYTHING) == {}
    view.learn("n0", Standing(3))
    view.learn("n1", Standing(7))
    view.learn("m0", Standing(2, 1, False, "a:1"))
    version = view.version
    view.learn("n2", Standing(doubted=0))
    view.learn("n0", Standing(2))  # old news
    later = {"n2": Standing(0, 0, False, "", 0)}
    assert view.since(version, 99) == later, "doubts are told whenever it was active"
    joined = {"m0": Standing(2, 1, False, "a:1")}
    assert view.since(0, 8) == joined | later, "so is who has joined"
    assert view.since(0, 7) == joined | later | {"n1": Standing(7, 0)}
    assert view.since(0, 3) == joined | later | {"n1": Standing(7, 0), "n0": Standing(3, 0)}
    view.learn("n0", Standing(8))
    assert view.since(version, 8) == later | {"n0": Standing(8, 0)}, "what changes again is told again"
    assert view.since(view.version, EVERYTHING) == {}


# -------------------------------------------------------------------------------------------------- samples


@given(NEWS, st.integers(0, 14), WINDOWS)
def test_candidates_are_drawn_by_the_hash_of_name_and_round(news, number, window):
    view = knowing(news)
    found = view.candidates(number, window)
    lots = {name: hashlib.md5(f"{name}-{number}".encode()).hexdigest() for name in FOUNDERS + JOINERS}
    there = {
        name
        for name, (active, counter, left, _, _) in view.items()
        if number - active <= window and counter != -1 and left is False
    }
    sound = [name for name in found if view[name].doubted < view[name].counter]
    assert found[: len(sound)] == sound == sorted(sound, key=lots.__getitem__)
    assert found[len(sound) :] == sorted(there.difference(sound), key=lots.__getitem__)
    assert len(found) == len(there)


def test_a_lot_is_an_md5_digest():
    """As `printf node-7 | md5sum` prints it."""
    assert draw("node", 7).hex() == "55271b1846fe7832bbdfc5c444c55166"


@pytest.mark.parametrize("place", [0, 1, 49])
def test_the_draw_is_uniform(place):
    """Who is first, second and last of 50 over 5,000 rounds: 100 times each, and neither less nor more regularly."""
    names = [f"n{i}" for i in range(50)]
    view = View(names)
    drawn = Counter(view.candidates(number, number)[place] for number in range(5000))
    assert 1e-3 < chisquare([drawn[name] for name in names]).pvalue < 1 - 1e-3


def test_rounds_are_drawn_independently():
    """Who of seven comes first tells nothing of who does in the next round: 49 pairs, 4,900 of them."""
    names = [f"n{i}" for i in range(7)]
    view = View(names)
    firsts = [view.candidates(number, number)[0] for number in range(4901)]
    pairs = Counter(pairwise(firsts))
    assert 1e-3 < chisquare([pairs[a, b] for a in names for b in names]).pvalue < 1 - 1e-3
