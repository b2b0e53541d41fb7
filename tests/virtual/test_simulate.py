"""``gradvine simulate`` from the command line: its record, its determinism, its faults, its proof."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from benchmarks.ledger import recompute
from node.cli import app

SMALL = ["--nodes", "4", "--set", "hidden=8", "--alpha", "0.5"]
ROUGH = ["--loss", "0.2", "--duplicate", "0.2", "--reorder", "0.2", "--delay", "20ms", "--step-jitter", "0.3"]


@pytest.fixture
def simulate(tmp_path):
    """Simulates with some more flags; the summary and the run's folder."""
    count = 0

    def run(*flags: str, steps: int = 100) -> tuple[dict, Path]:
        nonlocal count
        count += 1
        folder = tmp_path / f"run{count}"
        arguments = ["simulate", *SMALL, "--steps", str(steps), "--out", str(folder), "--json", *flags]
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout), folder

    return run


def elsewhere(folder: Path, hash_seed: int, *flags: str) -> subprocess.Popen:
    """The same in a process of its own, under way."""
    program = "from node.cli import main; main()"
    arguments = ["simulate", *SMALL, *ROUGH, "--steps", "60", "--out", str(folder), "--json", *flags]
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "OMP_NUM_THREADS": str(1 + hash_seed % 2)}
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True, env=environment
    )


# -------------------------------------------------------------------------------------------- the record


def test_the_folder_holds_the_whole_run(simulate):
    summary, folder = simulate("--report-every", "1s")
    names = ["n0", "n1", "n2", "n3"]
    assert (folder / "config.toml").is_file()
    assert json.loads((folder / "plan.json").read_text())["family"] == "exponential"
    assert sorted(path.stem for path in (folder / "states").iterdir()) == names
    assert sorted(path.stem for path in (folder / "peers").iterdir()) == names
    assert json.loads((folder / "summary.json").read_text()) == summary
    for name in names:
        lines = [json.loads(line) for line in (folder / "peers" / f"{name}.jsonl").read_text().splitlines()]
        # a hundred units of 50 ms, reported every second of them; the last word when all has settled, a little later
        assert [line["units"] for line in lines[:5]] == pytest.approx([0, 20, 40, 60, 80])
        assert 100 <= lines[-1]["units"] < 110
        assert [line["seconds"] for line in lines] == pytest.approx([line["units"] * 0.05 for line in lines])
        assert lines[-1]["gradients"] in (99, 100)
    merged = load_file(folder / "merged.safetensors")
    assert sorted(value.shape for value in merged.values()) == [(8,), (8, 64), (10,), (10, 8)]


