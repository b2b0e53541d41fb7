"""What a peer's ``/status`` says, read with distrust: whatever is not as a peer writes it is refused whole.

Fields that are not known are ignored, so that peers of a later version can be watched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from topology.plan import NAME

PHASES = ("waiting", "learning", "merging", "draining")
STATES = ("alive", "suspect", "gone")
PEERS_MAX = 4096
COUNT_MAX = 2**63
NUMBER_MAX = 1e300
"""Numbers can be added up without running over."""
SECONDS_MAX = 1e10
RATES = (1e-9, 1e6)
UNITS_S = (1e-6, 1e6)
TEXT_MAX = 200


@dataclass(frozen=True, slots=True)
class Word:
    """What a peer says of another: its state, and what is known of the exchanges with it."""

    state: str
    asked_hz: float | None = None
    exchanges: int | None = None
    distance: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer says of itself; None is what it does not know. See :class:`node.meter.Status`."""

    name: str
    run: str
    algorithm: str
    task: str
    phase: str
    seconds: float
    units: float
    seconds_left: float | None
    unit_seconds: float | None
    round: int | None
    loss: float | None
    accuracy: float | None
    distance: float | None
    models_merged: int
    bytes_sent: int
    gradients: int
    behind_units: float
    exchange_p99_units: float | None
    peers: Mapping[str, Word]


def read_answer(data: bytes) -> Answer:
    """A status out of the bytes that came.

    Raises
    ------
    ValueError
        When they are anything but a peer's status.
    """
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError("too deep") from None
    if not isinstance(value, dict) or not isinstance(peers := value.get("peers"), dict) or len(peers) > PEERS_MAX:
        raise ValueError("no status")
    return Answer(
        name=_name(value.get("name")),
        run=_text(value.get("run")),
        algorithm=_text(value.get("algorithm")),
        task=_text(value.get("task")),
        phase=_one_of(value.get("phase"), PHASES),
        seconds=_number(value, "seconds", 0.0, SECONDS_MAX) or 0.0,
        units=_number(value, "units", 0.0) or 0.0,
        seconds_left=_number(value, "seconds_left", 0.0),
        unit_seconds=_number(value, "unit_seconds", *UNITS_S),
        round=_count(value, "round"),
        loss=_number(value, "loss"),
        accuracy=_number(value, "accuracy", 0.0, 1.0),
        distance=_number(value, "distance"),
        models_merged=_count(value, "models_merged") or 0,
        bytes_sent=_count(value, "bytes_sent") or 0,
        gradients=_count(value, "gradients") or 0,
        behind_units=_number(value, "behind_units") or 0.0,
        exchange_p99_units=_number(value, "exchange_p99_units"),
        peers={_name(name): _word(word) for name, word in peers.items()},
    )


def _word(value: Any) -> Word:
    if not isinstance(value, dict):
        raise ValueError("no peer")
    return Word(
        state=_one_of(value.get("state"), STATES),
        asked_hz=_number(value, "rate_asked_hz", *RATES),
        exchanges=_count(value, "exchanges"),
        distance=_number(value, "distance"),
    )


def _name(value: Any) -> str:
    if not isinstance(value, str) or not NAME.fullmatch(value):
        raise ValueError("no name")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > TEXT_MAX:
        raise ValueError("no text")
    seen = "".join(letter for letter in value if letter.isprintable())
    if not seen:
        raise ValueError("no text")
    return seen


def _one_of(value: Any, known: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in known:
        raise ValueError("no such state")
    return value


def _number(value: Mapping[str, Any], key: str, least: float = -NUMBER_MAX, most: float = NUMBER_MAX) -> float | None:
    number = value.get(key)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int | float) or not least <= number <= most:
        raise ValueError(f"{key} can't be")
    return float(number)


def _count(value: Mapping[str, Any], key: str) -> int | None:
    number = value.get(key)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < COUNT_MAX:
        raise ValueError(f"{key} can't be")
    return number
