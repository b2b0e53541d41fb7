"""The one loop of a running peer: inbox -> algorithm.step -> effects.

Theory of operation
-------------------
Whatever happens (a message, a timer, local steps done, a send's outcome, a neighbour gone) waits in one queue. The loop
takes one event at a time, hands it to the algorithm with the time, and carries out the effects that come back, in
their order. Nothing else touches the algorithm. Sends, local steps and disk writes run beside the loop and end as
events; the loop itself waits for nothing but a snapshot that must be on disk before the next message leaves.

A snapshot is of one instant between two events: the algorithm, the clock, the random generators, and the trainer as of
the last local steps whose result the algorithm has been given. Steps under way then are done again after a crash, with
the same batches. (Under ``periodic``, a snapshot that the algorithm wants on disk at once, in the middle of local
steps, has the trainer as of their end instead; see ``node/training.py``.)

Invariants
----------
* Nothing of a cancelled or replaced timer, or of a cancelled training, reaches the algorithm.
* Each ``Send`` ends in exactly one ``Delivered`` or ``Undelivered``.
* Under ``exact``, and after a durable ``Save`` always, no message leaves before the snapshot is on disk.
* The time is trio's alone: under its virtual clock, over the network in memory, the same loop runs in no time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import trio

from algorithms.final_merge import FinalMerge
from algorithms.protocol import (
    Algorithm,
    Arrival,
    Cancel,
    Compute,
    Done,
    Event,
    Finish,
    Meet,
    Part,
    PeerDown,
    Report,
    Save,
    Send,
    Snapshot,
    Start,
    Tick,
    Timer,
    Train,
    Vector,
)
from node.clock import Clock, Timers
from node.draws import Draws
from node.figures import TOTALS, Figures
from node.members import Members
from node.outbox import Outbox
from node.saver import Keeps, Saver, join, part_of
from node.training import BATCHES, Rested, Result, Training, Trains, Worker
from node.wire.transport import Transport

REST_S = 2.0
"""How long the last snapshot waits for local steps that nobody wants any more."""


@dataclass(frozen=True, slots=True)
class Manner:
    """How a peer runs.

    Parameters
    ----------
    exact : bool
        A snapshot is on disk before anything is sent that depends on it.
    snapshot_every_s : float
        Seconds between snapshots in the background.
    duration_s : float
        Seconds after which the run is over, all lives counted.
    steps : float
        Local steps after which it is over.
    wire_share : float
        How much of a vector's bytes the codec puts on the wire.
    """

    exact: bool = False
    snapshot_every_s: float = 10.0
    duration_s: float = math.inf
    steps: float = math.inf
    wire_share: float = 1.0


class Peer:
    """One running peer.

    Parameters
    ----------
    algorithm : Algorithm
        What is run.
    transport : Transport
        This peer's end of the network.
    members : Members
        Its neighbours; whoever makes them runs them.
    trainer : Trains
        Takes the local steps.
    draws : Draws
        The random generators of algorithm and trainer.
    clock : Clock
        The run's time.
    store : Keeps, optional
        Where snapshots go; none are taken without one.
    manner : Manner
        How to run.
    worker, disk : Worker, optional
        Threads for local steps and for snapshots.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        transport: Transport,
        members: Members,
        trainer: Trains,
        draws: Draws,
        clock: Clock,
        store: Keeps | None = None,
        manner: Manner = Manner(),
        worker: Worker | None = None,
        disk: Worker | None = None,
    ) -> None:
        self.algorithm, self.members, self.clock, self.manner = algorithm, members, clock, manner
        self.figures = Figures()
        self.worker = worker or Worker()
        self.training = Training(trainer, draws, clock, self.worker, always=manner.exact)
        self._transport, self._draws = transport, draws
        self._timers = Timers()
        self._put, self._queue = trio.open_memory_channel[Event | Result](math.inf)
        self._outbox = Outbox(transport, members, self.figures, self._put.send_nowait, manner.wire_share)
        self._saver = Saver(store, self.figures, disk or Worker())
        self._one_arrival = trio.Semaphore(1)  # the inbox is the transport's, and bounded there
        self._snapshot_due = self._recovered = self._ticked = self._finishing = self._leaving = False
        self._done: Vector | None = None
        self._nursery: trio.Nursery
        self._handlers: dict[type, Callable[[Any], None]] = {
            Send: self._send,
            Timer: self._set_timer,
            Train: self._work,
            Compute: self._work,
            Cancel: self._cancel,
            Meet: self._meet,
            Part: self._part,
            Report: self._report,
            Done: self._end,
        }

    # ------------------------------------------------------------------------------------------- one life

    async def run(self) -> Vector:
        """Run until the algorithm is done; its last word, shape ``(d,)``."""
        async with trio.open_nursery() as self._nursery:
            self.clock.start()
            self.members.report = self._put.send_nowait
            for name in self.members.gone():
                self._put.send_nowait(PeerDown(name))
            for task in (self._receive, self._finish_in_time, self._save_periodically):
                self._nursery.start_soon(task)
            await self._take(Start(self._recovered))  # not from the queue, where an early end may wait already
            while self._done is None:
                await self._take(await self._next())
            await self._save_last()
            self._nursery.cancel_scope.cancel()
        return self._done

    @property
    def over(self) -> bool:
        """Whether the run has lasted as long as it was to."""
        return self.clock.seconds >= self.manner.duration_s or self.figures.gradients >= self.manner.steps

    def finish(self, lead: bool = False) -> None:
        """Ask for the end of the run; :meth:`run` returns when the algorithm has settled.

        With ``lead`` it is that of all others too, where there is a final merge.
        """
        if not self._leaving and (lead or not self._finishing):
            self._finishing = True
            self._put.send_nowait(Finish(lead=lead))

    def leave(self) -> None:
        """Ask for the end for this peer alone: it takes no part in a final merge, not even in one under way."""
        settles = self._finishing and not isinstance(self.algorithm, FinalMerge)
        if not self._leaving and not settles:
            self._leaving = self._finishing = True
            self._put.send_nowait(Finish(merge=False))

    async def _take(self, event: Event) -> None:
        """One event through the algorithm, and all that follows from it."""
        saved = False
        for effect in list(self.algorithm.step(event, self.clock.now())):
            if not isinstance(effect, Save):
                self._handlers[type(effect)](effect)
            elif not saved and (self.manner.exact or effect.durable):
                await self.training.settle()
                await self._saver.save_for_certain(self.snapshot())
                saved = True  # nothing has changed before the next Save of the same step
        if self._snapshot_due and self._saver.idle and self.training.settled:
            self._snapshot_due = False
            await self._nursery.start(self._saver.save, self.snapshot())  # it has its place in line then

    async def _finish_in_time(self) -> None:
        await trio.sleep(max(0.0, self.manner.duration_s - self.clock.seconds))
        self.finish()

    # --------------------------------------------------------------------------------------------- events

    async def _next(self) -> Event:
        while True:
            item = await self._next_item()
            if isinstance(item, Arrival):
                self._one_arrival.release()
                self.members.heard(item.sender)
            if not isinstance(item, Result):
                return item
            if self.training.accept(item):
                self._count(item)
                return item.event

    async def _next_item(self) -> Event | Result:
        """Timers that have run out come first, but only every other time, so that they starve nobody."""
        await trio.lowlevel.checkpoint()
        if self._ticked:
            self._ticked = False
            with suppress(trio.WouldBlock):
                return self._queue.receive_nowait()
        with trio.move_on_at(self._timers.next):
            return await self._queue.receive()
        self._ticked = True
        return Tick(self._timers.pop())

    def _count(self, result: Result) -> None:
        figures = self.figures
        figures.loss = result.event.loss
        figures.gradients += result.job.steps if isinstance(result.job, Train) else 1
        figures.samples += result.event.samples
        if figures.gradients >= self.manner.steps:
            self.finish()

    async def _receive(self) -> None:
        async for sender, message in self._transport.receive():
            await self._one_arrival.acquire()
            self._put.send_nowait(Arrival(sender, message))
            del message  # or it would stay in memory until the next one comes

    # -------------------------------------------------------------------------------------------- effects

    def _send(self, effect: Send) -> None:
        self._outbox.send(effect, self._nursery)

    def _set_timer(self, effect: Timer) -> None:
        self._timers.set(effect.name, self.clock.time_s(self.clock.now() + effect.delay))

    def _work(self, job: Train | Compute) -> None:
        self.training.begin(job)
        self._nursery.start_soon(self._do, job)

    async def _do(self, job: Train | Compute) -> None:
        self._put.send_nowait(await self.training.run(job))

    def _cancel(self, effect: Cancel) -> None:
        self._timers.cancel(effect.name)
        self.training.cancel(effect.name)

    def _meet(self, effect: Meet) -> None:
        self._transport.meet(effect.name, effect.address)
        self.members.meet(effect.name)

    def _part(self, effect: Part) -> None:
        self.members.part(effect.name)

    def _report(self, effect: Report) -> None:
        self.figures.reported.update(effect.values)

    def _end(self, effect: Done) -> None:
        self._done = effect.vector

    # ------------------------------------------------------------------------------------------ snapshots

    def snapshot(self) -> Snapshot:
        """Everything that a later life needs, as of now; between two events, where the trainer is settled."""
        rested, algorithm = self.training.rested, self.algorithm.snapshot()
        assert rested is not None
        draws = self._draws.state() | {BATCHES: rested.batches}
        parts = {
            "algorithm": algorithm,
            "trainer": rested.optimiser,
            "draws": Snapshot(numbers=dict(draws)),
            "peer": Snapshot(numbers={**self._times(), **self._totals()}),
        }
        return join(parts)

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from what :meth:`snapshot` gave, before :meth:`run`."""
        self.algorithm.restore(part_of(snapshot, "algorithm"))
        draws = {key: str(state) for key, state in part_of(snapshot, "draws").numbers.items()}
        self._draws.restore(draws)
        self.training.restore(Rested(part_of(snapshot, "trainer"), draws[BATCHES]))
        numbers = part_of(snapshot, "peer").numbers
        units = float(numbers["units"])
        lived_s = numbers.get("seconds", units * (unit_s_of(snapshot) or self.clock.unit_s))
        self.clock.begin_at(units, float(lived_s))
        for key in TOTALS:
            setattr(self.figures, key, int(numbers.get(key, 0)))  # newer figures are not in older snapshots
        self._recovered = True

    def _times(self) -> dict[str, float]:
        return {"units": self.clock.now(), "unit_s": self.clock.unit_s, "seconds": self.clock.seconds}

    def _totals(self) -> dict[str, int]:
        return {key: getattr(self.figures, key) for key in TOTALS}

    async def _save_periodically(self) -> None:
        while True:
            await trio.sleep(self.manner.snapshot_every_s)
            self._snapshot_due = self.training.wanted = True

    async def _save_last(self) -> None:
        await self.training.settle(REST_S)
        await self._saver.save(self.snapshot())


def unit_s_of(snapshot: Snapshot) -> float:
    """Seconds of the units that a peer's snapshot counts in; 0 where it doesn't say, as of an older version."""
    return float(part_of(snapshot, "peer").numbers.get("unit_s", 0.0))
