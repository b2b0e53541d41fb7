"""``gradvine plan``, ``show`` and ``compare``: what they print, write and refuse."""

from __future__ import annotations

import json
import sys

import pytest
import typer
from typer.testing import CliRunner

from node.cli.compare import compare
from node.cli.plan import plan
from node.cli.show import show
from node.errors import ConfigError, UserError
from topology.families import FAMILIES
from topology.plan import load_plan
from topology.planning import build_plan
from topology.rates import RATES
from topology.weights import WEIGHTS


@pytest.fixture
def invoke(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    app = typer.Typer()
    app.command()(plan)
    app.command()(show)
    app.command()(compare)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_plan_writes_draws_and_prints(invoke, tmp_path) -> None:
    out = tmp_path / "plan.json"
    picture = tmp_path / "plan.png"
    result = invoke("plan", "ring", "--nodes", 8, "-o", out, "--draw", picture)
    assert result.exit_code == 0
    assert load_plan(out).digest == build_plan("ring", 8, rates="optimal").digest
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "ring, 8 peers" in result.stdout
    assert invoke("show", out).stdout == result.stdout


def test_json_has_the_promised_keys(invoke, tmp_path) -> None:
    out = tmp_path / "plan.json"
    made = json.loads(invoke("plan", "torus", "-n", 16, "--rates", "uniform", "--json", "-o", out).stdout)
    assert (made["family"], made["nodes"], made["edges"], made["diameter"]) == ("torus", 16, 32, 4)
    assert made["chi1"] == pytest.approx(16)
    assert made["chi2"] == pytest.approx(7.5)
    assert made["total_rate"] == pytest.approx(240**0.5)
    assert made["policy"] == "uniform"
    assert {"lower_bound", "certified_gap", "solver", "seconds", "spectral_gap"} < set(made)
    assert json.loads(invoke("show", out, "--json").stdout) == made


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["ring", "-n", 12], "Nothing was gained: uniform rates do as well"),
        (["complete", "-n", 9, "--rates", "uniform"], "Uniform rates are the best there are"),
        (["grid", "-n", 16, "--rates", "uniform"], "'--rates optimal' says what better ones would save"),
        (["barbell", "-n", 10], "Optimal rates need 52.6% less than uniform ones, and are within 0.0"),
        (["line", "-n", 20, "--rates", "connectivity"], "Connectivity rates need 78.2% more than uniform ones"),
        (["barbell", "-n", 10, "--rates", "connectivity"], "policy gap"),
    ],
)
def test_what_was_gained_is_said_in_words(words, says, invoke) -> None:
    """38.44, 18.22 and 121.1, 215.8 are the totals before and after."""
    assert says in invoke("plan", *words, "--max-gap", "1e-4").stdout


def test_costs_and_limits_come_from_files(invoke, tmp_path) -> None:
    (tmp_path / "costs.csv").write_text("a,b,cost\nn4,n5,10\n")
    (tmp_path / "budgets.csv").write_text("n4,9\n")
    (tmp_path / "capacities.csv").write_text("n4,n5,2\n")
    words = ["barbell", "-n", 10, "-o", tmp_path / "plan.json", "--link-costs", tmp_path / "costs.csv"]
    words += ["--budgets", tmp_path / "budgets.csv", "--capacities", tmp_path / "capacities.csv"]
    result = invoke("plan", *words)
    assert "total cost" in result.stdout
    made = load_plan(tmp_path / "plan.json")
    edges = made.edges_of("n4")
    assert edges["n5"].cost == 10
    assert edges["n5"].rate <= 2 * (1 + 1e-8)
    assert sum(edge.rate for edge in edges.values()) <= 9 * (1 + 1e-8)
    figures = json.loads(invoke("show", tmp_path / "plan.json", "--json").stdout)
    assert figures["total_cost"] == pytest.approx(sum(edge.rate * edge.cost for edge in made.edges))
    assert figures["certified_gap"] == pytest.approx(figures["total_cost"] / figures["lower_bound"] - 1)


def test_limits_that_cost_more_than_uniform_rates_are_named(invoke, tmp_path) -> None:
    (tmp_path / "budgets.csv").write_text("n5,3\nn6,3\nn9,3\nn10,3\n")
    said = invoke("plan", "grid", "-n", 16, "--budgets", tmp_path / "budgets.csv").stdout
    assert "more than uniform ones, which break the limits that were set" in said


@pytest.mark.parametrize("words", [["plan", "ring"], ["compare", "ring", "line"], ["plan", "office.txt"]])
def test_a_family_needs_a_number_of_peers(words, invoke) -> None:
    result = invoke(*words)
    assert result.exit_code == 2
    assert "such as --nodes 8" in result.output


