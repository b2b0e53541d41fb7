"""What a daemon says of its peer: its status, for whoever looks now, and the lines of the run record."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
import trio

from algorithms.final_merge import FinalMerge, time_learnt
from node.keeping_up import Pulse
from node.members import Members
from node.meter import PeerStatus, Status
from node.parts import Parts
from node.peer import Peer

P99 = "exchange_units_p99"
"""A counter of algorithms that exchange along edges."""


def waiting_status(parts: Parts, members: Members, phase: str) -> Status:
    """While there is no peer yet, since its unit is not settled."""
    return Status(
        name=parts.orders.name,
        run=parts.run,
        algorithm=parts.config.algorithm,
        task=parts.config.task,
        phase=phase,
        inbox_depth=parts.guard.waiting,
        certificate_expiry_timestamp_seconds=_expiry_s(parts),
        ready=True,
        peers={name: PeerStatus(state, exchanges=0) for name, state in members.states().items()},
    )


def _expiry_s(parts: Parts) -> float:
    return parts.identity.expiry_s if parts.identity else math.nan


class Account:
    """Of one peer.

    Parameters
    ----------
    parts : Parts
        Where it comes from.
    peer : Peer
        The peer.
    members : Members
        Its neighbours.
    """

    def __init__(self, parts: Parts, peer: Peer, members: Members) -> None:
        self._parts, self._peer, self._members = parts, peer, members
        self._test_loss = self._accuracy = self._distance = math.nan

    def status(self, phase: str) -> Status:
        """How the peer is."""
        parts, peer = self._parts, self._peer
        figures, counters = peer.figures, peer.algorithm.counters()
        units, unit_s = peer.clock.now(), peer.clock.unit_s
        return Status(
            name=parts.orders.name,
            run=parts.run,
            algorithm=parts.config.algorithm,
            task=parts.config.task,
            phase=phase,
            units=units,
            seconds=peer.clock.seconds,
            seconds_left=self._seconds_left,
            unit_seconds=unit_s,
            round=int(counters["rounds"]) if "rounds" in counters else None,
            loss=figures.loss,
            accuracy=self._accuracy,
            distance=self._distance,
            models_merged=self._models_merged,
            bytes_sent=figures.bytes_sent,
            gradients=figures.gradients,
            exchanges=int(counters.get("exchanges", 0)),
            lost_exchanges=int(counters.get("lost_exchanges", 0)),
            missed_ticks=int(counters.get("missed_ticks", 0)),
            behind_units=peer.training.behind_units,
            exchange_p99_units=self.exchange_p99_units,
            inbox_depth=parts.guard.waiting,
            snapshot_age_seconds=math.nan if figures.snapshot_s is None else trio.current_time() - figures.snapshot_s,
            certificate_expiry_timestamp_seconds=_expiry_s(parts),
            ready=not figures.disk_fails,
            undelivered=dict(figures.undelivered),
            peers=self._peers(unit_s),
        )

    @property
    def merging(self) -> bool:
        """Whether the peer has stopped learning, and the models of all are being merged."""
        algorithm = self._peer.algorithm
        return isinstance(algorithm, FinalMerge) and algorithm.merging

    @property
    def _models_merged(self) -> int:
        algorithm = self._peer.algorithm
        return len(algorithm.members) if isinstance(algorithm, FinalMerge) and algorithm.merged is not None else 0

    @property
    def _seconds_left(self) -> float:
        """Until the peer stops learning; infinite where rounds or an operator end the run."""
        manner, clock = self._peer.manner, self._peer.clock
        steps_left = manner.steps - self._peer.figures.gradients
        return max(0.0, min(manner.duration_s - clock.seconds, steps_left * clock.unit_s))

    @property
    def _learnt(self) -> tuple[float, float]:
        """How long the peer has learnt, in units and in seconds."""
        clock, now = self._peer.clock, self._peer.clock.now()
        units = time_learnt(self._peer.algorithm, now)
        return units, clock.seconds - (now - units) * clock.unit_s

    def _peers(self, unit_s: float) -> dict[str, PeerStatus]:
        asked, counts, (_, seconds) = self.rates_asked, self.exchanges_with, self._learnt
        seen = {name: PeerStatus(state) for name, state in self._members.states().items()}
        for name, count in counts.items():
            seen[name] = PeerStatus(seen[name].state, asked[name] / unit_s, count / seconds if seconds else 0.0, count)
        return seen | {name: replace(seen[name], distance=value) for name, value in self._distances.items()}

    @property
    def _distances(self) -> dict[str, float]:
        """To the models of the neighbours, as of the latest exchanges; of those that this peer has measured."""
        counters = self._peer.algorithm.counters()
        keys = {name: f"distance/{name}" for name in self._parts.place.neighbours}
        return {name: counters[key] for name, key in keys.items() if key in counters}

    def _rates(self) -> dict[str, dict[str, Any]]:
        """For the record; nothing where edges have no clocks."""
        if not (counts := self.exchanges_with):
            return {}
        return {"rate_asked": self.rates_asked, "rate_achieved": self.rates_achieved, "exchanges_with": counts}

    @property
    def rates_asked(self) -> dict[str, float]:
        """Exchanges a unit with each neighbour, as planned; none where no clock of an edge asks for them."""
        return {name: self._parts.place.neighbours[name].rate for name in self.exchanges_with}

    @property
    def rates_achieved(self) -> dict[str, float]:
        """Exchanges a unit with each neighbour, so far."""
        units, _ = self._learnt
        return {name: count / units if units else 0.0 for name, count in self.exchanges_with.items()}

    @property
    def exchanges_with(self) -> dict[str, int]:
        """Exchanges with each neighbour so far, whoever started them."""
        counters = self._peer.algorithm.counters()
        keys = {name: f"exchanges/{name}" for name in self._parts.place.neighbours}
        return {name: int(counters[key]) for name, key in keys.items() if key in counters}

    @property
    def exchange_p99_units(self) -> float:
        """99th percentile of the time of the latest exchanges that this peer started; NaN before the first."""
        return self._peer.algorithm.counters().get(P99, math.nan)

    def pulse(self) -> Pulse:
        """What shows whether the peer keeps up."""
        peer, states = self._peer, self._members.states()
        rates = {name: rate for name, rate in self.rates_asked.items() if states[name] == "alive"}
        behind = peer.training.behind_units
        return Pulse(peer.clock.seconds, peer.clock.now(), behind, self.exchange_p99_units, rates, self.exchanges_with)

    async def examine(self) -> None:
        """Test the model as it is now, beside the local steps, and measure how far it is from the best one."""
        parts, peer = self._parts, self._peer
        if parts.test is None and parts.optimum is None:
            return
        model = peer.algorithm.model(peer.clock.now())
        if parts.optimum is not None:
            self._distance = torch.linalg.vector_norm(model.double() - parts.optimum).item()
        if parts.test is not None:
            self._test_loss, self._accuracy = await peer.worker.call(parts.trainer.evaluate, model, parts.test)

    def line(self) -> dict[str, Any]:
        """A line of the run record."""
        parts, peer = self._parts, self._peer
        figures, counters = peer.figures, peer.algorithm.counters()
        (units, seconds), unit_s = self._learnt, peer.clock.unit_s
        counted = {"exchanges": 0, "lost_exchanges": 0, "missed_ticks": 0, **counters}
        return {
            "peer": parts.orders.name,
            "seconds": seconds,
            "units": units,
            "unit_s": unit_s,
            "transport": "grpc" if parts.identity is None else "grpc+mtls",
            "loss": figures.loss,
            "accuracy": self._accuracy,
            "test_loss": self._test_loss,
            **({} if parts.optimum is None else {"distance": self._distance}),
            "gradients": figures.gradients,
            "samples": figures.samples,
            **{key: value for key, value in counted.items() if "/" not in key and key != P99},
            "messages_sent": figures.messages_sent,
            "bytes_sent": figures.bytes_sent,
            "view_bytes_sent": figures.view_bytes_sent,
            "behind_units": peer.training.behind_units,
            **self._rates(),
            **({"distance_to": near} if (near := self._distances) else {}),
            "exchange_p99_units": self.exchange_p99_units,
            **figures.reported,
        }
