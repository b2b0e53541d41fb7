"""Checks of options that several learning rules have."""

from __future__ import annotations

import math
from collections.abc import Mapping

from algorithms.protocol import Unsuitable

Options = Mapping[str, float | int | str]


def whole(options: Options, name: str) -> int:
    """A whole number from 1; raises :class:`Unsuitable`."""
    value = int(options[name])
    if value < 1:
        raise Unsuitable(f"--set {name}={value} can't be used: write a whole number from 1.")
    return value


def part(options: Options, name: str) -> float:
    """A part of something, or a factor: above 0 and up to 1; raises :class:`Unsuitable`."""
    value = float(options[name])
    if not 0 < value <= 1:
        raise Unsuitable(f"--set {name}={value:g} can't be used: write a part above 0 and up to 1.")
    return value


def radius(options: Options, name: str) -> float:
    """The radius of sharpness-aware steps, from 0; raises :class:`Unsuitable`."""
    value = float(options[name])
    if not 0 <= value < math.inf:
        raise Unsuitable(f"--set {name}={value:g} can't be used: write a radius of 0 or more.")
    return value
