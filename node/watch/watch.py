"""Follows a run and serves its page until it is told to stop, or the run is over."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from node.watch.ask import PATIENCE_S, Asker
from node.watch.follow import Follower
from node.watch.page import compose_page
from node.watch.server import Audience, serve

if TYPE_CHECKING:
    from topology.plan import Plan

LINGER_S = 5.0
"""The page of a run that is over is served for so much longer."""
NOBODY_S, NOBODY_EACH_S = 60.0, 2.0
"""A run of which nobody has answered for so long, and so much longer for each peer, is taken for over."""


class Watch:
    """One run that is being watched.

    Parameters
    ----------
    addresses : mapping of str to str
        ``HOST:PORT`` of the peers' status pages, by the peers' names, or by themselves where there is no plan.
    plan : Plan, optional
        The run's.
    every_s : float
        Time between two looks.
    """

    def __init__(self, addresses: Mapping[str, str], plan: Plan | None = None, every_s: float = 1.0) -> None:
        self._asker = Asker(addresses)
        self._follower = Follower(list(addresses), plan)
        self._every_s, self._size = every_s, len(addresses)
        self.audience = Audience(lambda: self._follower.story.text())
        self.stopped = threading.Event()

    def look(self, concluded: bool = False) -> None:
        """Ask everybody once, and tell the audience; ``concluded`` where it is known that the run is over."""
        answers = self._asker.ask_all(min(PATIENCE_S, self._every_s))
        with self.audience.lock:
            news = self._follower.take(answers, time.monotonic(), concluded)
            story = self._follower.story
            if news.whole:
                self.audience.tell("story", story.text())
            else:
                self.audience.tell("frame", story.news(news.frame, news.events))

    def follow(self, until_end: bool = False) -> None:
        """Look again and again until :attr:`stopped` is set, or, if that is wanted, the run is over."""
        over_s = None
        begun_s = due_s = time.monotonic()
        while True:
            self.look()
            now_s = time.monotonic()
            over_s = (over_s or now_s) if self._follower.story.over else None
            nobody = not self._follower.met and now_s - begun_s >= NOBODY_S + NOBODY_EACH_S * self._size
            if until_end and (nobody or (over_s is not None and now_s - over_s >= LINGER_S)):
                return
            due_s = max(due_s + self._every_s, now_s)
            if self.stopped.wait(due_s - now_s):
                return


@contextmanager
def watched(plan: Plan, http: str, allowed: Collection[str] = ()) -> Iterator[str]:
    """Watch the peers of a plan beside whatever the block does; gives the page's address."""
    watch = Watch({node.name: node.http for node in plan.nodes}, plan)
    with serve(http, compose_page(), watch.audience, allowed) as url:
        thread = threading.Thread(target=watch.follow, name="follow", daemon=True)
        thread.start()
        try:
            yield url
        finally:
            watch.stopped.set()
            thread.join()
            watch.look(concluded=True)
