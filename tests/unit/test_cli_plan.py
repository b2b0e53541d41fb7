"""``gradvine plan`` and ``gradvine show``: what they print, write and refuse."""

from __future__ import annotations

import json
import sys

import pytest
import typer
from typer.testing import CliRunner

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
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_plan_writes_draws_and_prints(invoke, tmp_path) -> None:
    out = tmp_path / "plan.json"
    picture = tmp_path / "plan.png"
    result = invoke("plan", "ring", "--nodes", 8, "-o", out, "--draw", picture)
    assert result.exit_code == 0
    assert load_plan(out).digest == build_plan("ring", 8).digest
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert "ring, 8 peers" in result.stdout
    assert invoke("show", out).stdout == result.stdout


def test_json_has_the_promised_keys(invoke, tmp_path) -> None:
    out = tmp_path / "plan.json"
    made = json.loads(invoke("plan", "torus", "-n", 16, "--json", "-o", out).stdout)
    assert (made["family"], made["nodes"], made["edges"], made["diameter"]) == ("torus", 16, 32, 4)
    assert made["chi1"] == pytest.approx(16)
    assert made["chi2"] == pytest.approx(7.5)
    assert made["total_rate"] == pytest.approx(240**0.5)
    assert made["policy"] == "uniform"
    assert {"lower_bound", "certified_gap", "solver", "seconds", "spectral_gap"} < set(made)
    assert json.loads(invoke("show", out, "--json").stdout) == made


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
        (["plan", "ring", "-n", 4, "--model-size", "big"], "--model-size big can't be used"),
        (["plan", "ring", "-n", 4, "--draw", "plan.txt"], "picture can't be written"),
        (["plan", "ring", "-n", 4, "-o", "absent/plan.json"], "can't be written to absent"),
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
