"""What a testbed shows while it runs, of tasks with an accuracy and of those with an optimum."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from node.testbed.live import Follower, one_line, render
from node.testbed.testbed import _silent_s


def follow(path: Path, *lines: dict[str, Any]) -> Follower:
    """A follower that has read some reports."""
    path.write_text("".join(json.dumps({"units": 1.0, "exchanges": 2} | line) + "\n" for line in lines))
    follower = Follower(path)
    follower.read_on()
    return follower


def shown(followers: dict[str, Follower]) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(render(followers))
    return capture.get()


def test_the_distance_is_told_relative_to_the_first_reports(tmp_path: Path) -> None:
    followers = {
        "a": follow(tmp_path / "a", {"distance": 6.0, "accuracy": 0.9}, {"distance": 0.03, "accuracy": 0.9}),
        "b": follow(tmp_path / "b", {"distance": 8.0, "accuracy": 0.9}),
    }
    (tmp_path / "b").write_text((tmp_path / "b").read_text() + json.dumps({"distance": 0.04}) + "\n")
    followers["b"].read_on()
    assert "distance to the optimum 0.005 of the first" in one_line(followers)
    assert "4.00e-02" in shown(followers)


def test_the_accuracy_is_that_of_the_newest_model_where_few_work_at_a_time(tmp_path: Path) -> None:
    values = {"a": (7, 0.5), "b": (9, 0.75), "c": (9, 0.25 + 0.125), "d": (2, 1.0)}
    followers = {
        name: follow(tmp_path / name, {"rounds": rounds, "accuracy": accuracy})
        for name, (rounds, accuracy) in values.items()
    }
    assert "accuracy 65.6%" in one_line(followers)
    for follower in followers.values():
        follower.sampled = True
    assert "accuracy 56.2%" in one_line(followers)


@pytest.mark.parametrize(("accuracy", "words"), [(0.625, "accuracy 62.5%"), (None, "accuracy –")])
def test_without_an_optimum_there_is_the_accuracy(tmp_path: Path, accuracy: float | None, words: str) -> None:
    followers = {"a": follow(tmp_path / "a", {"accuracy": accuracy, "distance": None})}
    assert words in one_line(followers)
    assert "distance" not in shown(followers)


@pytest.mark.parametrize(("state", "silent_s"), [("learning", 70.0), ("merging", 70.0), ("starting", 10.0)])
def test_who_waits_for_others_is_not_silent(tmp_path: Path, state: str, silent_s: float) -> None:
    assert _silent_s(Follower(tmp_path / "a.jsonl", state=state, heard_s=30.0), 100.0) == silent_s
