"""What the service ``data`` hands out, and what it refuses to do to volumes that are in use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from node.config import RunConfig, load_config
from node.deploy.compose import place_in_containers
from node.deploy.volumes import fill_volumes, main
from node.errors import StorageError
from node.shards import load_shard, load_task_json
from node.testbed.experiment import open_experiment
from topology.plan import load_plan, plan_to_json
from topology.planning import build_plan

PLAN = place_in_containers(build_plan("ring", 3))


@pytest.fixture
def fill(tmp_path):
    """Open a run and hand it out; the folders of peers and record."""
    calls = iter(range(100))

    def call(plan=PLAN, **settings):
        experiment = open_experiment(
            plan, RunConfig(**{"partition": "iid"} | settings), tmp_path / f"opened{next(calls)}"
        )
        return fill_volumes(experiment, tmp_path / "peers", tmp_path / "record")

    return call


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_each_peer_gets_its_own_shard_and_no_other(fill, tmp_path) -> None:
    fill()
    for name in ("n0", "n1", "n2"):
        own = {f"data/{name}.safetensors", "data/test.safetensors", "data/task.json", "plan.json", "config.toml"}
        assert files(tmp_path / "peers" / name) == own
    assert files(tmp_path / "record") == {
        *("data/test.safetensors", "data/task.json", "plan.json", "config.toml", "running")
    }


def test_the_shards_are_all_of_the_data(fill, tmp_path) -> None:
    fill()
    held = [len(load_shard(tmp_path / "peers" / name / "data", name)) for name in ("n0", "n1", "n2")]
    about = load_task_json(tmp_path / "record" / "data")
    assert held == list(about.samples.values())
    assert sum(held) + about.test_samples == 1797  # images in scikit-learn's digits
    assert load_plan(tmp_path / "peers" / "n1" / "plan.json") == PLAN


def test_other_settings_are_handed_out_and_data_stays(fill, tmp_path) -> None:
    fill(lr=0.5)
    shard = tmp_path / "peers" / "n1" / "data" / "n1.safetensors"
    before = shard.stat().st_ino
    fill(lr=0.25, duration=7.0)
    for folder in (tmp_path / "record", tmp_path / "peers" / "n2"):
        config = load_config({}, folder / "config.toml", {})
        assert (config.lr, config.duration) == (0.25, 7.0)
    assert shard.stat().st_ino == before


def test_a_run_begins_anew_each_time(fill, tmp_path) -> None:
    fill()
    mark = tmp_path / "record" / "running"
    os.utime(mark, (1000, 1000))
    fill()
    assert mark.stat().st_mtime > 1000


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"task": "digits-cnn"}, "a run with task digits, not digits-cnn: begin anew with"),
        ({"seed": 1}, "a run with seed 0, not 1: begin anew with"),
        ({"partition": "dirichlet"}, "a run with partition iid, not dirichlet: begin anew with"),
        ({"plan": place_in_containers(build_plan("ring", 4))}, "of another plan: begin anew with"),
        ({"plan": place_in_containers(build_plan("line", 3))}, "of another plan: begin anew with"),
    ],
)
def test_other_data_than_the_volumes_hold_is_refused(fill, tmp_path, change, says) -> None:
    fill()
    before = files(tmp_path / "peers")
    with pytest.raises(StorageError, match=says):
        fill(**change)
    assert files(tmp_path / "peers") == before
    assert load_plan(tmp_path / "record" / "plan.json") == PLAN


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ('algorithm = "gosip"', "did you mean 'gossip'"),
        ('algorithm = "local"', "exists in virtual time only"),
        ("lr = -1", "lr = -1 can't be used"),
    ],
)
def test_what_can_not_run_is_refused_in_a_sentence(monkeypatch, capsys, settings, says) -> None:
    text = plan_to_json(PLAN)
    monkeypatch.setattr(sys, "argv", ["volumes", settings, text[:300], text[300:]])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code in (10, 20)
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert says in said.err


def test_a_plan_that_is_none_is_refused_in_a_sentence(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["volumes", "", plan_to_json(PLAN)[:300]])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 10
    assert capsys.readouterr().err.startswith("gradvine: the plan can't be used: ")
