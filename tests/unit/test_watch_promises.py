"""What was promised beside what is achieved, by hand, and the command's refusals."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from algorithms import ALGORITHMS
from node.cli import app
from node.errors import ConfigError
from node.place import is_open
from node.testbed.rates import EdgeRate
from node.watch.promises import BOUNDS, Achieved, Bounds, promise
from node.watch.scene import OPEN, Scene, place_plan
from topology.plan import save_plan
from topology.planning import build_plan

PAIR = Achieved("gossip", 0.5, {("a", "b"): 2.0}, [EdgeRate("a", "b", 2.0, 190, 100.0)], "a while", [0.25, 0.5], [0.02])


def rows(achieved: Achieved) -> dict[str, dict[str, Any]]:
    return {row["what"]: row for row in promise(build_plan("line", 2), achieved)}


def test_what_is_copied_from_the_algorithms_is_still_so() -> None:
    told = {name: (rule.tempo.exchange_units_max, rule.tempo.chi1_chi2_max) for name, rule in ALGORITHMS.items()}
    copied = {name: BOUNDS.get(name, Bounds()) for name in ALGORITHMS}
    assert told == {name: (bounds.exchange_units_max, bounds.chi1_chi2_max) for name, bounds in copied.items()}
    assert set(BOUNDS) <= set(ALGORITHMS)
    assert {name for name, rule in ALGORITHMS.items() if is_open(rule)} == set(OPEN)


def test_rates_are_told_in_exchanges_a_second() -> None:
    found = rows(PAIR)
    assert found["exchanges a second"] | {"hint": ""} == {
        "what": "exchanges a second",
        "asked": "4",
        "achieved": "3.8",
        "well": True,
        "hint": "",
    }
    assert (found["slowest edge"]["asked"], found["slowest edge"]["achieved"]) == ("4", "3.8")
    assert "a – b: 95%" in found["slowest edge"]["hint"]
    # one edge of rate λ: λ2 of the Laplacian is 2λ, so that χ1 = 1/2λ, and half the resistance is χ2 = 1/2λ
    assert (found["χ1·χ2"]["asked"], found["χ1·χ2"]["achieved"]) == (f"{1 / 16:.3g}", f"{1 / 3.8**2:.3g}")
    assert (found["exchange time, p99"]["achieved"], found["exchange time, p99"]["well"]) == ("0.5", None)
    assert (found["local steps behind"]["achieved"], found["local steps behind"]["well"]) == ("0.02", True)


def test_a_slow_edge_and_late_steps_are_no_kept_promise() -> None:
    found = rows(replace(PAIR, edges=[EdgeRate("a", "b", 2.0, 100, 100.0)], behind=[0.01, 0.3]))
    assert [found[what]["well"] for what in ("exchanges a second", "slowest edge", "local steps behind")] == [False] * 3


def test_what_chance_may_explain_is_neither_kept_nor_missed() -> None:
    unlucky = rows(replace(PAIR, edges=[EdgeRate("a", "b", 2.0, 15, 12.0)]))
    assert (unlucky["slowest edge"]["well"], unlucky["exchanges a second"]["well"]) == (None, None)


def test_dadao_is_held_to_its_bounds() -> None:
    asked = {("a", "b"): math.sqrt(0.5)}  # χ1·χ2 = 1/(4·½) = ½
    kept = replace(PAIR, algorithm="dadao", asked=asked, edges=[EdgeRate("a", "b", math.sqrt(0.5), 70, 100.0)])
    found = rows(kept)
    assert (found["χ1·χ2"]["asked"], found["χ1·χ2"]["well"]) == ("0.5", True)
    assert (found["exchange time, p99"]["asked"], found["exchange time, p99"]["well"]) == ("≤ 0.2", False)
    assert rows(replace(kept, edges=[EdgeRate("a", "b", math.sqrt(0.5), 7, 100.0)]))["χ1·χ2"]["well"] is False


def test_what_an_algorithm_has_not_is_left_out() -> None:
    bare = Achieved("dpsgd", 0.5, {}, [], "a while", [], [0.0])
    assert set(rows(bare)) == {"local steps behind", "spectral gap"}
    assert [row["what"] for row in promise(None, bare)] == ["local steps behind"]
    assert "χ1·χ2" in rows(PAIR)
    assert "χ1·χ2" not in [row["what"] for row in promise(None, PAIR)], "there may be edges that nobody has told of"


def test_places_are_those_of_the_drawing_upside_down() -> None:
    ring = {node["name"]: (node["x"], node["y"]) for node in place_plan(build_plan("ring", 4))}
    assert ring == {"n0": (0.5, 0.0), "n1": (1.0, 0.5), "n2": (0.5, 1.0), "n3": (0.0, 0.5)}
    line = place_plan(build_plan("line", 3))
    assert [(node["x"], node["y"]) for node in line] == [(0, 0.5), (0.5, 0.5), (1, 0.5)]


def test_peers_without_a_plan_stand_on_a_circle() -> None:
    scene = Scene()
    for name in ("a", "b", "a", "c", "d"):
        scene.append(name)
    assert [(node["name"], node["x"], node["y"]) for node in scene.nodes] == [
        ("a", 0.5, 0.0),
        ("b", 1.0, 0.5),
        ("c", 0.5, 1.0),
        ("d", 0.0, 0.5),
    ]
    scene.join("a", "b")
    scene.join("b", "a")
    scene.join("a", "a")
    scene.join("a", "nobody")
    assert scene.pairs == [("a", "b")]


# ----------------------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.json"], "nowhere.json can't be read"),
        (["plan.json", "--every", "often"], "--every often"),
        (["plan.json", "--every", "1ms"], "100ms to 1h"),
        (["plan.json", "plan.json"], "one run at a time"),
        ([], "name a plan"),
    ],
)
def test_mistakes_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments:
        save_plan(build_plan("ring", 3), tmp_path / "plan.json")
    result = CliRunner().invoke(app, ["watch", *arguments])
    assert isinstance(result.exception, ConfigError)
    assert said in str(result.exception)
    assert str(result.exception).count("\n") == 0


@pytest.mark.parametrize("reported", [True, False])
def test_a_run_that_is_over_is_to_be_read_of(tmp_path: Path, reported: bool) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({}))
    if reported:
        (tmp_path / "report.html").write_text("")
    result = CliRunner().invoke(app, ["watch", str(tmp_path)])
    assert result.exit_code == 0
    assert "is over" in result.output
    assert "report.html" in result.output.replace("\n", "")
    assert ("gradvine report" in result.output) is not reported
