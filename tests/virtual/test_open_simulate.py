"""``gradvine simulate`` of an open run: late peers, peers that leave, stop or come and go, and what the record says."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from algorithms import ALGORITHMS
from algorithms.protocol import (
    Arrival,
    Done,
    Effect,
    Event,
    Finish,
    Kind,
    Message,
    PeerDown,
    PeerUp,
    Place,
    Save,
    Send,
    Snapshot,
    Start,
    Tempo,
    Tick,
    Timer,
    Train,
    Trained,
)
from node.cli import app
from node.errors import ConfigError
from node.shards import Shard
from node.trainer import Trainer

PLACES: dict[str, list[Place]] = {}
TOLD: list[Event] = []


class Wander:
    """One model wanders: whoever has it trains it and passes it on; a newcomer asks its contact for it."""

    kinds: Mapping[str, Kind] = {"x": Kind("member", vectors=("x",)), "join": Kind("member")}
    options: Mapping[str, float | int | str] = {}
    defaults: Mapping[str, float] = {}
    tempo = Tempo(exchanges_per_step=None, rounds=True)

    def __init__(self, place: Place) -> None:
        PLACES.setdefault(place.name, []).append(place)
        self._place, self.x, self.round = place, place.start.clone(), 0
        self._others = [name for name in place.nodes if name != place.name]
        self._random = place.draw("wander")

    def step(self, event: Event, now: float) -> Iterable[Effect]:
        match event:
            case Start(recovered=False) if self._place.contact:
                return [Send(self._place.contact, Message("join"))]
            case Start():
                return [Timer("pass on", 5.0)] if self._place.name == "n0" else []
            case Tick():
                return [Train("x", self.x.clone(), 1)]
            case Trained(change=change):
                self.x, self.round = self.x + change, self.round + 1
                return [Save(), self._tell(str(self._random.choice(self._others))), Timer("pass on", 5.0)]
            case Arrival(sender=sender, message=Message(kind="join")):
                self._others.append(sender)
                return [self._tell(sender)]
            case Arrival(message=message) if message.number > self.round:
                self.x, self.round = message.vectors["x"].clone(), message.number
            case PeerUp() | PeerDown():
                TOLD.append(event)
            case Finish():
                return [Done(self.x)]
        return []

    def _tell(self, to: str) -> Send:
        return Send(to, Message("x", self.round, {"x": self.x}))

    def plausible(self, message: Message) -> bool:
        return True

    def model(self, now: float) -> Any:
        return self.x.clone()

    def ledger(self) -> None:
        return None

    def counters(self) -> Mapping[str, float]:
        return {"rounds": self.round}

    def snapshot(self) -> Snapshot:
        return Snapshot({"x": self.x.clone()}, {"round": self.round})

    def restore(self, snapshot: Snapshot) -> None:
        self.x, self.round = snapshot.vectors["x"].clone(), int(snapshot.numbers["round"])


@pytest.fixture
def simulate(tmp_path, monkeypatch) -> Callable[..., tuple[dict[str, Any], Path]]:
    """Simulates ten peers for a minute of 1200 units with some more flags; the summary and the run's folder."""
    monkeypatch.setitem(ALGORITHMS, "wander", Wander)
    PLACES.clear()
    TOLD.clear()
    count = 0

    def run(*flags: str) -> tuple[dict[str, Any], Path]:
        nonlocal count
        count += 1
        folder = tmp_path / f"run{count}"
        arguments = ["--algorithm", "wander", "--nodes", "10", "--set", "hidden=4", "--out", str(folder), "--json"]
        result = CliRunner().invoke(app, ["simulate", *arguments, *flags], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout), folder

    return run


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def reports(folder: Path) -> dict[str, list[dict[str, Any]]]:
    paths = sorted((folder / "peers").iterdir())
    return {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in paths}


def test_late_peers_are_born_on_time_and_unknown_before(simulate) -> None:
    summary, folder = simulate("--late", "3", "--late-between", "10s:30s")
    assert [(one["units"], one["event"], one["peer"]) for one in events(folder)] == [
        (pytest.approx(200.0), "joined", "n7"),
        (pytest.approx(400.0), "joined", "n8"),
        (pytest.approx(600.0), "joined", "n9"),
    ]
    founders = tuple(f"n{k}" for k in range(7))
    assert {name: place.contact for name, (*_, place) in PLACES.items() if place.contact} == {
        one["peer"]: one["contact"] for one in events(folder)
    }
    for name, (*_, place) in PLACES.items():
        assert place.nodes == founders
        assert {end for owner, other, _ in place.edges for end in (owner, other)} <= set(founders)
        assert set(place.neighbours) <= set(founders) - {name}
        assert (place.contact in founders) == (name not in founders) == (not place.neighbours)
    first = {name: lines[0]["units"] for name, lines in reports(folder).items()}
    assert first == dict.fromkeys(founders, 0) | {"n7": 200, "n8": 400, "n9": 600}
    # the model that a newcomer asks for is there long before it reports again
    assert all(lines[1]["rounds"] > 0 for name, lines in reports(folder).items() if name not in founders)
    assert sorted(path.stem for path in (folder / "states").iterdir()) == [f"n{k}" for k in range(10)]
    assert summary["lost_peers"] == []
    assert TOLD == []


