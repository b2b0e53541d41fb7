"""Whether models could be merged, against quadratics, networks of two units, numpy, and a run that nobody looks at."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from safetensors.numpy import load_file
from typer.testing import CliRunner

from node.cli import app
from node.config import RunConfig
from node.draws import Draws
from node.errors import ConfigError, StorageError
from node.testbed import charts
from node.testbed.experiment import open_experiment
from node.testbed.mergeability import FILE, Looks, Mergeability, examine, loss_barrier, read_looks
from node.testbed.report import figures_of
from node.testbed.runs import load_run
from node.testbed.simulate import Trainers
from topology.planning import build_plan

Model = torch.Tensor
SMALL = ["--nodes", "4", "--set", "hidden=8", "--alpha", "0.5", "--steps", "60", "--report-every", "500ms"]


def as_it_is(name: str, model: Model) -> Model:
    return model


# ------------------------------------------------------------------------------------------------ exact cases


def test_a_quadratic_sags_between_any_two_models() -> None:
    """With L = ½(x - c)ᵀA(x - c) the barrier is -½t(1 - t)dᵀAd, d = x̄ - x, which is largest at t = ¼ and ¾."""
    random = np.random.default_rng(1)
    root, centre = random.normal(size=(4, 4)), random.normal(size=4)
    curvature = root @ root.T
    points = random.normal(size=(5, 4))

    def evaluate(x: Model) -> tuple[float, float]:
        gap = x.numpy() - centre
        return gap @ curvature @ gap / 2, 0.01 * x.sum().item()

    models = {f"n{k}": torch.from_numpy(point) for k, point in enumerate(points)}
    found = examine(models, ["n3", "n1"], evaluate, as_it_is)
    average = points.mean(0)
    barriers = [-3 / 32 * (average - points[k]) @ curvature @ (average - points[k]) for k in (1, 3)]
    assert max(barriers) < 0
    assert found == pytest.approx(
        {
            "peers": 5,
            "local_accuracy": 0.01 * points.sum(1).mean(),
            "merged_accuracy": 0.01 * average.sum(),
            "local_loss": np.mean([evaluate(model)[0] for model in models.values()]),
            "merged_loss": (average - centre) @ curvature @ (average - centre) / 2,
            "barrier_mean": np.mean(barriers),
            "barrier_max": max(barriers),
            "consensus_distance": ((points - average) ** 2).sum(),
        }
    )


def test_copies_of_a_network_with_its_units_in_another_order_can_not_be_merged() -> None:
    """|x| = relu(x) + relu(-x) in both orders: each is right everywhere, their mean is 0 and right by chance."""
    inputs = np.array([-3.0, -0.25, 0.5, 2.0])
    labels = np.abs(inputs) > 1

    def evaluate(x: Model) -> tuple[float, float]:
        first, second = x[:2].numpy(), x[2:].numpy()
        logits = np.maximum(np.outer(inputs, first), 0) @ second - 1
        loss = np.log1p(np.exp(np.where(labels, -logits, logits))).mean()
        return float(loss), float(((logits > 0) == labels).mean())

    models = {"a": torch.tensor([1.0, -1.0, 1.0, 1.0]), "b": torch.tensor([-1.0, 1.0, 1.0, 1.0])}
    found = examine(models, ["a", "b"], evaluate, as_it_is)

    def loss_at(slope: float) -> float:
        logits = slope * np.abs(inputs) - 1
        return float(np.where(labels, np.log1p(np.exp(-logits)), np.log1p(np.exp(logits))).mean())

    chord = {t: (1 - t) * loss_at(1) + t * loss_at(0) for t in (0.25, 0.5, 0.75)}
    expected = max(loss_at(1 - t) - chord[t] for t in chord)
    assert (found["local_accuracy"], found["merged_accuracy"]) == (1.0, 0.5)
    assert found["merged_loss"] == pytest.approx((np.log1p(np.e) + np.log1p(1 / np.e)) / 2)
    assert found["barrier_mean"] == pytest.approx(expected, abs=1e-6)
    assert found["barrier_max"] == pytest.approx(expected, abs=1e-6)
    assert found["consensus_distance"] == 4.0


def test_a_bump_on_the_line_is_a_barrier() -> None:
    bump = {0.0: 1.0, 0.25: 1.5, 0.5: 3.0, 0.75: 2.5, 1.0: 2.0}
    barrier = loss_barrier(torch.zeros(1), torch.ones(1), lambda x: bump[x.item()], lambda x: x)
    assert barrier == 3.0 - 1.5


def test_equal_models_are_merged_already() -> None:
    model = torch.tensor([0.1, 0.7, -0.3])
    found = examine(
        {"a": model, "b": model.clone(), "c": model.clone()}, ["b"], lambda x: (x.sum().item(), 0.5), as_it_is
    )
    assert found["merged_loss"] == found["local_loss"] == pytest.approx(0.5)
    assert found["consensus_distance"] == 0
    assert found["barrier_max"] == pytest.approx(0, abs=1e-12)


# ------------------------------------------------------------------------------------------- when, and at whom


class Recorder:
    """Knows how good models are, and notes whose lines are looked at."""

    def __init__(self) -> None:
        self.evaluations = 0
        self.asked: list[str] = []

    def evaluate(self, vector: Model) -> tuple[float, float]:
        self.evaluations += 1
        return 1.0, 0.5

    def settle(self, name: str, vector: Model) -> Model:
        self.asked.append(name)
        return vector


@pytest.fixture
def looking(tmp_path: Path) -> Callable[..., tuple[Mergeability, Recorder]]:
    def make(every: float = 10.0, sample: int = 3, seed: int = 0) -> tuple[Mergeability, Recorder]:
        recorder = Recorder()
        names = [f"n{k}" for k in range(9)]
        return Mergeability(tmp_path, Looks(every, sample), recorder, names, seed, 0.5), recorder

    return make


def models_of(*numbers: int) -> dict[str, Model]:
    return {f"n{k}": torch.full((2,), float(k)) for k in numbers}


def look_at(mergeability: Mergeability, recorder: Recorder, there: set[int], now: float) -> set[int]:
    """Look at these; the numbers of those from whom the way to the mean was looked at."""
    recorder.asked.clear()
    mergeability.look(models_of(*there), now)
    return {int(name[1:]) for name in recorder.asked}


def test_the_sample_stays_the_same_and_others_take_the_place_of_who_is_gone(looking: Any) -> None:
    mergeability, recorder = looking()
    first = look_at(mergeability, recorder, set(range(9)), 0.0)
    gone = min(first)
    assert len(first) == 3
    assert look_at(mergeability, recorder, set(range(9)), 10.0) == first
    later = look_at(mergeability, recorder, set(range(9)) - {gone}, 20.0)
    assert len(later) == 3
    assert first - later == {gone}
    assert look_at(mergeability, recorder, {gone}, 30.0) == {gone}


def test_the_sample_is_drawn_from_the_seed(looking: Any) -> None:
    def drawn(seed: int) -> frozenset[int]:
        return frozenset(look_at(*looking(seed=seed), set(range(9)), 0.0))

    assert drawn(3) == drawn(3)
    assert len({drawn(seed) for seed in range(5)}) > 1


@pytest.mark.parametrize(("report_every", "expected"), [(3.0, [0, 4, 7, 10, 14]), (0.1, [0, 100, 200])])
def test_a_look_is_due_once_a_period(report_every: float, expected: list[int], looking: Any) -> None:
    """With the first report from then on; a hundred times 0.1, summed up, is a little less than 10."""
    mergeability, _ = looking(every=10.0)
    seen, now = [], 0.0
    for report in range(15 if report_every == 3 else 205):
        if mergeability.due(now):
            mergeability.look(models_of(1, 2), now)
            seen.append(report)
        now += report_every
    assert seen == expected


def test_looks_are_written_down_and_summed_up(looking: Any, tmp_path: Path) -> None:
    mergeability, recorder = looking(sample=2)
    mergeability.look(models_of(1, 2, 3), 0.0)
    mergeability.look({}, 4.0)  # nobody is there
    mergeability.look(models_of(1, 2), 8.0)
    mergeability.look(models_of(1, 2), 8.0)  # and nothing is new
    looks = read_looks(tmp_path)
    assert [(look["units"], look["seconds"], look["peers"]) for look in looks] == [(0.0, 0.0, 3), (8.0, 4.0, 2)]
    assert sum(look["evaluations"] for look in looks) == recorder.evaluations
    summary = mergeability.summary(seconds=2.0)
    assert {key: summary[key] for key in looks[-1]} == looks[-1]
    assert summary["looks"] == 2
    assert summary["cost_share"] == pytest.approx(sum(look["cost_seconds"] for look in looks) / 2)


def test_what_is_no_look_is_refused(tmp_path: Path) -> None:
    assert read_looks(tmp_path) == []
    (tmp_path / FILE).write_text("{}\nnonsense\n")
    with pytest.raises(StorageError, match=FILE):
        read_looks(tmp_path)


# ----------------------------------------------------------------------------------------------- whole runs


def simulate(folder: Path, *flags: str) -> dict[str, Any]:
    arguments = ["simulate", *SMALL, "--out", str(folder), "--json", *flags]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def judge(vector: np.ndarray, folder: Path) -> tuple[float, float]:
    """Cross-entropy and accuracy of a perceptron 64-8-10 on the run's test data."""
    test = load_file(folder / "data" / "test.safetensors")
    w1, b1, w2, b2 = np.split(vector.astype(float), np.cumsum([8 * 64, 8, 80]))
    outputs = np.maximum(test["x"].reshape(-1, 64) @ w1.reshape(8, 64).T + b1, 0) @ w2.reshape(10, 8).T + b2
    logs = outputs - np.log(np.exp(outputs).sum(1, keepdims=True))
    return -logs[np.arange(len(logs)), test["y"]].mean(), (outputs.argmax(1) == test["y"]).mean()


