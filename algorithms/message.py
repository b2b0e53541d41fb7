"""What travels between two peers, what the guard knows of it, and why it may not arrive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

import torch

from algorithms.view import Standing

Vector: TypeAlias = torch.Tensor
"""A flat model: shape ``(d,)``, contiguous, without gradient, of the run's dtype."""


@dataclass(slots=True)
class Message:
    """What travels between two peers: a kind, a number, named vectors and numbers, and what is known of members.

    There is nothing in it that would need an object deserialiser. A ``whole`` one travels with all bits of its vectors,
    whatever the run's codec.
    """

    kind: str
    number: int = 0
    vectors: Mapping[str, Vector] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)
    view: Mapping[str, Standing] = field(default_factory=dict)
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """What a message of this kind may be; all that the guard knows of an algorithm.

    Parameters
    ----------
    sender : {"owner", "peer", "neighbour", "member"}
        Who may send it: the owner of the edge, the other end of an edge that the receiver owns, either
        end, or any member of the run.
    vectors : tuple of str
        The names of its vectors, each exactly d long; all of them must be there.
    counts : tuple of str
        The names of its numbers that are whole and not negative.
    reals : tuple of str
        The names of its finite real numbers.
    view : bool
        Whether it may say something of members.
    whole : bool
        Whether its vectors travel in the run's own dtype instead of the codec's.
    """

    sender: str
    vectors: tuple[str, ...] = ()
    counts: tuple[str, ...] = ()
    reals: tuple[str, ...] = ()
    view: bool = False
    whole: bool = False


AHEAD = 1_000_000
"""Rounds and counters that are further ahead than this of what a peer knows are not believed.

Whoever was cut off for weeks must still believe the others when it is back.
"""

COUNT_MAX = 2**53
"""Whole numbers on the wire stay below this: they travel as doubles."""


class Reason(str, Enum):
    """Why a message was not delivered. The first group comes from the receiver, the second from the network."""

    BUSY = "busy"
    STALE = "stale"
    WRONG_VERSION = "wrong_version"
    WRONG_RUN = "wrong_run"
    WRONG_LAYOUT = "wrong_layout"
    NOT_MY_NEIGHBOUR = "not_my_neighbour"
    MALFORMED = "malformed"
    NOT_FINITE = "not_finite"
    TOO_LARGE = "too_large"
    IMPLAUSIBLE = "implausible"

    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"

    @property
    def transient(self) -> bool:
        """Whether sending the same again later can help."""
        return self in (Reason.BUSY, Reason.UNREACHABLE, Reason.TIMEOUT)