def test_who_stops_is_lost_and_leaves_no_last_word(simulate) -> None:
    summary, folder = simulate("--stop", "30%", "--stop-at", "20s")
    stopped = [one["peer"] for one in events(folder)]
    assert Counter((one["event"], one["units"]) for one in events(folder)) == {("stopped", 400.0): 3}
    assert summary["lost_peers"] == sorted(stopped)
    assert {path.stem for path in (folder / "states").iterdir()} == {f"n{k}" for k in range(10)} - set(stopped)
    last = {name: lines[-1]["units"] for name, lines in reports(folder).items()}
    assert {name for name, units in last.items() if units < 400} == set(stopped)
    assert TOLD == []  # everybody finds out for itself


def test_who_leaves_is_not_lost(simulate) -> None:
    summary, folder = simulate("--leave", "2", "--leave-between", "20s:40s")
    assert [(one["units"], one["event"]) for one in events(folder)] == [(400.0, "left"), (800.0, "left")]
    assert summary["lost_peers"] == []
    assert len(list((folder / "states").iterdir())) == 10
    last = {name: lines[-1]["units"] for name, lines in reports(folder).items()}
    assert {one["peer"]: one["units"] for one in events(folder)} == {n: at for n, at in last.items() if at < 1200}


def test_under_churn_peers_are_away_for_part_of_the_time_and_lose_little(simulate) -> None:
    _, folder = simulate("--churn", "10s:5s", "--snapshot-every", "1s")
    away, since = 0.0, dict[str, float]()
    for one in events(folder):
        if one["event"] == "crashed":
            since[one["peer"]] = one["units"]
        else:
            assert one["event"] == "restarted"
            away += one["units"] - since.pop(one["peer"])
    away += sum(1200 - start for start in since.values())
    # each peer makes about four turns of 300 units, of which a third is away: ten peers are away for 4000 ± 600 units
    assert 2000 < away < 6000
    assert set(Counter(one["peer"] for one in events(folder))) == {f"n{k}" for k in range(10)}
    crashed = {(one["peer"], one["units"]) for one in events(folder) if one["event"] == "crashed"}
    for name, start in crashed:
        back = [o["units"] for o in events(folder) if o["peer"] == name and o["units"] > start]
        end = min(back, default=1200.0)
        assert not [line for line in reports(folder)[name] if start < line["units"] < end]


def test_the_same_seed_gives_the_same_comings_and_goings(simulate) -> None:
    flags = ("--late", "2", "--leave", "2", "--stop", "20%", "--churn", "20s:5s", "--delay", "20ms", "--loss", "0.1")
    (one, first), (other, second) = simulate(*flags), simulate(*flags)
    assert one["digest"] == other["digest"]
    assert events(first) == events(second)
    assert simulate(*flags, "--seed", "1")[0]["digest"] != one["digest"]


def test_the_summary_follows_the_newest_model(simulate) -> None:
    summary, folder = simulate("--late", "3", "--stop", "20%")
    last = {name: lines[-1] for name, lines in reports(folder).items()}
    there = {name: line for name, line in last.items() if name not in summary["lost_peers"]}
    highest = max(line["rounds"] for line in there.values())
    held = [line for line in there.values() if line["rounds"] == highest]
    assert summary["newest"] == {
        "round": highest,
        "peers": len(held),
        "accuracy": pytest.approx(sum(line["accuracy"] for line in held) / len(held)),
        "loss": pytest.approx(sum(line["test_loss"] for line in held) / len(held)),
    }
    assert highest > 100
    assert summary["newest"]["accuracy"] > summary["local_accuracy"]["mean"]
    for key in ("gradients", "bytes_sent"):
        values = [line[key] for line in last.values()]
        assert summary["load"][key] == {"min": min(values), "median": median(values), "max": max(values)}


def test_no_model_is_evaluated_twice_as_long_as_somebody_holds_it(simulate, monkeypatch) -> None:
    evaluated: list[bytes] = []

    class Counting(Trainer):
        def evaluate(self, vector: torch.Tensor, shard: Shard) -> tuple[float, float]:
            evaluated.append(vector.numpy().tobytes())
            return super().evaluate(vector, shard)

    monkeypatch.setattr("node.testbed.simulate.Trainer", Counting)
    _, folder = simulate("--report-every", "250ms")  # a local step each
    lines = reports(folder)
    held = {line["rounds"] for each in lines.values() for line in each}
    assert len(held) > 200
    assert len(set(evaluated)) == len(evaluated) == len(held) + 1  # and the merged model
    assert all(
        len({line["accuracy"] for each in lines.values() for line in each if line["rounds"] == k}) == 1 for k in held
    )


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--algorithm", "gossip", "--late", "2"], "no peer can join gossip late: write --algorithm"),
        (["--algorithm", "local", "--late", "2"], "no peer can join local late"),
        (["--late", "10"], "--late 10 can't be used: somebody has to be there all along; write 9 or less"),
        (["--late", "6", "--leave", "4"], "write 3 or less"),
        (["--algorithm", "centralised", "--leave", "1"], "write 0 or less"),
        (["--stop", "100%"], "such as 80%"),
        (["--stop", "most"], "such as 80%"),
        (["--stop-at", "soon", "--stop", "0.5"], "--stop-at soon can't be used"),
        (["--churn", "10s"], "such as 60s:10s"),
        (["--churn", "10s:0s"], "two durations above 0"),
        (["--late-between", "3s:2s"], "--late-between 3s:2s can't be used"),
        (["--leave-between", "3s"], "--leave-between 3s can't be used"),
    ],
)
def test_what_can_not_be_is_refused_in_one_sentence(simulate, tmp_path, flags: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        simulate(*flags)
    assert list(tmp_path.iterdir()) == []
