"""The run record, against figures worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from algorithms.layout import Layout, Slot
from node.errors import StorageError
from node.testbed import record
from node.testbed.record import State

LAYOUT = Layout((Slot("weight", (2, 1), "weight", 0), Slot("bias", (1,), "bias", 2)), "float64")


def state(
    model: list[float],
    ledger: list[float] | None = None,
    differences: dict[str, list[float]] | None = None,
    **numbers: int | float,
) -> State:
    """A peer's last word."""
    vector = torch.tensor(model, dtype=torch.float64)
    moved = None if ledger is None else torch.tensor(ledger, dtype=torch.float64)
    kept = {name: torch.tensor(w, dtype=torch.float64) for name, w in (differences or {}).items()}
    named = {key.replace("__", "."): value for key, value in numbers.items()}
    return State(vector, moved, kept, {"ledger_share": 0.5, **named})


def test_models_that_stand_apart_are_summed_by_their_squared_distance_from_the_mean() -> None:
    # mean (1, 1, 0); squared distances 1 + 1 and 1 + 1
    states = {"a": state([0, 2, 0]), "b": state([2, 0, 0])}
    assert record.consensus_distance(states) == 4.0


def test_a_ledger_that_cancels_out_has_no_error() -> None:
    states = {"a": state([0], [1.5]), "b": state([0], [-1.0]), "c": state([0], [-0.5])}
    assert record.ledger_error(states) == 0.0


def test_what_was_created_is_measured_relative_to_what_was_moved() -> None:
    states = {"a": state([0], [3.0]), "b": state([0], [-1.0])}
    assert record.ledger_error(states) == pytest.approx(2.0 / 4.0)


@pytest.mark.parametrize(("pending", "error"), [(7, 0.0), (0, 0.5 / 0.5), (8, 0.5 / 0.5)])
def test_a_difference_that_only_its_responder_has_applied_is_taken_off(pending: int, error: float) -> None:
    # b answered a's exchange 7 with w = 1 and moved by half of it; a still waits for it, or has gone on without it.
    states = {"a": state([0], [0.0], edge__b__pending=pending), "b": state([0], [0.5], {"a": [1.0]}, edge__a__done=7)}
    assert record.ledger_error(states) == pytest.approx(error)


def test_there_is_no_ledger_error_where_a_ledger_or_a_partner_is_missing() -> None:
    assert record.ledger_error({"a": state([0], [1.0]), "b": state([0])}) is None
    assert record.ledger_error({"a": state([0])}) is None
    assert record.ledger_error({"a": state([0], [1.0], edge__gone__pending=0)}) is None


def test_there_is_no_ledger_error_where_ledgers_ran_over() -> None:
    states = {"a": state([0], [1e200, 1e200]), "b": state([0], [-1e200, 1e200])}
    assert record.ledger_error(states) is None


def test_events_come_back_but_for_one_that_was_being_written(tmp_path: Path) -> None:
    assert record.read_events(tmp_path) == []
    record.write_event(tmp_path, {"event": "crashed", "peer": "n1", "units": 3.5})
    path = tmp_path / "events.jsonl"
    path.write_text(path.read_text() + '{"event": "cra')
    assert record.read_events(tmp_path) == [{"event": "crashed", "peer": "n1", "units": 3.5}]
    path.write_text("nonsense\n")
    with pytest.raises(StorageError, match=r"events\.jsonl can't be read"):
        record.read_events(tmp_path)


def test_the_digest_changes_with_any_bit_and_any_number_but_not_with_the_order() -> None:
    one, two = state([1.0, 2.0], x=1), state([3.0, 4.0], x=1)
    digest = record.digest_of({"a": one, "b": two})
    assert digest == record.digest_of({"b": two, "a": one})
    nudged = state([1.0, float(torch.nextafter(torch.tensor(2.0).double(), torch.tensor(3.0).double()))], x=1)
    others = [{"a": two, "b": one}, {"a": nudged, "b": two}, {"a": state([1.0, 2.0], x=2), "b": two}, {"a": one}]
    assert digest not in [record.digest_of(states) for states in others]


def write_reports(run_dir: Path, name: str, reports: list[tuple[float, float | None, int]]) -> None:
    for seconds, accuracy, gradients in reports:
        record.write_line(run_dir, name, {"seconds": seconds, "accuracy": accuracy, "gradients": gradients})


