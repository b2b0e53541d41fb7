"""A proxy from start to end as a process."""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence
from pathlib import Path

import trio

from node.links.control import open_control, serve_control
from node.links.doors import Door
from node.links.proxy import Proxy, allow_many_connections, open_door
from node.links.sources import Sources
from node.links.table import Links
from topology.plan import Plan

log = logging.getLogger(__name__)

INTERRUPTED = 130


def serve(plan: Plan, doors: Sequence[Door], control: Path) -> int:
    """Carry connections and obey orders until SIGTERM or SIGINT; the exit code.

    Raises
    ------
    UserError
        When a port or the control file can't be used.
    """
    allow_many_connections()
    return trio.run(_serve, plan, doors, control)


async def _serve(plan: Plan, doors: Sequence[Door], control: Path) -> int:
    links = Links(plan)
    proxy = Proxy(links, Sources(links.names))
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals, open_control(control) as orders:
        open_doors = [(door, await open_door(door)) for door in doors]
        log.info("%d links, %s to %s, orders by %s", len(plan.edges), doors[0].listen, doors[-1].listen, control)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(proxy.serve, open_doors)
            nursery.start_soon(serve_control, orders, links)
            number = await anext(signals)
            nursery.cancel_scope.cancel()
    log.info("ended; %d connections from nobody were refused", proxy.refused)
    return INTERRUPTED if number == signal.SIGINT else 0
