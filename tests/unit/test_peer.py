"""The peer's loop, over the network in memory and under a virtual clock: no test waits, no test reads a real clock."""

from collections.abc import Callable
from math import inf

import pytest
import torch
import trio

from algorithms.protocol import (
    Arrival,
    Cancel,
    Delivered,
    Done,
    Finish,
    Message,
    Reason,
    Report,
    Save,
    Send,
    Snapshot,
    Start,
    Tick,
    Timer,
    Train,
    Trained,
    Undelivered,
)
from node.clock import Clock
from node.draws import Draws
from node.errors import StorageError
from node.members import Members
from node.peer import Manner, Peer
from node.training import BATCHES, Worker
from node.wire.transport import Undelivered as NotDelivered

UNIT_S = 0.5
VECTOR = torch.zeros(2)


async def at_once(fn, *args):
    await trio.lowlevel.checkpoint()
    return fn(*args)


class Script:
    """An algorithm that answers events as it is told, and remembers them with their times."""

    kinds: dict = {}
    options: dict = {}

    def __init__(self, answer: Callable):
        self.answer, self.seen, self.restored = answer, [], None

    def step(self, event, now):
        self.seen.append((now, event))
        return [Done(VECTOR)] if isinstance(event, Finish) else self.answer(event)

    def of(self, kind):
        return [event for _, event in self.seen if isinstance(event, kind)]

    def times(self, kind):
        return [pytest.approx(now) for now, event in self.seen if isinstance(event, kind)]

    def snapshot(self):
        return Snapshot({"x": VECTOR}, {"events": len(self.seen)})

    def restore(self, snapshot):
        self.restored = snapshot


class Steps:
    """A trainer with momentum whose steps are random and take ``lasts`` units; it must never be copied at work."""

    def __init__(self, draws, lasts=0.0):
        self.random, self.lasts, self.momentum = draws(BATCHES), lasts, torch.zeros(2)

    def train(self, job):
        change = torch.zeros(2)
        for _ in range(job.steps):
            self.momentum = 0.5 * self.momentum + torch.from_numpy(self.random.normal(size=2)).float()
            change += self.momentum
        return Trained(job.key, change, float(change.sum()), job.steps)

    def snapshot(self):
        return Snapshot({"momentum": self.momentum.clone()})

    def restore(self, snapshot):
        self.momentum = snapshot.vectors["momentum"].clone()


class Line:
    """A transport whose sends end as they are told; its ``sent`` and a store's ``saved`` share one log."""

    def __init__(self, log=None, reason=None, lasts=0.0):
        self.log, self.reason, self.lasts = [] if log is None else log, reason, lasts
        self.into, self.out = trio.open_memory_channel(1000)

    async def send(self, to, message):
        self.log.append(("sent", message.number))
        await trio.sleep(self.lasts)
        if self.reason:
            raise NotDelivered(self.reason)

    async def ping(self, to, wait_s=None):
        pass

    def receive(self):
        return self.out.__aiter__()


class Disk:
    """A store that fails as often as it is told."""

    def __init__(self, log=None, failures=0):
        self.log, self.failures, self.saved = [] if log is None else log, failures, []

    def save(self, snapshot):
        if self.failures:
            self.failures -= 1
            raise StorageError("the disk is full.")
        self.log.append(("saved", snapshot.numbers["algorithm.events"]))
        self.saved.append(snapshot)


def make_peer(algorithm, transport, trainer=None, draws=None, store=None, lasts=0.0, disk=None, duration=inf, **manner):
    draws = draws or Draws(0, "n0")
    members = Members(transport, [], draws("members"))

    async def slowly(fn, *args):
        await trio.sleep(lasts * UNIT_S)
        return fn(*args)

    worker, disk = Worker(slowly), disk or Worker(at_once)
    trainer = trainer or Steps(draws)
    clock, manner = Clock(UNIT_S), Manner(duration_s=duration * UNIT_S, **manner)
    return Peer(algorithm, transport, members, trainer, draws, clock, store, manner, worker, disk)


# ----------------------------------------------------------------------------------------------- timers


