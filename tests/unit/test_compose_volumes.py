"""What the service ``data`` hands out, and what it refuses to do to volumes that are in use."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from node.config import RunConfig, load_config
from node.deploy import USER
from node.deploy.compose import place_in_containers
from node.deploy.volumes import fill_volumes, give_away, main
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


def test_a_link_that_a_peer_has_put_in_its_volume_is_not_written_through(fill, tmp_path) -> None:
    fill()
    other = tmp_path / "record" / "data" / "task.json"
    before = other.read_bytes()
    (tmp_path / "peers" / "n1" / ".config.toml.new").symlink_to(other)
    fill(lr=0.25)
    assert other.read_bytes() == before
    assert load_config({}, tmp_path / "peers" / "n1" / "config.toml", {}).lr == 0.25


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_peers_write_where_they_must_and_what_the_report_goes_by_stays_roots(fill, tmp_path) -> None:
    fill()
    made = tmp_path / "peers" / "n1" / "state"  # while a peer lives, it comes and goes
    made.mkdir()
    (made / "gone.partial").symlink_to(tmp_path / "opened0" / "plan.json")
    give_away(tmp_path / "peers", tmp_path / "record", ["n0", "n1", "n2"])
    owned = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.lstat().st_uid == USER}
    assert owned == {f"peers/n{k}" for k in range(3)} | {f"record/{kind}" for kind in ("peers", "states", "merged")}
    assert (tmp_path / "record").stat().st_mode & 0o022 == 0  # nobody else puts anything beside plan.json


def test_peers_can_read_what_they_do_not_own(fill, tmp_path) -> None:
    fill()
    for folder in (tmp_path / "peers", tmp_path / "record"):
        assert all(path.stat().st_mode & 0o004 for path in folder.rglob("*"))


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
