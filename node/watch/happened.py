"""What happens to a peer, in words: out of how it was a moment ago and how it is now."""

from __future__ import annotations

from typing import Any

from node.watch.answer import Answer
from node.watch.known import Known
from node.watch.story import Kind, event


def tell_change(
    t: float, name: str, was: str, figures: Answer | None, peer: Known, doubter: str
) -> list[dict[str, Any]]:
    """The events of one peer between two looks.

    Parameters
    ----------
    was : str
        Its state at the first look, and ``figures`` its figures.
    peer : Known
        How it is now.
    doubter : str
        Who says the worst of it.
    """
    found: list[tuple[Kind, str]] = []
    lost = _lost(figures, peer.figures)
    if peer.state != was:
        found += _turned(name, was, peer, doubter, lost)
    elif lost:
        found += [("back", f"{name} was started again{lost}")]
    merged = peer.figures.models_merged if peer.figures else 0
    if merged and not (figures and figures.models_merged):
        found += [("merged", f"{name} has the mean of {merged} models")]
    return [event(t, kind, name, text) for kind, text in found]


def _turned(name: str, was: str, peer: Known, doubter: str, lost: str) -> list[tuple[Kind, str]]:
    now = peer.state
    if now == "g":
        return [("gone", f"{name} does not answer any more" if peer.asked else f"{doubter} says that {name} is gone")]
    if was in "ge":
        return [("back", f"{name} answers again{lost}")] if now != "e" else []
    if was == "n":
        return [("joined", f"{name} is there" + (", and learns" if now in "ls" else ""))]
    if was == "s" and now == "l":
        return [("back", f"nobody doubts any more that {name} is there")]
    words: dict[str, tuple[Kind, str]] = {
        "s": ("suspect", f"{doubter} doubts that {name} is there"),
        "m": ("merging", f"{name} merges its model with those of the others"),
        "d": ("left", f"{name} was told to end"),
        "e": ("ended", f"{name} has ended"),
        "l": ("learning", f"{name} learns" + (f" again{lost}" if lost else "")),
    }
    return [words[now]] if now in words else [("back", f"{name} waits for its neighbours again")]


def _lost(before: Answer | None, now: Answer | None) -> str:
    """What a peer has lost that fell back to a snapshot."""
    steps = before.gradients - now.gradients if before and now else 0
    return f", and lost {steps} local steps" if steps > 0 else ""
