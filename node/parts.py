"""The parts of a daemon, put together from what its operator wrote.

What can be wrong with that is found here and is one sentence, before a port is open: the plan and the peer's place in
it, its certificate, its task and data, its state folder. Only whether a snapshot fits the algorithm is found later:
that is made anew where the peers agree on another unit than was thought.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from types import TracebackType

from algorithms.protocol import Algorithm, Message, Open, Place, Snapshot, Tempo, Vector
from node.clock import Clock
from node.config import RunConfig
from node.contact import keep
from node.draws import Draws
from node.errors import ConfigError, StorageError
from node.guard import Guard
from node.learning import check_data, choose_device, open_task, read_recipe, start_of
from node.members import Members
from node.meter import Meter, Status
from node.orders import Orders, find_plan
from node.pace import Agreement, Pace
from node.peer import Manner, Peer, unit_s_of
from node.place import ends_in_merge, find_algorithm, is_open, make_algorithm, make_place, run_id, wire_share
from node.shards import load_optimum, load_shard, load_task_json, load_test
from node.store import Origin, Store
from node.trainer import Trainer
from node.training import BATCHES
from node.unit import measure_step_s
from node.wire.lossy import LossyTransport
from node.wire.transport import Transport

log = logging.getLogger(__name__)

JOINER_HTTP = "127.0.0.1:0"
"""Where a peer that no plan knows serves its status: on any free port."""


class Parts:
    """A peer that does not run yet; close it, or use it as a context manager.

    Parameters
    ----------
    orders : Orders
        Of this peer.
    config : RunConfig
        Of the run.

    Raises
    ------
    UserError
        When something about them is wrong.
    """

    def __init__(self, orders: Orders, config: RunConfig) -> None:
        self.orders, self.config = orders, config
        self.identity, self.plan, self._introduction = find_plan(orders, config)
        self.task = open_task(config, find_algorithm(config.algorithm))
        self.draws = Draws(config.seed, orders.name)
        self.trainer = self._make_trainer()
        # With a unit that is still to be agreed on, this one only shows whether there can be one.
        self._unit_s = config.time_unit if isinstance(config.time_unit, float) else self.task.unit_s
        self.place, self._algorithm = self._be_born(self._unit_s)
        self.test = load_test(orders.data) if (orders.data / "test.safetensors").exists() else None
        self.optimum = load_optimum(orders.data)
        self.run = run_id(self.plan, self.trainer.layout, config, self.place.constants)
        self._check_run()
        self.meter = Meter(Status(orders.name, self.run, config.algorithm, config.task))
        self.guard = self._make_guard()
        self.store = self._open_store()
        self._snapshot: Snapshot | None = None

    def __enter__(self) -> Parts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.store is not None:
            self.store.close()

    @property
    def tempo(self) -> Tempo:
        """What the algorithm asks of time."""
        return self._algorithm.tempo

    @property
    def open(self) -> bool:
        """Whether peers that are not in the plan may join."""
        return is_open(type(self._algorithm))

    @property
    def contact(self) -> str:
        """The member through which this peer joins; empty for one of the plan."""
        return self._introduction.contact if self._introduction else ""

    @property
    def http(self) -> str:
        """Where to serve status and metrics."""
        return self.orders.http or (JOINER_HTTP if self.contact else self.plan.node(self.orders.name).http)

    @property
    def addresses(self) -> dict[str, str]:
        """Where everybody else is reached, as far as is known at the start."""
        addresses = {node.name: node.address for node in self.plan.nodes if node.name != self.orders.name}
        return addresses | ({self.contact: self._introduction.address} if self._introduction else {})

    @property
    def neighbours(self) -> list[str]:
        """Whom to watch closely, and to wait for: the plan's neighbours, or the contact."""
        return [self.contact] if self.contact else list(self.place.neighbours)

    @property
    def acquaintances(self) -> list[str]:
        """Whom to watch as well: everybody else in the plan, where everybody may talk to everybody."""
        near = {self.orders.name, *self.neighbours}
        return [name for name in self.place.nodes if name not in near] if self.open else []

    def open_agreement(self) -> Agreement:
        """What this peer knows of the unit: that of its snapshot, or how long its own local steps take; or it is fixed.

        Raises
        ------
        StorageError
            When there are snapshots and none is whole.
        TaskError
            When a local step leaves the finite numbers.
        """
        self._snapshot = self.store.load() if self.store else None
        return Agreement(self.place.nodes, self._pace())

    def _pace(self) -> Pace:
        if self.config.time_unit != "auto":
            return Pace(unit_s=self._unit_s)
        if self._snapshot is not None:
            return Pace(unit_s=unit_s_of(self._snapshot) or self._unit_s)
        if self.contact:
            return Pace()  # it will be told
        step_s = measure_step_s(self.trainer, self._start())
        log.info("a local step takes %.3g ms", step_s * 1e3)
        return Pace({self.orders.name: step_s})

    def make_peer(self, transport: Transport, members: Members, unit_s: float) -> tuple[Peer, bool]:
        """The peer, and whether it goes on from a snapshot.

        Parameters
        ----------
        transport : Transport
            The network; a part of the messages is lost on purpose where the configuration says so.
        members : Members
            Its neighbours.
        unit_s : float
            Seconds of one plan unit.

        Raises
        ------
        StorageError
            When there is a snapshot that can't be used.
        """
        if unit_s != self._unit_s:
            self.draws.restore({BATCHES: self.draws.state()[BATCHES]})  # as if the first had never been born
            _, self._algorithm = self._be_born(unit_s)
        if self.config.drop:
            transport = LossyTransport(transport, self.config.drop, self.draws("drop"))
        clock, manner = Clock(unit_s), self._manner()
        peer = Peer(self._algorithm, transport, members, self.trainer, self.draws, clock, self.store, manner)
        snapshot, self._snapshot = self._snapshot, None
        if snapshot is None:
            return peer, False
        try:
            peer.restore(snapshot)
        except (KeyError, ValueError):
            raise StorageError(
                f"the snapshot in {self.orders.state} is of a run with other options: give those it was taken with."
            ) from None
        return peer, True

    def _make_trainer(self) -> Trainer:
        config, data = self.config, self.orders.data
        shard = load_shard(data, self.orders.name)
        recipe = read_recipe(config, self.task, find_algorithm(config.algorithm))
        trainer = Trainer(self.task, shard, recipe, self.draws(BATCHES), choose_device(config))
        check_data(data, self.task, trainer.layout, [node.name for node in self.plan.nodes])
        return trainer

    def _start(self) -> Vector:
        names = [node.name for node in self.plan.nodes]
        return start_of(self.orders.name, [*names, self.orders.name], self.task, self.config)  # who joins is the last

    def _be_born(self, unit_s: float) -> tuple[Place, Algorithm]:
        """The place, without its start, and the algorithm there."""
        place = make_place(
            self.plan,
            self.orders.name,
            self.config,
            start=self._start(),
            layout=self.trainer.layout,
            draws=self.draws,
            unit_s=unit_s,
            constants=load_task_json(self.orders.data).constants,
            address=self.orders.address or "",
            contact=self.contact,
        )
        algorithm = make_algorithm(self.config.algorithm, place, ends_in_merge(self.config))
        return dataclasses.replace(place, start=place.start[:0].clone()), algorithm  # the rest of it is small

    def _check_run(self) -> None:
        told = self._introduction
        if told is not None and told.run != self.run:
            raise ConfigError(
                f"{told.contact} is in {told.run}, and this peer would be in {self.run}: give it the same algorithm, "
                "merging rule, codec, options and task, and --run where the others have one."
            )

    def _make_guard(self) -> Guard:
        return Guard(
            self.orders.name,
            {name: edge.owned for name, edge in self.place.neighbours.items()},
            self.place.nodes,
            self._algorithm.kinds,
            run=self.run,
            plan_digest=self.plan.digest,
            layout=self.place.layout,
            codec=self.place.codec,
            inbox_bytes_max=self.config.inbox,
            refused=self.meter.refused,
            norm_max=self.config.norm_max,
            open_=self.open,
            plausible=self._plausible,
        )

    def _plausible(self, message: Message) -> bool:
        return not isinstance(self._algorithm, Open) or self._algorithm.plausible(message)

    def _open_store(self) -> Store | None:
        state, resume = self.orders.state, self.orders.resume
        if state is None:
            if resume or self.config.durability == "exact":
                raise ConfigError("there is no state folder: write --state DIR with --resume or --durability exact.")
            log.warning("no state is kept, a crash loses what was learnt: write --state DIR to keep it")
            return None
        store = Store(state, Origin(self.run, self.orders.name, self.place.layout.digest), self.config.keep)
        if not resume and not store.empty:
            store.close()
            raise StorageError(
                f"{state} holds the state of an earlier run: write --resume to go on with it, or name another folder."
            )
        if self._introduction is not None:
            keep(self._introduction, state)
        return store

    def _manner(self) -> Manner:
        config = self.config
        return Manner(
            exact=config.durability == "exact",
            snapshot_every_s=config.snapshot_every,
            duration_s=math.inf if config.steps or config.rounds else config.duration,
            steps=config.steps or math.inf,
            wire_share=wire_share(config, self.place.layout),
        )
