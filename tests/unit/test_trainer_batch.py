"""Many peers' steps as one batch come out as each trainer's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from algorithms.protocol import Train, Trained
from node import trainer as trainer_module
from node.errors import TaskError
from node.flat import FlatModel, initial_vector
from node.shards import Shard, pool_shards
from node.tasks import Task, load_task
from node.trainer import Recipe, Trainer, train_batch

PEERS = 5
RECIPE = Recipe(lr=0.05, momentum=0.9, weight_decay=0.01, batch_size=6)


def make_trainers(task: Task, recipe: Recipe, pooled: bool = False) -> list[Trainer]:
    draw = torch.Generator().manual_seed(2)
    shape = (1, 8, 8) if task.name == "digits-cnn" else (64,)
    dtype = torch.float64 if task.dtype == "float64" else torch.float32
    shards = [
        Shard(torch.randn((n, *shape), generator=draw).to(dtype), torch.randint(10, (n,), generator=draw))
        for n in range(4, 4 + PEERS)
    ]
    shards = pool_shards(shards) if pooled else shards
    model = FlatModel(task.build(0), task.dtype)
    return [Trainer(task, shard, recipe, np.random.default_rng(i), model=model) for i, shard in enumerate(shards)]


def make_jobs(task: Task, steps: list[int], **more: Any) -> list[Train]:
    return [Train(f"k{i}", initial_vector(task, i), k, **more) for i, k in enumerate(steps)]


def assert_same(batch: list[Trained], loop: list[Trained], tolerance: float) -> None:
    for one, other in zip(batch, loop, strict=True):
        assert (one.key, one.samples) == (other.key, other.samples)
        assert one.loss == pytest.approx(other.loss, rel=tolerance)
        torch.testing.assert_close(one.change, other.change, atol=tolerance, rtol=tolerance)


def forbid_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("went through the loop")

    monkeypatch.setattr(Trainer, "take_steps", refuse)


@pytest.mark.parametrize("pooled", [False, True], ids=["apart", "pooled"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_batch_and_loop_agree(
    pooled: bool, momentum: float, dtype: str, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = load_task("digits", {"hidden": "8,8"}, dtype)
    recipe = Recipe(lr=0.05, momentum=momentum, weight_decay=0.01, batch_size=6)
    together, apart = make_trainers(task, recipe, pooled), make_trainers(task, recipe)
    schedule: list[tuple[list[int], Mapping[str, Any]]] = [
        ([3] * PEERS, {}),
        ([1, 2, 1, 2, 3], {"lr_factor": 0.5}),
        ([2] * PEERS, {"fresh": True}),
        ([1] * PEERS, {}),
    ]
    loops = [
        [t.train(j) for t, j in zip(apart, make_jobs(task, steps, **more), strict=True)] for steps, more in schedule
    ]
    snapshots = [trainer.snapshot().vectors for trainer in apart]
    only_one = [steps for steps, _ in schedule if any(steps.count(k) == 1 for k in steps)]
    assert len(only_one) == 1, "a group of one goes through the loop, which the next line would forbid"
    for (steps, more), loop in zip(schedule, loops, strict=True):
        with monkeypatch.context() as patch:
            if steps not in only_one:
                forbid_loop(patch)
            assert_same(train_batch(together, make_jobs(task, steps, **more)), loop, tolerance)
    for trainer, vectors in zip(together, snapshots, strict=True):
        assert trainer.snapshot().vectors.keys() == vectors.keys() == ({"momentum_buffer"} if momentum else set())
        for name, vector in vectors.items():
            torch.testing.assert_close(trainer.snapshot().vectors[name], vector, atol=tolerance, rtol=tolerance)
    for one, other in zip(together, apart, strict=True):
        assert one.draws.bit_generator.state == other.draws.bit_generator.state


def test_jobs_may_differ_in_rate_and_freshness(monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task("digits", {"hidden": "8"}, "float64")
    together, apart = make_trainers(task, RECIPE), make_trainers(task, RECIPE)
    for _ in range(2):
        first, second = (make_jobs(task, [2] * PEERS) for _ in range(2))
        for i in range(PEERS):
            first[i].lr_factor = second[i].lr_factor = 1 / (i + 1)
            first[i].fresh = second[i].fresh = i % 2 == 0
        loop = [trainer.train(job) for trainer, job in zip(apart, second, strict=True)]
        with monkeypatch.context() as patch:
            forbid_loop(patch)
            assert_same(train_batch(together, first), loop, 1e-12)


def test_answers_lie_in_the_memory_of_their_jobs() -> None:
    task = load_task("digits")
    jobs = make_jobs(task, [1] * PEERS)
    addresses = [job.at.data_ptr() for job in jobs]
    assert [trained.change.data_ptr() for trained in train_batch(make_trainers(task, RECIPE), jobs)] == addresses


def test_a_stack_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    task = load_task("digits", {"hidden": "8"}, "float64")
    sizes: list[int] = []
    real = trainer_module.step_stacked

    def count(trainers: list[Trainer], *rest: Any) -> list[Trained]:
        sizes.append(len(trainers))
        return real(trainers, *rest)

    together, apart = make_trainers(task, RECIPE), make_trainers(task, RECIPE)
    monkeypatch.setattr(trainer_module, "step_stacked", count)
    monkeypatch.setattr(trainer_module, "VALUES_MAX", 3 * together[0].layout.size)
    loop = [trainer.train(job) for trainer, job in zip(apart, make_jobs(task, [2] * PEERS), strict=True)]
    assert_same(train_batch(together, make_jobs(task, [2] * PEERS)), loop, 1e-12)
    assert sizes == [3, 2]


class Variant:
    """The digits' perceptron with a piece in the middle that goes through the loop."""

    def __init__(self, piece: type[nn.Module]) -> None:
        self._task = load_task("digits", {"hidden": "8"}, "float64")
        self._piece = piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def build(self, seed: int) -> nn.Module:
        layers = list(self._task.build(seed).children())
        return nn.Sequential(*layers[:2], self._piece(), *layers[2:])


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum().item() > 0 else -x


