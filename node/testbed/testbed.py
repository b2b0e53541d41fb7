"""The driver for real daemons, one process a peer, all on this machine, talking over gRPC.

Theory of operation
-------------------
All daemons are started at once and wait for their neighbours themselves. From then on the driver only looks on: it
reads what they append to the record, says who has gone, and goes on with those that are left. When they have ended, it
sums up what they have written down.

Invariants
----------
* No daemon outlives the driver, however that ends.
* Who ends without a final state is named in ``lost_peers``; a run without any is an error, not a summary.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from node.errors import NetworkError, TaskError
from node.place import find_algorithm, is_open, rate_scale
from node.testbed.experiment import Experiment, undone_if_refused
from node.testbed.live import Follower, Live
from node.testbed.processes import Processes, last_lines
from node.testbed.record import write_event
from node.testbed.runs import lost_peers, sum_up
from topology.plan import Node, Plan

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
PORTS = range(20000, 32000)
"""Where ports are looked for: below those that the kernel gives to outgoing connections, which could be taken before
a daemon has them."""

LOOK_EVERY_S = 0.5
SILENCE_S = 30.0
"""When a peer has ended, others that report nothing for this much longer than they should are stopped."""

LOG_LINES = 5

WAIT_S = 60.0
"""Longest wait of a daemon for its neighbours: many that start at once on few cores take long to import torch."""


def place_here(plan: Plan) -> Plan:
    """The same plan with every peer on this machine, at ports that are free now."""
    ports = _free_ports(2 * len(plan.nodes))
    nodes = (Node(node.name, f"{HOST}:{next(ports)}", f"{HOST}:{next(ports)}") for node in plan.nodes)
    return replace(plan, nodes=tuple(nodes))


def _free_ports(wanted: int) -> Iterator[int]:
    """Ports that are free all at once; testbeds that start at the same time begin to look in different places."""
    start = os.getpid() * 64 % len(PORTS)
    found: list[int] = []
    with ExitStack() as held:
        for i in range(len(PORTS)):
            if len(found) == wanted:
                break
            port = PORTS[(start + i) % len(PORTS)]
            probe = held.enter_context(socket.socket())
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            found.append(port)
    if len(found) < wanted:
        raise NetworkError(f"there are no {wanted} free ports from {PORTS.start} to {PORTS.stop - 1}: end some runs.")
    return iter(found)


def run_testbed(experiment: Experiment, *, console: Console, insecure: bool = False) -> dict[str, Any]:
    """Run an experiment with real daemons and write its record.

    Parameters
    ----------
    console : Console
        Where the run is shown while it lasts.
    insecure : bool
        Plaintext instead of mTLS.

    Returns
    -------
    dict
        What was written to ``summary.json``.

    Raises
    ------
    TaskError
        When no peer reached the end.
    KeyboardInterrupt
        On Ctrl-C, after the daemons have drained and what they had learnt is summed up; on a second one, at once.
    """
    run_dir, names = experiment.run_dir, [node.name for node in experiment.plan.nodes]
    certificates = run_dir / "certs"
    with undone_if_refused(run_dir):
        if experiment.reference:
            name = experiment.config.algorithm
            raise TaskError(f"{name} exists in virtual time only: run gradvine simulate --algorithm {name}.")
        if not insecure:
            from node.wire.authority import make_certificates

            make_certificates(names, certificates)
    processes = Processes(_commands(experiment, insecure), run_dir / "logs", _environment())
    followers = _followers(experiment)
    interrupted: KeyboardInterrupt | None = None
    try:
        with processes, Live(followers, console) as live:
            for name in names:
                write_event(run_dir, {"event": "started", "peer": name, "pid": processes.pid(name)})
            try:
                _look_on(experiment, processes, followers, live)
            except KeyboardInterrupt as error:
                interrupted = error
                log.warning("interrupted: the peers drain; once more to kill them")
                processes.stop()
    finally:
        shutil.rmtree(certificates, ignore_errors=True)  # keys that nobody needs any more
    if len(lost_peers(run_dir, names)) == len(names):
        if interrupted:
            raise interrupted
        raise TaskError(_why_all_failed(processes, names[0]))
    transport = "grpc" if insecure else "grpc+mtls"
    summary = sum_up(run_dir, experiment.config, experiment.plan, {"transport": transport})
    if interrupted:
        raise interrupted
    return summary


def _commands(experiment: Experiment, insecure: bool) -> dict[str, list[str]]:
    run_dir = experiment.run_dir
    fixed = [sys.executable, "-m", "node.testbed.tether", "run"]
    fixed += ["--plan", str(run_dir / "plan.json"), "--config", str(run_dir / "config.toml")]
    fixed += ["--data", str(experiment.data_dir), "--out", str(run_dir), "--wait-for-neighbours", f"{WAIT_S:g}s"]
    commands = {}
    for node in experiment.plan.nodes:
        own = ["--name", node.name, "--state", str(run_dir / "snapshots" / node.name)]
        own += ["--insecure"] if insecure else ["--certs", str(run_dir / "certs" / node.name)]
        commands[node.name] = fixed + own
    return commands


def _environment() -> dict[str, str]:
    """This process's, without what the configuration file has taken up already."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GRADVINE_")}
    return {"OMP_NUM_THREADS": "1"} | kept | {"PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}


def _followers(experiment: Experiment) -> dict[str, Follower]:
    plan, config = experiment.plan, experiment.config
    scale = rate_scale(plan, config)
    asked = dict.fromkeys((node.name for node in plan.nodes), 0.0)
    for edge in plan.edges:
        asked[edge.a] += edge.rate * scale
    peers, sampled = experiment.run_dir / "peers", is_open(find_algorithm(experiment.algorithm))
    return {
        name: Follower(peers / f"{name}.jsonl", rate, config.steps, config.duration, config.rounds, sampled)
        for name, rate in asked.items()
    }


def _look_on(experiment: Experiment, processes: Processes, followers: Mapping[str, Follower], live: Live) -> None:
    """Until the last daemon has ended."""
    silence_s = SILENCE_S + 2 * experiment.config.report_every
    while processes.running:
        for name, code in processes.wait(LOOK_EVERY_S).items():
            _note_end(experiment, processes, followers[name], name, code)
        live.update()
        if processes.codes:
            now = time.monotonic()
            silent = [name for name in processes.running if _silent_s(followers[name], now) > silence_s]
            for name in silent:
                log.error("%s reports nothing any more: it is stopped", name)
            processes.stop(silent)


def _silent_s(follower: Follower, now_s: float) -> float:
    """For how long a peer has not reported though it should: one that waits for others has nothing to say."""
    return now_s - follower.heard_s - (WAIT_S if follower.state == "starting" else 0.0)


def _note_end(experiment: Experiment, processes: Processes, follower: Follower, name: str, code: int) -> None:
    follower.state = "done" if not lost_peers(experiment.run_dir, [name]) else "lost"
    write_event(experiment.run_dir, {"event": "ended", "peer": name, "code": code, "state": follower.state})
    if follower.state == "lost":
        how = f"was killed by signal {-code}" if code < 0 else f"ended early with code {code}"
        lines = "".join(f"\n    {line}" for line in last_lines(processes.log(name), LOG_LINES))
        log.error("%s %s; the others go on. Its last words, from %s:%s", name, how, processes.log(name), lines)


def _why_all_failed(processes: Processes, name: str) -> str:
    words = last_lines(processes.log(name), 1)
    return f"no peer reached the end; {processes.log(name)} ends with: {words[0] if words else 'nothing'}"
