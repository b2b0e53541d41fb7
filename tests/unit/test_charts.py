"""What is drawn of runs that converge, against exponentials, and that nothing is drawn of what does not exist."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from node.testbed import charts
from node.testbed.curves import Figures, fit_decay, guaranteed_rate, mean_distance, relative_distances


def converging(rates: tuple[float, ...] = (0.2, 0.3), **more: float) -> dict[str, list[dict[str, Any]]]:
    """One peer a rate, whose distance falls from 100 at that rate; a unit lasts half a second."""
    return {
        f"n{k}": [
            {
                "seconds": u / 2,
                "units": u,
                "distance": 100 * math.exp(-rate * u),
                "gradients": 3 * u,
                "samples": u,
                "exchanges": 2 * u,
                **more,
            }
            for u in range(0, 61, 5)
        ]
        for k, rate in enumerate(rates)
    }


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn, in place of files."""
    figures: list[Figure] = []

    @contextmanager
    def keep(path: Path, dark: bool, width: float, height: float) -> Iterator[Figure]:
        figures.append(Figure(figsize=(width, height)))
        yield figures[-1]

    monkeypatch.setattr(charts, "open_figure", keep)
    return figures


# ------------------------------------------------------------------------------------------------- the numbers


def test_distances_are_relative_and_exponential_between_reports() -> None:
    grid = np.linspace(0, 60, 121)
    each = relative_distances(converging(), grid)
    np.testing.assert_allclose(each, np.exp(np.outer([-0.2, -0.3], grid)), rtol=1e-12)
    mean = np.sqrt((np.exp(-0.4 * grid) + np.exp(-0.6 * grid)) / 2)
    np.testing.assert_allclose(mean_distance(converging(), grid), mean, rtol=1e-12)


def test_a_distance_of_nothing_can_be_drawn() -> None:
    lines = {"a": [{"units": 0.0, "seconds": 0.0, "distance": 2.0}, {"units": 1.0, "seconds": 1.0, "distance": 0.0}]}
    assert relative_distances(lines, np.array([0.0, 1.0]))[0].tolist() == pytest.approx([1.0, 0.0])


def test_the_straight_part_of_a_decay_is_fitted() -> None:
    times = np.linspace(0, 100, 201)
    straight = 0.3 * np.exp(-0.3 * times)
    straight[0] = 1.0  # it begins in another way
    with_floor = np.maximum(straight, 1e-9 * (1 + 0.2 * np.sin(times)))
    fit = fit_decay(times, with_floor)
    assert fit is not None
    part, rate, start = fit
    assert rate == pytest.approx(0.3)
    assert start == pytest.approx(0.3)
    assert part[-1] < math.log(0.3 / 1e-9) / 0.3


@pytest.mark.parametrize("swing", [0.0, 0.5])
def test_what_swings_too_much_for_a_line_is_not_fitted(swing: float) -> None:
    times = np.arange(400.0)
    wave = np.exp(-0.01 * times + (0.1 + 3 * swing) * np.sin(times / 8))
    fit = fit_decay(times, wave)
    if swing:
        assert fit is None
    else:
        assert fit is not None
        assert fit[1] == pytest.approx(0.01, rel=0.05)


@pytest.mark.parametrize("values", [np.ones(50), np.exp(-0.01 * np.arange(50)), np.full(50, np.nan), np.zeros(0)])
def test_what_hardly_falls_is_not_fitted(values: np.ndarray) -> None:
    assert fit_decay(np.arange(len(values), dtype=float), values) is None


def test_the_guaranteed_rate_is_that_of_the_theorem() -> None:
    # E|x - x*|² ≤ C exp(-c t) with c = √(μ/L)/(8√2)
    assert 2 * guaranteed_rate(40.0, 0.1) == pytest.approx(math.sqrt(0.1 / 40) / (8 * math.sqrt(2)))


# ------------------------------------------------------------------------------------------------ the pictures


