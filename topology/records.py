"""Strict reading of JSON into dataclasses: every surprise is a sentence.

A record's fields are read by their annotation (``str``, ``int`` or ``float``, perhaps ``| None``); a key that is
missing, unknown or there twice is refused, and so is a value of another type.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from reprlib import repr as shown
from typing import Any, TypeVar

R = TypeVar("R")


class PlanError(ValueError):
    """One sentence: what is wrong with a plan, or with what was asked of the planner, and what to write instead."""


def unknown(what: str, given: str, known: Iterable[str]) -> str:
    """The sentence for a name that does not exist, with the nearest one that does."""
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1)
    hint = f": did you mean '{near[0]}'?" if near else ""
    return f"unknown {what} {shown(given)}{hint} (known: {', '.join(names[:24])}{', …' if len(names) > 24 else ''})"


def read_json(text: str) -> Any:
    """The value of a JSON text, whose objects must not repeat a key."""
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except PlanError:
        raise
    except (ValueError, RecursionError) as error:
        raise PlanError(f"this is not JSON: {error}.") from None


def read_records(kind: type[R], value: Any, where: str) -> tuple[R, ...]:
    """A list of objects as instances of the dataclass ``kind``."""
    if not isinstance(value, list):
        raise PlanError(f"{where} is {shown(value)}: write a list in brackets.")
    return tuple(read_record(kind, item, f"{where}[{k}]") for k, item in enumerate(value))


def read_record(kind: type[R], value: Any, where: str) -> R:
    """An object as an instance of the dataclass ``kind``."""
    readers, required = _schema(kind)  # type: ignore[arg-type]  # a class is hashable
    check_keys(value, where, required)
    return kind(**{key: readers[key](item, where, key) for key, item in value.items()})


def check_keys(value: Any, where: str, required: Mapping[str, bool]) -> None:
    """Refuse what is not an object with these keys, of which those marked True must be there."""
    if not isinstance(value, dict):
        raise PlanError(f"{where} is {shown(value)}: write an object in braces.")
    for key in value:
        if key not in required:
            raise PlanError(unknown(f"key in {where}", key, required))
    for key, needed in required.items():
        if needed and key not in value:
            raise PlanError(f"{where} has no key '{key}': add it.")


def read_text(value: Any, where: str, key: str) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value:
        raise PlanError(f"{key} in {where} is {shown(value)}: write a text in quotes.")
    return value


def read_whole(value: Any, where: str, key: str) -> int:
    """A whole number; true and false are none."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise PlanError(f"{key} in {where} is {shown(value)}: write a whole number.")
    return value


def read_number(value: Any, where: str, key: str) -> float:
    """A finite number."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= 1e300:
        raise PlanError(f"{key} in {where} is {shown(value)}: write a finite number.")
    return float(value)


READERS: Mapping[str, Callable[[Any, str, str], Any]] = {
    "str": read_text,
    "int": read_whole,
    "float": read_number,
    "float | None": read_number,
}


@cache
def _schema(kind: type[Any]) -> tuple[dict[str, Callable[[Any, str, str], Any]], dict[str, bool]]:
    fields = dataclasses.fields(kind)
    readers = {field.name: READERS[str(field.type)] for field in fields}
    return readers, {field.name: field.default is dataclasses.MISSING for field in fields}


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        key = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise PlanError(f"the key {shown(key)} is there twice in one object: keep one of them.")
    return value
