"""The arithmetic mean: in an exchange both ends meet half-way."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from algorithms.protocol import Vector


class Mean:
    """The plain mean of models."""

    name = "mean"
    share = 0.5

    def merge(self, models: Iterable[Vector]) -> Vector:
        """The mean of one or more models, shape ``(d,)`` each, accumulated in float64.

        Raises
        ------
        ValueError
            When there is no model.
        """
        total, count, dtype = None, 0, None
        for model in models:
            total = model.to(torch.float64, copy=True) if total is None else total.add_(model)
            dtype = dtype or model.dtype
            count += 1
        if total is None:
            raise ValueError("a mean needs at least one model")
        return total.div_(count).to(dtype)
