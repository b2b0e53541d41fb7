"""How local steps are taken: the optimiser and its numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from node.errors import TaskError


class Diverged(TaskError):
    """Training left the finite numbers; the node stops instead of gossiping what came out."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How local steps are taken.

    Parameters
    ----------
    optimiser : {"sgd", "adamw"}
        Which one.
    lr : float
        Learning rate.
    momentum : float
        Momentum of SGD, in [0, 1).
    weight_decay : float
        L2 penalty of SGD; decoupled decay of AdamW.
    batch_size : int
        Samples a step.
    """

    optimiser: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    batch_size: int = 16

    def check_finite(self, loss: float, total: float) -> None:
        """Refuse a result that is not finite.

        Parameters
        ----------
        loss : float
            The mean loss.
        total : float
            The sum over the resulting vector: one pass, and not finite as soon as one value is not.

        Raises
        ------
        Diverged
            If so.
        """
        if not math.isfinite(loss + total):
            raise Diverged(
                f"training diverged (mean loss {loss:.4g}): lower --lr, which is {self.lr:g}, or check the data."
            )