@pytest.mark.trio
async def test_timers_ring_in_plan_units_and_only_the_newest_of_a_name(autojump_clock):
    def answer(event):
        if isinstance(event, Start):
            return [Timer("a", 9.0), Timer("b", 1.0), Timer("a", 2.0), Timer("c", 1.5), Cancel("c"), Cancel("d")]
        return [Cancel("a"), Timer("a", 4.0)] if event == Tick("b") else []

    script = Script(answer)
    await make_peer(script, Line(), duration=20.0).run()
    assert [event.name for event in script.of(Tick)] == ["b", "a"]
    assert script.times(Tick) == [1.0, 5.0]
    assert script.times(Finish) == [20.0]


@pytest.mark.trio
async def test_timers_that_always_ring_starve_nobody(autojump_clock):
    line = Line()
    line.into.send_nowait(("n1", Message("offer", 1)))

    def answer(event):
        assert len(script.seen) < 100, "nothing else gets through"
        return [Timer("at once", 0.0)] if isinstance(event, (Start, Tick)) else [Cancel("at once")]

    script = Script(answer)
    await make_peer(script, line, duration=1.0).run()
    assert script.of(Arrival) == [Arrival("n1", Message("offer", 1))]


# --------------------------------------------------------------------------------------------- training


@pytest.mark.trio
@pytest.mark.parametrize(("lasts", "ends", "behind"), [(0.0, 3.0, 0.0), (2.5, 3.0, 0.0), (5.0, 5.0, 2.0)])
async def test_steps_are_paced(autojump_clock, lasts, ends, behind):
    script = Script(lambda event: [Train("steps", VECTOR.clone(), 3)] if isinstance(event, Start) else [])
    peer = make_peer(script, Line(), lasts=lasts, duration=20.0)
    await peer.run()
    assert script.times(Trained) == [ends]
    assert peer.training.behind_units == pytest.approx(behind)
    assert (peer.figures.gradients, peer.figures.samples) == (3, 3)


@pytest.mark.trio
@pytest.mark.parametrize("lasts", [0.0, 3.0])
async def test_nothing_of_a_cancelled_training_arrives(autojump_clock, lasts):
    """Whether the thread has ended already, and only waits for its time to be over, or not."""

    def answer(event):
        if isinstance(event, Start):
            return [Train("steps", torch.zeros(2), 4), Timer("stop", 1.0)]
        if isinstance(event, Tick):
            return [Cancel("steps"), Train("steps", torch.zeros(2), 8)]
        return []

    script = Script(answer)
    peer = make_peer(script, Line(), lasts=lasts, duration=30.0)
    await peer.run()
    assert [event.samples for event in script.of(Trained)] == [8]
    assert peer.figures.gradients == 8


@pytest.mark.trio
async def test_run_ends_after_so_many_steps(autojump_clock):
    script = Script(lambda event: [Train("s", VECTOR.clone(), 2)] if isinstance(event, (Start, Trained)) else [])
    peer = make_peer(script, Line(), steps=5)
    await peer.run()
    assert peer.figures.gradients == 6
    assert script.times(Finish) == [6.0]


@pytest.mark.trio
async def test_run_ends_on_request_once(autojump_clock):
    script = Script(lambda event: [])
    peer = make_peer(script, Line())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)
        await trio.sleep(1.0)
        peer.finish()
        peer.finish()
    assert script.times(Finish) == [2.0]


# ------------------------------------------------------------------------------------------------- sends


@pytest.mark.trio
@pytest.mark.parametrize("reason", [None, Reason.BUSY, Reason.WRONG_RUN, Reason.TIMEOUT])
async def test_each_send_ends_once_and_never_blocks_the_loop(autojump_clock, reason):
    def answer(event):
        if isinstance(event, Start):
            return [Send("n1", Message("offer", number)) for number in (1, 2)] + [Timer("t", 1.0)]
        return []

    script = Script(answer)
    peer = make_peer(script, Line(reason=reason, lasts=5.0), duration=20.0)
    await peer.run()
    assert script.times(Tick) == [1.0]
    outcome = Delivered if reason is None else Undelivered
    extra = () if reason is None else (reason,)
    outcomes = sorted(script.of((Delivered, Undelivered)), key=lambda event: event.number)
    assert outcomes == [outcome("n1", "offer", number, *extra) for number in (1, 2)]
    assert (peer.figures.messages_sent, peer.figures.sends) == (2, 0)


@pytest.mark.trio
async def test_sends_are_bounded(autojump_clock):
    offers = [Send("n1", Message("offer", number)) for number in range(1000)]
    script = Script(lambda event: offers if isinstance(event, Start) else [])
    line = Line(lasts=5.0)
    await make_peer(script, line, duration=20.0).run()
    refused = script.of(Undelivered)
    assert {event.reason for event in refused} == {Reason.BUSY}
    assert len(line.log) + len(refused) == 1000
    assert len(refused) > 500