@pytest.mark.parametrize("piece", [nn.Dropout, Branching, lambda: nn.BatchNorm1d(8)], ids=["dropout", "branch", "norm"])
def test_models_that_can_not_be_stacked_go_through_the_loop(piece: type[nn.Module]) -> None:
    task: Any = Variant(piece)
    together, apart = make_trainers(task, RECIPE), make_trainers(task, RECIPE)
    torch.manual_seed(0)
    loop = [trainer.train(job) for trainer, job in zip(apart, make_jobs(task, [2] * PEERS), strict=True)]
    torch.manual_seed(0)
    assert_same(train_batch(together, make_jobs(task, [2] * PEERS)), loop, 0)
    assert not any(trainer.stackable for trainer in together)


def test_adamw_goes_through_the_loop() -> None:
    task, recipe = load_task("digits", {"hidden": "8"}, "float64"), Recipe("adamw", lr=0.01)
    together, apart = make_trainers(task, recipe), make_trainers(task, recipe)
    loop = [trainer.train(job) for trainer, job in zip(apart, make_jobs(task, [2] * PEERS), strict=True)]
    assert_same(train_batch(together, make_jobs(task, [2] * PEERS)), loop, 0)


def test_one_that_diverges_stops_the_batch() -> None:
    task = load_task("digits")
    jobs = make_jobs(task, [2] * PEERS)
    jobs[3].at.fill_(float("inf"))
    with pytest.raises(TaskError, match="diverged"):
        train_batch(make_trainers(task, RECIPE), jobs)


def test_no_jobs() -> None:
    assert train_batch([], []) == []


def test_pooled_shards_hold_the_same_rows() -> None:
    shards = [Shard(torch.randn(n, 3), torch.arange(n)) for n in (2, 5, 1)]
    for before, after in zip(shards, pool_shards(shards), strict=True):
        assert torch.equal(before.x, after.x)
        assert torch.equal(before.y, after.y)
        assert after.pool is not None
        assert torch.equal(after.pool[0][after.offset : after.offset + len(after)], before.x)
