"""Half precision on the wire: 16 bits a value, rounded to nearest.

The rounded vector is what is sent *and* what the sender itself goes on with, so that both ends of an exchange use the
same bits. bfloat16 keeps float32's range with 8 bits of precision, float16 keeps 11 bits within ±65504.
"""

from __future__ import annotations

import torch

from algorithms.protocol import Vector


class Half:
    """Values rounded to a 16-bit type; those out of its range become its largest value, never infinite."""

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        self.name = name
        self._dtype = dtype
        self._largest = torch.finfo(dtype).max

    def wire_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The 16-bit type."""
        return self._dtype

    def round(self, vector: Vector) -> Vector:
        """A new vector of the same dtype whose values are exact in 16 bits."""
        return vector.clamp(-self._largest, self._largest).to(self._dtype).to(vector.dtype)
