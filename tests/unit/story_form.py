"""What every story must be like, live or recorded: the contract between those who tell it and the page."""

from __future__ import annotations

import math
from typing import Any

KINDS = {"joined", "learning", "suspect", "gone", "back", "merging", "merged", "ended", "lost", "crashed"}
KINDS |= {"left", "slow", "over"}
PER_PEER = {"accuracy", "loss", "distance", "steps", "round", "sent", "stale"}
PER_EDGE = {"achieved", "apart"}
SPREADS, SINGLES = {"accuracy", "loss"}, {"distance", "apart", "sent"}


def number_or_none(value: Any) -> bool:
    """A number of four significant digits, or null."""
    if value is None:
        return True
    return type(value) in (int, float) and math.isfinite(value) and math.isclose(value, float(f"{value:.4g}"))


def time_of_a_run(value: Any) -> bool:
    """Seconds, to the millisecond."""
    return type(value) in (int, float) and math.isfinite(value) and value >= 0 and value == round(value, 3)


def check_frame(frame: dict[str, Any], nodes: int, edges: int) -> None:
    """A frame of a story with at most so many nodes and edges."""
    assert set(frame) == {"t", "state", "link", "curves"} | PER_PEER | PER_EDGE
    assert time_of_a_run(frame["t"])
    assert set(frame["state"]) <= set("nwlmdesg")
    assert set(frame["link"]) <= set("alsg?")
    assert {len(frame[key]) for key in PER_PEER} == {len(frame["state"])}
    assert {len(frame[key]) for key in PER_EDGE} == {len(frame["link"])}
    assert len(frame["state"]) <= nodes
    assert len(frame["link"]) <= edges
    assert all(number_or_none(value) for key in PER_PEER | PER_EDGE for value in frame[key])
    curves = frame["curves"]
    assert set(curves) == SPREADS | SINGLES
    assert all(number_or_none(curves[key]) for key in SINGLES)
    for key in SPREADS:
        spread = curves[key]
        if spread is not None:
            assert len(spread) == 3
            assert all(number_or_none(value) for value in spread)
            least, mean, most = spread
            assert least <= mean <= most


def check_event(event: dict[str, Any]) -> None:
    """An event."""
    assert set(event) == {"t", "kind", "peer", "text"}
    assert time_of_a_run(event["t"])
    assert event["kind"] in KINDS
    assert isinstance(event["peer"], str)
    assert event["text"]


def check_promises(promises: list[dict[str, Any]]) -> None:
    """The rows of the table."""
    for row in promises:
        assert set(row) == {"what", "asked", "achieved", "well", "hint"}
        assert row["well"] in (True, False, None)
        assert all(isinstance(row[key], str) and row[key] for key in ("what", "asked", "achieved", "hint"))


def check_merged(merged: Any) -> None:
    """The merge, if there was one."""
    assert merged is None or (set(merged) == {"accuracy", "models"} and number_or_none(merged["accuracy"]))


def check_news(news: dict[str, Any], nodes: int, edges: int) -> None:
    """The data of a ``frame`` message."""
    assert set(news) == {"frame", "events", "promises", "merged", "over"}
    check_frame(news["frame"], nodes, edges)
    check_promises(news["promises"])
    check_merged(news["merged"])
    for event in news["events"]:
        check_event(event)


def check_story(story: dict[str, Any]) -> None:
    """A whole story."""
    keys = {"version", "live", "title", "about", "nodes", "edges", "promises", "frames", "events", "merged", "over"}
    assert set(story) == keys
    assert story["version"] == 1
    assert {type(story["live"]), type(story["over"])} == {bool}
    assert story["title"]
    assert all(isinstance(text, str) and text for pair in story["about"] for text in pair)
    for node in story["nodes"]:
        assert set(node) == {"name", "x", "y"}
        assert 0 <= node["x"] <= 1
        assert 0 <= node["y"] <= 1
    for edge in story["edges"]:
        assert set(edge) == {"a", "b", "asked"}
        assert 0 <= min(edge["a"], edge["b"]) < max(edge["a"], edge["b"]) < len(story["nodes"])
        assert number_or_none(edge["asked"])
    assert len(story["frames"]) <= 300
    times = [frame["t"] for frame in story["frames"]]
    assert times == sorted(times)
    for frame in story["frames"]:
        check_frame(frame, len(story["nodes"]), len(story["edges"]))
    for event in story["events"]:
        check_event(event)
    check_promises(story["promises"])
    check_merged(story["merged"])