def test_the_last_look_agrees_with_the_final_models(tmp_path: Path) -> None:
    """Peers on their own have nothing to settle: their final models are those that were looked at."""
    summary = simulate(tmp_path / "run", "--algorithm", "local", "--mergeability", "1s")
    look = read_looks(tmp_path / "run")[-1]
    models = [load_file(path)["model"].astype(float) for path in sorted((tmp_path / "run" / "states").iterdir())]
    average = np.mean(models, axis=0)
    judged = [judge(model, tmp_path / "run") for model in models]
    merged_loss, merged_accuracy = judge(average, tmp_path / "run")
    barriers = [
        max(
            judge((1 - t) * model + t * average, tmp_path / "run")[0] - (1 - t) * loss - t * merged_loss
            for t in (0.25, 0.5, 0.75)
        )
        for model, (loss, _) in zip(models, judged, strict=True)
    ]
    assert look["units"] == 60
    assert look["peers"] == 4
    assert look["local_accuracy"] == pytest.approx(np.mean([accuracy for _, accuracy in judged]))
    assert look["local_loss"] == pytest.approx(np.mean([loss for loss, _ in judged]), rel=1e-5)
    assert look["merged_accuracy"] == pytest.approx(merged_accuracy)
    assert look["merged_loss"] == pytest.approx(merged_loss, rel=1e-5)
    assert look["barrier_mean"] == pytest.approx(np.mean(barriers), abs=1e-5)
    assert look["barrier_max"] == pytest.approx(max(barriers), abs=1e-5)
    assert look["consensus_distance"] == pytest.approx(sum(((model - average) ** 2).sum() for model in models))
    assert {key: summary["mergeability"][key] for key in look} == look
    assert 0 < summary["mergeability"]["cost_share"] < 1


