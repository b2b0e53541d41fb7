"""One peer as a process that an operator can leave alone.

Theory of operation
-------------------
The peer listens, agrees with all others on how long a unit of time is unless that is given, waits a while for its
neighbours, and its clock starts. From then on several things run side by side: the peer's loop, its pings, its reports,
and the status pages in threads of their own.

SIGTERM and SIGINT end this peer's part in order: the algorithm settles what is under way, the last snapshot, report and
state are written, and the process ends within :data:`STOP_S`, if need be by force. The others go on; the final merge is
theirs. Where the run itself ends, by its length or an operator's order, the peer takes part in that before it goes.
SIGHUP reads certificates and the list of the denied again, which also happens once a minute.

Invariant
---------
A process that says it is ready can be reached by its neighbours and can keep its state.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from collections.abc import Awaitable, Callable

import torch
import trio

from node.account import Account, waiting_status
from node.config import RunConfig
from node.errors import ConfigError, NetworkError, UserError
from node.keeping_up import KeepingUp
from node.members import Members
from node.orders import Orders
from node.pace import Agreement
from node.pages import serve_pages
from node.parts import Parts
from node.peer import Peer
from node.place import ends_in_merge
from node.testbed.merged import FOLDER, SUFFIX, is_as_long, keep_length, write_merged
from node.testbed.record import write_line, write_state
from node.wire.ending import Ending
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

MERGED = f"{FOLDER}{SUFFIX}"
"""The merged model in the state folder."""


def run_daemon(orders: Orders, config: RunConfig) -> int:
    """Run one peer to its end; the exit code.

    Raises
    ------
    UserError
        When something that the operator wrote, or the machine, does not let it.
    """
    torch.set_num_threads(_threads())
    with Parts(orders, config) as parts:
        try:
            return trio.run(Daemon(parts, parts.open_agreement()).live)
        except BaseException as error:
            for leaf in _leaves(error):
                if isinstance(leaf, UserError):
                    raise leaf from None
            raise


def _threads() -> int:
    """Those that a peer computes in, one unless the environment says otherwise."""
    text = os.environ.get("OMP_NUM_THREADS", "1")
    if not re.fullmatch("[1-9][0-9]{0,3}", text):
        raise ConfigError(f"OMP_NUM_THREADS = {text!r} can't be used: write a whole number of threads, such as 1.")
    return int(text)


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
    agreement : Agreement
        On the length of a plan unit.
    """

    def __init__(self, parts: Parts, agreement: Agreement) -> None:
        self._parts, self._agreement = parts, agreement
        self._code = 0
        self._stopping = trio.Event()
        self._phase = "waiting"
        self._ending = Ending(ends_in_merge(parts.config))
        self._keeping_up = KeepingUp(parts.tempo.exchange_units_max)
        self._members: Members
        self._account: Account | None = None

    async def live(self) -> int:
        """Run to the end; the exit code."""
        parts, orders = self._parts, self._parts.orders
        with serve_pages(parts.http, parts.meter.pages()) as port:
            async with open_grpc(
                name=orders.name,
                bind=orders.bind or parts.place.address,
                addresses=parts.addresses,
                guard=parts.guard,
                identity=parts.identity,
                observer=parts.meter,
                agreement=self._agreement,
                plan=parts.plan if parts.open else None,
                ending=self._ending,
            ) as transport:
                log.info("%s: listening on port %d, status on port %d", parts.run, transport.port, port)
                await self._live_on(transport)
        return self._code

    async def _live_on(self, transport: GrpcTransport) -> None:
        parts = self._parts
        self._members = Members(transport, parts.neighbours, parts.draws("members"))
        for name in parts.acquaintances:
            self._members.meet(name)
        self._agreement.news = self._members.tell_all
        async with trio.open_nursery() as nursery:
            await nursery.start(self._heed_signals, transport)
            for task in (self._members.run, self._beat):
                nursery.start_soon(task)
            nursery.start_soon(self._renew, transport)
            if await self._agree():
                peer, resumed = parts.make_peer(transport, self._members, self._agreement.unit_s)
                self._account = Account(parts, peer, self._members)
                await self._wait_for_neighbours(peer, resumed)
                if resumed and self._was_merged(peer):
                    log.info("the run was over, and its models were merged, before this peer came back")
                    peer.leave()
                await self._learn(peer, self._account)
            nursery.cancel_scope.cancel()

    def _was_merged(self, peer: Peer) -> bool:
        """Whether the run is over and the peer has its merged model: those who come back later make no better one.

        A run that its operator has ended is over until it is to last otherwise than it was to then.
        """
        state, rounds = self._parts.orders.state, self._parts.config.rounds
        if state is None or not (state / MERGED).exists():
            return False
        over = peer.over or (rounds is not None and peer.algorithm.counters().get("rounds", 0) >= rounds)
        return over or is_as_long(state, self._parts.config)

    async def _learn(self, peer: Peer, account: Account) -> None:
        if not self._stopping.is_set():
            self._phase = "learning"
            self._ending.neighbours = self._live_neighbours()
        async with trio.open_nursery() as learning:
            learning.start_soon(self._report, account)
            learning.start_soon(self._leave_on_stop, peer)
            learning.start_soon(self._finish_on_order, peer)
            await peer.run()
            learning.cancel_scope.cancel()
        await self._report_once(account)
        self._write_end(peer)
        log.info("ended after %.0f units", peer.clock.now())

    # ----------------------------------------------------------------------------------- before the clock

    async def _agree(self) -> bool:
        """Until the unit is settled; False when the process is to end before.

        Raises
        ------
        NetworkError
            When somebody is missing for too long.
        """
        wait_s, agreement = self._parts.orders.wait_s, self._agreement
        late = await self._too_late(agreement.settled.wait, wait_s)
        if late and not agreement.settled.is_set():  # a wait for 0 s ends before it sees that all is settled
            missing = self._parts.contact or ", ".join(agreement.missing())
            raise NetworkError(
                f"the unit of time can't be agreed on, nothing was heard of {missing} within {wait_s:g}s: start all "
                "peers, write a longer --wait-for-neighbours, or --time-unit 50ms instead of auto."
            )
        if self._parts.config.time_unit == "auto" and agreement.unit_s:
            log.info("one unit of time is %.4g s", agreement.unit_s)
        return bool(agreement.unit_s)

    async def _wait_for_neighbours(self, peer: Peer, resumed: bool) -> None:
        """Until all are there, it has taken too long, or the process is to end."""
        wait_s = self._parts.orders.wait_s
        late = await self._too_late(self._members.wait_for_all, min(wait_s, RESUMED_WAIT_S) if resumed else wait_s)
        if resumed:
            log.info("going on from unit %.1f", peer.clock.now())
        elif late and (gone := self._members.gone()):
            log.warning("starting without %s, after %gs", ", ".join(gone), wait_s)

    async def _too_late(self, wait: Callable[[], Awaitable[None]], seconds: float) -> bool:
        """Whether what is waited for has not come in time; an end of the process ends the waiting, too."""
        with trio.move_on_after(seconds) as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_on_stop, nursery.cancel_scope)
                await wait()
                nursery.cancel_scope.cancel()
        return scope.cancelled_caught

    async def _cancel_on_stop(self, scope: trio.CancelScope) -> None:
        await self._stopping.wait()
        scope.cancel()

    async def _leave_on_stop(self, peer: Peer) -> None:
        await self._stopping.wait()
        peer.leave()

    async def _finish_on_order(self, peer: Peer) -> None:
        await self._ending.ordered.wait()
        log.info("the operator ends the run")
        peer.finish(lead=True)

    def _live_neighbours(self) -> int:
        return sum(state == "alive" for state in self._members.states().values())

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
        self._ending.neighbours = None  # who leaves passes no order on
        self._stopping.set()
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
            if self._account is None:
                self._parts.meter.show(waiting_status(self._parts, self._members, self._phase))
            else:
                self._beat_with(self._account)
            await trio.sleep(BEAT_S)

    def _beat_with(self, account: Account) -> None:
        if self._phase == "learning" and account.merging:
            self._phase = "merging"
        self._parts.meter.show(account.status(self._phase))
        if self._phase == "learning":
            self._judge(account)
        if self._ending.neighbours is not None:
            self._ending.neighbours = self._live_neighbours()

    def _judge(self, account: Account) -> None:
        """Say so where the peer can't keep up."""
        if complaint := self._keeping_up.look(account.pulse()):
            log.warning("%s", complaint)

    async def _report(self, account: Account) -> None:
        while True:
            await self._report_once(account)
            await trio.sleep(self._parts.config.report_every)

    async def _report_once(self, account: Account) -> None:
        await account.examine()
        if self._parts.orders.out is not None:
            try:
                write_line(self._parts.orders.out, self._parts.orders.name, account.line())
            except OSError as error:
                log.error("no report: %s", error)

    def _write_end(self, peer: Peer) -> None:
        """The merged model into the peer's own folder; it and the final state into the record."""
        orders, layout, algorithm = self._parts.orders, self._parts.place.layout, peer.algorithm
        try:
            if orders.out is not None:
                write_merged(orders.out / FOLDER, orders.name, algorithm, layout)
                write_state(orders.out, orders.name, algorithm, peer.clock.now())
        except Exception as error:  # safetensors raises its own type for whatever goes wrong
            log.error("no final state: %s", error)
        try:
            if orders.state is not None and write_merged(orders.state, FOLDER, algorithm, layout):
                keep_length(orders.state, self._parts.config)
        except Exception as error:
            log.error("no merged model: %s", error)
