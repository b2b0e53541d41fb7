"""Mergeability: how good one merged model would be, and what lies between it and the peers' own, while a run lasts.

Theory of operation
-------------------
Models of unequal data may be poor one by one and good as their mean [1]_, as long as the loss does not rise between
them [2]_. A look takes the mean of all models, as a final merge would at that moment, holds its accuracy against that
of the models themselves, and goes along the lines from some of them to the mean. It needs all models in one place,
which there is in virtual time only.

Looks come with reports, for which each peer's model is evaluated anyway. With k peers in the sample, a look takes
n·d additions and 1 + 3k evaluations, or 4k where the model has statistics: then each peer of the sample estimates them
for the mean, and for the points on its line, from its own data, as after a final merge.

.. [1] T. Zhu, T. Zhang, M. Wang, Z. Zhou, C. Wang, "On the surprising effectiveness of a single global merging in
   decentralized learning", ICLR 2026, arXiv:2507.06542.
.. [2] J. Frankle et al., "Linear mode connectivity and the lottery ticket hypothesis", ICML 2020, arXiv:1912.05671.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

import torch

from algorithms.merging.mean import mean
from algorithms.protocol import Vector
from node.draws import Draws
from node.testbed.record import Evaluate, append, read_all

FILE = "mergeability.jsonl"
POINTS = (0.25, 0.5, 0.75)
"""Where on the way from a peer's model to the mean the loss is looked at."""
SLACK = 1e-9
"""By which part of itself a report may come early and still be on time."""

Settle = Callable[[str, Vector], Vector]
"""``settle(name, model)`` is a merged model as that peer would have it: with statistics of its own data."""


@dataclass(frozen=True)
class Looks:
    """How often to look, in units, and at how many peers: at the same ones each time, as far as they are there."""

    every: float
    sample: int = 8


class Examiner(Protocol):
    """What judges models."""

    evaluations: int
    """How often a model has really been evaluated, and not been known already."""

    def evaluate(self, vector: Vector) -> tuple[float, float]:
        """Mean loss and accuracy on the test data."""

    def settle(self, name: str, vector: Vector) -> Vector:
        """See :data:`Settle`."""


class Mergeability:
    """The looks at one run, written to ``mergeability.jsonl`` in its folder.

    Parameters
    ----------
    run_dir : Path
        The folder.
    looks : Looks
        How often and at whom.
    examiner : Examiner
        Judges models.
    names : collection of str
        All peers that there may ever be.
    seed : int
        The sample is drawn from it.
    unit_s : float
        Seconds of one unit.
    """

    def __init__(
        self, run_dir: Path, looks: Looks, examiner: Examiner, names: Collection[str], seed: int, unit_s: float
    ) -> None:
        self._path, self._looks, self._examiner, self._unit_s = run_dir / FILE, looks, examiner, unit_s
        order = Draws(seed, "mergeability")("sample").permutation(len(names))
        self._order = [sorted(names)[k] for k in order]
        self._next = self._cost_s = 0.0
        self._count = 0
        self._last: dict[str, Any] = {}

    def due(self, now: float) -> bool:
        """Whether it is time for a look."""
        return now >= self._next * (1 - SLACK)

    def look(self, models: Mapping[str, Vector], now: float) -> None:
        """Look at the models of those who are there, at this time in units; nobody else takes notice."""
        while self.due(now):
            self._next += self._looks.every
        if not models or self._last.get("units") == now:
            return
        examiner, began, evaluations = self._examiner, time.monotonic(), self._examiner.evaluations
        sample = [name for name in self._order if name in models][: self._looks.sample]
        found = examine(models, sample, examiner.evaluate, examiner.settle)
        cost_s = time.monotonic() - began
        done = {"evaluations": examiner.evaluations - evaluations, "cost_seconds": cost_s}
        self._last = {"seconds": now * self._unit_s, "units": now, **found, **done}
        self._count += 1
        self._cost_s += cost_s
        append(self._path, self._last)

    def summary(self, seconds: float) -> dict[str, Any]:
        """The last look, how many there were, and their share of the ``seconds`` that the run has taken."""
        return {**self._last, "looks": self._count, "cost_share": self._cost_s / seconds}


def examine(models: Mapping[str, Vector], sample: Sequence[str], evaluate: Evaluate, settle: Settle) -> dict[str, Any]:
    """What one merge of all these models would give, and the loss between it and the models of the sample.

    Parameters
    ----------
    models : mapping of str to Vector
        Shape ``(d,)`` each; at least one.
    sample : sequence of str
        From whose models to look towards the mean; at least one.
    evaluate : callable
        The task's test.
    settle : callable
        See :data:`Settle`.

    Returns
    -------
    dict
        ``peers``; ``local_accuracy`` and ``local_loss``, the mean over all models; ``merged_accuracy`` and
        ``merged_loss``, those of the mean model; ``barrier_mean`` and ``barrier_max`` of :func:`loss_barrier` over the
        sample; ``consensus_distance``, Σ‖x - x̄‖² over all models.
    """
    average = mean(models.values())
    local_losses, local_accuracies = zip(*(evaluate(model) for model in models.values()), strict=True)
    merged = {name: settle(name, average) for name in sample}
    merged_losses, merged_accuracies = zip(*(evaluate(model) for model in merged.values()), strict=True)
    barriers = [
        loss_barrier(models[name], merged[name], lambda x: evaluate(x)[0], partial(settle, name)) for name in sample
    ]
    return {
        "peers": len(models),
        "local_accuracy": fmean(local_accuracies),
        "merged_accuracy": fmean(merged_accuracies),
        "local_loss": fmean(local_losses),
        "merged_loss": fmean(merged_losses),
        "barrier_mean": fmean(barriers),
        "barrier_max": max(barriers),
        "consensus_distance": sum(float((model.double() - average).square().sum()) for model in models.values()),
    }


def loss_barrier(
    start: Vector, end: Vector, loss: Callable[[Vector], float], settle: Callable[[Vector], Vector]
) -> float:
    """By how much the loss rises, on the line between two models, above that of the ends.

    The largest of loss((1 - t)·start + t·end) - ((1 - t)·loss(start) + t·loss(end)) over t in :data:`POINTS` [1]_;
    at most 0 where the loss is convex.

    Parameters
    ----------
    start, end : Vector
        Shape ``(d,)``.
    loss : callable
        Of a model.
    settle : callable
        Gives a model on the line its statistics.

    .. [1] J. Frankle et al., "Linear mode connectivity and the lottery ticket hypothesis", ICML 2020,
       arXiv:1912.05671, section 2; its error barrier, with the loss for the error.
    """
    first, last = loss(start), loss(end)
    return max(loss(settle(torch.lerp(start, end, t))) - ((1 - t) * first + t * last) for t in POINTS)


def read_looks(run_dir: Path) -> list[dict[str, Any]]:
    """What was seen in a run, a dict a look; nothing of a run at which nobody looked.

    Raises
    ------
    StorageError
        When the file holds anything else.
    """
    return read_all(run_dir / FILE, "what was seen of a run's models")