def test_a_run_with_an_optimum_shows_its_distance_and_how_fast_it_falls(drawn: list[Figure]) -> None:
    run = Figures("run", converging((0.2, 0.2)), rate_asked=4.0, unit_s=0.5, bound=0.05)
    charts.draw_run(run, Path("unused"))
    distance, exchanges = drawn[0].axes
    assert distance.get_yscale() == "log"
    assert exchanges.get_xlabel() == "time (units of 0.5 s)"
    mean, fit, bound = distance.get_lines()
    np.testing.assert_allclose(mean.get_ydata(), np.exp(-0.2 * np.asarray(mean.get_xdata())), rtol=1e-9)
    np.testing.assert_allclose(fit.get_ydata(), np.exp(-0.2 * np.asarray(fit.get_xdata())), rtol=1e-9)
    np.testing.assert_allclose(bound.get_ydata(), np.exp(-0.05 * np.asarray(bound.get_xdata())), rtol=1e-9)
    assert [text.get_text() for text in distance.get_legend().get_texts()][1:] == [
        "fit: e^(−0.2 t)",
        "guaranteed: e^(−0.05 t)",
    ]
    achieved, asked = exchanges.get_lines()
    assert np.asarray(achieved.get_ydata()).tolist() == pytest.approx([4.0] * len(achieved.get_xdata()))
    assert set(asked.get_ydata()) == {4.0}


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        (converging(), ["distance", "exchanges"]),
        (converging(accuracy=0.5), ["distance", "test accuracy", "exchanges"]),
        ({"a": [{"seconds": s, "accuracy": 0.5, "loss": 1.0, "exchanges": s} for s in (1, 2, 3)]},
         ["test accuracy", "loss", "exchanges"]),
        ({"a": [{"seconds": s, "accuracy": None, "loss": 1.0, "exchanges": s} for s in (1, 2, 3)]},
         ["loss", "exchanges"]),
    ],
)  # fmt: skip
def test_nothing_empty_is_drawn(drawn: list[Figure], lines: dict[str, Any], shown: list[str]) -> None:
    charts.draw_run(Figures("run", lines), Path("unused"))
    labels = [axes.get_ylabel() for axes in drawn[0].axes]
    assert len(labels) == len(shown)
    assert all(label.startswith(start) for label, start in zip(labels, shown, strict=True))
    assert all(axes.get_lines() for axes in drawn[0].axes)


def test_seconds_are_those_of_the_unit_where_there_is_no_optimum(drawn: list[Figure]) -> None:
    lines = {"a": [{"seconds": s, "units": 20 * s, "accuracy": 0.5, "exchanges": 10 * s} for s in range(9)]}
    charts.draw_run(Figures("run", lines, rate_asked=0.5, unit_s=0.05), Path("unused"))
    achieved, asked = drawn[0].axes[-1].get_lines()
    assert set(np.round(achieved.get_ydata(), 9)) == set(asked.get_ydata()) == {10.0}


def test_runs_with_an_optimum_are_compared_by_time_work_and_exchanges(drawn: list[Figure]) -> None:
    silent = converging(exchanges=0)
    charts.draw_comparison([Figures("one", converging()), Figures("alone", silent)], Path("unused"))
    time, work, exchanges = drawn[0].axes
    assert work.get_xlabel() == "samples seen by all peers"
    assert time.get_yscale() == "log"
    one = [axes.get_lines()[0] for axes in (time, work, exchanges)]
    # by the end, 60 units: 60 samples and 120 exchanges of each of two peers
    assert [line.get_xdata()[-1] for line in one] == pytest.approx([60, 120, 240])
    mean = np.sqrt((np.exp(-0.4 * 60) + np.exp(-0.6 * 60)) / 2)
    assert [line.get_ydata()[-1] for line in one] == pytest.approx([mean] * 3)
    assert list(exchanges.get_lines()[1].get_ydata()) == pytest.approx([mean, mean])


