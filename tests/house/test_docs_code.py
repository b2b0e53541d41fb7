"""The algorithm in the docs runs as it stands there: as a registered rule, and in the test that the docs show."""

from __future__ import annotations

import json
import re
import runpy
import sys

import pytest
from typer.testing import CliRunner

import algorithms
from node.cli import app


@pytest.fixture
def push(root, monkeypatch, tmp_path):
    """The algorithm of ``docs/algorithms.md`` as one more file and one more line, and the page's test of it."""
    code, test = re.findall(r"```python\n(.*?)```", (root / "docs" / "algorithms.md").read_text(), flags=re.DOTALL)
    (tmp_path / "push.py").write_text(code)
    (tmp_path / "its_test.py").write_text(test)
    monkeypatch.setattr(algorithms, "__path__", [*algorithms.__path__, str(tmp_path)])
    test_of_it = runpy.run_path(str(tmp_path / "its_test.py"))
    monkeypatch.setitem(algorithms.ALGORITHMS, "push", test_of_it["Push"])
    yield test_of_it["Push"], test_of_it["test_push_brings_peers_together"]
    sys.modules.pop("algorithms.push")


def test_its_test_passes(push, make_world, ring):
    push[1](make_world, ring)


def test_it_learns_in_the_simulator(push, tmp_path):
    summaries = {}
    for name in ("push", "local"):
        flags = ["--algorithm", name, "--nodes", "4", "--set", "hidden=16", "--alpha", "0.3"]
        faults = ["--loss", "0.2", "--duplicate", "0.1", "--delay", "20ms", "--crash", "2"]
        arguments = ["simulate", *flags, *faults, "--duration", "15s", "--out", str(tmp_path / name), "--json"]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        summaries[name] = json.loads(result.stdout)
    assert summaries["push"]["ledger_error"] is None
    assert summaries["push"]["exchanges"] > 0
    assert summaries["push"]["local_accuracy"]["mean"] > summaries["local"]["local_accuracy"]["mean"] + 0.1


def test_its_option_is_checked(push):
    from node.errors import TaskError
    from node.place import split_options

    assert split_options({"share": "0.3"}, push[0]) == ({"share": 0.3}, {})
    with pytest.raises(TaskError, match="share"):
        split_options({"share": "much"}, push[0])