def test_names_in_a_plan_are_no_markup(invoke, tmp_path) -> None:
    (tmp_path / "team[red].txt").write_text("anna bert\n")
    assert "file:team[red].txt, 2 peers" in invoke("plan", f"file:{tmp_path / 'team[red].txt'}").stdout
    out = tmp_path / "plan.json"
    invoke("plan", "line", "-n", 2, "-o", out)
    text = out.read_text().replace('"solver": "interior point"', '"solver": "[/red]"')
    out.write_text("\ufeff" + text, encoding="utf-8")  # and a mark that some editors leave
    assert "[/red]" in invoke("show", out).stdout


def test_a_search_that_was_cut_short_says_what_is_known(invoke) -> None:
    said = invoke("plan", "geometric", "-n", 60, "--time-limit", "1ms").stdout
    assert "Nothing better than uniform rates was found; no rates need less than" in said


def test_a_graph_from_a_file(invoke, tmp_path, monkeypatch) -> None:
    (tmp_path / "office.txt").write_text("anna bert\nbert carl\ncarl anna\n")
    assert "file:office.txt, 3 peers" in invoke("plan", f"file:{tmp_path / 'office.txt'}").stdout
    monkeypatch.chdir(tmp_path)
    assert "write file:office.txt" in str(invoke("plan", "office.txt", "-n", 3).exception)


def test_time_that_is_up_is_no_failure(invoke) -> None:
    result = invoke("plan", "grid", "-n", 64, "--time-limit", "1ms", "--max-gap", "0", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["certified_gap"] > 1e-3


def test_compare_puts_families_side_by_side(invoke, tmp_path) -> None:
    result = invoke("compare", "line", "grid", "barbell", "-n", 16)
    assert result.exit_code == 0
    for said in ("26.252", "27.19", "24.89", "Connectivity rates need more than uniform ones on: line, grid.", "line:"):
        assert said in result.stdout
    assert "The fewest exchanges: grid, 24.89" in result.stdout


def test_compare_as_json_and_in_pictures(invoke, tmp_path) -> None:
    picture = tmp_path / "grid.png"
    result = invoke("compare", "regular", "-n", 16, "--degree", 3, "--json", "--draw", picture)
    figures = json.loads(result.stdout)
    assert [each["policy"] for each in figures] == ["uniform", "connectivity", "optimal"]
    assert {each["edges"] for each in figures} == {24}
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_model_size_scales_bytes(invoke) -> None:
    made = json.loads(invoke("plan", "star", "-n", 5, "--json", "--model-size", "2KB").stdout)
    assert made["bytes_sent"]["max"] == pytest.approx(4 * 2000)


def test_named_hosts(invoke, tmp_path) -> None:
    invoke("plan", "ring", "-n", 3, "--named-hosts", "--port", 5000, "-o", tmp_path / "plan.json")
    assert [node.address for node in load_plan(tmp_path / "plan.json").nodes] == ["n0:5000", "n1:5000", "n2:5000"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["plan", "rong", "-n", 4], "did you mean 'ring'"),
        (["plan", "grid", "-n", 7], "7 is prime"),
        (["plan", "ring", "-n", 1], "at least two"),
        (["plan", "ring", "-n", 10**12], "too large"),
        (["plan", "complete", "-n", 30000], "too large"),
        (["plan", "regular", "-n", 90000, "--degree", 3000], "too large"),
        (["plan", "erdos-renyi", "-n", 90000, "--probability", 0.5], "too large"),
        (["plan", "ring", "-n", 4, "--max-gap", "-1"], "--max-gap -1"),
        (["plan", "ring", "-n", 4, "--time-limit", "soon"], "--time-limit soon"),
        (["plan", "ring", "-n", 4, "--time-limit", "0s"], "above zero"),
        (["plan", "ring", "-n", 4, "--solver", "cvxpi"], "did you mean 'cvxpy'"),
        (["compare", "ring", "rong", "-n", 4], "did you mean 'ring'"),
        (["compare", "ring", "line", "-n", 4, "--draw", "x.png"], "of one family"),
        (["plan", "ring", "-n", 4, "--model-size", "big"], "--model-size big can't be used"),
        (["plan", "ring", "-n", 4, "--draw", "plan.txt"], "ends in .png, .svg, .pdf"),
        (["show", "plan.json", "--draw", "plan"], "ends in .png"),
        (["plan", "ring", "-n", 4, "-o", "absent/plan.json"], "there is no folder absent"),
        (["plan", "ring", "-n", 4, "--host", "not a host"], "host:port"),
        (["show", "absent.json"], "absent.json can't be read: No such file"),
    ],
)
def test_mistakes_are_one_sentence(invoke, tmp_path, monkeypatch, words, says) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*words)
    assert isinstance(result.exception, ConfigError)
    assert says in str(result.exception)
    assert "\n" not in str(result.exception)
    assert result.stdout == ""


def test_missing_packages_are_named(invoke, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "topology.planning", None)
    result = invoke("plan", "ring", "-n", 4)
    assert isinstance(result.exception, UserError)
    assert "pip install 'gradvine[plan]'" in str(result.exception)


def test_help_names_every_choice(invoke) -> None:
    text = invoke("plan", "--help").stdout
    for name in (*FAMILIES, *RATES, *WEIGHTS):
        assert name in text