def test_the_summary_agrees_with_the_folder(simulate):
    summary, folder = simulate(*ROUGH)
    models = np.stack([load_file(path)["model"] for path in sorted((folder / "states").iterdir())]).astype(float)
    last = [json.loads(path.read_text().splitlines()[-1]) for path in sorted((folder / "peers").iterdir())]
    assert summary["transport"] == "virtual"
    assert (summary["nodes"], summary["algorithm"], summary["task"]) == (4, "gossip", "digits")
    for key in ("gradients", "exchanges", "messages_sent", "bytes_sent", "lost_exchanges"):
        assert summary[key] == sum(line[key] for line in last)
    assert summary["consensus_distance"] == pytest.approx(((models - models.mean(0)) ** 2).sum())
    accuracies = [line["accuracy"] for line in last]
    assert summary["local_accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert summary["local_accuracy"]["min"] == pytest.approx(min(accuracies))
    assert summary["merged_accuracy"] == pytest.approx(summary["averaged_accuracy"], abs=0.01)
    assert summary["merged"] == {"members": 4, "peers": 4, "identical": True, "waves": 1}
    merged = load_file(folder / "merged.safetensors")
    (first,) = [value for value in merged.values() if value.shape == (8, 64)]
    np.testing.assert_allclose(first.ravel(), models.mean(0)[: 8 * 64], rtol=1e-5, atol=1e-6)
    # about one exchange a peer and unit, two peers each; loss costs some repeats, never exchanges
    assert summary["exchanges"] == pytest.approx(200, rel=0.3)
    assert summary["messages_sent"] > 2 * summary["exchanges"]


def test_a_run_can_be_repeated_from_its_folder(simulate, tmp_path):
    summary, folder = simulate(*ROUGH)
    arguments = ["--plan", str(folder / "plan.json"), "--config", str(folder / "config.toml"), *ROUGH]
    result = CliRunner().invoke(app, ["simulate", *arguments, "--out", str(tmp_path / "again"), "--json"])
    assert json.loads(result.stdout)["digest"] == summary["digest"]


# ------------------------------------------------------------------------------------------ determinism


def test_the_same_seed_gives_the_same_bits_whatever_the_load(simulate, tmp_path):
    both = [elsewhere(tmp_path / f"process{i}", i) for i in (1, 2)]  # two at once, on whatever is left of the machine
    here = [simulate(*ROUGH, steps=60)[0]["digest"] for _ in range(2)]
    there = [json.loads(process.communicate(timeout=200)[0])["digest"] for process in both]
    assert len({*here, *there}) == 1
    assert here[0].startswith("sha256:")
    assert simulate(*ROUGH, "--seed", "1", steps=60)[0]["digest"] != here[0]


def test_crashes_are_deterministic_too(simulate):
    flags = (*ROUGH, "--crash", "3", "--crash-down", "1s", "--durability", "periodic", "--snapshot-every", "1s")
    first, second = simulate(*flags)[0], simulate(*flags)[0]
    assert first["digest"] == second["digest"]
    assert first["lost_exchanges"] == second["lost_exchanges"]


def test_batched_steps_differ_in_rounding_alone(simulate):
    folders = [simulate(flag, "--dtype", "float64")[1] for flag in ("--batched", "--no-batched")]
    for name in ("n0", "n1", "n2", "n3"):
        one, other = (load_file(folder / "states" / f"{name}.safetensors")["model"] for folder in folders)
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)


# ----------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("codec", ["none", "half"])
def test_no_fault_moves_the_ledger(simulate, codec):
    flags = ("--dtype", "float64", "--durability", "exact", "--codec", codec, "--crash", "4", "--crash-down", "500ms")
    summary, folder = simulate(*ROUGH, *flags)
    assert summary["ledger_error"] <= 1e-9
    assert summary["lost_exchanges"] == 0
    assert summary["lost_peers"] == []
    assert summary["exchanges"] > 100
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert sorted(event["event"] for event in events) == ["crashed"] * 4 + ["restarted"] * 4
    assert recompute(folder)[0] == pytest.approx(summary["ledger_error"], abs=1e-15)


def test_a_ledger_of_a_run_that_lost_something_shows_it(simulate):
    """Periodic snapshots, rare ones: crashes lose exchanges, which are counted, and only then the ledger is off."""
    flags = ("--dtype", "float64", "--crash", "4", "--crash-down", "500ms", "--snapshot-every", "2s")
    summary, folder = simulate(*ROUGH, *flags)
    assert summary["lost_exchanges"] > 0
    assert summary["ledger_error"] > 1e-6
    assert recompute(folder)[0] == pytest.approx(summary["ledger_error"])


def test_a_peer_that_does_not_come_back_is_named(simulate):
    """Down for longer than the run: its last word is its snapshot."""
    flags = ("--dtype", "float64", "--durability", "exact", "--crash", "1", "--crash-down", "1h")
    summary, folder = simulate(*flags)
    assert len(summary["lost_peers"]) == 1
    assert sorted(path.stem for path in (folder / "states").iterdir()) == ["n0", "n1", "n2", "n3"]
    assert summary["ledger_error"] <= 1e-9
    assert recompute(folder)[0] == pytest.approx(summary["ledger_error"], abs=1e-15)