def test_what_a_peer_was_writing_when_it_was_killed_is_left_out(tmp_path: Path) -> None:
    write_reports(tmp_path, "a", [(1, 0.2, 10), (2, 0.3, 20)])
    path = tmp_path / "peers" / "a.jsonl"
    path.write_text(path.read_text() + '{"seconds": 3, "accu')
    assert [line["seconds"] for line in record.read_lines(tmp_path)["a"]] == [1, 2]


def test_what_a_peer_lived_through_again_after_a_crash_counts_once(tmp_path: Path) -> None:
    write_reports(tmp_path, "a", [(1, 0.1, 1), (2, 0.2, 2), (3, 0.3, 3), (2.5, 0.25, 4), (3.5, 0.35, 5)])
    assert [line["gradients"] for line in record.read_lines(tmp_path)["a"]] == [1, 2, 4, 5]


@pytest.mark.parametrize("text", ["nonsense\n", "[]\n", '{"loss": 1}\n'])
def test_reports_that_are_no_reports_are_refused_in_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "a.jsonl").write_text(text)
    with pytest.raises(StorageError, match=r"a\.jsonl can't be read"):
        record.read_lines(tmp_path)


def test_a_figure_that_does_not_exist_is_null(tmp_path: Path) -> None:
    record.write_line(tmp_path, "a", {"loss": float("nan"), "accuracy": float("inf"), "seconds": 1.0})
    assert json.loads((tmp_path / "peers" / "a.jsonl").read_text()) == {"loss": None, "accuracy": None, "seconds": 1.0}


def test_states_come_back_as_they_were_written(tmp_path: Path, make_world, ring) -> None:
    world = make_world(ring(4), seed=3)
    world.start()
    world.run(20)
    world.finish()
    for name, peer in world.peers.items():
        record.write_state(tmp_path, name, peer.algorithm, world.now)
    states = record.read_states(tmp_path)
    for name, peer in world.peers.items():
        expected = record.state_of(peer.algorithm, world.now)
        assert torch.equal(states[name].model, expected.model)
        assert torch.equal(states[name].ledger, expected.ledger)
        assert states[name].numbers == expected.numbers
        assert states[name].differences.keys() == expected.differences.keys()
    assert record.ledger_error(states) < 1e-12
    assert max(float(each.ledger.norm()) for each in states.values()) > 0.1


@pytest.mark.parametrize("spoil", [lambda data: b"", lambda data: data[:-8], lambda data: b"x" * len(data)])
def test_a_state_that_is_none_is_refused_in_one_sentence(tmp_path: Path, make_world, ring, spoil) -> None:
    world = make_world(ring(3))
    record.write_state(tmp_path, "n0", world.peers["n0"].algorithm, 0.0)
    path = tmp_path / "states" / "n0.safetensors"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(StorageError, match=r"n0\.safetensors can't be read"):
        record.read_states(tmp_path)


def test_the_summary_is_worked_out_from_states_and_reports(tmp_path: Path, make_world, ring) -> None:
    world = make_world(ring(3))
    models = {"n0": [1.0, 0, 0, 0, 0], "n1": [0, 1.0, 0, 0, 0], "n2": [0, 0, 1.0, 0, 0]}
    for name, model in models.items():
        algorithm = world.peers[name].algorithm
        algorithm.x = torch.tensor(model, dtype=torch.float64)
        record.write_state(tmp_path, name, algorithm, 0.0)
        last = {"seconds": 4, "accuracy": 0.75, "gradients": 8, "exchanges": 2, "messages_sent": 5, "bytes_sent": 100}
        half = {"seconds": 2, "accuracy": 0.5, "gradients": 4, "samples": 64, "bytes_sent": 40}
        record.write_line(tmp_path, name, half)
        record.write_line(tmp_path, name, last | {"samples": 128})
    layout = Layout((Slot("x", (5,), "weight", 0),), "float64")
    examine = lambda vector: (float(vector[0]), float(vector[1]))  # noqa: E731
    summary = record.summarise(tmp_path, examine, layout, {"algorithm": "gossip", "lost_peers": []})
    assert summary["algorithm"] == "gossip"
    assert summary["local_loss"] == pytest.approx({"mean": 1 / 3, "min": 0, "max": 1})
    assert summary["averaged_loss"] == pytest.approx(1 / 3)
    assert summary["averaged_accuracy"] == pytest.approx(1 / 3)
    assert [summary[key] for key in ("merged", "merged_loss", "merged_accuracy")] == [None] * 3
    assert load_file(tmp_path / "averaged.safetensors")["x"].tolist() == pytest.approx([1 / 3] * 3 + [0, 0])
    assert summary["consensus_distance"] == pytest.approx(3 * (4 / 9 + 1 / 9 + 1 / 9))
    assert (summary["gradients"], summary["exchanges"], summary["bytes_sent"]) == (24, 6, 300)
    assert summary["samples"] == 3 * 128
    work = {"gradients": 12, "samples": 192, "exchanges": 0, "bytes_sent": 120}
    assert summary["to_accuracy"]["0.5"] == {"seconds": 2, "rounds": None} | work
    assert summary["to_accuracy"]["0.7"]["seconds"] == 4
    assert "0.8" not in summary["to_accuracy"]
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


