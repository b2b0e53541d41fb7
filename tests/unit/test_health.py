"""A peer's own health and patience, under a virtual clock."""

import numpy as np
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import median_abs_deviation

from node.health import Health, Patience


@pytest.fixture
async def health(nursery):
    health = Health()
    nursery.start_soon(health.run)
    await trio.testing.wait_all_tasks_blocked()
    return health


@pytest.mark.trio
async def test_a_loop_that_turns_is_awake_all_the_time(autojump_clock, health):
    for _ in range(40):
        await trio.sleep(2.5)
    assert health.awake_s() == pytest.approx(100)
    assert health.steady_s() == pytest.approx(100)
    assert (health.score, health.factor) == (0, 1)


@pytest.mark.trio
@pytest.mark.parametrize("stopped_s", [1.1, 30.0, 1e5])
async def test_the_time_of_a_stop_counts_for_nothing_however_long(autojump_clock, health, stopped_s):
    await trio.sleep(10.2)
    autojump_clock.jump(stopped_s)
    assert 9.99 <= health.awake_s() <= 10.2, "whoever asks first, the clock has stood still since the last look"
    assert (health.score, health.steady_s()) == (1, 0)
    await trio.sleep(5)
    assert 14.99 <= health.awake_s() <= 15.2
    assert health.steady_s() == pytest.approx(5)
    assert (health.score, health.factor) == (1, 2)


@pytest.mark.trio
async def test_a_little_late_is_on_time(autojump_clock, health):
    await trio.sleep(10)
    await trio.testing.wait_all_tasks_blocked()
    autojump_clock.jump(0.95)
    await trio.sleep(10)
    assert health.score == 0
    assert health.awake_s() == pytest.approx(20.95)


@pytest.mark.trio
async def test_the_loop_itself_notices_that_it_was_late(autojump_clock, health):
    for _ in range(20):
        autojump_clock.jump(2)
        await trio.sleep(0.1)
    assert health.score == 8


@given(st.lists(st.booleans(), max_size=60))
def test_the_score_is_a_walk_from_0_to_8(answers):
    health, score = Health(), 0
    for answered in answers:
        (health.better if answered else health.worse)()
        score = max(score - 1, 0) if answered else min(score + 1, 8)
        assert health.factor == 1 + score


@given(st.integers(8, 200), st.floats(1e-4, 1.0), st.floats(0, 2), st.integers(0, 2**31))
def test_the_wait_is_ten_deviations_above_the_median_of_the_latest(count, middle_s, sigma, seed):
    took_s = middle_s * np.exp(sigma * np.random.default_rng(seed).normal(size=count))
    patience = Patience()
    for each in took_s:
        patience.answered(each)
    latest = took_s[-64:]
    expected = np.median(latest) + 10 * median_abs_deviation(latest)
    assert patience.wait_s == pytest.approx(np.clip(expected, 0.2, 2.0))


def test_the_wait_is_2_s_until_8_answers_are_known():
    patience = Patience()
    for _ in range(7):
        patience.answered(0.3)
        assert patience.wait_s == 2
    patience.answered(0.3)
    assert patience.wait_s == pytest.approx(0.3)


def test_the_wait_doubles_until_an_answer():
    patience, waits = Patience(), []
    for _ in range(8):
        patience.answered(0.001)
    for _ in range(6):
        waits.append(patience.wait_s)
        patience.timed_out()
    assert waits == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    patience.answered(0.001)
    assert patience.wait_s == 0.2