def test_rounds_are_a_part_of_their_own_without_the_runs_that_have_none(drawn: list[Figure]) -> None:
    def going(**more: float) -> list[dict[str, Any]]:
        line = {"seconds": 1, "accuracy": 0.1, "samples": 160, "bytes_sent": 2e6, **more}
        return [{key: s * value for key, value in line.items()} for s in range(5)]

    rounds = Figures("rounds", {"a": going(rounds=10), "b": going(rounds=20, samples=480, bytes_sent=6e6)}, 0.5)
    clocks = Figures("clocks", {"a": going()}, 0.5)
    charts.draw_comparison([rounds, clocks], Path("unused"))
    parts = drawn[0].axes
    assert [axes.get_xlabel() for axes in parts] == [
        "rounds of a peer",
        "samples seen by a peer",
        "sent by a peer (MB)",
    ]
    ends = {line.get_label(): (line.get_xdata()[-1], line.get_ydata()[-1]) for line in parts[0].get_lines()}
    assert ends["rounds"] == pytest.approx((60, 40))
    assert np.isnan(ends["clocks"][0]), "not in this part"
    for axes, end in zip(parts[1:], (1280, 16), strict=True):
        assert {line.get_label() for line in axes.get_lines()} >= {"rounds", "clocks"}
        assert axes.get_lines()[0].get_xdata()[-1] == pytest.approx(end)
    charts.draw_comparison([clocks], Path("unused"))
    assert [axes.get_xlabel() for axes in drawn[1].axes] == ["samples seen by a peer", "sent by a peer (MB)"]


def test_an_open_run_shows_its_newest_model_and_its_rounds(drawn: list[Figure]) -> None:
    course = [{"seconds": s, "accuracy": s / 10, "test_loss": 1.0, "rounds": 3 * s} for s in range(9)]
    charts.draw_run(Figures("run", {"newest": course}, 0.5, peers=4), Path("unused"))
    accuracy, loss, rounds = drawn[0].axes
    (line, merged), (pace,) = accuracy.get_lines(), rounds.get_lines()
    np.testing.assert_allclose(line.get_ydata(), 10 * np.asarray(line.get_xdata()))
    assert set(merged.get_ydata()) == {50.0}
    assert {text.get_text() for text in accuracy.texts} == {"newest model", "merged 50.0%"}
    assert [text.get_text() for text in loss.texts] == ["on the test data"]
    assert rounds.get_ylabel() == "rounds (1/s)"
    assert list(pace.get_ydata()) == pytest.approx([3.0] * len(pace.get_xdata()))


def test_an_open_run_is_compared_by_what_a_peer_of_it_has_done(drawn: list[Figure]) -> None:
    whole = [
        {"seconds": s, "accuracy": 0.1 * s, "rounds": 3 * s, "samples": 800 * s, "bytes_sent": 8e6 * s}
        for s in range(5)
    ]
    plain = {name: [line | {"samples": 0.5 * line["samples"]} for line in whole] for name in "ab"}
    both = [Figures("open", {"newest": whole}, 0.5, peers=4), Figures("all", plain, 0.5)]
    charts.draw_comparison(both, Path("unused"))
    ends = [{line.get_label(): line.get_xdata()[-1] for line in axes.get_lines()} for axes in drawn[0].axes]
    assert [end["open"] for end in ends] == pytest.approx([12, 800, 8])
    assert [end["all"] for end in ends] == pytest.approx([12, 1600, 32])
    legend = drawn[0].legends[0].get_title().get_text()
    charts.draw_comparison(both[1:], Path("unused"))
    assert legend.endswith("where few work at a time: their newest model")
    assert legend.startswith(drawn[1].legends[0].get_title().get_text() + " ")


@pytest.mark.parametrize(("accuracy", "label"), [(0.5, "test accuracy"), (None, "test loss")])
def test_runs_of_which_one_has_no_optimum_are_compared_by_their_scores(
    drawn: list[Figure], accuracy: float | None, label: str
) -> None:
    plain = {"a": [{"seconds": s, "accuracy": 0.5, "test_loss": 0.1, "samples": s, "bytes_sent": s} for s in (1, 2)]}
    more = {"test_loss": 0.2, "bytes_sent": 1} | ({"accuracy": accuracy} if accuracy else {})
    both = [Figures("plain", plain, 0.5), Figures("other", converging(**more))]
    charts.draw_comparison(both, Path("unused"))
    work, _ = drawn[0].axes
    assert work.get_ylabel().startswith(label)
    assert work.get_xlabel() == "samples seen by a peer"
    curves = [line for line in work.get_lines() if line.get_label() in ("plain", "other")]
    assert len(curves) == 2
    assert all(np.isfinite(line.get_ydata()).all() for line in curves), "nobody vanishes"
