"""Pictures of plans: every family finds its places, and no two nodes share one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from topology.draw import draw_plan, place_nodes
from topology.families import FAMILIES
from topology.plan import PlanError
from topology.planning import build_plan


@pytest.mark.parametrize("family", [*FAMILIES, "file:mine.txt"])
@pytest.mark.parametrize("n", [6, 40, 200])
def test_nodes_stand_apart(family: str, n: int) -> None:
    plan = build_plan(family if family in FAMILIES else "regular", n)
    spots = place_nodes(replace(plan, family=family))
    apart = np.linalg.norm(spots[:, None] - spots[None], axis=2)[np.triu_indices(n, 1)]
    assert spots.shape == (n, 2)
    assert np.isfinite(spots).all()
    assert apart.min() > 0.002 * apart.max()


def test_formats_and_the_smallest_plan(tmp_path) -> None:
    draw_plan(build_plan("line", 2), tmp_path / "line.svg")
    assert "<svg" in (tmp_path / "line.svg").read_text()
    with pytest.raises(PlanError, match="picture can't be written"):
        draw_plan(build_plan("ring", 4), tmp_path / "ring.nonsense")
