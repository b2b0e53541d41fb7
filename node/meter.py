"""What can be seen of a running peer from outside: ``/metrics``, ``/status``, ``/healthz`` and ``/readyz``.

Theory of operation
-------------------
The peer's loop leaves a :class:`Status` here about once a second, whole and never changed again; the wire counts
messages here from threads of its own. Pages are made from these alone, so that they cost the loop nothing and never see
it half done. A status that is old means that the loop has stopped turning: ``/healthz`` then says so.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from algorithms.protocol import Reason
from node.pages import Page

SENDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds of the histogram of how long sends take."""

STALLED_S = 10.0
"""A loop that has left no status for this long is not well."""

PHASES = ("waiting", "learning", "merging", "draining")

ALIVE = {"alive": 1.0, "suspect": 0.5, "gone": 0.0}
"""A neighbour's state as a number."""


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """A peer: ``"alive"``, ``"suspect"`` or ``"gone"``, and exchanges a second with it, as planned and so far.

    Of algorithms without clocks of edges there are no rates. ``distance`` is that of its model from this peer's in the
    latest exchange, where this peer has measured it.
    """

    state: str
    rate_asked_hz: float = math.nan
    rate_achieved_hz: float = math.nan
    exchanges: int | None = None
    distance: float = math.nan


@dataclass(frozen=True, slots=True)
class Status:
    """A peer at one moment.

    Parameters
    ----------
    phase : str
        ``"waiting"`` for neighbours, ``"learning"``, ``"merging"`` all models at the end, ``"draining"``.
    units, seconds : float
        How long the run has lasted, over all lives.
    seconds_left : float
        Until the peer stops learning; infinite where its length is not known.
    unit_seconds : float
        Seconds of one unit; NaN while the peers have not agreed on it.
    round : int or None
        Rounds done; None of algorithms that have none.
    loss, accuracy : float
        Of the latest local steps, and on the test data; NaN where there is none.
    distance : float
        Of the model from the optimum of a convex task; NaN where there is none.
    models_merged : int
        How many peers' models are in the final merge; 0 before there is one.
    bytes_sent : int
        Of vectors, over all lives.
    behind_units : float
        By how much local steps have taken longer than planned, summed up over this life.
    exchange_p99_units : float
        99th percentile of the time of the latest exchanges that this peer started; NaN before the first.
    snapshot_age_seconds : float
        Since the latest snapshot; NaN before the first.
    ready : bool
        Whether the peer can be reached and can keep its state.
    """

    name: str
    run: str
    algorithm: str
    task: str
    phase: str = "waiting"
    units: float = 0.0
    seconds: float = 0.0
    seconds_left: float = math.inf
    unit_seconds: float = math.nan
    round: int | None = None
    loss: float = math.nan
    accuracy: float = math.nan
    distance: float = math.nan
    models_merged: int = 0
    bytes_sent: int = 0
    gradients: int = 0
    exchanges: int = 0
    lost_exchanges: int = 0
    missed_ticks: int = 0
    behind_units: float = 0.0
    exchange_p99_units: float = math.nan
    inbox_depth: int = 0
    snapshot_age_seconds: float = math.nan
    certificate_expiry_timestamp_seconds: float = math.nan
    ready: bool = False
    undelivered: Mapping[str, int] = field(default_factory=dict)
    peers: Mapping[str, PeerStatus] = field(default_factory=dict)


