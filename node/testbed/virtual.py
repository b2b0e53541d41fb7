"""Peers in virtual time: thousands of algorithms in one process, driven by one heap of events.

Theory of operation
-------------------
The world holds an :class:`~node.testbed.agenda.Agenda` of things to come, and the peers. It takes the earliest thing,
feeds the event to the peer's algorithm, and carries out the effects: a message goes through the
:class:`~node.wire.memory.Weather`, a timer or a training goes back on the agenda. Nothing is drawn from anywhere but
seeded generators and ties are broken by order of creation, so the same seed gives the same run.

Crashes: a peer that crashes loses everything but its last snapshot, taken at every :class:`Save` (``exact``) or every
so often (``periodic``), and what was under way to it. Peers may be born late, leave, or stop for good.

Invariant
---------
Nothing of a timer, a training or a call that belongs to an earlier life of a peer reaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from algorithms.protocol import (
    Algorithm,
    Arrival,
    Cancel,
    Compute,
    Delivered,
    Done,
    Event,
    Finish,
    Meet,
    Message,
    Part,
    PeerDown,
    PeerUp,
    Reason,
    Report,
    Save,
    Send,
    Start,
    Tick,
    Timer,
    Train,
    Undelivered,
)
from node.draws import Draws
from node.testbed.agenda import Action, Agenda
from node.testbed.simulated import Physics, Saved, SimulatedPeer, Workbench
from node.testbed.work import Work
from node.wire.memory import Passage, Weather, view_size_bytes, wire_bytes


class World:
    """All the peers, their network and their time.

    Parameters
    ----------
    births : mapping of str to callable
        ``births[name](draws)`` makes the peer's algorithm, at the start and again after each crash.
    neighbours : mapping of str to sequence of str
        Who notices when a peer goes or comes back.
    workbench : Workbench
        Where local steps are computed.
    seed : int
        Every draw follows from it.
    physics : Physics
        How the world behaves.
    draws : mapping of str to Draws, optional
        Each peer's generators, where the workbench draws from them too.
    late : collection of str
        Who is not there at the start, and born by :meth:`join`.
    """

    def __init__(
        self,
        births: Mapping[str, Callable[[Draws], Algorithm]],
        neighbours: Mapping[str, Sequence[str]],
        workbench: Workbench,
        seed: int,
        physics: Physics = Physics(),
        draws: Mapping[str, Draws] | None = None,
        late: Collection[str] = (),
    ) -> None:
        self._agenda = Agenda()
        self._births, self._neighbours, self._workbench = births, neighbours, workbench
        self.physics = physics
        self._draws = draws or {name: Draws(seed, name) for name in births}
        own = Draws(seed, "world")
        self._weather = Weather(physics.faults, own("weather"))
        self.finishing = False
        self.peers = {name: self._be_born(name) for name in births if name not in late}
        eager = workbench.eager and not physics.crashes
        work = Work(workbench, self._agenda, self.peers, self._feed, own("physics"), physics.step_jitter, eager)
        self._effects: dict[type, Action] = {
            Send: self._send,
            Timer: self._set_timer,
            Train: work.train,
            Compute: work.compute,
            Cancel: self._cancel,
            Meet: self._get_to_know,
            Part: self._get_to_know,
            Save: self._save,
            Report: self._report,
            Done: self._done,
        }

    def _be_born(self, name: str) -> SimulatedPeer:
        draws = self._draws[name]
        return SimulatedPeer(name, self._births[name](draws), draws)

    # -------------------------------------------------------------------------------------------- time

    def start(self) -> None:
        """Let every peer begin."""
        for peer in self.peers.values():
            self._begin(peer)
        for partition in self.physics.faults.partitions:
            for time in (partition.start, partition.end):
                self.at(time, self._look_around)

    def _begin(self, peer: SimulatedPeer) -> None:
        self._feed(peer, Start())
        if self.physics.crashes:
            self._snapshot(peer)
            if not self.physics.exact:
                self._agenda.after(self.physics.snapshot_every, self._snapshot_again, peer, peer.life)

    @property
    def now(self) -> float:
        """Units since the start."""
        return self._agenda.now

    def run(self, until: float) -> None:
        """Let time pass until ``until``, or until nothing is left to happen."""
        self._agenda.run(until)

    @property
    def idle(self) -> bool:
        """Whether nothing is left to happen."""
        return self._agenda.empty

    def finish(self) -> None:
        """Tell every peer that the run is over, and let them settle; who is gone stays away."""
        self.finishing = True
        for peer in self.peers.values():
            self._end(peer, Finish())
        while any(peer.alive for peer in self.peers.values()) and not self._agenda.empty:
            self._agenda.run_next()

    def at(self, time: float, action: Callable[[], None]) -> None:
        """Do something at a time, for example crash a peer."""
        self._agenda.at(time, lambda who, what: action(), None, None)

    def _feed(self, peer: SimulatedPeer, event: Event) -> None:
        effects = self._effects
        for effect in list(peer.algorithm.step(event, self.now)):
            effects[type(effect)](peer, effect)

    # --------------------------------------------------------------------------------------- messages

    def _send(self, peer: SimulatedPeer, effect: Send) -> None:
        message, size = effect.message, wire_bytes(effect.message, self.physics.wire_share)
        view_size = view_size_bytes(message.view) if message.view else 0
        peer.messages_sent += 1
        peer.bytes_sent += size
        peer.view_bytes_sent += view_size
        passage = self._weather.passage(peer.name, effect.to, size + view_size, self.now)
        for delay in passage.arrivals:
            self._agenda.after(delay, self._arrive, peer, (effect.to, message, passage))
        self._agenda.after(passage.heard_after, self._hear, peer, (peer.life, effect.to, message, passage))

    def _arrive(self, sender: SimulatedPeer, what: tuple[str, Message, Passage]) -> None:
        to, message, passage = what
        peer = self.peers.get(to)
        if peer is None or not peer.alive:
            passage.reason = Reason.TIMEOUT if self.physics.silent else Reason.UNREACHABLE
        elif not peer.believes(message):
            passage.reason = Reason.IMPLAUSIBLE
            peer.refused += 1
        else:
            self._feed(peer, Arrival(sender.name, message))

    def _hear(self, peer: SimulatedPeer, what: tuple[int, str, Message, Passage]) -> None:
        life, to, message, passage = what
        if not peer.alive or life != peer.life:
            return
        if passage.reason is None:
            self._feed(peer, Delivered(to, message.kind, message.number))
        elif passage.reason is Reason.TIMEOUT and passage.heard_after < passage.deadline:
            wait, passage.heard_after = passage.deadline - passage.heard_after, passage.deadline
            self._agenda.after(wait, self._hear, peer, what)
        else:
            self._feed(peer, Undelivered(to, message.kind, message.number, passage.reason))

    def _get_to_know(self, peer: SimulatedPeer, effect: Meet | Part) -> None:
        """Names are all that this network needs."""

    # --------------------------------------------------------------------------------- timers and reports

    def _set_timer(self, peer: SimulatedPeer, effect: Timer) -> None:
        token = peer.timers[effect.name] = object()
        self._agenda.at(self.now + effect.delay, self._ring, peer, (effect.name, token))

    def _ring(self, peer: SimulatedPeer, what: tuple[str, object]) -> None:
        name, token = what
        if peer.timers.get(name) is token:
            del peer.timers[name]
            self._feed(peer, Tick(name))

    def _cancel(self, peer: SimulatedPeer, effect: Cancel) -> None:
        peer.timers.pop(effect.name, None)
        if peer.job and peer.job.effect.key == effect.name:
            peer.job = None
        if peer.computing and peer.computing.key == effect.name:
            peer.computing = None

    def _report(self, peer: SimulatedPeer, effect: Report) -> None:
        peer.reported.update(effect.values)

    def _done(self, peer: SimulatedPeer, effect: Done) -> None:
        peer.done = effect.vector
        self._be_gone(peer)

    # --------------------------------------------------------------------------------- coming and going

    def _save(self, peer: SimulatedPeer, effect: Save) -> None:
        if self.physics.crashes and (self.physics.exact or effect.durable):
            self._snapshot(peer)

    def _snapshot(self, peer: SimulatedPeer) -> None:
        peer.saved = Saved(peer.algorithm.snapshot(), self._workbench.snapshot(peer.name), peer.draws.state())

    def _snapshot_again(self, peer: SimulatedPeer, life: int) -> None:
        if peer.alive and life == peer.life:
            self._snapshot(peer)
            self._agenda.after(self.physics.snapshot_every, self._snapshot_again, peer, life)

    def _be_gone(self, peer: SimulatedPeer) -> None:
        peer.alive = False
        peer.life += 1
        peer.timers.clear()
        peer.job = peer.computing = None
        self._spread(peer.name)

    def _look_around(self) -> None:
        for name in self.peers:
            self._spread(name)

    def _spread(self, name: str) -> None:
        """A peer and its neighbours notice, a little later, whether they reach each other."""
        for other in self._neighbours[name]:
            if other in self.peers:
                self._agenda.after(self.physics.noticed_after, self._notice, self.peers[other], name)
                self._agenda.after(self.physics.noticed_after, self._notice, self.peers[name], other)

    def _notice(self, peer: SimulatedPeer, name: str) -> None:
        reached = self.peers[name].alive and not self._weather.cut(peer.name, name, self.now)
        if peer.alive and reached != (name not in peer.missing):
            peer.missing ^= {name}
            self._feed(peer, PeerUp(name) if reached else PeerDown(name))

    def join(self, name: str) -> bool:
        """A late peer is born and begins; whether it does, as nobody does once the run is over."""
        if self.finishing:
            return False
        self.peers[name] = self._be_born(name)
        self._begin(self.peers[name])
        self._spread(name)
        return True

    def leave(self, name: str) -> bool:
        """A peer is told that the run is over for it alone, and settles; whether it was there to be told."""
        return self._end(self.peers[name], Finish(merge=False))

    def _end(self, peer: SimulatedPeer, event: Finish) -> bool:
        if not peer.alive or peer.leaving:
            return False
        peer.leaving = True
        self._feed(peer, event)
        return True

    def stop(self, name: str) -> bool:
        """A peer is gone for good, without a word; whether it had not gone before."""
        peer = self.peers[name]
        if peer.done is not None or peer.stopped:
            return False
        peer.stopped = True
        if peer.alive:
            self._be_gone(peer)
        return True

    def crash(self, name: str) -> bool:
        """A peer loses everything but its last snapshot; whether it was there."""
        assert self.physics.crashes, "say so in Physics, so that snapshots are taken"
        peer = self.peers[name]
        if not peer.alive:
            return False
        self._be_gone(peer)
        return True

    def restart(self, name: str) -> bool:
        """It comes back from its last snapshot; whether it does, which who has ended or stopped does not."""
        peer = self.peers[name]
        if peer.alive or peer.done is not None or peer.stopped or self.finishing:
            return False
        assert peer.saved is not None
        peer.draws.restore(peer.saved.draws)
        self._workbench.restore(name, peer.saved.workbench)
        peer.algorithm = self._births[name](peer.draws)
        peer.algorithm.restore(peer.saved.algorithm)
        leaving, peer.leaving = peer.leaving, False
        peer.alive, peer.missing = True, set()
        self._feed(peer, Start(recovered=True))
        if not self.physics.exact:
            self._agenda.after(self.physics.snapshot_every, self._snapshot_again, peer, peer.life)
        self._spread(name)
        if leaving:  # it was told before it crashed
            self.leave(name)
        return True

    def last_words(self, name: str) -> Algorithm:
        """The algorithm as it stands; of a peer that crashed and stayed away, as in its last snapshot."""
        peer = self.peers[name]
        if not peer.alive and peer.done is None:
            assert peer.saved is not None
            peer.algorithm.restore(peer.saved.algorithm)
        return peer.algorithm
