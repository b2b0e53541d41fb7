"""Reports and pictures: the numbers in them, and what a hostile name may not do to a page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from node.cli import app
from node.config import RunConfig, dump_toml
from node.errors import StorageError
from node.testbed.curves import growth, on_grid, time_grid
from node.testbed.experiment import Experiment, open_experiment
from node.testbed.look import apart
from node.testbed.report import figures_of, labels, present, present_several, size, spread
from node.testbed.runs import Run, load_run
from topology.plan import save_plan
from topology.planning import build_plan

SUMMARY: dict[str, Any] = {
    "version": 1,
    "algorithm": "gossip",
    "task": "digits",
    "nodes": 2,
    "seed": 0,
    "transport": "virtual",
    "seconds": 1.5,
    "virtual_seconds": 4.0,
    "lost_peers": [],
    "gradients": 1234,
    "exchanges": 60,
    "messages_sent": 120,
    "bytes_sent": 61_491_040,
    "lost_exchanges": 0,
    "local_accuracy": {"mean": 0.5, "min": 0.25, "max": 0.75},
    "merged_accuracy": 0.931,
    "merged_loss": 0.2,
    "consensus_distance": 0.0931,
    "ledger_error": None,
}


def write_run(folder: Path, name: str = "n0", **changes: Any) -> Path:
    """A small run, as if a driver had written it."""
    (folder / "peers").mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(SUMMARY | changes))
    for k, peer in enumerate((name, "n1")):
        lines = [
            {"seconds": s, "accuracy": 0.1 * s + 0.1 * k, "loss": 1 / s, "gradients": 10 * s, "exchanges": 3 * s}
            for s in (1, 2, 3, 4)
        ]
        text = "".join(json.dumps(line | {"bytes_sent": 1000 * line["seconds"]}) + "\n" for line in lines)
        (folder / "peers" / f"{peer}.jsonl").write_text(text)
    return folder


# ------------------------------------------------------------------------------------------------ the numbers


def test_all_peers_are_brought_onto_one_grid_of_times() -> None:
    lines = {
        "a": [{"seconds": 0.0, "x": 0.0}, {"seconds": 4.0, "x": 8.0}],
        "b": [{"seconds": 1.0, "x": None}, {"seconds": 2.0, "x": 5.0}, {"seconds": 3.0, "x": 5.0}],
    }
    grid = time_grid(lines, 4)
    assert grid.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert on_grid(lines, "x", grid)[0].tolist() == [2.0, 4.0, 6.0, 8.0]
    assert np.array_equal(on_grid(lines, "x", grid)[1], [np.nan, 5.0, 5.0, 5.0], equal_nan=True)


def test_nothing_is_drawn_of_a_run_in_which_a_peer_never_reported() -> None:
    assert time_grid({"a": [{"seconds": 1.0}], "b": []}).size == 0
    assert time_grid({}).size == 0


def test_the_rate_is_how_much_the_sum_over_peers_grows() -> None:
    lines = {name: [{"seconds": s, "x": r * s} for s in range(9)] for name, r in (("a", 2), ("b", 5))}
    middles, rates = growth(lines, "x")
    assert rates.tolist() == pytest.approx([7.0] * 4)
    assert middles.tolist() == pytest.approx([1.0, 3.0, 5.0, 7.0])


def test_labels_are_moved_apart_but_not_beyond_the_top() -> None:
    assert apart([10, 50], [4, 4], 100) == [10, 50]
    assert apart([10, 11], [4, 4], 100) == [10, 14]
    placed = apart([98, 99, 99], [4, 8, 4], 100)
    assert placed == [86, 92, 98]


# ----------------------------------------------------------------------------------------------- how they read


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (999, "999 B"), (61_491_040, "61.5 MB"), (2e13, "20 TB"), (None, "–")]
)
def test_bytes_are_read_in_decimal_units(value: float | None, text: str) -> None:
    assert size(value) == text


def test_a_spread_is_read_as_mean_worst_and_best() -> None:
    assert spread(SUMMARY["local_accuracy"]) == "50.0 % (25.0 to 75.0)"
    assert spread(None) == "–"


def test_runs_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    same = [write_run(tmp_path / "a"), write_run(tmp_path / "b")]
    assert labels([load_run(folder) for folder in same]) == ["gossip, a", "gossip, b"]
    other = write_run(tmp_path / "c", algorithm="local")
    assert labels([load_run(same[0]), load_run(other)]) == ["gossip", "local"]
    seed = write_run(tmp_path / "d", seed=5)
    assert labels([load_run(same[0]), load_run(seed)]) == ["gossip, seed 0", "gossip, seed 5"]


def test_runs_of_one_algorithm_are_named_by_the_options_in_which_they_differ(tmp_path: Path) -> None:
    def run(name: str, algorithm: str, **options: str) -> Run:
        folder = write_run(tmp_path / name, algorithm=algorithm)
        (folder / "config.toml").write_text(dump_toml(RunConfig(options=options)))
        return load_run(folder)

    once, often = run("a", "dfedsam", rho="0.2"), run("b", "dfedsam", rho="0.2", gossip_steps="4")
    flat, other = run("c", "dfedsam", rho="0.9"), run("d", "dpsgd", decay="0.9")
    assert labels([once, often, other]) == ["dfedsam", "dfedsam, gossip_steps=4", "dpsgd"]
    assert labels([once, flat]) == ["dfedsam, rho=0.2", "dfedsam, rho=0.9"]
    assert labels([often, run("e", "dfedsam", rho="0.2", gossip_steps="4")]) == ["dfedsam, b", "dfedsam, e"]


# -------------------------------------------------------------------------------------------- the whole report


class Page(HTMLParser):
    """The tags of a page and the pictures in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for key, value in attrs if key in ("src", "srcset", "href")]