# --------------------------------------------------------------------------------------------- snapshots


@pytest.mark.trio
@pytest.mark.parametrize(
    ("exact", "durable", "expected"),
    [
        (True, False, ["saved", "sent", "sent"]),
        (False, True, ["saved", "sent", "sent"]),
        (False, False, ["sent", "sent"]),
    ],
)
async def test_nothing_leaves_before_what_it_depends_on_is_on_disk(autojump_clock, exact, durable, expected):
    log = []
    save = Save(durable=durable)
    effects = [save, Send("n1", Message("offer", 1)), save, Send("n1", Message("offer", 2))]
    script = Script(lambda event: effects if isinstance(event, Start) else [])
    peer = make_peer(script, Line(log), store=Disk(log), exact=exact, duration=2.0)
    await peer.run()
    assert [what for what, _ in log] == [*expected, "saved"], "and once more at the end"


@pytest.mark.trio
async def test_nothing_leaves_while_the_disk_fails(autojump_clock):
    log = []
    effects = [Save(), Send("n1", Message("offer", 1))]
    script = Script(lambda event: effects if isinstance(event, Start) else [])
    peer = make_peer(script, Line(log), store=Disk(log, failures=5), exact=True, duration=60.0)
    sent = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)
        for _ in range(10):
            await trio.sleep(1.01)
            sent.append((peer.figures.disk_fails, ("sent", 1) in log))
    assert sent == [(True, False)] * 4 + [(False, True)] * 6


@pytest.mark.trio
async def test_snapshots_in_the_background_keep_their_pace_and_outlive_a_failing_disk(autojump_clock):
    disk = Disk(failures=1)
    script = Script(lambda event: [Train("s", VECTOR.clone(), 1)] if isinstance(event, (Start, Trained)) else [])
    peer = make_peer(script, Line(), store=disk, snapshot_every_s=5.0, duration=39.5)
    await peer.run()
    assert len(script.of(Trained)) == 39, "not one step was held up"
    units = [snapshot.numbers["peer.units"] for snapshot in disk.saved]
    assert len(units) == 3
    assert all(abs(unit - due) <= 2 for unit, due in zip(units, [20, 30, 39.5], strict=True))


@pytest.mark.trio
async def test_no_snapshot_in_the_background_is_written_after_a_later_durable_one(autojump_clock):
    def answer(event):
        if isinstance(event, Tick):
            peer._snapshot_due = True
            peer._put.send_nowait(Delivered("n1", "offer", 1))  # the next event is there already
        return {Start: [Timer("t", 1.0)], Delivered: [Save(durable=True)]}.get(type(event), [])

    for _ in range(20):  # trio draws which of two tasks goes first
        disk = Disk()
        peer = make_peer(Script(answer), Line(), store=disk, duration=2.0)
        await peer.run()
        assert [snapshot.numbers["algorithm.events"] for snapshot in disk.saved] == [2, 3, 4]


@pytest.mark.trio
async def test_a_disk_that_hangs_does_not_gather_snapshots_in_memory(autojump_clock):
    waiting = []

    class Waits(Worker):
        async def call(self, fn, *args):
            waiting.append(args)
            await super().call(trio.sleep_forever)

    async def wait(fn):
        await fn()

    script = Script(lambda event: [Timer("t", 1.0)])
    peer = make_peer(script, Line(), store=Disk(), snapshot_every_s=1.0, disk=Waits(wait))
    with trio.move_on_after(60):
        await peer.run()
    assert len(script.of(Tick)) > 100
    assert len(waiting) == 1


def walk(steps_left):
    """Steps without pause, each from where the last one ended, as an algorithm of its own."""

    class Walk(Script):
        def __init__(self):
            super().__init__(lambda event: [])
            self.x, self.count = torch.zeros(2), 0

        def step(self, event, now):
            if isinstance(event, Trained):
                self.x = self.x + event.change
                self.count += 1
            if isinstance(event, Finish) or self.count == steps_left:
                return [Done(self.x)]
            return [Train("s", self.x.clone(), 3)] if isinstance(event, (Start, Trained)) else [Save(durable=True)]

        def snapshot(self):
            return Snapshot({"x": self.x.clone()}, {"count": self.count, "events": 0})

        def restore(self, snapshot):
            self.x, self.count = snapshot.vectors["x"].clone(), int(snapshot.numbers["count"])

    return Walk()


