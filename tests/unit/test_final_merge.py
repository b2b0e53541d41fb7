"""One peer of a final merge, event by event: when it begins, whose statistics are whose, what it leaves alone."""

from __future__ import annotations

import weakref
from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from algorithms.echo import Echo
from algorithms.final_merge import LEAD, LINGER, STALL, STATISTICS, STATISTICS_STEPS, FinalMerge, time_learnt
from algorithms.layout import Layout, Slot
from algorithms.protocol import (
    Arrival,
    Delivered,
    Done,
    Finish,
    Message,
    PeerDown,
    PeerUp,
    Save,
    Send,
    Snapshot,
    Start,
    Tempo,
    Tick,
    Timer,
    Train,
    Trained,
)
from algorithms.view import Standing
from node.draws import Draws

PAIRS = [("a", "b"), ("b", "c")]
BATCH_NORM = Layout(
    (Slot("weight", (2,), "weight", 0), Slot("mean", (2,), "statistic", 2), Slot("bias", (1,), "bias", 4)), "float32"
)


class Slow:
    """Remembers what it is told; done at ``Finish`` or when a neighbour says so."""

    kinds = {"said": None}
    options = {"far": 1.0}
    defaults = {"local_steps": 3}
    tempo = Tempo(rounds=True)

    def __init__(self, x: torch.Tensor, patient: bool = False) -> None:
        self.x, self.patient, self.told = x, patient, []

    def step(self, event, now):
        self.told.append(event)
        over = isinstance(event, Tick) or (isinstance(event, Finish) and not self.patient)
        return [Save(), Done(self.x.clone())] if over else [Save()]

    def model(self, now):
        return self.x.clone()

    def ledger(self):
        return self.x * 2

    def counters(self):
        return {"exchanges": 4.0}

    def snapshot(self):
        return Snapshot({"x": self.x.clone()})

    def restore(self, snapshot):
        self.x = snapshot.vectors["x"].clone()


@pytest.fixture
def build(make_world):
    """A maker of peers of the line a, b, c, by name."""

    def make(name: str = "b", values=(1.0, 1.0, 1.0, 1.0, 1.0), patient: bool = False, layout: Layout | None = None):
        place = make_world.place(name, PAIRS, Draws(0, name))
        place = replace(place, layout=layout) if layout else place
        peer = FinalMerge(Slow(torch.tensor(values), patient), place)
        peer.step(Start(), 0.0)
        return peer

    return make


def sent(effects, kind: str) -> list[str]:
    return [e.to for e in effects if isinstance(e, Send) and e.message.kind == kind]


def timers(effects) -> dict[str, float]:
    return {effect.name: effect.delay for effect in effects if isinstance(effect, Timer)}


def wave(number: int = 3, ends: bool = False) -> Message:
    return Message("wave", number, numbers={"ends": int(ends)})


def mean(values, names="abc") -> Message:
    return Message("mean", 3, {"x": torch.tensor(values)}, view={name: Standing() for name in names}, whole=True)


def arrive(peer: FinalMerge, sender: str, message: Message, now: float = 1.0) -> list:
    return list(peer.step(Arrival(sender, message), now))


# ------------------------------------------------------------------------------------------- how it begins


def test_it_says_of_itself_what_the_inner_algorithm_says(build):
    peer = build()
    assert peer.kinds == {**Slow.kinds, **Echo.kinds}
    assert (peer.options, peer.defaults, peer.tempo) == (Slow.options, Slow.defaults, Slow.tempo)


def test_the_inner_algorithm_is_told_everything_but_of_the_merge(build):
    peer = build()
    events = [PeerDown("a"), PeerUp("a"), Arrival("a", Message("said")), Delivered("a", "said", 1)]
    for event in events:
        assert peer.step(event, 1.0) == [Save()]
    arrive(peer, "a", wave())
    peer.step(Delivered("c", "wave", 3), 1.0)
    assert peer.inner.told == [Start(), *events]


def test_the_first_of_the_plan_begins_when_it_is_done(build):
    effects = build("a").step(Finish(), 5.0)
    assert sent(effects, "wave") == ["b"]
    assert LEAD not in timers(effects)


