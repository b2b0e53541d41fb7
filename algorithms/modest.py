"""MoDeST: in each round a sample of peers trains, another averages, and nobody is a server.

Theory of operation
-------------------
Any peer may talk to any other. In round k, s *participants* train the common model θ_k and send what they get to a
*aggregators*, which take the mean θ_(k+1) and send it to the participants of round k + 1 [1]_. Who these are follows
from a hash of names and round over the members in the sender's view (:mod:`algorithms.membership`), so that all look
for the same ones; pings leave out those that don't answer (:mod:`algorithms.sampling`). Views travel with the models.

Each model is kept until somebody else has done the next step with it (:mod:`algorithms.relay`), and an aggregator that
misses models goes on after a while with those it has. So a round survives all but the loss of everybody who holds its
model; then a peer that has heard of no new round for long, and of no newer model than its own, begins the next round
with that.

Members come with ``join`` and go with ``standing``. Each sampling also pings one member at random of those that are not
sampled any more, being in doubt or quiet for more than ``window`` rounds: so peers that were cut off come back, parts
of a network that was divided find each other, and the round that is further ahead goes on.

Invariants
----------
* A peer trains each round at most once and averages each round at most once; both only go forward.
* Of each sender an average holds at most one model.
* Nothing is begun in a round that is known to be over.

.. [1] M. de Vos, A. Dhasade, A.-M. Kermarrec, E. Lavoie, J. Pouwelse, "MoDeST: Bridging the gap between federated and
   decentralized learning with decentralized sampling", arXiv:2302.13837, Algorithms 1 to 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

from algorithms.membership import Membership
from algorithms.merging.mean import require_mean
from algorithms.options import part, whole
from algorithms.presence import ALONE, Presence
from algorithms.protocol import (
    Arrival,
    Cancel,
    Delivered,
    Done,
    Effect,
    Event,
    Finish,
    Kind,
    Message,
    PeerDown,
    Place,
    Save,
    Snapshot,
    Start,
    Tempo,
    Tick,
    Timer,
    Train,
    Trained,
    Undelivered,
    Vector,
)
from algorithms.relay import Average, Baton, Relay
from algorithms.view import draw

COUNTS = ("exchanges", "trained_rounds", "averaged_rounds", "revivals")


class Modest:
    """See the module.

    Raises
    ------
    Unsuitable
        When an option is out of its bounds.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "ping": Kind("member", view=True),
        "pong": Kind("member", counts=("held",), view=True),
        "aggregated": Kind("member", vectors=("x",), counts=("expected",), view=True),
        "trained": Kind("member", vectors=("x",), counts=("expected",), view=True),
        "averaged": Kind("member"),
        "learnt": Kind("member"),
        "join": Kind("member", view=True),
        "welcome": Kind("member", vectors=("x",), view=True),
        "standing": Kind("member", view=True),
    }
    options: ClassVar[Mapping[str, float | int | str]] = {
        "samples": 10,
        "aggregators": 2,
        "success": 1.0,
        "window": 50,
        "decay": 1.0,
    }
    """s and a; the part of s models that an aggregator waits for; rounds for which a quiet member counts as there; by
    how much the learning rate is multiplied after each round."""
    defaults: ClassVar[Mapping[str, float]] = {"local_steps": 5}
    tempo: ClassVar[Tempo] = Tempo(exchanges_per_step=None, rounds=True)

    def __init__(self, place: Place) -> None:
        require_mean(place, "modest")
        options = {**type(self).options, **place.options}
        self._samples, self._aggregators = whole(options, "samples"), whole(options, "aggregators")
        self._success, self._decay = part(options, "success"), part(options, "decay")
        self._name, self._codec, self._limits = place.name, place.codec, place.limits
        self._local_steps, self._rounds_max = place.local_steps, place.rounds
        random = place.draw("members")
        self.members = Membership(place, whole(options, "window"), random)
        self.x, self.held = place.start.clone(), 0
        held, model = lambda: self.held, lambda: self._codec.round(self.x)
        self._presence = Presence(place, self.members, self._samples, held, model, random)
        self._relay = Relay(place.name, self.members, place.limits, random, self._take)
        self._relay.round_time = float(place.local_steps)
        self._trained_last = self._averaged_last = 0
        self._training, self._began = False, 0.0
        self._at, self._givers, self._expected = self.x, list[str](), 0
        self._average: Average | None = None
        self._leaving, self._over, self._done, self._lot = False, False, False, b""
        self._counts = dict.fromkeys(COUNTS, 0)
        self._met: list[Effect] = []
        self._handlers: dict[type, Callable[[Any, float], list[Effect]]] = {
            Start: self._start,
            Trained: self._finish_training,
            Arrival: self._arrive,
            Tick: self._tick,
            Delivered: self._hear_of,
            Undelivered: self._hear_of,
            PeerDown: self._peer_down,
            Finish: self._leave,
        }
        self._takes: dict[str, Callable[[str, Message, float], list[Effect]]] = {
            "ping": self._presence.take_ping,
            "pong": self._presence.take_pong,
            "aggregated": self._take_aggregated,
            "trained": self._take_trained,
            "averaged": self._relay.take_word,
            "learnt": self._relay.take_word,
            "join": self._presence.take_join,
            "welcome": self._take_welcome,
        }

    def step(self, event: Event, now: float) -> Iterable[Effect]:
        """Take one event."""
        handler = self._handlers.get(type(event))
        if self._done or handler is None:
            return []
        effects = handler(event, now) + self._relay.drop_overtaken(now) + self._drop_overtaken(now)
        settled = not (self._training or self._average or self._relay or self._presence.unheard)
        return effects + self._end() if self._leaving and settled else effects

    def _start(self, event: Start, now: float) -> list[Effect]:
        effects, self._met = self._met + self._presence.begin(event.recovered), []
        if self.held > self._rounds_max:
            return effects + self._close(self.held, self.x, b"")
        if event.recovered or self.members.newcomer:
            return effects
        first = self.members.candidates(1)[: self._samples]
        return effects + self._train(1, self.x, len(first), [], now) if self._name in first else effects

    def _arrive(self, event: Arrival, now: float) -> list[Effect]:
        sender, message = event.sender, event.message
        if message.kind == "welcome" and not self._presence.asked(sender):
            return []
        effects = self.members.hear(sender, message, joins_wait=message.kind in ("join", "standing", "ping"))
        effects += self._relay.heard(sender, message, now)
        return effects + self._take(sender, message, now)

    def _take(self, sender: str, message: Message, now: float) -> list[Effect]:
        take = self._takes.get(message.kind)  # a standing says all in its view
        return take(sender, message, now) if take else []

    def _tick(self, event: Tick, now: float) -> list[Effect]:
        if event.name == "average":
            return self._finish_average(now)
        if event.name in ("spread", "linger"):
            return self._spread() if event.name == "spread" else self._end()
        effects = self._relay.ring(event.name, now) + self._presence.ring(event.name)
        return effects + self._revive_if_lost(now) if event.name == "look" else effects

    def _hear_of(self, event: Delivered | Undelivered, now: float) -> list[Effect]:
        self._presence.hear_of(event)
        return self._relay.hear_of(event, now)

    def _peer_down(self, event: PeerDown, now: float) -> list[Effect]:
        self.members.doubt(event.name)
        return []

    # ------------------------------------------------------------------------------------------- participants

    def _train(self, number: int, x: Vector, expected: int, givers: list[str], now: float) -> list[Effect]:
        """Begin the local steps of a round from the model ``x``."""
        self._trained_last = number
        self._training, self._began = True, now
        self._at, self._givers, self._expected = x, givers, expected
        if number >= self.held:
            self.x, self.held = x, number
        job = Train("round", x.clone(), self._local_steps, lr_factor=self._decay ** (number - 1), fresh=True)
        return [*self._relay.drop("trained", now), Cancel("round"), Save(), job]

    def _finish_training(self, event: Trained, now: float) -> list[Effect]:
        self._training = False
        self._relay.round_time = max(float(self._local_steps), now - self._began)
        self._counts["trained_rounds"] += 1
        x, number = self._codec.round(self._at + event.change), self._trained_last + 1
        return self._relay.hand_on(Baton("trained", number, x, self._aggregators, self._givers, self._expected), now)

    def _take_aggregated(self, sender: str, message: Message, now: float) -> list[Effect]:
        number, x = message.number, message.vectors["x"]
        if number > self._rounds_max:
            return self._close(number, x.clone(), draw(sender, number))
        if self._leaving:
            return []
        if number == self._trained_last and (self._training or self._relay.carries("trained")):
            self._givers += [sender] if sender not in self._givers else []
            return []
        if self._over or number <= self._trained_last or number < self.members.estimate - 1:
            return self._relay.tell([sender], "learnt", number, now)
        return self._train(number, x.clone(), int(message.numbers["expected"]), [sender], now)

    # -------------------------------------------------------------------------------------------- aggregators

    def _take_trained(self, sender: str, message: Message, now: float) -> list[Effect]:
        number, average = message.number, self._average
        if self._over or number <= self._averaged_last or number < self.members.estimate:
            return self._relay.tell([sender], "averaged", number, now)
        effects: list[Effect] = []
        if average is None or average.number < number:
            average = self._average = Average(number)
            effects.append(Timer("average", self._relay.patience))
        if sender not in average.givers:
            average.add(sender, message.vectors["x"], int(message.numbers["expected"]))
        enough = len(average.givers) >= math.ceil(average.expected * self._success)
        return effects + self._finish_average(now) if enough else effects

    def _finish_average(self, now: float) -> list[Effect]:
        """With all models, or those that came in time."""
        average, self._average = self._average, None
        if average is None or average.total is None:
            return []
        number = self._averaged_last = self.held = average.number
        self.x = self._codec.round(average.total.div_(len(average.givers)).to(self.x.dtype))
        self._counts["averaged_rounds"] += 1
        self._counts["exchanges"] += len(average.givers)
        effects: list[Effect] = [Cancel("average"), Save()]
        if number > self._rounds_max:
            return effects + self._finish_rounds(number)
        return effects + self._relay.hand_on(Baton("aggregated", number, self.x, self._samples, average.givers), now)

    def _drop_overtaken(self, now: float) -> list[Effect]:
        """Others have the mean already."""
        average = self._average
        if average is None or average.number >= self.members.estimate:
            return []
        self._average = None
        return [Cancel("average"), *self._relay.tell(average.givers, "averaged", average.number, now)]

    # ------------------------------------------------------------------------------------- coming back, the end

    def _take_welcome(self, sender: str, message: Message, now: float) -> list[Effect]:
        effects = self._presence.welcomed()
        if message.number > self.held:
            self.x, self.held = message.vectors["x"].clone(), message.number
        return effects + (self._close(self.held, self.x, b"") if self.held > self._rounds_max else [Save()])

    def _revive_if_lost(self, now: float) -> list[Effect]:
        """Nothing happens any more: go on with the newest model that is left."""
        if math.isfinite(self._rounds_max) and self._presence.alone:  # perhaps all others have had their last round
            return self._end() if self._presence.alone >= ALONE else []
        if self._over or not self._presence.revive:
            return []
        self._counts["revivals"] += 1
        number = self._averaged_last = self.held = self.members.estimate = self.members.estimate + 1
        if number > self._rounds_max:
            return self._spread()
        return self._relay.hand_on(Baton("aggregated", number, self._codec.round(self.x), self._samples, []), now)

    def _finish_rounds(self, number: int) -> list[Effect]:
        """The last mean of the run: the first of its aggregators spreads it, the next if it does not, and so on."""
        rank = [*self.members.candidates(number), self._name].index(self._name)
        return [Timer("spread", rank * self._relay.patience)] if rank else self._spread()

    def _close(self, number: int, x: Vector, lot: bytes) -> list[Effect]:
        """The run has had its last round; of several last models all keep the one whose sender has the least lot."""
        if self._over and lot >= self._lot:
            return []
        self.x, self.held, self._lot = x, number, lot
        self._over, self._training, self._average = True, False, None
        stopped = map(Cancel, ("round", "average", "join", "look", "spread"))
        return [*stopped, Save(), Timer("linger", self._limits.linger)]

    def _spread(self) -> list[Effect]:
        """Send the last model to all."""
        message = Message("aggregated", self.held, {"x": self._codec.round(self.x)}, {"expected": 0})
        closed = self._close(self.held, self.x, draw(self._name, self.held))
        return closed + self._relay.spread(message, self.members.others(len(self.members.view)))

    def _leave(self, event: Finish, now: float) -> list[Effect]:
        """What is under way is finished and handed on."""
        self._leaving = True
        return [*self._presence.leave(), *self._relay.hurry(now), Timer("linger", self._limits.linger)]

    def _end(self) -> list[Effect]:
        self._done = True
        return [Done(self.x.clone())]

    def plausible(self, message: Message) -> bool:
        """Whether what a message says of rounds and members can be true."""
        return self.members.plausible(message)

    def model(self, now: float) -> Vector:
        """The newest common model that the peer has had."""
        return self.x.clone()

    def ledger(self) -> Vector | None:
        """None: a mean replaces every model."""
        return None

    def counters(self) -> Mapping[str, float]:
        """Rounds behind the model that the peer has; models averaged here; members known."""
        own = {"repeats": self._relay.repeats, "refuted": self.members.refuted}
        return {"rounds": max(self.held - 1, 0), "members": self.members.present, **self._counts, **own}

    def snapshot(self) -> Snapshot:
        """The newest model, what was done last, and the view. What was under way is for others to go on with."""
        numbers = {"held": self.held, "trained_last": self._trained_last, "averaged_last": self._averaged_last}
        return Snapshot({"x": self.x.clone()}, {**numbers, **self._counts, **self.members.snapshot()})

    def restore(self, snapshot: Snapshot) -> None:
        """Take up a snapshot."""
        numbers = snapshot.numbers
        self.x, self.held = snapshot.vectors["x"].clone(), int(numbers["held"])
        self._trained_last, self._averaged_last = int(numbers["trained_last"]), int(numbers["averaged_last"])
        self._counts = {name: int(numbers[name]) for name in COUNTS}
        self._met = self.members.restore(numbers)
