"""Durations and sizes as people write them."""

from __future__ import annotations

import re
from typing import Any

SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
BYTES = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def duration_s(value: Any) -> Any:
    """Seconds in ``"10s"``, ``"5m"``, ``"1h30m"``, ``"50ms"`` or a plain number."""
    if isinstance(value, bool):  # to Python a number
        raise ValueError("write a duration such as 10s, 5m or 50ms")
    if not isinstance(value, str):
        return value
    parts = re.findall(r"(\d+(?:\.\d*)?|\.\d+)(ms|s|m|h|d)", value)
    if parts and "".join(number + unit for number, unit in parts) == value:
        return sum(float(number) * SECONDS[unit] for number, unit in parts)
    try:
        return float(value)
    except ValueError:
        raise ValueError("write a duration such as 10s, 5m or 50ms") from None


def size_bytes(value: Any) -> Any:
    """Bytes in ``"64MiB"``, ``"2GB"`` or a plain number."""
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", value)
    if not match or match[2] not in BYTES:
        raise ValueError("write a size such as 64MiB or 2GB")
    count = float(match[1]) * BYTES[match[2]]
    if count == float("inf"):
        raise ValueError("write a size such as 64MiB or 2GB")
    return round(count)


def size_text(count: float) -> str:
    """Bytes in the largest unit that leaves a number above 1."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def rate_text(bytes_s: float) -> str:
    """Bytes a second, likewise."""
    return f"{size_text(bytes_s)}/s"


def duration_text(seconds: float) -> str:
    """Seconds, or milliseconds where they are less than one.

    >>> duration_text(0.02)
    '20 ms'
    """
    return f"{seconds * 1000:.4g} ms" if seconds < 1 else f"{seconds:.4g} s"
