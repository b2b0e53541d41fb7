"""FedAvg and FedSAM: reference points with a server, which the plan's first peer is, beside learning itself.

Every peer takes its local steps from the common model, and sends what it gets to the server; that takes the mean of all
and sends it back [1]_. FedSAM's local steps look for flat minima [2]_. The plan's edges play no part, and the server
waits for everybody, for ever: this is what the other methods are measured against, not a way to run a network. Messages
may be lost; a crash of the server, or of a peer that falls back by more than a round, stops everybody.

With ``samples`` the server draws that many peers anew for each round, itself among them or not, and sends only these
the common model: clients are sampled as in Algorithm 1 of [1]_, where the number is C·K. The model of the last round
goes to everybody; until then the others wait with the model that they last were sent. Nobody learns before it has the
server's initial model.

.. [1] B. McMahan, E. Moore, D. Ramage, S. Hampson, B. Agüera y Arcas, "Communication-efficient learning of deep
   networks from decentralized data", AISTATS 2017, arXiv:1602.05629.
.. [2] Z. Qu, X. Li, R. Duan, Y. Liu, B. Tang, Z. Lu, "Generalized federated learning via sharpness aware
   minimization", ICML 2022, arXiv:2206.02618.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

from algorithms.merging.mean import mean
from algorithms.options import part, radius
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
    Place,
    Save,
    Send,
    Snapshot,
    Start,
    Tempo,
    Tick,
    Timer,
    Train,
    Trained,
    Undelivered,
    Unsuitable,
    Vector,
)


class Fedavg:
    """See the module.

    Raises
    ------
    Unsuitable
        When fewer than none or more than all peers are to be sampled.
    """

    kinds: ClassVar[Mapping[str, Kind]] = {
        "update": Kind("member", vectors=("x",)),
        "average": Kind("member", vectors=("x",)),
    }
    options: ClassVar[Mapping[str, float | int | str]] = {"decay": 1.0, "samples": 0}
    """By how much the learning rate is multiplied after each round; peers that take part in one, 0 for everybody."""
    defaults: ClassVar[Mapping[str, float]] = {"local_steps": 5}
    tempo: ClassVar[Tempo] = Tempo(exchanges_per_step=None, rounds=True)

    def __init__(self, place: Place) -> None:
        self._name, self._server = place.name, place.nodes[0]
        self._nodes, self._samples, self._draw = place.nodes, _read_samples(place), place.draw
        self._sample = set(place.nodes)
        self._codec, self._limits = place.codec, place.limits
        self._local_steps, self._rounds_max = place.local_steps, place.rounds
        options = {**type(self).options, **place.options}
        self._decay, self._rho = part(options, "decay"), radius({"rho": 0.0, **options}, "rho")
        self.x = place.start.clone()
        self.round = -1 if self._samples else 0  # before the first round if only the server knows where to begin
        self._updates: dict[str, Vector] = {}
        self._said: Message | None = None
        self._unheard: set[str] = set()
        self._averaged = self._tries = 0
        self._ending = self._over = False

    def step(self, event: Event, now: float) -> Iterable[Effect]:
        """Take one event."""
        effects = [] if self._over else self._take(event)
        if self._ending and not self._over and not self._unheard:
            self._over = True
            effects.append(Done(self.x.clone()))
        return effects

    def _take(self, event: Event) -> list[Effect]:
        if isinstance(event, Start):
            return self._begin()
        if isinstance(event, Trained):
            return self._trained(self.x + event.change)
        if isinstance(event, Arrival):
            return self._arrive(event.sender, event.message)
        if isinstance(event, (Delivered, Undelivered)):
            return self._hear_of(event)
        if isinstance(event, Tick):
            return self._ring(event.name)
        if isinstance(event, Finish):
            return [Cancel("round"), *self._end()]
        return []

    def _hear_of(self, event: Delivered | Undelivered) -> list[Effect]:
        """What has become of a message; only the last one matters."""
        if self._said is None or event.number != self._said.number:
            return []
        if isinstance(event, Undelivered) and event.reason.transient:
            self._tries += 1
            return [Timer(f"again {event.to}", self._limits.backoff(self._tries))]
        self._unheard.discard(event.to)
        return []

    def _ring(self, timer: str) -> list[Effect]:
        if timer == "linger":
            self._unheard.clear()
        name = timer.removeprefix("again ")
        return [Send(name, self._said)] if name in self._unheard and self._said is not None else []

    def _begin(self) -> list[Effect]:
        if self.round >= 0:
            return self._train()
        return self._share(self.x) if self._name == self._server else []

    def _train(self) -> list[Effect]:
        if self.round >= self._rounds_max:
            return self._end()
        if self._name not in self._sample:
            return [Save()]
        factor = self._decay**self.round
        return [Save(), Train("round", self.x.clone(), self._local_steps, lr_factor=factor, rho=self._rho)]

    def _trained(self, z: Vector) -> list[Effect]:
        if self._name == self._server:
            return self._collect(self._name, z)
        return self._say([self._server], "update", z)

    def _say(self, to: list[str], kind: str, vector: Vector) -> list[Effect]:
        self._tries, self._unheard = 0, set(to)
        self._said = Message(kind, self.round + 1, {"x": self._codec.round(vector)})
        return [Send(name, self._said) for name in to]

    def _arrive(self, sender: str, message: Message) -> list[Effect]:
        ahead = message.number - self.round
        if message.kind == "update" and self._name == self._server and ahead == 1:
            return self._collect(sender, message.vectors["x"])
        if message.kind == "average" and sender == self._server and (ahead == 1 or (self._samples and ahead > 1)):
            self._unheard.clear()  # the server has heard of this one, too
            return self._go_on(message.vectors["x"].clone(), message.number)
        return []

    def _collect(self, name: str, z: Vector) -> list[Effect]:
        """At the server: when all are there, their mean."""
        if name in self._sample:
            self._updates[name] = z
        if len(self._updates) < len(self._sample):
            return []
        models, self._updates = self._updates, {}
        self._averaged += len(models.keys() - {self._name})
        return self._share(mean(models[name] for name in sorted(models)))

    def _share(self, average: Vector) -> list[Effect]:
        """At the server: a new common model, for who takes part in the next round; the last one is for everybody."""
        number, average = self.round + 1, self._codec.round(average)
        if self._samples and number < self._rounds_max:
            drawn = self._draw("sample").choice(len(self._nodes), self._samples, replace=False)
            self._sample = {self._nodes[i] for i in drawn}
        else:
            self._sample = set(self._nodes)
        to = [name for name in self._nodes if name in self._sample and name != self._name]
        return self._say(to, "average", average) + self._go_on(average.clone(), number)

    def _go_on(self, average: Vector, number: int) -> list[Effect]:
        self.x = average
        self.round = number
        return [Cancel("round"), *self._train()]  # a client that fell back may be doing an old round again

    def _end(self) -> list[Effect]:
        """What was said last is repeated until it is heard, for a while."""
        self._ending = True
        return [Timer("linger", self._limits.linger)]

    def model(self, now: float) -> Vector:
        """The last common model."""
        return self.x.clone()

    def ledger(self) -> Vector | None:
        """None: the server's mean replaces every model."""
        return None

    def counters(self) -> Mapping[str, float]:
        """The round of the common model that it holds; models of others that the server has averaged."""
        return {"rounds": max(self.round, 0), "exchanges": self._averaged}

    def snapshot(self) -> Snapshot:
        """The common model and its round."""
        return Snapshot({"x": self.x.clone()}, {"round": self.round, "averaged": self._averaged})

    def restore(self, snapshot: Snapshot) -> None:
        """Take up a snapshot."""
        self.x.copy_(snapshot.vectors["x"])
        self.round, self._averaged = int(snapshot.numbers["round"]), int(snapshot.numbers["averaged"])


class Fedsam(Fedavg):
    """FedAvg with sharpness-aware local steps of radius ρ."""

    options: ClassVar[Mapping[str, float | int | str]] = {**Fedavg.options, "rho": 0.05}


def _read_samples(place: Place) -> int:
    samples, n = int(place.options.get("samples", 0)), len(place.nodes)
    if not 0 <= samples <= n:
        raise Unsuitable(f"--set samples={samples} can't be used: write how many of the {n} peers, or 0 for everybody.")
    return samples