def test_others_begin_after_a_while(build):
    peer = build("b")
    effects = peer.step(Finish(), 5.0)
    assert sent(effects, "wave") == []
    linger = 60.0
    assert linger <= timers(effects)[LEAD] <= 2 * linger
    assert sent(peer.step(Tick(LEAD), 99.0), "wave") == ["a", "c"]


def test_others_do_not_begin_where_a_wave_has_come(build):
    peer = build("b")
    peer.step(Finish(), 5.0)
    arrive(peer, "a", wave())
    assert list(peer.step(Tick(LEAD), 99.0)) == []


def test_a_wave_that_comes_to_nothing_is_begun_anew_after_ever_longer_waits(build):
    peer = build("b")
    first = timers(peer.step(Finish(), 5.0))[STALL]
    arrive(peer, "a", wave())
    waits = []
    for _ in range(9):
        effects = list(peer.step(Tick(STALL), 99.0))
        waits.append(timers(effects)[STALL] / first)
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0, 64.0, 64.0]
    assert peer.counters()["merge_waves"] == 9  # a wave had come before the first
    arrive(peer, "a", mean([1.0] * 5))
    assert list(peer.step(Tick(STALL), 99.0)) == []


def test_an_order_leads_and_ends_the_run_of_others(build):
    peer = build("c")
    effects = list(peer.step(Finish(lead=True), 5.0))
    (message,) = [e.message for e in effects if isinstance(e, Send) and e.message.kind == "wave"]
    assert message.numbers["ends"] == 1
    other = build("b", patient=True)
    arrive(other, "c", message)
    assert other.inner.told[-1] == Finish()
    assert not other.merging  # it settles first
    assert sent(other.step(Tick("settled"), 6.0), "sum") == []  # and waits for a
    assert other.merging
    assert other.learnt_until == time_learnt(other, 9.0) == 6.0


def test_without_an_order_a_wave_ends_no_run(build):
    peer = build("b")
    arrive(peer, "a", wave())
    assert peer.inner.told == [Start()]


def test_it_is_told_of_the_end_only_once(build):
    peer = build("b", patient=True)
    arrive(peer, "c", wave(ends=True))
    peer.step(Finish(), 2.0)
    peer.step(Finish(), 2.0)
    assert peer.inner.told.count(Finish()) == 1


def test_who_only_leaves_is_gone_at_once(build):
    effects = build("a").step(Finish(merge=False), 5.0)
    assert [type(effect) for effect in effects] == [Save, Done]
    assert sent(effects, "wave") == []


@pytest.mark.parametrize("later", [Finish(), Finish(lead=True)])
def test_who_leaves_while_it_merges_is_gone_and_stays_so(build, later):
    peer = build("b", patient=True)
    peer.step(Finish(merge=False), 5.0)
    assert sent(peer.step(later, 5.0), "wave") == []
    assert isinstance(list(peer.step(Tick("settled"), 5.0))[-1], Done)
    other = build("b")
    other.step(Finish(), 5.0)
    (done,) = other.step(Finish(merge=False), 6.0)
    assert done.vector.tolist() == [1.0] * 5
    assert other.merged is None


# ------------------------------------------------------------------------------------------- what it merges


def end(peer: FinalMerge) -> torch.Tensor:
    for name in ("a", "c"):
        arrive(peer, name, Message("had"))
        peer.step(Delivered(name, "mean", 3), 2.0)
        effects = list(peer.step(Delivered(name, "had", 3), 2.0))
    (done,) = effects
    return done.vector


def merge(peer: FinalMerge, values=(0.1, 0.2, 0.3, 0.4, 0.5), names="abc") -> list:
    peer.step(Finish(), 1.0)
    arrive(peer, "a", wave())
    return arrive(peer, "a", mean(values, names))


def test_without_statistics_the_mean_is_the_merged_model(build):
    peer = build()
    effects = merge(peer)
    assert timers(effects)[LINGER] == 60.0
    assert peer.merged.equal(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]))
    assert peer.members == ("a", "b", "c")
    assert end(peer).equal(peer.merged)


def test_it_does_not_wait_for_others_for_ever(build):
    peer = build()
    merge(peer)
    (done,) = peer.step(Tick(LINGER), 61.0)
    assert done.vector.equal(peer.merged)
    assert list(peer.step(Finish(), 61.0)) == []


