"""What a peer counts; its parts write it, the record and the metrics read it."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

TOTALS = ("gradients", "samples", "messages_sent", "bytes_sent", "view_bytes_sent")
"""Figures that go on counting over all lives."""


@dataclass(slots=True)
class Figures:
    """What a peer counts.

    Parameters
    ----------
    gradients, samples : int
        Local steps done, and the samples they saw.
    loss : float
        Mean over the latest job of local steps.
    bytes_sent, view_bytes_sent : int
        Of vectors, and of what is known of members.
    sends, sends_bytes : int
        Messages on their way out, and the bytes of their vectors.
    snapshot_s : float or None
        trio's time of the latest snapshot that this life put on disk.
    disk_fails : bool
        Whether the latest attempt at one failed.
    """

    gradients: int = 0
    samples: int = 0
    loss: float = math.nan
    messages_sent: int = 0
    bytes_sent: int = 0
    view_bytes_sent: int = 0
    sends: int = 0
    sends_bytes: int = 0
    undelivered: Counter[str] = field(default_factory=Counter)
    reported: dict[str, float] = field(default_factory=dict)
    snapshot_s: float | None = None
    disk_fails: bool = False
