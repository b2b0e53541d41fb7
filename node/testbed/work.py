"""The local steps of simulated peers: how long they last, and when they are computed.

Local steps last virtual time and are computed when their result is due. Since all other peers' steps that are under
way started from points that are known already, they can be computed along with it as one batch (``eager``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from algorithms.protocol import Compute, Event, Train
from node.testbed.agenda import Agenda
from node.testbed.simulated import Job, SimulatedPeer, Workbench


class Work:
    """Of all peers of a world.

    Parameters
    ----------
    workbench : Workbench
        Where it is computed.
    agenda : Agenda
        Where it is put down when it is due.
    peers : mapping of str to SimulatedPeer
        Whose it is.
    feed : callable
        ``feed(peer, event)`` hands a result over.
    random : numpy Generator
        Draws how long local steps last: one unit each, times a factor uniform within ``jitter`` of 1.
    jitter : float
        See above.
    eager : bool
        Whether all jobs that are under way may be computed as soon as one of them is due.
    """

    def __init__(
        self,
        workbench: Workbench,
        agenda: Agenda,
        peers: Mapping[str, SimulatedPeer],
        feed: Callable[[SimulatedPeer, Event], None],
        random: np.random.Generator,
        jitter: float,
        eager: bool,
    ) -> None:
        self._workbench, self._agenda, self._peers, self._feed = workbench, agenda, peers, feed
        self._random, self._jitter, self._eager = random, jitter, eager

    def train(self, peer: SimulatedPeer, effect: Train) -> None:
        """Begin local steps."""
        assert peer.job is None, f"{peer.name} trains already"
        peer.job = Job(effect)
        factor = self._random.uniform(1 - self._jitter, 1 + self._jitter) if self._jitter else 1.0
        self._agenda.at(self._agenda.now + effect.steps * factor, self._end_training, peer, peer.job)

    def _end_training(self, peer: SimulatedPeer, job: Job) -> None:
        if peer.job is not job:
            return
        if job.result is None:
            self._work_off(peer)
        assert job.result is not None
        peer.job = None
        peer.steps_done += job.effect.steps
        peer.samples_seen += job.result.samples
        peer.loss = job.result.loss
        self._feed(peer, job.result)

    def _work_off(self, due: SimulatedPeer) -> None:
        everyone = self._peers.values() if self._eager else [due]
        jobs = {peer.name: peer.job for peer in everyone if peer.job and peer.job.result is None}
        results = self._workbench.train({name: job.effect for name, job in jobs.items()})
        for name, job in jobs.items():
            job.result = results[name]

    def compute(self, peer: SimulatedPeer, effect: Compute) -> None:
        """Begin to compute a gradient, which takes no time."""
        peer.computing = effect
        self._agenda.after(0.0, self._end_computing, peer, effect)

    def _end_computing(self, peer: SimulatedPeer, effect: Compute) -> None:
        if peer.computing is effect:
            peer.computing = None
            gradient = self._workbench.compute(peer.name, effect)
            peer.steps_done += 1
            peer.samples_seen += gradient.samples
            peer.loss = gradient.loss
            self._feed(peer, gradient)
