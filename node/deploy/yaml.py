"""Plain values as YAML that people can read; any reader of YAML 1.1 or 1.2 takes it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
"""Texts that may stand without quotes,"""

WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
"""unless they are one of these, which YAML takes for something else."""

BLOCK = re.compile(r"[!-~][\t -~]*\n(?:[\t -~]*\n)*")
"""Lines of ASCII that may stand as they are, below a ``|``."""


def to_yaml(value: Any) -> str:
    """A mapping or list as a document in YAML's block style, keys in their order.

    Parameters
    ----------
    value : mapping or sequence
        Of mappings, sequences, texts, numbers, truth values and None; keys are texts.

    Examples
    --------
    >>> print(to_yaml({"on": [1, {"a": "x", "b": []}], "c": "two\\nlines\\n"}), end="")
    "on":
      - 1
      - a: x
        b: []
    c: |
      two
      lines
    """
    return "\n".join(line.rstrip(" ") for line in _lines(value)) + "\n"


def _lines(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [line for key, item in value.items() for line in _entry(f"{scalar(key)}:", item)]
    lines = []
    for item in value:
        if _nested(item):
            first, *rest = _lines(item)
            lines += [f"- {first}", *(f"  {line}" for line in rest)]
        else:
            lines += _entry("-", item)
    return lines


def _entry(head: str, value: Any) -> list[str]:
    """What follows a key, or the dash of a list."""
    if _nested(value):
        return [head, *(f"  {line}" for line in _lines(value))]
    if isinstance(value, str) and _is_block(value):
        return [f"{head} |", *(f"  {line}" for line in value[:-1].split("\n"))]
    return [f"{head} {scalar(value)}"]


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping | Sequence) and not isinstance(value, str) and len(value) > 0


def _is_block(text: str) -> bool:
    """Whether it is several lines and none of them would be read otherwise than it is written."""
    whole = BLOCK.fullmatch(text) is not None and not text.endswith("\n\n")
    return whole and not any(line.endswith((" ", "\t")) for line in text.split("\n"))


def scalar(value: Any) -> str:
    """A single value, or an empty mapping or list, on a line; texts in quotes where YAML would read something else."""
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in WORDS:
        return value
    if isinstance(value, Mapping | Sequence) and not isinstance(value, str):
        return "{}" if isinstance(value, Mapping) else "[]"
    return json.dumps(value)  # a text in its quotes is one in YAML's, too