def test_where_few_peers_work_at_a_time_the_newest_model_is_followed(tmp_path: Path, make_world, ring) -> None:
    world = make_world(ring(4))
    for k, name in enumerate(world.peers):
        algorithm = world.peers[name].algorithm
        algorithm.x = torch.full((5,), float(k), dtype=torch.float64)
        record.write_state(tmp_path, name, algorithm, 0.0)
        first = {"seconds": k, "units": k, "accuracy": 0.1, "rounds": 0, "gradients": 0, "bytes_sent": 0}
        last = {"seconds": 9, "units": 9, "accuracy": 0.6 * k, "rounds": (4, 9, 9, 12)[k]}
        record.write_line(tmp_path, name, first)
        record.write_line(tmp_path, name, last | {"gradients": 5 * k, "bytes_sent": 100 * k})
    layout = Layout((Slot("x", (5,), "weight", 0),), "float64")
    examine = lambda vector: (float(vector[0]), float(vector[0]) / 10)  # noqa: E731
    facts = {"algorithm": "modest", "lost_peers": ["n3"]}
    summary = record.summarise(tmp_path, examine, layout, facts)
    assert summary["newest"] == {"round": 9, "accuracy": pytest.approx(0.15), "loss": 1.5, "peers": 2}
    assert summary["load"]["gradients"] == {"min": 0, "median": 7.5, "max": 15}
    assert summary["load"]["bytes_sent"] == {"min": 0, "median": 150, "max": 300}
    # while the run went on, n3 did hold the newest model: 1.8 with 30 gradients of all peers
    reached = {"seconds": 9, "rounds": 12, "gradients": 30, "samples": 0, "exchanges": 0, "bytes_sent": 600}
    assert summary["to_accuracy"]["0.5"] == reached
    of_all = record.summarise(tmp_path, examine, layout, {"algorithm": "dpsgd", "lost_peers": ["n3"]})
    assert (of_all["newest"], of_all["load"]) == (None, None)
    assert of_all["to_accuracy"]["0.8"]["seconds"] == 9


def test_the_distance_to_the_optimum_is_relative_to_the_first_reports(tmp_path: Path, make_world, ring) -> None:
    world = make_world(ring(3))
    layout = Layout((Slot("x", (5,), "weight", 0),), "float64")
    optimum = torch.tensor([1.0, 2, 3, 4, 5], dtype=torch.float64)
    for name, gap, first in (("n0", 3e-3, 10.0), ("n1", 4e-3, 20.0), ("n2", 0.0, 20.0)):
        algorithm = world.peers[name].algorithm
        algorithm.x = optimum + gap * torch.eye(5, dtype=torch.float64)[2]
        record.write_state(tmp_path, name, algorithm, 0.0)
        for seconds, distance in ((0, first), (1, 5.0), (2, gap)):
            counts = {"gradients": 8 * seconds, "samples": 80 * seconds, "exchanges": seconds}
            record.write_line(
                tmp_path, name, {"seconds": seconds, "units": 2 * seconds, "distance": distance, **counts}
            )
    nothing = lambda vector: (0.0, float("nan"))  # noqa: E731
    summary = record.summarise(tmp_path, nothing, layout, {}, optimum=optimum)
    assert summary["distance"] == pytest.approx(((3e-3**2 + 4e-3**2) / (10**2 + 20**2 + 20**2)) ** 0.5)
    reached = {"1e-2": {"time": 4, "gradients": 48, "samples": 480, "exchanges": 6}}
    assert summary["to_distance"] == reached
    # n3 reports for a second, then it is lost, far from the optimum and without a word
    record.write_line(tmp_path, "n3", {"seconds": 0, "units": 0, "distance": 99.0, "gradients": 5, "accuracy": 0.9})
    again = record.summarise(tmp_path, nothing, layout, {}, optimum=optimum)
    assert (again["distance"], again["to_distance"], again["to_accuracy"]) == (summary["distance"], reached, {})
    assert again["gradients"] == summary["gradients"] + 5