class Meter(Collector):
    """The figures of one peer; an observer of the wire.

    Parameters
    ----------
    status : Status
        The first one.
    clock : callable
        Seconds.
    """

    def __init__(self, status: Status, clock: Callable[[], float] = time.monotonic) -> None:
        disable_created_metrics()
        self._clock = clock
        self.show(status)
        self._registry = CollectorRegistry()
        self._sent = self._count("sent_bytes", "bytes of vectors that a neighbour has taken", ["peer", "kind"])
        self._received = self._count("received_bytes", "bytes of vectors taken in", ["peer", "kind"])
        text = "from encoding a message to the receipt of the neighbour that has taken it"
        self._seconds = Histogram("gradvine_exchange_seconds", text, ["peer"], buckets=SENDS_S, registry=self._registry)
        self._refused = self._count("refused", "messages and calls refused here", ["reason"])
        for reason in Reason:
            self._refused.labels(reason.value)  # from 0 on: a counter that begins at 1 has never increased
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def _count(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(f"gradvine_{name}", text, labels, registry=self._registry)

    def show(self, status: Status) -> None:
        """From now on, this is how the peer is."""
        self._status, self._shown_s = status, self._clock()

    # ---------------------------------------------------------------------------------------- the observer

    def sent(self, to: str, kind: str, size_bytes: int, seconds: float) -> None:
        """A neighbour has taken a message."""
        self._sent.labels(to, kind).inc(size_bytes)
        self._seconds.labels(to).observe(seconds)

    def received(self, sender: str, kind: str, size_bytes: int) -> None:
        """A message was taken in."""
        self._received.labels(sender, kind).inc(size_bytes)

    def refused(self, sender: str, reason: Reason) -> None:
        """A message or call was refused."""
        self._refused.labels(reason.value).inc()

    # ------------------------------------------------------------------------------------------- the pages

    def pages(self) -> dict[str, Callable[[], Page]]:
        """By their paths."""
        return {
            "/metrics": lambda: Page(200, CONTENT_TYPE_LATEST, generate_latest(self._registry)),
            "/status": self._status_page,
            "/healthz": lambda: _verdict(self._clock() - self._shown_s < STALLED_S, "the loop has stalled"),
            "/readyz": lambda: _verdict(self._status.ready, "not ready"),
        }

    def _status_page(self) -> Page:
        return Page(200, "application/json", json.dumps(_plain(asdict(self._status))).encode() + b"\n")

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not call :meth:`collect` to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The status as Prometheus understands it."""
        now = self._status
        info = GaugeMetricFamily("gradvine_build_info", "always 1", labels=["version", "algorithm", "task"])
        info.add_metric([metadata.version("gradvine"), now.algorithm, now.task], 1)
        yield info
        yield CounterMetricFamily("gradvine_gradients", "local steps done", now.gradients)
        yield CounterMetricFamily("gradvine_lost_exchanges", "exchanges half lost in crashes", now.lost_exchanges)
        yield CounterMetricFamily("gradvine_missed_ticks", "exchanges too many to be kept", now.missed_ticks)
        for name, text, value in (
            ("loss", "mean over the latest local steps", now.loss),
            ("accuracy_ratio", "on the test data", now.accuracy),
            ("distance", "from the optimum of a convex task", now.distance),
            ("unit_seconds", "seconds of one plan unit", now.unit_seconds),
            ("seconds_left", "until the peer stops learning; +Inf where that is not known", now.seconds_left),
            ("behind_units", "by how much local steps took longer than planned", now.behind_units),
            ("exchange_p99_units", "99th percentile of how long exchanges took of late", now.exchange_p99_units),
            ("models_merged", "peers whose models are in the final merge; 0 before it", now.models_merged),
            ("inbox_depth", "messages that wait", now.inbox_depth),
            ("ready", "1 if the peer can be reached and can keep its state", now.ready),
            ("status_age_seconds", "since the loop has last said how it is", self._clock() - self._shown_s),
            ("snapshot_age_seconds", "since the latest snapshot", now.snapshot_age_seconds),
            (
                "certificate_expiry_timestamp_seconds",
                "when the certificate expires",
                now.certificate_expiry_timestamp_seconds,
            ),
        ):
            yield GaugeMetricFamily(f"gradvine_{name}", text, value)
        if now.round is not None:
            yield GaugeMetricFamily("gradvine_round", "rounds done", now.round)
        phases = GaugeMetricFamily("gradvine_phase", "1 for the phase that the peer is in", labels=["phase"])
        for phase in PHASES:
            phases.add_metric([phase], phase == now.phase)
        yield phases
        yield from self._collect_peers(now)

    def _collect_peers(self, now: Status) -> Iterator[Metric]:
        states = GaugeMetricFamily("gradvine_peers", "peers that are watched", labels=["state"])
        alive = GaugeMetricFamily("gradvine_alive", "1 alive, 0.5 suspect, 0 gone", labels=["peer"])
        for state in ALIVE:
            states.add_metric([state], sum(peer.state == state for peer in now.peers.values()))
        exchanges = CounterMetricFamily("gradvine_exchanges", "exchanges applied here", labels=["peer"])
        undelivered = CounterMetricFamily("gradvine_undelivered", "messages not delivered", labels=["peer"])
        asked = GaugeMetricFamily("gradvine_rate_asked_hz", "exchanges a second, as planned", labels=["peer"])
        achieved = GaugeMetricFamily("gradvine_rate_achieved_hz", "exchanges a second, so far", labels=["peer"])
        apart = GaugeMetricFamily(
            "gradvine_distance_to_neighbour", "of its model, in the latest exchange", labels=["peer"]
        )
        for name, peer in now.peers.items():
            alive.add_metric([name], ALIVE[peer.state])
            if not math.isnan(peer.distance):
                apart.add_metric([name], peer.distance)
            undelivered.add_metric([name], now.undelivered.get(name, 0))
            if peer.exchanges is not None:
                exchanges.add_metric([name], peer.exchanges)
                asked.add_metric([name], peer.rate_asked_hz)
                achieved.add_metric([name], peer.rate_achieved_hz)
        yield from (states, alive, exchanges, undelivered, asked, achieved, apart)


def _verdict(well: bool, otherwise: str) -> Page:
    return Page(200 if well else 503, "text/plain", b"ok\n" if well else otherwise.encode() + b"\n")


def _plain(value: Any) -> Any:
    """JSON has no NaN: what does not exist is null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