def test_one_run_gets_a_table_a_picture_and_a_page_that_loads_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = write_run(tmp_path / "run", lost_peers=["n7"])
    present(folder)
    printed = capsys.readouterr().out
    for figure in ("61.5 MB", "93.1 %", "1 234", "lost: n7"):
        assert figure in printed
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    page = Page((folder / "report.html").read_text())
    assert page.tags.count("img") == 1
    assert all(source.startswith("data:image/") for source in page.sources)
    assert "n7" in (folder / "report.html").read_text()


def test_names_are_escaped(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    folder = write_run(tmp_path / "run", name="<img src=x onerror=y>", task=evil, lost_peers=[evil])
    (folder / "config.toml").write_text(f'task = "{evil}"\n')
    present(folder)
    text = (folder / "report.html").read_text()
    assert evil not in text
    assert re.search(r"&lt;img src=x onerror=y&gt;", text)
    present(write_run(tmp_path / "plain", lost_peers=["n7"]))
    plain = (tmp_path / "plain" / "report.html").read_text()
    for tag in ("script", "img", "h1", "strong"):
        assert Page(text).tags.count(tag) == Page(plain).tags.count(tag)


CONVERGED: dict[str, Any] = {
    "algorithm": "dadao",
    "local_accuracy": None,
    "merged_accuracy": None,
    "distance": 3.21e-7,
    "to_distance": {"1e-6": {"time": 118.04, "gradients": 43, "samples": 4321, "exchanges": 8765}},
    "rates": {"asked": 9.0, "achieved": 6.0, "chi1_chi2_asked": 0.5, "chi1_chi2_achieved": 0.77, "worst_edge": None},
    "exchange_p99_units": 0.25,
}


def test_a_run_that_converges_is_told_by_its_distance_and_its_rates(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = write_run(tmp_path / "run", **CONVERGED)
    plan = build_plan("line", 2)
    save_plan(plan, folder / "plan.json")
    (folder / "config.toml").write_text(dump_toml(RunConfig(algorithm="gossip", exchanges_per_step=4.0)))
    owner, other = plan.edges[0].a, plan.edges[0].b
    last = {"seconds": 100, "units": 200.0, "exchanges_with": {other: 320}}
    (folder / "peers" / f"{owner}.jsonl").write_text(json.dumps(last) + "\n")
    present(folder)
    printed = " ".join(capsys.readouterr().out.split())
    assert "distance to optimum 3.21e-07" in printed
    assert "time to 1e-6 118 units samples to 1e-6 4 321 exchanges to 1e-6 8 765" in printed
    assert "exchange rate 9 → 6 a unit exchange time, p99 0.25 units χ1·χ2 0.5 → 0.77" in printed
    assert "accuracy" not in printed
    assert "1e-4" not in printed
    # 4 exchanges a peer and unit are 4 of the only edge; it made 320 of 800
    slow = f"The edge {owner} – {other} made 1.6 exchanges a unit of the 4 asked for (40%)"
    assert slow in printed
    assert "99 % of one peer's took up to 0.25" in printed
    page = (folder / "report.html").read_text()
    assert slow in page
    row = "".join(f"<td>{value}</td>" for value in (f"{owner} – {other}", "4", "1.6", "40%", "320"))
    assert row in page


def test_a_peer_that_was_away_is_why_exchanges_are_missing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = write_run(tmp_path / "run", **CONVERGED, lost_exchanges=7)
    plan = build_plan("line", 2)
    save_plan(plan, folder / "plan.json")
    (folder / "config.toml").write_text(dump_toml(RunConfig(algorithm="dadao")))
    owner, other = plan.edges[0].a, plan.edges[0].b
    last = {"seconds": 100, "units": 200.0, "exchanges_with": {other: 9}}
    (folder / "peers" / f"{owner}.jsonl").write_text(json.dumps(last) + "\n")
    assert [line.split()[:2] for line in load_run(folder).remarks] == [
        ["The", "edge"],
        ["The", "guarantee"],
        ["Crashes", "left"],
    ]
    (folder / "events.jsonl").write_text(json.dumps({"event": "crashed", "peer": other}) + "\n")
    present(folder)
    printed = " ".join(capsys.readouterr().out.split())
    assert "lost exchanges 7" in printed
    assert "Crashes left 7 exchanges applied at one end only" in printed
    assert "--durability exact" in printed
    assert "--time-unit" not in printed
    assert "lost exchanges" not in {row[0] for row in figures_of([load_run(write_run(tmp_path / "calm"))])}


def test_a_figure_that_only_some_runs_have_is_a_dash_for_the_others(tmp_path: Path) -> None:
    runs = [load_run(write_run(tmp_path / "a")), load_run(write_run(tmp_path / "b", **CONVERGED))]
    rows = {name: values for name, *values in figures_of(runs)}
    assert rows["distance to optimum"] == ["–", "3.21e-07"]
    assert rows["merged accuracy"] == ["93.1 %", "–"]
    assert "time to 1e-4" not in rows
    assert "distance to optimum" not in {row[0] for row in figures_of(runs[:1])}


def test_the_newest_model_and_the_load_of_the_median_peer_are_told_where_few_work_at_a_time(tmp_path: Path) -> None:
    newest = {"round": 1200, "accuracy": 0.931, "loss": 0.2, "peers": 11}
    load = {
        "bytes_sent": {"min": 0, "median": 2_500_000, "max": 61_500_000},
        "gradients": {"min": 0, "median": 35, "max": 1300},
    }
    folder = write_run(tmp_path / "run", algorithm="modest", newest=newest, load=load, view_bytes_sent=65_000)
    rows = dict(figures_of([load_run(folder)]))
    assert rows["newest model"] == "93.1 %, of round 1 200, 11 peers"
    assert rows["sent by a median peer"] == "2.5 MB (0 B to 61.5 MB)"
    assert rows["steps of a median peer"] == "35 (0 to 1 300)"
    assert rows["views sent"] == "65 kB"
    plain = dict(figures_of([load_run(write_run(tmp_path / "plain", newest=None, load=None, view_bytes_sent=0))]))
    assert set(rows) - set(plain) == {"newest model", "sent by a median peer", "steps of a median peer", "views sent"}


def test_what_is_drawn_of_an_open_run_is_its_newest_model(tmp_path: Path) -> None:
    lines = {"n0": [(0, 0, 0.1), (2, 7, 0.9)], "n1": [(0, 0, 0.1), (2, 3, 0.4)], "n2": [(1, 3, 0.4), (2, 7, 0.8)]}
    folder = write_run(tmp_path / "run", newest={"round": 7, "accuracy": 0.85, "loss": 0.2, "peers": 2})
    for name, values in lines.items():
        text = [{"seconds": s, "units": s, "rounds": k, "accuracy": a, "bytes_sent": 5} for s, k, a in values]
        (folder / "peers" / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in text))
    figures = load_run(folder).figures()
    assert figures.peers == 3
    (course,) = figures.lines.values()
    assert [(one["seconds"], one["rounds"], one["bytes_sent"]) for one in course] == [
        (0, 0, 10),
        (1, 3, 15),
        (2, 7, 15),
    ]
    assert [one["accuracy"] for one in course] == pytest.approx([0.1, 0.4, 0.85])


def test_several_runs_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folders = [write_run(tmp_path / "a"), write_run(tmp_path / "b", algorithm="local", bytes_sent=0)]
    present_several(folders, tmp_path / "out")
    header = capsys.readouterr().out.splitlines()[1]
    assert header.split() == ["gossip", "local"]
    assert (tmp_path / "out" / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert "local" in (tmp_path / "out" / "comparison.html").read_text()


def test_what_runs_took_to_one_accuracy_stands_side_by_side(tmp_path: Path) -> None:
    def work(rounds: int | None, samples: int, bytes_sent: float) -> dict[str, float | None]:
        return {"rounds": rounds, "samples": samples, "bytes_sent": bytes_sent}

    far, near = work(100, 300_000, 7e7), work(80, 25_600, 61.6e6)
    summaries = [
        {"algorithm": "dpsgd", "rounds": 100, "to_accuracy": {"0.8": near, "0.9": far}},
        {"algorithm": "gossip", "to_accuracy": {"0.8": work(None, 32_000, 39.1e6)}},
        {"algorithm": "local"},
    ]
    runs = [load_run(write_run(tmp_path / str(k), **summary)) for k, summary in enumerate(summaries)]
    rows = {name: values for name, *values in figures_of(runs)}
    assert rows["rounds"] == ["100", "–", "–"]
    assert rows["rounds to 80 %"] == ["80", "–", "–"]
    assert rows["samples to 80 %"] == ["25 600", "32 000", "–"]
    assert rows["sent to 80 %"] == ["61.6 MB", "39.1 MB", "–"]
    assert not [name for name in rows if "90 %" in name], "not all of them reached it"
    converging = [load_run(write_run(tmp_path / f"convex{k}", **summaries[k], distance=0.1)) for k in range(2)]
    assert not [name for name, *_ in figures_of(converging) if " to 80 %" in name]
    alone = [name for name, *_ in figures_of(runs[:1])]
    assert not [name for name in alone if " to " in name]
    assert "rounds" in alone
    assert "rounds" not in [name for name, *_ in figures_of(runs[1:])]


def test_a_table_that_is_too_wide_comes_in_parts(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    folders = [write_run(tmp_path / f"run{k}", bytes_sent=k * 1000) for k in range(5)]
    present_several(folders, tmp_path / "out")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert [line.split()[1::2] for line in lines if line.strip().startswith("gossip")] == [
        ["run0", "run1"],
        ["run2", "run3"],
        ["run4"],
    ]
    sent = [line.split("  ")[1:] for line in lines if line.strip().startswith("sent")]
    assert [value.strip() for row in sent for value in row[1:] if value] == ["0 B", "1 kB", "2 kB", "3 kB", "4 kB"]


def test_json_is_the_summary_and_draws_nothing(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    result = CliRunner().invoke(app, ["report", str(folder), "--json"])
    assert json.loads(result.stdout) == SUMMARY | {"folder": str(folder)}
    assert not (folder / "report.html").exists()


def test_a_folder_without_a_run_and_a_summary_of_another_version_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="not the folder of a run"):
        load_run(tmp_path)
    with pytest.raises(StorageError, match="format version 9"):
        load_run(write_run(tmp_path / "run", version=9))


# ----------------------------------------------------------------------- runs without a driver to sum them up


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Experiment, dict[str, Any]]:
    from node.testbed.simulate import simulate
    from node.testbed.simulated import Physics

    config = RunConfig(duration=2.0, report_every=1.0)
    folder = tmp_path_factory.mktemp("runs") / "run"
    experiment = open_experiment(build_plan("ring", 3), config, folder)
    return experiment, simulate(experiment, Physics())


def test_a_damaged_summary_is_refused(tmp_path: Path) -> None:
    (tmp_path / "peers").mkdir()
    (tmp_path / "summary.json").write_text('{"version": 1}')
    with pytest.raises(StorageError, match="lacks algorithm"):
        load_run(tmp_path)


def test_a_run_without_a_summary_is_summed_up_from_its_folder(simulated: tuple[Experiment, dict[str, Any]]) -> None:
    experiment, summary = simulated
    (experiment.run_dir / "summary.json").unlink()
    again = load_run(experiment.run_dir).summary
    differing = {key for key in summary if summary[key] != again[key]}
    assert differing == {"transport", "seconds", "virtual_seconds"}  # what only the driver knows
    assert (experiment.run_dir / "summary.json").exists()


def test_peers_for_whom_there_is_only_data_are_not_lost(simulated: tuple[Experiment, dict[str, Any]]) -> None:
    experiment, _ = simulated
    about = experiment.run_dir / "data" / "task.json"
    before = about.read_text()
    values = json.loads(before)
    about.write_text(json.dumps(values | {"samples": values["samples"] | {"n3": 4}}))
    (experiment.run_dir / "summary.json").unlink(missing_ok=True)
    summary = load_run(experiment.run_dir).summary
    about.write_text(before)
    assert (summary["nodes"], summary["lost_peers"]) == (3, [])


def test_the_rate_asked_for_is_that_of_the_plan(simulated: tuple[Experiment, dict[str, Any]]) -> None:
    experiment, _ = simulated
    figures = load_run(experiment.run_dir).figures()
    # one exchange a peer and unit: n/2 edge events a unit of 50 ms
    assert figures.rate_asked == pytest.approx(3 / 2)
    assert figures.unit_s == pytest.approx(0.05)


def test_peers_without_a_final_state_are_named_as_lost(simulated: tuple[Experiment, dict[str, Any]]) -> None:
    experiment, _ = simulated
    (experiment.run_dir / "states" / "n1.safetensors").unlink()
    (experiment.run_dir / "summary.json").unlink(missing_ok=True)
    summary = load_run(experiment.run_dir).summary
    assert summary["lost_peers"] == ["n1"]
    assert summary["ledger_error"] is None
    for name in ("n0", "n2"):
        (experiment.run_dir / "states" / f"{name}.safetensors").unlink()
    (experiment.run_dir / "summary.json").unlink()
    with pytest.raises(StorageError, match="no final state"):
        load_run(experiment.run_dir)