def test_a_task_without_accuracy_leaves_a_summary_that_any_json_reader_takes(tmp_path: Path, make_world, ring) -> None:
    world = make_world(ring(3))
    layout = Layout((Slot("x", (5,), "weight", 0),), "float64")
    for name, peer in world.peers.items():
        record.write_state(tmp_path, name, peer.algorithm, 0.0)
        record.write_line(tmp_path, name, {"seconds": 1, "accuracy": float("nan"), "rates": {"n1": float("inf")}})
    summary = record.summarise(tmp_path, lambda vector: (0.0, float("nan")), layout, {"seconds": float("inf")})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    written = json.loads((tmp_path / "summary.json").read_text(), parse_constant=refuse)
    assert written == summary
    for key in ("local_accuracy", "merged_accuracy", "averaged_accuracy", "seconds", "rounds", "distance", "rates"):
        assert summary[key] is None
    assert (summary["to_accuracy"], summary["to_distance"]) == ({}, {})
    line = json.loads((tmp_path / "peers" / "n0.jsonl").read_text(), parse_constant=refuse)
    assert line["rates"] == {"n1": None}


def test_exchanges_are_held_against_what_was_asked(tmp_path: Path, make_world, ring) -> None:
    world = make_world(ring(3))
    layout = Layout((Slot("x", (5,), "weight", 0),), "float64")
    counts = {"n0": {"n1": 30, "n2": 1}, "n1": {"n0": 1, "n2": 60}, "n2": {"n0": 90, "n1": 1}}
    started = {"n0": 30, "n1": 60, "n2": 19}  # so few of n2's that their percentile says nothing
    for k, (name, peer) in enumerate(world.peers.items()):
        record.write_state(tmp_path, name, peer.algorithm, 0.0)
        last = {"seconds": 9, "units": 30, "exchanges": started[name], "exchanges_with": counts[name]}
        record.write_line(tmp_path, name, last | {"exchange_p99_units": k / 10, "rounds": 8 - k})
    asked = {("n0", "n1"): 1.0, ("n1", "n2"): 2.5, ("n2", "n0"): 3.0}
    summary = record.summarise(tmp_path, lambda vector: (0.0, 0.0), layout, {}, asked=asked)
    assert (summary["exchange_p99_units"], summary["rounds"]) == (0.1, 8)
    rates = summary["rates"]
    assert (rates["asked"], rates["achieved"]) == (6.5, 6.0)
    assert rates["worst_edge"] == {"peers": ["n1", "n2"], "asked": 2.5, "achieved": 2.0}
    # a triangle with rates p, q, r: resistances (p + q)/D and so on with D = pq + qr + rp; λ2 from the trace and 3D
    for key, (p, q, r) in (("chi1_chi2_asked", (1, 2.5, 3)), ("chi1_chi2_achieved", (1, 2, 3))):
        trees = p * q + q * r + r * p
        connectivity = (p + q + r) - ((p + q + r) ** 2 - 3 * trees) ** 0.5
        assert rates[key] == pytest.approx(max(p + q, q + r, r + p) / trees / 2 / connectivity)


def test_a_run_without_states_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no final state"):
        record.summarise(tmp_path, lambda vector: (0.0, 0.0), LAYOUT, {})


@pytest.mark.parametrize("half", [b'{"seconds": 2.0, "acc', b"\0" * 20, b"{"])
def test_half_a_line_that_a_crash_has_left_does_not_spoil_what_comes_after(tmp_path: Path, half: bytes) -> None:
    record.write_line(tmp_path, "n0", {"seconds": 1.0})
    path = tmp_path / "peers" / "n0.jsonl"
    path.write_bytes(path.read_bytes() + half)
    record.write_line(tmp_path, "n0", {"seconds": 3.0})
    assert record.read_lines(tmp_path) == {"n0": [{"seconds": 1.0}, {"seconds": 3.0}]}
    path.write_bytes(half)
    record.write_line(tmp_path, "n0", {"seconds": 4.0})
    assert record.read_lines(tmp_path) == {"n0": [{"seconds": 4.0}]}
