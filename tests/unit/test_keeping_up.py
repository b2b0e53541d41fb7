"""When a peer says that it can't keep up, and when it does not."""

from __future__ import annotations

import math

import numpy as np
import pytest

from node.keeping_up import TOLD_EVERY_S, WINDOW_S, KeepingUp, Pulse, too_few


def pulse(units, *, behind=0.0, exchange=math.nan, rates=None, counts=None, seconds=None):
    return Pulse(units if seconds is None else seconds, units, behind, exchange, rates or {}, counts or {})


def looks(pulses):
    watch = KeepingUp(exchange_units_max=0.1)
    return [said for now in pulses if (said := watch.look(now))]


def test_a_peer_that_keeps_up_says_nothing():
    moments = np.arange(0.0, 1000.0)
    rates = {"n1": 2.0, "n2": 0.1}
    kept = [pulse(t, exchange=0.05, rates=rates, counts={"n1": int(2 * t), "n2": int(t / 10)}) for t in moments]
    assert looks(kept) == []


def test_a_poisson_clock_that_is_right_on_average_is_never_blamed():
    for seed in range(20):
        ticks = np.random.default_rng(seed).poisson(1.0, size=2000).cumsum()
        assert looks(pulse(float(t), rates={"n1": 1.0}, counts={"n1": int(ticks[t])}) for t in range(2000)) == []


@pytest.mark.parametrize("before", [0, 5000])
def test_an_edge_that_gets_half_of_its_exchanges_is_named(before):
    rates = {"n1": 2.0, "n2": 2.0}

    def count(t):
        return {"n1": int(2 * t), "n2": int(2 * min(t, before) + max(t - before, 0))}

    said = looks(pulse(float(t), rates=rates, counts=count(t)) for t in range(before + 600))
    assert said
    assert "% of the exchanges with n2 take place" in said[0]
    assert "n1" not in "".join(said)
    assert said[0].endswith("Write a longer --time-unit.")


def test_few_expected_exchanges_are_not_judged():
    assert looks(pulse(float(t), rates={"n1": 0.1}, counts={"n1": 0}) for t in range(200)) == []


def test_the_time_in_which_a_neighbour_is_away_does_not_count():
    pulses = []
    for t in range(1200):
        away = 100 <= t < 1000
        made = t if t < 100 else 100 if away else t - 900
        pulses.append(pulse(float(t), rates={} if away else {"n1": 1.0}, counts={"n1": made}))
    assert looks(pulses) == []


@pytest.mark.parametrize("factor", [1.05, 1.5, 3.0])
def test_how_long_local_steps_take_is_told(factor):
    """A step that takes ``factor`` units is late by ``factor - 1`` units every ``factor`` units."""
    said = looks(pulse(float(t), behind=t * (factor - 1) / factor) for t in range(300))
    assert bool(said) == (factor > 1.1)
    assert all(f"a local step takes {factor:.2g} units" in each for each in said)


@pytest.mark.parametrize("before", [0, 5000])
def test_long_exchanges_are_told_once_this_life_has_made_some(before):
    few, many = (
        [pulse(t, exchange=0.25, counts={"n1": before + int(n * t)}) for t in (0.0, 9.0, 11.0)] for n in (1, 2)
    )
    assert looks(few) == []
    assert looks(many) == ["can't keep up: an exchange takes up to 0.25 units. Write a longer --time-unit."]


def test_it_is_said_once_a_minute():
    bad = [pulse(9.0, exchange=123.4, counts={"n1": 10 * s}, seconds=float(s)) for s in range(150)]
    said = looks(bad)
    assert len(said) == 1 + int((149 - WINDOW_S) // TOLD_EVERY_S)
    assert "up to 123 units" in said[0]


def test_the_first_seconds_are_not_judged():
    """However short units are: here 100 of them pass in a second."""
    start = [
        pulse(100.0 * s, behind=50.0 * s, rates={"n1": 1.0}, counts={"n1": 0}, seconds=float(s)) for s in range(12)
    ]
    assert looks(start[:10]) == []
    assert len(looks(start)) == 1


def test_too_few_is_what_chance_does_not_explain() -> None:
    assert too_few(49, 100)
    assert not too_few(70, 100), "within five standard deviations, which are ten each"
    assert not too_few(81, 100)
    assert not too_few(0, 19), "too little to judge by"
    assert not too_few(850, 1000), "little, but 80 % of it"