def test_looking_changes_nothing_and_takes_as_many_evaluations_as_it_says(tmp_path: Path) -> None:
    flags = ("--delay", "20ms", "--mergeability-sample", "3")
    looked_at = simulate(tmp_path / "looked", *flags, "--mergeability", "1s")
    assert looked_at["digest"] == simulate(tmp_path / "not", *flags)["digest"]
    looks = read_looks(tmp_path / "looked")
    assert [look["units"] for look in looks] == pytest.approx([0, 20, 40, 60])
    assert [look["evaluations"] for look in looks[1:-1]] == [1 + 3 * 3] * 2  # the reports knew the models themselves
    for name in ("n0", "n3"):
        lines = [(tmp_path / run / "peers" / f"{name}.jsonl").read_text() for run in ("looked", "not")]
        assert lines[0] == lines[1]


@pytest.mark.parametrize(
    ("flags", "first", "last"),
    [(["--stop", "50%", "--stop-at", "1200ms"], 4, 2), (["--leave", "1", "--leave-between", "1100ms:1400ms"], 4, 3)],
)
def test_who_is_gone_is_not_in_the_mean(flags: list[str], first: int, last: int, tmp_path: Path) -> None:
    simulate(tmp_path / "run", "--mergeability", "500ms", *flags)
    looks = read_looks(tmp_path / "run")
    assert [look["seconds"] for look in looks] == pytest.approx([0, 0.5, 1, 1.5, 2, 2.5, 3])
    assert [look["peers"] for look in looks] == [first] * 3 + [last] * 4