def test_a_peer_keeps_its_own_statistics_and_estimates_them_anew(build):
    own = (9.0, 9.0, 7.0, 8.0, 9.0)
    peer = build(values=own, layout=BATCH_NORM)
    (job,) = [effect for effect in merge(peer) if isinstance(effect, Train)]
    assert (job.key, job.steps, job.lr_factor) == (STATISTICS, STATISTICS_STEPS, 0.0)
    assert job.at.equal(torch.tensor([0.1, 0.2, 7.0, 8.0, 0.5]))
    assert peer.merged is None
    change = torch.tensor([float("nan"), 1e-30, -5.0, 2.0, 1.0])  # a step of length zero may do this where it diverges
    peer.step(Trained(STATISTICS, change, 0.0, 1), 51.0)
    assert peer.merged.equal(torch.tensor([0.1, 0.2, 2.0, 10.0, 0.5]))
    assert peer.inner.told[-1] == Finish()
    assert end(peer).equal(peer.merged)


def test_learnable_parameters_are_the_same_bits_zeros_too(build):
    values = [-0.0, 0.0, 0.3, 0.4, -0.0]
    peer = build(layout=BATCH_NORM)
    merge(peer, values)
    peer.step(Trained(STATISTICS, torch.zeros(5), 0.0, 1), 51.0)
    assert [str(peer.merged[i].item()) for i in (0, 1, 4)] == ["-0.0", "0.0", "-0.0"]


def test_where_no_model_is_finite_each_keeps_its_own(build):
    peer = build()
    merge(peer, [0.0] * 5, names="")
    assert peer.merged.equal(torch.ones(5))
    assert peer.members == ()


def test_the_inner_algorithm_stays_what_it_was(build):
    peer = build()
    merge(peer)
    told = list(peer.inner.told)
    for event in (Arrival("a", Message("said")), Tick("steps"), PeerDown("c"), Trained("steps", torch.ones(5), 0.0, 1)):
        peer.step(event, 3.0)
    assert peer.inner.told == told
    assert peer.model(3.0).equal(torch.ones(5))
    assert peer.ledger().equal(torch.full((5,), 2.0))
    assert peer.snapshot().vectors["x"].equal(torch.ones(5))
    assert peer.counters() == {"exchanges": 4.0, "merge_waves": 1}


def test_a_restored_peer_ends_once_more(build):
    peer = build()
    merge(peer)
    again = build(values=(0.0,) * 5)
    again.restore(peer.snapshot())
    assert again.model(0.0).equal(torch.ones(5))
    assert again.merged is None
    assert sent(again.step(Finish(), 9.0), "wave") == []


# ----------------------------------------------------------------------------------------------- the memory


class Live(TorchDispatchMode):
    """The most bytes that tensors made under it have held at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.most, self._made = 0, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self._made[out.untyped_storage().data_ptr()] = weakref.ref(out), out.untyped_storage().nbytes()
            self.most = max(self.most, self.now())
        return out

    def now(self) -> int:
        return sum(size for alive, size in self._made.values() if alive() is not None)


def vectors_held(peer: FinalMerge, d: int, steps) -> list[tuple[float, float]]:
    """After each step, vectors of ``d`` floats: the most that there were, and those that there are."""
    found = []
    with Live() as live:
        for step in steps:
            live.most = 0
            step()
            found.append((live.most / (4 * d), live.now() / (4 * d)))
    return found


def test_a_peer_has_its_model_one_accumulator_and_what_is_on_its_way(build):
    d = 100_000
    peer = build("b", values=[0.1] * d)
    below = {"sum": torch.ones(d), "rest": torch.zeros(d)}
    said = Message("sum", 3, below, view={"c": Standing()}, whole=True)
    given = mean([1.0] * d)
    steps = [
        lambda: peer.step(Finish(), 1.0),
        lambda: arrive(peer, "a", wave()),
        lambda: arrive(peer, "c", said),
        lambda: peer.step(Delivered("a", "sum", 3), 1.0),
        lambda: arrive(peer, "a", given),
    ]
    frozen, asked, answered, heard, merged = vectors_held(peer, d, steps)
    assert frozen[1] == asked[1] == 1  # the model
    assert answered[0] == 5  # and the accumulator, which counts twice, and both parts of the sum
    assert answered[1] == 3  # the model and the sum, which is on its way
    assert heard[1] == 1
    assert merged == (2, 2)  # the model and the mean