@pytest.mark.trio
@pytest.mark.parametrize("moment", [0.3, 1.2, 2.9, 4.3, 7.4, 11.9])
@pytest.mark.parametrize("lasts", [0.0, 1.5])
async def test_steps_under_way_are_done_again_as_they_would_have_been(autojump_clock, moment, lasts):
    """Crash at any moment: model, optimiser, batches and clock end where a life without it ends."""
    whole = await make_peer(walk(5), Line(), lasts=lasts).run()
    disk = Disk()
    first = make_peer(walk(5), line := Line(), store=disk, lasts=lasts, exact=True)
    with trio.move_on_after(moment * UNIT_S + 0.01):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.run)
            await trio.sleep(moment * UNIT_S)
            line.into.send_nowait(("n1", Message("offer", 1)))
    snapshot = disk.saved[-1]
    second = make_peer(walk(5), Line(), lasts=lasts)
    second.restore(snapshot)
    assert torch.equal(await second.run(), whole)
    assert second.figures.gradients == 15
    assert second.clock.now() == pytest.approx(moment + 15 - 3 * snapshot.numbers["algorithm.count"], abs=0.01)


@pytest.mark.trio
async def test_snapshot_that_can_not_wait_has_the_trainer_as_of_the_end_of_its_steps(autojump_clock):
    disk, first = Disk(), torch.zeros(2)
    peer = make_peer(walk(5), line := Line(), store=disk, lasts=2.0)
    with trio.move_on_after(7.5 * UNIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.run)
            await trio.sleep(4.0 * UNIT_S)
            assert peer.training.rested is None, "a copy of the momentum that nobody needs"
            first = peer.algorithm.x.clone()
            line.into.send_nowait(("n1", Message("offer", 1)))
    (snapshot,) = disk.saved
    random, momentum = Draws(0, "n0")(BATCHES), torch.zeros(2)
    for _ in range(6):
        momentum = 0.5 * momentum + torch.from_numpy(random.normal(size=2)).float()
    assert torch.equal(snapshot.vectors["trainer.momentum"], momentum)
    assert torch.equal(snapshot.vectors["algorithm.x"], first)
    assert snapshot.numbers["peer.units"] == pytest.approx(7.0), "copying, too, takes its turn in the thread"


@pytest.mark.trio
async def test_last_snapshot_does_not_wait_for_ever(autojump_clock):
    disk = Disk()
    script = Script(lambda event: [Train("s", VECTOR.clone(), 1)] if isinstance(event, (Start, Trained)) else [])
    draws = Draws(0, "n0")
    trainer = Steps(draws)
    trainer.snapshot = lambda: (
        Snapshot({"momentum": trainer.momentum.clone()}) if trainer.momentum.any() else Snapshot()
    )
    manner = {"snapshot_every_s": 1e6, "duration": 2500.0}
    peer = make_peer(script, Line(), trainer, draws, disk, lasts=1000.0, **manner)
    await peer.run()
    (snapshot,) = disk.saved
    assert list(snapshot.vectors) == ["algorithm.x"]
    assert len(script.of(Trained)) == 2
    assert peer.clock.now() < 2600


@pytest.mark.trio
async def test_start_comes_first_though_the_end_was_asked_for_before(autojump_clock):
    script = Script(lambda event: [])
    peer = make_peer(script, Line())
    peer.finish()
    await peer.run()
    assert [type(event) for _, event in script.seen] == [Start, Finish]


@pytest.mark.trio
async def test_a_resumed_peer_says_so_and_its_clock_goes_on(autojump_clock):
    disk = Disk()
    script = Script(lambda event: [Report({"round": 3.0})])
    peer = make_peer(script, Line(), store=disk, duration=7.0)
    await peer.run()
    assert peer.figures.reported == {"round": 3.0}
    again = Script(lambda event: [])
    resumed = make_peer(again, Line(), duration=10.0)
    resumed.restore(disk.saved[-1])
    await resumed.run()
    assert again.restored.numbers["events"] == len(script.seen)
    assert again.seen[0] == (pytest.approx(7.0), Start(recovered=True))
    assert again.times(Finish) == [10.0]
