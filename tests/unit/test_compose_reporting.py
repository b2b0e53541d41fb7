"""When a run in containers is over, as its record alone tells."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from node.deploy.reporting import ended_peers, hand_over, is_over
from node.errors import StorageError

BEGUN = 1_000_000.0
NAMES = ["n0", "n1", "n2"]


@pytest.fixture
def record(tmp_path):
    folder = tmp_path / "record"
    for name in ("peers", "states"):
        (folder / name).mkdir(parents=True)
    (folder / "config.toml").write_text("report_every = 2.0\n")
    write(folder / "running", BEGUN)
    return folder


def write(path: Path, when: float) -> None:
    path.touch()
    os.utime(path, (when, when))


def state(record: Path, name: str, when: float) -> None:
    write(record / "states" / f"{name}.safetensors", when)


def line(record: Path, name: str, when: float) -> None:
    write(record / "peers" / f"{name}.jsonl", when)


def test_states_of_an_earlier_run_do_not_count(record) -> None:
    state(record, "n0", BEGUN - 5)
    state(record, "n1", BEGUN + 5)
    assert ended_peers(record, NAMES) == ["n1"]


def test_it_is_over_when_all_have_ended(record) -> None:
    for k, name in enumerate(NAMES):
        assert not is_over(record, NAMES, BEGUN + 30)
        state(record, name, BEGUN + 10 + k)
    assert is_over(record, NAMES, BEGUN + 30)


@pytest.mark.parametrize(("later_s", "over"), [(63.0, False), (65.0, True)])
def test_who_is_silent_once_another_has_ended_is_lost(record, later_s, over) -> None:
    """After a minute and two reports' time: 64 s."""
    line(record, "n2", BEGUN + 80)
    state(record, "n0", BEGUN + 100)
    assert is_over(record, NAMES, BEGUN + 100 + later_s) == over


def test_who_still_reports_is_waited_for(record) -> None:
    state(record, "n0", BEGUN + 100)
    line(record, "n2", BEGUN + 990)
    assert not is_over(record, NAMES, BEGUN + 1000)


def test_silence_alone_ends_nothing(record) -> None:
    line(record, "n2", BEGUN + 1)
    assert not is_over(record, NAMES, BEGUN + 10_000)


def test_a_record_without_a_final_state_is_refused_and_its_copy_has_a_new_name(record, tmp_path) -> None:
    (tmp_path / "compose-1").mkdir()
    with pytest.raises(StorageError, match="no final state"):
        hand_over(record, tmp_path)
    assert (tmp_path / "compose-2" / "config.toml").read_text() == "report_every = 2.0\n"
    assert not (tmp_path / "compose-2" / "running").exists()
