"""When a run in containers is over, as its record alone tells, and what of the record is taken to the host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from node.deploy.reporting import Wait, become_owner, hand_over
from node.errors import StorageError
from node.testbed.runs import lost_peers
from topology.plan import save_plan
from topology.planning import build_plan

BEGUN = 1_000_000.0
NAMES = ["n0", "n1", "n2"]
PATIENCE = 64
"""Looks, of one second each: a minute, and two reports' time."""


@pytest.fixture
def record(tmp_path):
    folder = tmp_path / "record"
    for name in ("peers", "states", "merged", "data"):
        (folder / name).mkdir(parents=True)
    save_plan(build_plan("ring", 3), folder / "plan.json")
    (folder / "config.toml").write_text("report_every = 2.0\n")
    write(folder / "running", BEGUN)
    return folder


@pytest.fixture
def wait(record):
    return Wait(record, NAMES)


@pytest.fixture
def runs(tmp_path):
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


def write(path: Path, when: float) -> None:
    path.touch()
    os.utime(path, (when, when))


def state(record: Path, name: str, when: float = BEGUN + 100) -> None:
    write(record / "states" / f"{name}.safetensors", when)


def report(record: Path, name: str, seconds: float) -> None:
    with (record / "peers" / f"{name}.jsonl").open("a") as file:
        file.write(json.dumps({"seconds": seconds}) + "\n")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_it_is_over_when_all_have_ended(record, wait) -> None:
    for name in NAMES:
        assert not wait.look()
        state(record, name)
    assert wait.look()
    assert wait.ended == set(NAMES)


def test_states_of_an_earlier_run_do_not_count(record, wait) -> None:
    state(record, "n0", BEGUN - 5)
    state(record, "n1", BEGUN + 5)
    wait.look()
    assert wait.ended == {"n1"}


def test_who_comes_no_further_once_another_has_ended_is_lost(record, wait) -> None:
    report(record, "n2", 80.0)
    state(record, "n0")
    assert [wait.look() for _ in range(PATIENCE + 2)] == [False] * (PATIENCE + 1) + [True]


def test_who_comes_further_is_waited_for(record, wait) -> None:
    state(record, "n0")
    for seconds in range(0, 5 * PATIENCE, 2):
        report(record, "n2", float(seconds))
        assert not wait.look()


def test_who_crashes_again_and_again_keeps_the_others_from_their_report_no_longer_than_silence(record, wait) -> None:
    """It reports in each of its lives, which begin at its snapshot."""
    state(record, "n0")
    state(record, "n1")
    over = []
    for life in range(PATIENCE + 2):
        report(record, "n2", 50.0 + (0.3 if life == 0 else 0.2))
        over.append(wait.look())
    assert over == [False] * (PATIENCE + 1) + [True]


def test_half_a_report_is_no_news(record, wait) -> None:
    state(record, "n0")
    report(record, "n2", 80.0)
    wait.look()
    with (record / "peers" / "n2.jsonl").open("a") as file:
        file.write('{"seconds": 99.0, "gra')
    assert [wait.look() for _ in range(PATIENCE + 1)] == [False] * PATIENCE + [True]


def test_a_clock_that_leaps_while_the_machine_sleeps_ends_nothing(record, wait) -> None:
    """The files are as old as can be; what counts is how often nothing was found."""
    state(record, "n0", BEGUN)
    report(record, "n2", 80.0)
    os.utime(record / "peers" / "n2.jsonl", (BEGUN, BEGUN))
    assert not any(wait.look() for _ in range(PATIENCE))


def test_where_none_ends_and_none_comes_further_it_gives_up(record, wait) -> None:
    """Else `docker compose up` would never end where no peer can run. Half an hour is more than 20 lives take."""
    report(record, "n2", 1.0)
    assert not any(wait.look() for _ in range(1805))
    with pytest.raises(StorageError, match=r"no peer has ended, nor come further for 30 minutes: see docker compose"):
        wait.look()


# ---------------------------------------------------------------------------------------------- what is taken


def test_all_that_tells_of_the_run_is_copied_to_a_new_folder(record, runs) -> None:
    (runs / "compose-1").mkdir()
    write(record / "data" / "task.json", BEGUN)
    report(record, "n0", 1.0)
    for file in ("states/n0.safetensors", "merged/n0.safetensors", "merged/n0.statistics.safetensors"):
        write(record / file, BEGUN)
    assert hand_over(record, runs, {"n0"}) == runs / "compose-2"
    assert files(runs / "compose-2") == files(record) - {"running"}


def test_who_ended_in_an_earlier_run_only_is_named_as_lost_and_its_state_stays_behind(record, runs, wait) -> None:
    for name, when in (("n0", BEGUN + 5), ("n1", BEGUN + 5), ("n2", BEGUN - 5)):
        state(record, name, when)
        write(record / "merged" / f"{name}.safetensors", when)
    wait.look()
    folder = hand_over(record, runs, wait.ended)
    assert lost_peers(folder, NAMES) == ["n2"]
    assert {file for file in files(folder) if "n2" in file} == set()


def test_no_link_nor_pipe_of_a_peers_making_is_followed(record, runs, tmp_path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    (record / "states" / "n0.safetensors").symlink_to(secret)
    (record / "peers" / "n0.jsonl").symlink_to(secret)
    os.mkfifo(record / "peers" / "n1.jsonl")
    (record / "peers" / "more").symlink_to(tmp_path)
    report(record, "n2", 1.0)
    folder = hand_over(record, runs, {"n0"})
    assert files(folder) == {"plan.json", "config.toml", "peers/n2.jsonl"}


def test_what_peers_put_beside_what_is_theirs_is_left(record, runs) -> None:
    for file in ("summary.json", "peers/n9.jsonl", "peers/more"):
        write(record / file, BEGUN)
    assert files(hand_over(record, runs, set())) == {"plan.json", "config.toml"}


def test_a_folder_that_can_not_be_written_is_a_sentence(record, tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"^the record can't be copied to .*compose-1: .*\.$"):
        hand_over(record, tmp_path / "file", set())


root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")


@root_only
def test_the_reports_belong_to_whom_their_folder_does(record, runs) -> None:
    os.chown(runs, 12345, 23456)
    save_file({"model": torch.zeros(3)}, record / "states" / "n0.safetensors")
    folder = hand_over(record, runs, {"n0"})
    assert {(path.stat().st_uid, path.stat().st_gid) for path in (folder, *folder.rglob("*"))} == {(12345, 23456)}


@root_only
def test_what_reads_the_record_can_not_become_root_again(runs) -> None:
    os.chown(runs, 12345, 23456)
    code = f"""
import os
from pathlib import Path
from node.deploy.reporting import {become_owner.__name__}
become_owner(Path({str(runs)!r}))
print(os.getresuid(), os.getresgid(), os.getgroups())
try:
    os.setuid(0)
except PermissionError:
    print("refused")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(12345, 12345, 12345) (23456, 23456, 23456) []", "refused"]
