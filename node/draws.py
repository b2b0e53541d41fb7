"""A peer's random generators, one a purpose, all from one seed.

Theory of operation
-------------------
The generator of a purpose is seeded by a hash of (seed, peer, purpose). What one purpose draws therefore never
depends on how often another has drawn, on the other peers or on the order in which generators are first asked for.

Invariant
---------
A generator that was restored goes on exactly where the saved one stood; one that was never asked for before the
save starts afresh, as it would have without the crash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np


class Draws:
    """``draws(purpose)`` is this peer's generator for that purpose, the same object at each call.

    Parameters
    ----------
    seed : int
        The run's seed.
    peer : str
        The peer's name.
    """

    def __init__(self, seed: int, peer: str) -> None:
        self._origin = (seed, peer)
        self._generators: dict[str, np.random.Generator] = {}

    def __call__(self, purpose: str) -> np.random.Generator:
        """The generator for ``purpose``."""
        if purpose not in self._generators:
            seed, peer = self._origin
            digest = hashlib.sha256(json.dumps([seed, peer, purpose]).encode()).digest()
            words = np.frombuffer(digest, dtype="<u4")
            self._generators[purpose] = np.random.Generator(np.random.PCG64(np.random.SeedSequence(words.tolist())))
        return self._generators[purpose]

    def state(self) -> dict[str, str]:
        """Where each generator stands, as JSON by purpose."""
        return {name: json.dumps(self._generators[name].bit_generator.state) for name in sorted(self._generators)}

    def restore(self, state: Mapping[str, str]) -> None:
        """Go on where ``state`` was taken. Generators that were handed out before stay in use.

        Raises
        ------
        ValueError
            When a state is not one of such a generator.
        """
        for purpose in sorted(state):
            try:
                self(purpose).bit_generator.state = json.loads(state[purpose])
            except (KeyError, TypeError) as error:
                raise ValueError(f"not the state of a generator: {error}") from None
        for purpose in sorted(set(self._generators) - set(state)):
            fresh = Draws(*self._origin)(purpose)
            self._generators[purpose].bit_generator.state = fresh.bit_generator.state