def test_the_ledger_holds_in_single_precision(simulate):
    summary, folder = simulate(*ROUGH)
    assert 0 < summary["ledger_error"] <= 1e-5
    assert recompute(folder)[0] == pytest.approx(summary["ledger_error"], rel=1e-6)


def test_without_a_ledger_there_is_none(simulate):
    assert simulate("--no-ledger", steps=20)[0]["ledger_error"] is None


def test_a_partition_stops_exchanges_across_it(simulate):
    calm, cut = simulate("--delay", "5ms")[0], simulate("--delay", "5ms", "--partition-at", "0s:5s")[0]
    assert calm["exchanges"] > 1.3 * cut["exchanges"]
    assert cut["ledger_error"] <= 1e-5


def test_bandwidth_slows_exchanges_down(simulate):
    # a model of 610 values is 2.4 kB: at 10 kB/s each way takes a quarter of a second, five units
    slow, fast = simulate("--bandwidth", "10KB", steps=60)[0], simulate("--bandwidth", "10MB", steps=60)[0]
    assert slow["exchanges"] < 0.6 * fast["exchanges"]


# ---------------------------------------------------------------------------------------- reference points


def test_the_centralised_peer_is_the_one_that_crashes(simulate):
    flags = ("--crash", "2", "--crash-down", "500ms")
    summary, folder = simulate("--algorithm", "centralised", *flags)
    crashed = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert {event["peer"] for event in crashed} == {"n0"}
    assert summary["lost_peers"] == []


def test_learning_together_lies_between_alone_and_centralised(simulate):
    flags = ("--alpha", "0.1")
    accuracy = {}
    for algorithm in ("local", "gossip", "centralised"):
        summary, folder = simulate("--algorithm", algorithm, *flags, steps=300)
        accuracy[algorithm] = summary["local_accuracy"]["mean"]
        assert summary["algorithm"] == algorithm
        if algorithm != "gossip":
            assert (summary["exchanges"], summary["messages_sent"]) == (0, 0)
        if algorithm == "centralised":
            assert [path.stem for path in (folder / "states").iterdir()] == ["n0"]
            assert summary["gradients"] in (299, 300)
    assert accuracy["local"] + 0.15 < accuracy["gossip"] < accuracy["centralised"] + 0.05


def test_who_never_exchanges_learns_what_it_would_alone(simulate):
    folders = [simulate("--algorithm", "local")[1], simulate("--exchanges-per-step", "1e-9")[1]]
    alone, together = ([load_file(path)["model"] for path in sorted((f / "states").iterdir())] for f in folders)
    np.testing.assert_array_equal(alone, together)


def test_bytes_sent_are_those_that_travel(simulate):
    (whole, _), (half, _) = simulate("--init", "common"), simulate("--codec", "half")
    assert half["messages_sent"] == whole["messages_sent"]
    # the final merge travels with all its bits: a sum of two vectors up each edge of a tree, and a mean down
    merge = 3 * (2 + 1) * 610 * 4
    assert 2 * (half["bytes_sent"] - merge) == whole["bytes_sent"] - merge > 0


# -------------------------------------------------------------------------------------------------- convex tasks


