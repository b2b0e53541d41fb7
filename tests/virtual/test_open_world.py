"""A world whose peers come and go: who hears what of whom, and when, worked out by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pytest
import torch

from algorithms.protocol import (
    Arrival,
    Delivered,
    Done,
    Effect,
    Event,
    Finish,
    Kind,
    Meet,
    Message,
    Part,
    PeerDown,
    PeerUp,
    Reason,
    Send,
    Snapshot,
    Start,
    Tempo,
    Tick,
    Timer,
    Undelivered,
)
from algorithms.view import Standing
from node.testbed.simulated import Physics
from node.testbed.virtual import World
from node.wire.memory import Faults, view_size_bytes
from protos.peer_pb2 import Standing as WireStanding
from protos.peer_pb2 import View as WireView

SETTLE = 2.0
"""How long a peer takes to settle when it is told that the run is over."""


class Scripted:
    """Sends what it is told to, so many units after it begins, and remembers all that it hears."""

    kinds: Mapping[str, Kind] = {"ping": Kind("member", view=True)}
    options: Mapping[str, float | int | str] = {}
    defaults: Mapping[str, float] = {}
    tempo = Tempo()

    def __init__(self, effects: Sequence[tuple[float, Effect]]) -> None:
        self._effects = effects
        self.heard: list[tuple[float, Event]] = []
        self.count = 0

    def step(self, event: Event, now: float) -> Iterable[Effect]:
        self.count += 1
        self.heard.append((now, event))
        match event:
            case Start(recovered=False):
                return [Timer(str(k), delay) for k, (delay, _) in enumerate(self._effects)]
            case Finish():
                return [Timer("settled", SETTLE)]
            case Tick("settled"):
                return [Done(torch.zeros(1))]
            case Tick(name):
                return [self._effects[int(name)][1]]
        return []

    def plausible(self, message: Message) -> bool:
        return message.number < 100

    def model(self, now: float) -> torch.Tensor:
        return torch.zeros(1)

    def ledger(self) -> None:
        return None

    def counters(self) -> Mapping[str, float]:
        return {"rounds": self.count}

    def snapshot(self) -> Snapshot:
        return Snapshot(numbers={"count": self.count})

    def restore(self, snapshot: Snapshot) -> None:
        self.count = int(snapshot.numbers["count"])


class NoWork:
    """A workbench for peers that never train."""

    eager = True

    def snapshot(self, name: str) -> Snapshot:
        return Snapshot()

    def restore(self, name: str, snapshot: Snapshot) -> None:
        pass


def make(
    scripts: Mapping[str, Sequence[tuple[float, Effect]]],
    physics: Physics = Physics(),
    late: Sequence[str] = (),
    neighbours: Mapping[str, Sequence[str]] | None = None,
) -> World:
    births = {name: lambda draws, script=script: Scripted(script) for name, script in scripts.items()}
    return World(births, neighbours or dict.fromkeys(scripts, ()), NoWork(), 0, physics, late=late)


def heard(world: World, name: str, *kinds: type) -> list[tuple[float, Event]]:
    algorithm = world.peers[name].algorithm
    return [(time, event) for time, event in algorithm.heard if isinstance(event, kinds)]


def ping(to: str, number: int = 1, view: Mapping[str, Standing] | None = None) -> Send:
    return Send(to, Message("ping", number, view=view or {}))


# ------------------------------------------------------------------------------------------------ coming


def test_who_is_not_born_yet_is_unreachable_and_then_heard() -> None:
    world = make({"a": [(1.0, ping("b", 1)), (3.0, ping("b", 3))], "b": []}, late=["b"])
    assert list(world.peers) == ["a"]
    world.at(2.0, lambda: world.join("b"))
    world.start()
    world.run(10.0)
    assert heard(world, "a", Undelivered, Delivered) == [
        (1.0, Undelivered("b", "ping", 1, Reason.UNREACHABLE)),
        (3.0, Delivered("b", "ping", 3)),
    ]
    assert heard(world, "b", Start, Arrival) == [(2.0, Start()), (3.0, Arrival("a", Message("ping", 3)))]


def test_a_message_reaches_whoever_is_there_when_it_arrives() -> None:
    slow = Physics(Faults(bandwidth=1.0))  # as many units as bytes
    view = {"a": Standing(active=1)}
    travels = view_size_bytes(view)
    world = make({"a": [(1.0, ping("b", 1, view))], "b": []}, slow, late=["b"])
    world.at(1.0 + travels - 0.5, lambda: world.join("b"))
    world.start()
    world.run(100.0)
    assert [time for time, _ in heard(world, "b", Arrival)] == [1.0 + travels]


def test_neighbours_of_who_joins_are_told_as_of_who_comes_back() -> None:
    both = {"a": ["b"], "b": ["a"]}
    world = make({"a": [], "b": []}, Physics(crashes=True, noticed_after=0.5), late=["b"], neighbours=both)
    world.at(1.0, lambda: world.crash("a"))
    world.at(2.0, lambda: world.join("b"))
    world.at(4.0, lambda: world.restart("a"))
    world.start()
    world.run(9.0)
    assert heard(world, "b", PeerDown, PeerUp) == [(2.5, PeerDown("a")), (4.5, PeerUp("a"))]


def test_nobody_joins_when_the_run_is_over() -> None:
    world = make({"a": [], "b": []}, late=["b"])
    world.at(4.0 + SETTLE / 2, lambda: world.join("b"))
    world.start()
    world.run(4.0)
    world.finish()
    assert list(world.peers) == ["a"]


def test_meeting_and_parting_do_nothing_where_every_name_is_an_address() -> None:
    world = make({"a": [(1.0, Meet("b", "10.0.0.1:7000")), (2.0, Part("b")), (3.0, ping("b"))], "b": []})
    world.start()
    world.run(5.0)
    assert heard(world, "a", Delivered) == [(3.0, Delivered("b", "ping", 1))]


# ------------------------------------------------------------------------------------------------- going


def test_who_leaves_settles_first_and_is_told_once() -> None:
    world = make({"a": [(4.5, ping("b")), (5.5, ping("b"))], "b": []})
    world.at(3.0, lambda: world.leave("b"))
    world.start()
    world.run(4.0)
    world.finish()
    assert heard(world, "b", Finish) == [(3.0, Finish(merge=False))]
    assert heard(world, "a", Finish, Delivered, Undelivered) == [
        (4.0, Finish()),
        (4.5, Delivered("b", "ping", 1)),
        (5.5, Undelivered("b", "ping", 1, Reason.UNREACHABLE)),
    ]
    assert all(peer.done is not None for peer in world.peers.values())


@pytest.mark.parametrize(
    ("faults", "waits"),
    # four delays and the transmission of 0 bytes, and a twentieth more, where nothing else is said
    [(Faults(), 0.05), (Faults(delay=0.25), 1.05), (Faults(delay=0.25, deadline=7.0), 7.0)],
)
def test_who_has_stopped_silently_is_waited_for_until_the_deadline(faults: Faults, waits: float) -> None:
    world = make({"a": [(5.0, ping("b"))], "b": []}, Physics(faults, silent=True))
    world.at(4.0, lambda: world.stop("b"))
    world.start()
    world.run(20.0)
    assert heard(world, "a", Delivered, Undelivered) == [
        (pytest.approx(5.0 + waits), Undelivered("b", "ping", 1, Reason.TIMEOUT))
    ]


def test_who_has_stopped_stays_away_and_says_nothing() -> None:
    world = make({"a": [], "b": [(6.0, ping("a"))]}, Physics(crashes=True))
    world.at(5.0, lambda: world.stop("b"))
    world.at(7.0, lambda: world.restart("b"))
    world.start()
    world.run(10.0)
    world.finish()
    assert heard(world, "a", Arrival) == []
    assert heard(world, "b", Finish) == []
    assert (world.peers["b"].alive, world.peers["b"].done) == (False, None)
    assert not world.stop("b")


def test_who_is_silent_for_a_while_comes_back_from_its_snapshot() -> None:
    physics = Physics(crashes=True, silent=True, snapshot_every=1.5)
    world = make({"a": [(3.0, ping("b", 3)), (5.0, ping("b", 5))], "b": [(1.0, ping("a")), (1.7, ping("a"))]}, physics)
    world.at(2.0, lambda: world.crash("b"))
    world.at(4.0, lambda: world.restart("b"))
    world.start()
    world.run(10.0)
    outcomes = heard(world, "a", Delivered, Undelivered)
    assert outcomes == [(3.05, Undelivered("b", "ping", 3, Reason.TIMEOUT)), (5.0, Delivered("b", "ping", 5))]
    assert [time for time, _ in heard(world, "b", Start)] == [4.0]
    # the snapshot at 1.5 knew of its start and of the ping at 1.0, told and answered: three events; then 4.0 and 5.0
    assert world.peers["b"].algorithm.count == 3 + 2


# -------------------------------------------------------------------------------------------- what is said


def test_what_can_not_be_true_is_refused_and_counted() -> None:
    world = make({"a": [(1.0, ping("b", 99)), (2.0, ping("b", 100)), (3.0, ping("b", 10**9))], "b": []})
    world.start()
    world.run(5.0)
    assert [event.message.number for _, event in heard(world, "b", Arrival)] == [99]
    assert heard(world, "a", Delivered, Undelivered) == [
        (1.0, Delivered("b", "ping", 99)),
        (2.0, Undelivered("b", "ping", 100, Reason.IMPLAUSIBLE)),
        (3.0, Undelivered("b", "ping", 10**9, Reason.IMPLAUSIBLE)),
    ]
    assert (world.peers["a"].refused, world.peers["b"].refused) == (0, 2)


def test_views_are_counted_apart_and_take_time_to_travel() -> None:
    view = {"n1": Standing(active=7, counter=1, address="10.0.0.1:7000"), "n2": Standing(counter=2, left=True)}
    serialised = WireView(
        standings=[
            WireStanding(name="n1", active=8, counter=2, address="10.0.0.1:7000"),
            WireStanding(name="n2", counter=3, left=True),
        ]
    ).ByteSize()
    vectors = {"x": torch.zeros(10)}
    physics = Physics(Faults(bandwidth=10.0), wire_share=0.5)
    world = make({"a": [(1.0, Send("b", Message("ping", 1, vectors, view=view)))], "b": []}, physics)
    world.start()
    world.run(100.0)
    assert (world.peers["a"].bytes_sent, world.peers["a"].view_bytes_sent) == (20, serialised)
    assert [time for time, _ in heard(world, "b", Arrival)] == [pytest.approx(1.0 + (20 + serialised) / 10)]
