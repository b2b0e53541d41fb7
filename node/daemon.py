"""One peer as a process that an operator can leave alone.

Theory of operation
-------------------
The peer listens, waits a while for its neighbours, and its clock starts. From then on several things run side by side:
the peer's loop, its pings, its reports, and the status pages in threads of their own.

SIGTERM and SIGINT end the run in order: the algorithm settles what is under way, the last snapshot, report and state
are written, and the process ends within :data:`STOP_S`, if need be by force. SIGHUP reads certificates and the list of
the denied again, which also happens once a minute.

Invariant
---------
A process that says it is ready can be reached by its neighbours and can keep its state.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
from typing import Any

import torch
import trio

from node.config import RunConfig
from node.errors import NetworkError, UserError
from node.members import Members
from node.meter import PeerStatus, Status
from node.pages import serve_pages
from node.parts import Orders, Parts
from node.peer import Peer
from node.testbed.record import write_line, write_state
from node.wire.grpc import GrpcTransport, open_grpc

log = logging.getLogger(__name__)

STOP_S = 7.5
"""A process that was told to end is gone after this long."""

BEAT_S = 1.0
"""Time between two statuses."""

RENEW_S = 60.0
"""Time between two looks for new certificates."""

RESUMED_WAIT_S = 1.0
"""A peer that comes back waits no longer than this for its neighbours: they have been under way all the time."""

INTERRUPTED = 130


def run_daemon(orders: Orders, config: RunConfig) -> int:
    """Run one peer to its end; the exit code.

    Raises
    ------
    UserError
        When something that the operator wrote, or the machine, does not let it.
    """
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with Parts(orders, config) as parts:
        try:
            return trio.run(Daemon(parts).live)
        except BaseException as error:
            for leaf in _leaves(error):
                if isinstance(leaf, UserError):
                    raise leaf from None
            raise


def _leaves(error: BaseException) -> list[BaseException]:
    """The errors that a group is made of, or the error itself; trio groups even a single one."""
    inner: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    return [leaf for each in inner for leaf in _leaves(each)] or [error]


class Daemon:
    """One peer and what goes on around it.

    Parameters
    ----------
    parts : Parts
        The peer and its surroundings.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._code = 0
        self._stopping = trio.Event()
        self._phase = "waiting"
        self._test_loss, self._accuracy = math.nan, math.nan
        self._peer: Peer
        self._members: Members

    async def live(self) -> int:
        """Run to the end; the exit code."""
        parts, orders = self._parts, self._parts.orders
        with serve_pages(orders.http or parts.node.http, parts.meter.pages()) as port:
            async with open_grpc(
                name=orders.name,
                bind=orders.bind or parts.node.address,
                addresses=parts.addresses,
                guard=parts.guard,
                identity=parts.identity,
                observer=parts.meter,
            ) as transport:
                log.info("%s: listening on port %d, status on port %d", parts.run, transport.port, port)
                await self._live_on(transport)
        log.info("ended after %.0f units", parts.clock.now())
        return self._code

    async def _live_on(self, transport: GrpcTransport) -> None:
        parts = self._parts
        self._members = Members(transport, parts.place.neighbours, parts.draws("members"))
        self._peer, resumed = parts.make_peer(transport, self._members)
        async with trio.open_nursery() as nursery:
            await nursery.start(self._heed_signals, transport)
            for task in (self._members.run, self._beat):
                nursery.start_soon(task)
            nursery.start_soon(self._renew, transport)
            await self._wait_for_neighbours(resumed)
            self._phase = "learning"
            async with trio.open_nursery() as learning:
                learning.start_soon(self._report)
                await self._peer.run()
                learning.cancel_scope.cancel()
            await self._write_last()
            nursery.cancel_scope.cancel()

    async def _wait_for_neighbours(self, resumed: bool) -> None:
        """Until all are there, it has taken too long, or the process is to end."""
        wait_s = self._parts.orders.wait_s
        with trio.move_on_after(min(wait_s, RESUMED_WAIT_S) if resumed else wait_s) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_on_stop, nursery.cancel_scope)
                await self._members.wait_for_all()
                nursery.cancel_scope.cancel()
        if resumed:
            log.info("going on from unit %.1f", self._parts.clock.now())
        elif scope.cancelled_caught:
            log.warning("starting without %s, after %gs", ", ".join(self._members.gone()), wait_s)

    async def _cancel_on_stop(self, scope: trio.CancelScope) -> None:
        await self._stopping.wait()
        scope.cancel()

    # -------------------------------------------------------------------------------------------- signals

    async def _heed_signals(
        self, transport: GrpcTransport, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    await self._reload(transport)
                else:
                    self._stop(number)

    def _stop(self, number: int) -> None:
        """End in order; on the second signal, or when that takes too long, end at once."""
        code = INTERRUPTED if number == signal.SIGINT else 0
        if self._stopping.is_set():
            os._exit(code)
        log.info("%s: ending", signal.Signals(number).name)
        self._code = code
        self._phase = "draining"
        self._stopping.set()
        self._peer.finish()
        # A thread, since what does not end may be the loop.
        force = threading.Timer(STOP_S, self._end_by_force, (code,))
        force.daemon = True
        force.start()

    def _end_by_force(self, code: int) -> None:
        log.warning("what is still under way after %gs is left behind", STOP_S)
        os._exit(code)

    async def _renew(self, transport: GrpcTransport) -> None:
        while True:
            await trio.sleep(RENEW_S)
            await self._reload(transport, quiet=True)

    async def _reload(self, transport: GrpcTransport, quiet: bool = False) -> None:
        try:
            await transport.reload()
        except NetworkError as error:
            log.error("certificates stay as they are: %s", error)
        else:
            if not quiet:
                log.info("certificates and the list of the denied were read again")

    # -------------------------------------------------------------------------------------------- reports

    async def _beat(self) -> None:
        while True:
            self._parts.meter.show(self._status())
            await trio.sleep(BEAT_S)

    def _status(self) -> Status:
        parts, figures, counters = self._parts, self._peer.figures, self._peer.algorithm.counters()
        asked, achieved = self._rates()
        states = self._members.states()
        return Status(
            name=parts.orders.name,
            run=parts.run,
            algorithm=parts.config.algorithm,
            task=parts.config.task,
            phase=self._phase,
            units=parts.clock.now(),
            seconds=parts.clock.now() * parts.unit_s,
            loss=figures.loss,
            accuracy=self._accuracy,
            gradients=figures.gradients,
            exchanges=int(counters.get("exchanges", 0)),
            lost_exchanges=int(counters.get("lost_exchanges", 0)),
            missed_ticks=int(counters.get("missed_ticks", 0)),
            behind_units=self._peer.training.behind_units,
            inbox_depth=parts.guard.waiting,
            snapshot_age_seconds=math.nan if figures.snapshot_s is None else trio.current_time() - figures.snapshot_s,
            certificate_expiry_timestamp_seconds=parts.identity.expiry_s if parts.identity else math.nan,
            ready=not figures.disk_fails,
            undelivered=dict(figures.undelivered),
            peers={
                name: PeerStatus(
                    states[name],
                    asked[name] / parts.unit_s,
                    achieved[name] / parts.unit_s,
                    int(counters.get(f"exchanges/{name}", 0)),
                )
                for name in states
            },
        )

    def _rates(self) -> tuple[dict[str, float], dict[str, float]]:
        """Exchanges a unit with each neighbour: as planned, and so far."""
        units, counters = self._parts.clock.now(), self._peer.algorithm.counters()
        neighbours = self._parts.place.neighbours
        achieved = {name: counters.get(f"exchanges/{name}", 0.0) / units if units else 0.0 for name in neighbours}
        return {name: edge.rate for name, edge in neighbours.items()}, achieved

    async def _report(self) -> None:
        while True:
            await trio.sleep(self._parts.config.report_every)
            await self._report_once()

    async def _report_once(self) -> None:
        test = self._parts.test
        if test is not None:
            model = self._peer.algorithm.model(self._parts.clock.now())
            self._test_loss, self._accuracy = await self._peer.worker.call(self._parts.trainer.evaluate, model, test)
        if self._parts.orders.out is not None:
            try:
                write_line(self._parts.orders.out, self._parts.orders.name, self._line())
            except OSError as error:
                log.error("no report: %s", error)

    def _line(self) -> dict[str, Any]:
        parts, figures, counters = self._parts, self._peer.figures, self._peer.algorithm.counters()
        asked, achieved = self._rates()
        return {
            "peer": parts.orders.name,
            "seconds": parts.clock.now() * parts.unit_s,
            "units": parts.clock.now(),
            "transport": "grpc" if parts.identity is None else "grpc+mtls",
            "loss": figures.loss,
            "accuracy": self._accuracy,
            "test_loss": self._test_loss,
            "gradients": figures.gradients,
            "samples": figures.samples,
            **{key: counters.get(key, 0) for key in ("exchanges", "lost_exchanges", "missed_ticks")},
            "messages_sent": figures.messages_sent,
            "bytes_sent": figures.bytes_sent,
            "behind_units": self._peer.training.behind_units,
            "rate_asked": asked,
            "rate_achieved": achieved,
            **figures.reported,
        }

    async def _write_last(self) -> None:
        await self._report_once()
        out, parts = self._parts.orders.out, self._parts
        if out is not None:
            try:
                write_state(out, parts.orders.name, parts.algorithm, parts.clock.now())
            except Exception as error:  # safetensors raises its own type for whatever goes wrong
                log.error("no final state: %s", error)