def test_the_report_shows_what_was_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(tmp_path / "run", "--mergeability", "1s")
    run = load_run(tmp_path / "run")
    looks = read_looks(tmp_path / "run")
    rows = {row[0]: row[1] for row in figures_of([run])}
    assert rows["if merged now"].startswith(f"{100 * looks[-1]['merged_accuracy']:.1f} %, barrier")
    assert rows["cost of looking"].startswith("4 looks, ")
    figure = Figure()
    monkeypatch.setattr(charts, "open_figure", lambda *_: nullcontext(figure))
    charts.draw_run(run.figures(), Path("unused"))
    curves = {tuple(line.get_ydata()) for axes in figure.axes for line in axes.lines}
    for key, factor in (("merged_accuracy", 100), ("merged_loss", 1), ("barrier_mean", 1), ("barrier_max", 1)):
        assert tuple(factor * look[key] for look in looks) in curves


def test_nothing_is_shown_of_a_run_that_nobody_looked_at(tmp_path: Path) -> None:
    assert "mergeability" not in simulate(tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert not {"if merged now", "cost of looking"} & {row[0] for row in figures_of([run])}
    assert not (tmp_path / "run" / FILE).exists()
    assert charts._draw_barrier not in [panel for panel, _ in charts._panels(run.figures())]


@pytest.mark.parametrize(("period", "advice"), [("100ms", "0.5s or more"), ("0s", "0.5s or more"), ("soon", "such as")])
def test_a_period_that_makes_no_sense_is_refused(period: str, advice: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["simulate", *SMALL, "--out", str(tmp_path / "run"), "--mergeability", period])
    assert isinstance(result.exception, ConfigError)
    assert advice in str(result.exception)
    assert not (tmp_path / "run").exists()


# ---------------------------------------------------------------------------------------------- statistics

NORMALISED = """
import torch
from torch import nn

def model():
    return nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2))

def data():
    x = torch.tensor([1.0, -2.0, 5.0]).expand(40, 3).clone()
    y = torch.arange(40) % 2
    return x, y, x, y
"""


def test_a_merged_model_has_the_statistics_of_a_peers_own_data(tmp_path: Path) -> None:
    """All samples are the same: after 50 batches with momentum 0.1 the mean is theirs but for 0.9⁵⁰ of the old one."""
    (tmp_path / "task.py").write_text(NORMALISED)
    config = RunConfig(task=f"file:{tmp_path / 'task.py'}", partition="iid")
    experiment = open_experiment(build_plan("ring", 2), config, tmp_path / "run")
    draws = {name: Draws(0, name) for name in experiment.learners()}
    trainers = Trainers(experiment, draws, batched=True)
    slots = {slot.name: slice(slot.offset, slot.offset + slot.size) for slot in trainers.layout.slots}
    merged = torch.arange(trainers.layout.size, dtype=torch.float32)
    before, shared, torch_state = merged.clone(), {n: d.state() for n, d in draws.items()}, torch.get_rng_state()
    settled = trainers.settle("n1", merged)
    old = 0.9**50
    sample = np.array([1.0, -2.0, 5.0])
    expected = (1 - old) * sample + old * merged[slots["0.running_mean"]].numpy()
    np.testing.assert_allclose(settled[slots["0.running_mean"]], expected, rtol=1e-5)
    np.testing.assert_allclose(settled[slots["0.running_var"]], old * merged[slots["0.running_var"]], atol=1e-5)
    for name in ("0.weight", "0.bias", "2.weight", "2.bias"):
        assert torch.equal(settled[slots[name]], merged[slots[name]])
    assert torch.equal(settled, trainers.settle("n1", merged))
    assert torch.equal(merged, before)
    assert {n: d.state() for n, d in draws.items()} == shared
    assert torch.equal(torch.get_rng_state(), torch_state)
