"""The merged model in the record: the same file for all who have the same one, and what the summary makes of others."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from algorithms.echo import Echo
from algorithms.final_merge import FinalMerge
from algorithms.gossip import Gossip
from algorithms.layout import Layout, Slot
from node.config import RunConfig
from node.draws import Draws
from node.errors import StorageError, TaskError
from node.place import ends_in_merge, make_algorithm, make_place, run_id
from node.testbed import merged
from node.testbed.report import figures_of
from node.testbed.runs import Run
from topology.planning import build_plan

SLOTS = (Slot("w", (2, 1), "weight", 0), Slot("b", (1,), "bias", 2), Slot("n.mean", (2,), "statistic", 3))
LAYOUT = Layout(SLOTS, "float64")
PLAIN = Layout(SLOTS[:2], "float64")


def place(layout: Layout = LAYOUT, **changes: object):
    start, draws = torch.zeros(layout.size, dtype=torch.float64), Draws(0, "n0")
    plan, config = build_plan("ring", 3), RunConfig(**changes)
    return make_place(plan, "n0", config, start=start, layout=layout, draws=draws, unit_s=1.0, constants={})


def ended(model: list[float], members: Sequence[str], layout: Layout = LAYOUT) -> FinalMerge:
    """An algorithm after its final merge."""
    algorithm = make_algorithm("gossip", place(layout), final_merge=True)
    assert isinstance(algorithm, FinalMerge)
    algorithm.merged = torch.tensor(model, dtype=torch.float64)
    algorithm._echo.members = tuple(members)
    return algorithm


def write(folder: Path, name: str, model: list[float], members: str, layout: Layout = LAYOUT) -> bytes:
    merged.write_merged(folder / "merged", name, ended(model, members.split(), layout), layout)
    return (folder / "merged" / f"{name}.safetensors").read_bytes()


def examine(vector: torch.Tensor) -> tuple[float, float]:
    """Not linear, so that a mean of figures is not the figure of a mean."""
    return float(vector.sum() ** 2), float(vector[3] * vector[4])


def test_what_is_learnt_is_one_file_and_what_is_a_peers_own_another(tmp_path: Path) -> None:
    same = [write(tmp_path, name, [1, 2, 3, k, 5], "a b c") for k, name in enumerate(("a", "b", "c"))]
    assert same[0] == same[1] == same[2]
    folder = tmp_path / "merged"
    tensors = load_file(folder / "b.safetensors")
    assert {key: value.tolist() for key, value in tensors.items()} == {"w": [[1.0], [2.0]], "b": [3.0]}
    assert load_file(folder / "b.statistics.safetensors")["n.mean"].tolist() == [1.0, 5.0]
    with safe_open(folder / "b.safetensors", "pt") as file:
        about = json.loads(file.metadata()["merged"])
    assert about == {"layout": LAYOUT.digest, "members": ["a", "b", "c"]}
    assert merged.read_merged(tmp_path, "c", LAYOUT).tolist() == [1, 2, 3, 2, 5]


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    here = write(tmp_path, "a", [1, 2, 3, 4, 5], "a b")
    program = "import sys; from pathlib import Path; from tests.unit.test_merged import write\n"
    program += "sys.stdout.buffer.write(write(Path(sys.argv[1]), 'b', [1, 2, 3, 0, 0], 'a b'))"
    for _ in range(2):
        there = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, check=True)
        assert there.stdout == here


def test_a_model_without_statistics_has_no_file_of_them(tmp_path: Path) -> None:
    write(tmp_path, "a", [1, 2, 3], "a", PLAIN)
    assert [path.name for path in (tmp_path / "merged").iterdir()] == ["a.safetensors"]


def test_nothing_is_written_of_a_peer_that_has_no_merged_model(tmp_path: Path) -> None:
    unmerged = ended([0] * 5, [])
    unmerged.merged = None
    for algorithm in (Gossip(place()), unmerged):
        merged.write_merged(tmp_path / "merged", "a", algorithm, LAYOUT)
    assert not (tmp_path / "merged").exists()
    assert merged.sum_up_merge(tmp_path, examine, LAYOUT) is None


def test_the_merged_model_is_judged_with_the_statistics_of_those_who_have_it(tmp_path: Path) -> None:
    for name, statistics in (("a", [1, 2]), ("b", [3, 4]), ("c", [5, 6])):
        held = write(tmp_path, name, [1, 1, 1, *statistics], "a b c")
    found = merged.sum_up_merge(tmp_path, examine, LAYOUT)
    loss, accuracy = (6**2 + 10**2 + 14**2) / 3, (2 + 12 + 30) / 3
    assert found == merged.Merge(3, 3, True, pytest.approx(loss), pytest.approx(accuracy))
    assert (tmp_path / "merged.safetensors").read_bytes() == held


def test_of_two_merged_models_that_of_more_peers_is_the_runs(tmp_path: Path) -> None:
    write(tmp_path, "d", [9, 9, 9, 7, 7], "d e")
    write(tmp_path, "e", [9, 9, 9, 7, 7], "d e")
    larger = write(tmp_path, "a", [1, 1, 1, 1, 2], "a b c")
    found = merged.sum_up_merge(tmp_path, examine, LAYOUT)
    assert found == merged.Merge(3, 1, False, 36.0, 2.0)
    assert (tmp_path / "merged.safetensors").read_bytes() == larger


@pytest.mark.parametrize("spoil", [lambda data: b"", lambda data: data[:-8], lambda data: b"x" * len(data)])
def test_a_merged_model_that_is_none_is_refused_in_one_sentence(tmp_path: Path, spoil) -> None:
    data = write(tmp_path, "a", [1, 2, 3, 4, 5], "a b")
    (tmp_path / "merged" / "a.safetensors").write_bytes(spoil(data))
    with pytest.raises(StorageError, match=r"a\.safetensors can't be read as a merged model"):
        merged.sum_up_merge(tmp_path, examine, LAYOUT)


def test_a_merged_model_of_another_layout_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a", [1, 2, 3], "a b", PLAIN)
    with pytest.raises(StorageError, match="another layout"):
        merged.sum_up_merge(tmp_path, examine, LAYOUT)


# --------------------------------------------------------------------------------------- who merges at all


def test_runs_end_in_a_merge_unless_told_otherwise_or_open() -> None:
    assert ends_in_merge(RunConfig())
    assert ends_in_merge(RunConfig(final_merge=True))
    assert not ends_in_merge(RunConfig(final_merge=False))
    assert not ends_in_merge(RunConfig(algorithm="modest"))
    with pytest.raises(TaskError, match="--final-merge can't be used with modest"):
        ends_in_merge(RunConfig(algorithm="modest", final_merge=True))
    plan = build_plan("ring", 3)
    ids = [run_id(plan, LAYOUT, RunConfig(final_merge=on), {}) for on in (None, True, False)]
    assert ids[0] == ids[1] != ids[2]


def test_what_wraps_an_algorithm_speaks_for_it() -> None:
    wrapped = make_algorithm("dpsgd", place(algorithm="dpsgd"), final_merge=True)
    alone = make_algorithm("dpsgd", place(algorithm="dpsgd"))
    assert isinstance(wrapped, FinalMerge)
    assert type(wrapped.inner) is type(alone)
    assert wrapped.kinds == {**alone.kinds, **Echo.kinds}
    assert (wrapped.tempo, wrapped.options, wrapped.defaults) == (alone.tempo, alone.options, alone.defaults)


# ------------------------------------------------------------------------------------------ what is shown

SUMMARY = {"algorithm": "gossip", "task": "digits", "nodes": 8, "seed": 0, "transport": "virtual", "gradients": 1}
SUMMARY |= {"seconds": 1.0, "virtual_seconds": 1.0, "lost_peers": [], "exchanges": 1, "bytes_sent": 1}
SUMMARY |= {"local_accuracy": None, "consensus_distance": 0.0, "ledger_error": None, "averaged_accuracy": 0.7}


def run_of(**more: object) -> Run:
    return Run(Path("nowhere"), SUMMARY | more, {}, None, None)


def test_the_table_says_of_how_many_the_merged_model_is_and_averages_where_there_is_none() -> None:
    merge = {"members": 7, "peers": 6, "identical": False, "waves": 2}
    both = [run_of(merged_accuracy=0.963, merged=merge), run_of(merged_accuracy=None, merged=None)]
    rows = {row[0]: row[1:] for row in figures_of(both)}
    assert rows["merged accuracy"] == ["96.3 % (of 7 peers)", "–"]
    assert rows["averaged accuracy"] == ["–", "70.0 %"]
    assert (both[0].figures().merged_accuracy, both[0].figures().averaged) == (0.963, False)
    assert (both[1].figures().merged_accuracy, both[1].figures().averaged) == (0.7, True)
    (remark,) = both[0].remarks
    assert "Not all peers have the same merged model: merged.safetensors is that of 7 models, which 6 peers" in remark
    assert both[1].remarks == []