@pytest.fixture(scope="module")
def convex(tmp_path_factory) -> Path:
    """The folder of a run with an optimum and without an accuracy."""
    folder = tmp_path_factory.mktemp("convex") / "run"
    what = ["--algorithm", "dadao", "--task", "least-squares", "--nodes", "4", "--set", "problems=4"]
    how = ["--partition", "natural", "--duration", "150s", "--report-every", "5s", "--delay", "10ms"]
    result = CliRunner().invoke(app, ["simulate", *what, *how, "--out", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder


def reports(folder: Path) -> dict[str, list[dict]]:
    paths = sorted((folder / "peers").iterdir())
    return {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in paths}


def test_distances_are_those_to_the_solution_of_the_normal_equations(convex):
    shards = [load_file(path) for path in sorted((convex / "data").glob("n?.safetensors"))]
    matrix = np.mean([shard["x"].T @ shard["x"] / len(shard["x"]) for shard in shards], axis=0)
    vector = np.mean([shard["x"].T @ shard["y"].ravel() / len(shard["x"]) for shard in shards], axis=0)
    optimum = np.linalg.solve(matrix, vector)
    lines = reports(convex)
    last = [np.linalg.norm(load_file(path)["model"] - optimum) for path in sorted((convex / "states").iterdir())]
    assert [peer[-1]["distance"] for peer in lines.values()] == pytest.approx(last, rel=1e-6, abs=1e-9)
    first = [peer[0]["distance"] for peer in lines.values()]
    summary = json.loads((convex / "summary.json").read_text())
    assert summary["distance"] == pytest.approx(np.sqrt(np.mean(np.square(last)) / np.mean(np.square(first))), rel=1e-6)
    assert summary["distance"] < 0.01
    assert 0 < summary["to_distance"]["1e-2"]["time"] < 150
    assert (summary["local_accuracy"], summary["merged_accuracy"]) == (None, None)


def test_a_gradient_counts_as_the_whole_shard(convex):
    sizes = {path.stem: len(load_file(path)["y"]) for path in (convex / "data").glob("n?.safetensors")}
    last = {name: peer[-1] for name, peer in reports(convex).items()}
    seen = {name: line["gradients"] * sizes[name] for name, line in last.items()}
    assert {name: line["samples"] for name, line in last.items()} == seen
    assert json.loads((convex / "summary.json").read_text())["samples"] == sum(seen.values()) > 0


def test_both_ends_of_an_edge_count_its_exchanges(convex):
    lines = {name: peer[-1] for name, peer in reports(convex).items()}
    counts = {name: line["exchanges_with"] for name, line in lines.items()}
    assert all(counts[other][name] == n for name, each in counts.items() for other, n in each.items())
    summary = json.loads((convex / "summary.json").read_text())
    exchanges = sum(sum(each.values()) for each in counts.values()) // 2
    assert summary["exchanges"] == exchanges
    units = lines["n0"]["units"]
    # in units of each edge's owner, who has learnt until it had settled: all of them for about as long
    assert summary["rates"]["achieved"] == pytest.approx(exchanges / units, rel=1e-4)
    # a clock of each edge, together a Poisson clock of the plan's total rate
    plan = json.loads((convex / "plan.json").read_text())
    assert summary["rates"]["asked"] == pytest.approx(plan["rates"]["total_rate"])
    expected = plan["rates"]["total_rate"] * units
    assert abs(exchanges - expected) < 4 * np.sqrt(expected)
    # there and back again, 10 ms on average each way, where a unit is a second
    assert 0.02 < summary["exchange_p99_units"] < 0.2


def test_the_folder_alone_gives_the_same_figures(convex, tmp_path):
    from node.testbed.runs import load_run

    summary = json.loads((convex / "summary.json").read_text())
    folder = shutil.copytree(convex, tmp_path / "copy")
    (folder / "summary.json").unlink()
    again = load_run(folder).summary
    assert {key for key in summary if summary[key] != again[key]} == {"transport", "seconds", "virtual_seconds"}
    # what the page's picture shows: the theorem's rate for L and mu of the shards, by dense eigenvalues
    values = [
        np.linalg.eigvalsh(2 * s["x"].T @ s["x"] / len(s["x"])) for s in map(load_file, folder.glob("data/n?.s*"))
    ]
    condition = max(each[-1] for each in values) / min(each[0] for each in values)
    bound = load_run(folder).figures().bound
    assert bound == pytest.approx(1 / np.sqrt(condition) / (16 * np.sqrt(2)))
    # at rates that the theorem does not hold for it promises nothing
    summary["rates"]["chi1_chi2_asked"] = 0.51
    (folder / "summary.json").write_text(json.dumps(summary))
    assert load_run(folder).figures().bound is None
