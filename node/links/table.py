"""All links between the peers of a plan, and orders to change one."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

from node.errors import ConfigError, unknown
from node.links.link import Link
from topology.plan import BANDWIDTH_MAX, DELAY_MAX_S, Plan
from topology.quantities import duration_text, rate_text

log = logging.getLogger(__name__)

ORDERS = ("a", "b", "cut", "delay", "bandwidth")


class Links:
    """The links of a plan's edges, and one for all other pairs, on which nothing is limited.

    Parameters
    ----------
    plan : Plan
        What it does not say of a link is not limited.
    """

    def __init__(self, plan: Plan) -> None:
        self.names = [node.name for node in plan.nodes]
        place = {name: k for k, name in enumerate(self.names)}
        self._links: dict[frozenset[str], Link] = {}
        for edge in sorted(plan.edges, key=lambda edge: sorted((place[edge.a], place[edge.b]))):
            a, b = sorted((edge.a, edge.b), key=place.__getitem__)
            self._links[frozenset((a, b))] = Link(a, b, edge.delay or 0.0, edge.bandwidth or math.inf)
        self._unplanned = Link("", "")

    def between(self, one: str, other: str) -> Link:
        """The link that two peers' connections go over."""
        return self._links.get(frozenset((one, other)), self._unplanned)

    def describe(self) -> list[dict[str, Any]]:
        """How all of them are now, in the plan's order."""
        return [link.describe() for link in self._links.values()]

    def obey(self, order: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Change a link, and say how it is then; all of them, if the order names none.

        Parameters
        ----------
        order : mapping
            ``a`` and ``b``, and of what is to change: ``cut`` (true or false), ``delay`` (seconds), ``bandwidth``
            (bytes a second, None for no limit).

        Raises
        ------
        ConfigError
            When there is no such link, or it can't be so.
        """
        if stray := order.keys() - set(ORDERS):
            raise ConfigError(f"{unknown('order', min(stray), ORDERS)}.")
        if not order:
            return self.describe()
        link = self._find(str(order.get("a", "")), str(order.get("b", "")))
        delay, bandwidth = order.get("delay", link.delay), order.get("bandwidth", link.bandwidth)
        bandwidth = math.inf if bandwidth is None else bandwidth
        _check("delay", delay, 0.0, DELAY_MAX_S, "0s to 1h")
        if bandwidth != math.inf:
            _check("bandwidth", bandwidth, 1.0, BANDWIDTH_MAX, "1B or more, or none")
        if order.get("cut", False) not in (True, False):
            raise ConfigError("cut is true or false.")
        if order.keys() - {"a", "b"}:
            link.delay = float(delay)
            if "bandwidth" in order:
                link.bandwidth = float(bandwidth)
            if "cut" in order:
                (link.cut if order["cut"] else link.heal)()
            log.info("%s", say(link.describe()))
        return [link.describe()]

    def _find(self, one: str, other: str) -> Link:
        for name in (one, other):
            if name not in self.names:
                raise ConfigError(f"{unknown('peer', name, self.names)}.")
        if link := self._links.get(frozenset((one, other))):
            return link
        joined = [name for name in self.names if frozenset((one, name)) in self._links]
        raise ConfigError(f"{one} and {other} are not joined in the plan: {one}'s links are to {', '.join(joined)}.")


def _check(what: str, value: Any, least: float, most: float, write: str) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigError(f"--{what} {value} can't be used: write {write}.")


def say(link: Mapping[str, Any]) -> str:
    """How a link is, in words, from what :meth:`Link.describe` gives."""
    limit = "no limit" if link["bandwidth"] is None else rate_text(link["bandwidth"])
    return f"{link['a']} – {link['b']} is {link['state']}: {duration_text(link['delay'])} one way, {limit}"
