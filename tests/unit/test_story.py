"""Frames, curves, thinning, and a story as text."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from node.watch.story import EVENTS_MAX, FRAMES_MAX, FRAMES_MIN, Frame, Moment, Story, event, rounded, thin, told
from tests.unit.story_form import check_news, check_story

MOMENT = Moment(
    t=12.34567,
    state="lgn",
    accuracy=[0.5, 0.9, None],
    loss=[1.0, 9.0, 3.0],
    distance=[3.0, 100.0, None],
    steps=[10, 20, None],
    round=[None, None, None],
    sent=[1_234_567, 1_000, None],
    stale=[0.25, math.inf, None],
    achieved=[1 / 3, None],
    apart=[4.0, 7.0],
    link="ag",
)


def frames(values: list[float], times: list[float] | None = None) -> list[Frame]:
    """Frames with a course of mean losses."""
    return [
        Frame.of(replace(MOMENT, t=t, loss=[value, 0, 0]))
        for t, value in zip(times or range(len(values)), values, strict=True)
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1234567.0, "1235000"), (0.00123456, "0.001235"), (2.0, "2"), (1e30, "1e+30"), (-0.12345, "-0.1235")],
)
def test_numbers_have_four_digits(value: float, shown: str) -> None:
    assert json.dumps(rounded(value)) == shown


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_null(value: float | None) -> None:
    assert rounded(value) is None


def test_curves_are_of_the_peers_that_are_there() -> None:
    everybody = replace(MOMENT, state="lel", accuracy=[0.25, 1.0, 0.5], distance=[3.0, 4.0, None], link="aa")
    assert MOMENT.curves == {
        "accuracy": [0.5, 0.5, 0.5],
        "loss": [1, 1, 1],
        "distance": 3,
        "apart": 4,
        "sent": 1_236_000,
    }
    assert everybody.curves == {
        "accuracy": [0.25, rounded(1.75 / 3), 1],
        "loss": [1, rounded(13 / 3), 9],
        "distance": rounded(math.sqrt((9 + 16) / 2)),
        "apart": rounded(math.sqrt((16 + 49) / 2)),
        "sent": 1_236_000,
    }
    assert replace(MOMENT, state="ngn").curves["accuracy"] is None


def test_a_frame_is_written_as_the_page_reads_it() -> None:
    frame = json.loads(Frame.of(MOMENT).text)
    assert frame == {
        "t": 12.346,
        "state": "lgn",
        "accuracy": [0.5, 0.9, None],
        "loss": [1, 9, 3],
        "distance": [3, 100, None],
        "steps": [10, 20, None],
        "round": [None] * 3,
        "sent": [1_235_000, 1_000, None],
        "stale": [0.25, None, None],
        "achieved": [0.3333, None],
        "apart": [4, 7],
        "link": "ag",
        "curves": MOMENT.curves,
    }


def test_times_are_told_to_the_millisecond_after_months() -> None:
    months = 12_345_678.9012
    assert json.loads(Frame.of(replace(MOMENT, t=months)).text)["t"] == 12_345_678.901
    assert event(months, "gone", "n0", "n0 is gone")["t"] == 12_345_678.901
    story = Story("months", live=True)
    for second in range(100):
        story.add(replace(MOMENT, t=months + second))
    assert len(story.frames) == 100


def test_thinning_keeps_both_ends_and_the_extremes() -> None:
    values = [1.0] * 1000
    values[123], values[777] = 50.0, -3.0
    kept = thin(frames(values), 50)
    times = [frame.t for frame in kept]
    assert len(kept) <= 50
    assert {0, 123, 777, 999} <= set(times)
    gaps = [late - early for early, late in pairwise(times)]
    assert max(gaps) <= 3 * 1000 / 50


def test_few_frames_stay_as_they_are() -> None:
    few = frames([1.0] * 50)
    assert thin(few, 50) == few


def test_frames_that_stand_still_in_time_can_be_thinned() -> None:
    assert len(thin(frames([1.0] * 400, [0.0] * 399 + [1.0]), 40)) <= 40


def test_a_story_never_has_more_frames_than_it_may() -> None:
    story = Story("long", live=True)
    for t in range(3 * FRAMES_MAX):
        story.add(replace(MOMENT, t=float(t)))
        assert len(story.frames) <= FRAMES_MAX
    assert (story.frames[0].t, story.frames[-1].t) == (0, 3 * FRAMES_MAX - 1)


def test_a_story_of_a_large_network_has_fewer_frames() -> None:
    nodes = [{"name": f"n{k}", "x": 0, "y": 0} for k in range(100)]
    edges = [{"a": a, "b": b, "asked": None} for a in range(100) for b in range(a)]
    story, most = Story("large", live=True, nodes=nodes, edges=edges), 0
    for t in range(FRAMES_MAX):
        story.add(replace(MOMENT, t=float(t)))
        most = max(most, len(story.frames))
    assert most == 2 * FRAMES_MIN
    assert (story.frames[0].t, story.frames[-1].t) == (0, FRAMES_MAX - 1)


def test_of_several_frames_of_one_time_the_latest_is_kept() -> None:
    story = Story("waiting", live=True)
    for state in ("nnn", "wnn", "wwn"):
        story.add(replace(MOMENT, t=0.0, state=state))
    assert [json.loads(frame.text)["state"] for frame in story.frames] == ["wwn"]


def test_only_the_latest_events_are_told() -> None:
    story = Story("busy", live=True)
    for t in range(2 * EVENTS_MAX):
        story.tell([event(t, "gone", "n0", "n0 is gone")])
    assert len(story.events) == EVENTS_MAX
    assert story.events[-1]["t"] == 2 * EVENTS_MAX - 1


def a_story() -> tuple[Story, dict[str, Any]]:
    evil = "</script><script>alert(1)</script><!--"
    nodes = [{"name": name, "x": 0.5, "y": 0.0} for name in ("a", "b", "c")]
    edges = [{"a": 0, "b": 1, "asked": 1.5}, {"a": 1, "b": 2, "asked": None}]
    story = Story(
        evil, live=True, about=[("task", evil)], nodes=nodes, edges=edges, merged={"accuracy": None, "models": 2}
    )
    story.tell([event(1.0, "joined", "a", evil)])
    story.add(MOMENT)
    return story, json.loads(story.text())


def test_a_story_is_what_the_page_expects() -> None:
    story, read = a_story()
    check_story(read)
    assert read["title"] == story.title
    news = json.loads(story.news(story.frames[-1], story.events))
    check_news(news, 3, 2)
    assert news["merged"] == {"accuracy": None, "models": 2}


def test_a_story_can_stand_in_a_script_element() -> None:
    story, _ = a_story()
    assert "<" not in story.text()
    assert "<" not in story.news(story.frames[-1], story.events)
    assert json.loads(told({"a<b": "</"})) == {"a<b": "</"}
