"""Options out of their bounds are refused wherever they are."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from algorithms import ALGORITHMS
from algorithms.options import part, radius, whole
from algorithms.protocol import Unsuitable
from node.draws import Draws


@pytest.mark.parametrize("value", [0.0, -1.0, 1.5, math.nan, math.inf])
def test_parts_lie_above_0_and_up_to_1(value):
    assert part({"success": 1.0}, "success") == 1
    with pytest.raises(Unsuitable, match="--set success="):
        part({"success": value}, "success")


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_radii_lie_from_0(value):
    assert radius({"rho": 0.0}, "rho") == 0
    with pytest.raises(Unsuitable, match="--set rho="):
        radius({"rho": value}, "rho")


def test_whole_numbers_begin_at_1():
    assert whole({"samples": 1}, "samples") == 1
    with pytest.raises(Unsuitable, match="--set samples=0"):
        whole({"samples": 0}, "samples")


@pytest.mark.parametrize("name", sorted(name for name, rule in ALGORITHMS.items() if "decay" in rule.options))
@pytest.mark.parametrize("decay", [10.0, -1.0, math.nan])
def test_a_learning_rate_never_grows_from_round_to_round(make_world, name, decay):
    place = make_world.place("a", [("a", "b")], Draws(0, "a"))
    ALGORITHMS[name](place)
    with pytest.raises(Unsuitable, match="decay"):
        ALGORITHMS[name](replace(place, options={"decay": decay}))
