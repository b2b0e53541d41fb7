"""What a constraint contributes to Newton's equations, whichever it is; the constraints are in their own file.

A block has a slack that must not turn negative, and a multiplier. Its *force* is its part of the stationarity
conditions; its *product* with a change of the variables is what the force loses by that change when
complementarity is linearised. Mehrotra's *correctors* are the second-order terms left out there.
Pairs of an array over the edges and a number are called (edges, level) throughout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from topology.problem import Reals

Pull: TypeAlias = tuple[Reals, float]
Chosen: TypeAlias = NDArray[np.int64]


class Move(NamedTuple):
    """A step of one block: what its slack and its multiplier gain."""

    slack: Reals
    multiplier: Reals


class Change(NamedTuple):
    """A step of the variables: the rates', the level's, and the rates' as a sparse Laplacian."""

    rates: Reals
    level: float
    laplacian: csc_array


@dataclass
class Dense:
    """Newton's matrix over chosen edges: what blocks add to it, its whole diagonal, and whether it must be exact."""

    matrix: NDArray[np.floating]
    column: NDArray[np.floating]
    diagonal: Reals
    exact: bool


class Block(Protocol):
    """What a constraint contributes; see the module."""

    @property
    def slack(self) -> Reals:
        """What must not turn negative."""

    @property
    def multiplier(self) -> Reals:
        """Its multiplier, of the same shape."""

    @property
    def degree(self) -> int:
        """How many products of slack and multiplier the block has."""

    def force(self) -> Pull:
        """How hard the multiplier pulls on the rates and on the level."""

    def centred(self, mu: float, corrector: Reals | float) -> Pull:
        """The force of the multiplier for which all products are mu, less a corrector."""

    def product(self, change: Change) -> Pull:
        """What the force loses by a change."""

    def diagonal(self) -> Pull:
        """What the force on each edge loses by a unit change of its own rate, or little less."""

    def fill(self, system: Dense, chosen: Chosen) -> None:
        """Add the products' matrix over chosen edges."""

    def move(self, change: Change, mu: float, corrector: Reals | float) -> Move:
        """How slack and multiplier follow a change."""

    def corrector(self, move: Move) -> Reals:
        """The second-order term of a move, in units of the multiplier."""

    def steps(self, move: Move) -> tuple[float, float]:
        """The longest steps that keep the slack, and the multiplier, from turning negative."""
