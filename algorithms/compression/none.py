"""No compression: the values travel as they are."""

from __future__ import annotations

import torch

from algorithms.protocol import Vector


class Whole:
    """Vectors as they are."""

    name = "none"

    def wire_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The vector's own."""
        return dtype

    def round(self, vector: Vector) -> Vector:
        """The very same vector."""
        return vector
