"""What a peer knows of all members of an open run: who they are, where, and when they were last active.

Theory of operation
-------------------
Of every member there is a :class:`Standing` of three registers that know nothing of each other: the last round in which
it was active; its newest membership, which only the member itself writes, counting as it does; and the newest
membership under which it was found not to answer. Each of them only grows, so that merging is commutative, associative
and idempotent [1]_, and views that travel by any way, in any order, however often, end up the same. The first two are
those of MoDeST [2]_; the third is the suspicion of SWIM [3]_, which its subject refutes by joining once more.

Invariant
---------
No entry is ever taken away, and none goes back.

.. [1] M. Shapiro, N. Preguiça, C. Baquero, M. Zawirski, "Conflict-free replicated data types", SSS 2011.
.. [2] M. de Vos, A. Dhasade, A.-M. Kermarrec, E. Lavoie, J. Pouwelse, "MoDeST: Bridging the gap between federated and
   decentralized learning with decentralized sampling", arXiv:2302.13837.
.. [3] A. Das, I. Gupta, A. Motivala, "SWIM: Scalable weakly-consistent infection-style process group membership
   protocol", DSN 2002.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from hashlib import md5
from typing import NamedTuple


class Standing(NamedTuple):
    """What is known of one member; every field at its default says nothing.

    Parameters
    ----------
    active : int
        The last round in which it was active.
    counter : int
        How often it has joined or left; 0 for a member of the plan that has been there since the start.
    left : bool
        Whether it left then.
    address : str
        Where it is reached since then; empty for the address in the plan.
    doubted : int
        The largest counter under which somebody found that it does not answer.
    """

    active: int = -1
    counter: int = -1
    left: bool = False
    address: str = ""
    doubted: int = -1

    def merge(self, other: Standing) -> Standing:
        """What both say together."""
        membership = max(self[1:4], other[1:4])  # a member never writes two of one counter; others must not matter
        return Standing(max(self.active, other.active), *membership, max(self.doubted, other.doubted))

    @property
    def present(self) -> bool:
        """Whether it is a member."""
        return self.counter >= 0 and not self.left

    @property
    def in_doubt(self) -> bool:
        """Whether it was found not to answer and has not spoken up since."""
        return self.doubted >= self.counter


UNKNOWN = Standing()
FOUNDER = Standing(active=0, counter=0)
"""A member of the plan, as everybody who holds the plan knows it."""


class View(Mapping[str, Standing]):
    """All standings that one peer knows.

    Parameters
    ----------
    founders : iterable of str
        The members of the plan. Everybody knows them: they are never sent as long as nothing has changed.
    """

    def __init__(self, founders: Iterable[str]) -> None:
        self._standings: dict[str, Standing] = dict.fromkeys(sorted(founders), FOUNDER)
        self._changed: dict[str, int] = {}  # the version in which each last changed, in ascending order
        self.version = 0
        """Counts changes."""

    def __getitem__(self, name: str) -> Standing:
        return self._standings[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._standings)

    def __len__(self) -> int:
        return len(self._standings)

    def __contains__(self, name: object) -> bool:
        return name in self._standings

    def of(self, name: str) -> Standing:
        """What is known of anybody."""
        return self._standings.get(name, UNKNOWN)

    def learn(self, name: str, news: Standing) -> bool:
        """Take in what somebody says of a member; whether that was news."""
        known = self._standings.get(name, UNKNOWN)
        if news.active <= known.active and news.doubted <= known.doubted and news[1:4] <= known[1:4]:
            return False
        self._standings[name] = known.merge(news)
        self.version += 1
        self._changed.pop(name, None)
        self._changed[name] = self.version
        return True

    def since(self, version: int, active: int) -> dict[str, Standing]:
        """What somebody lacks who has all of an earlier version.

        Parameters
        ----------
        version : int
            That version; 0 for somebody who has only the plan.
        active : int
            Members that were active only before this round, and of whom nothing else is known than the plan says, are
            left out: whether they were makes no difference to any sample from now on.
        """
        lacking: dict[str, Standing] = {}
        for name in reversed(self._changed):
            if self._changed[name] <= version:
                break
            standing = self._standings[name]
            if standing.active >= active or standing[1:] != FOUNDER[1:]:
                lacking[name] = standing
        return lacking

    def candidates(self, number: int, window: int) -> list[str]:
        """Members that were active within ``window`` rounds, in the order in which round ``number`` samples them.

        The order is that of a hash of name and round, as in the authors' code, the same everywhere; members in doubt
        come last.
        """
        oldest, lots = number - window, _lots_of(number)
        sound: list[str] = []
        doubtful: list[str] = []
        for name, standing in self._standings.items():
            if standing.active >= oldest and standing.present:
                (doubtful if standing.in_doubt else sound).append(name)
        return sorted(sound, key=lots.__getitem__) + sorted(doubtful, key=lots.__getitem__)


def draw(name: str, number: int) -> bytes:
    """The lot of a member in a round."""
    return md5(f"{name}-{number}".encode(), usedforsecurity=False).digest()


class _Lots(dict[str, bytes]):
    """The lots of a round, drawn as they are asked for."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def __missing__(self, name: str) -> bytes:
        lot = self[name] = draw(name, self._number)
        return lot


@lru_cache(maxsize=8)
def _lots_of(number: int) -> _Lots:
    """The lots of a round, once for all views of a process: hashing takes most of the time of :meth:`candidates`."""
    return _Lots(number)
