"""Agreeing on a unit of time over real sockets: pings carry what is known, and what can't be true is refused."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import pytest
import trio

from algorithms.protocol import Reason
from node.pace import Pace
from node.shards import prepare
from node.tasks import load_task
from node.testbed.processes import Processes
from node.testbed.testbed import place_here
from node.wire.bridge import open_bridge
from node.wire.framing import Terms
from node.wire.greeting import greet, greeting_bytes_max
from node.wire.limits import Limits
from node.wire.transport import Undelivered
from protos import peer_pb2
from topology.plan import save_plan
from topology.planning import build_plan

pytestmark = pytest.mark.trio

LONG_S = 90


def own(name, seconds):
    return {"knows": Pace({name: seconds})}


async def test_pings_and_their_answers_spread_what_is_known(wires):
    async with open_bridge() as bridge, wires.peer(bridge, "b", {"a": "", "c": ""}, owned=False, **own("b", 2.0)) as b:
        to = {"b": f"127.0.0.1:{b.transport.port}"}
        async with (
            wires.peer(bridge, "a", to, owned=True, **own("a", 1.0)) as a,
            wires.peer(bridge, "c", to, owned=True, **own("c", 6.0)) as c,
        ):
            await a.transport.ping("b")
            assert a.agreement.missing() == b.agreement.missing() == ["c"]
            await c.transport.ping("b")
            assert (b.agreement.unit_s, a.agreement.unit_s) == (3.0, 0.0)
            for late in (a, c):
                await late.transport.ping("b")
                assert late.agreement.unit_s == 3.0


@pytest.mark.parametrize(
    "pace",
    [Pace({"a": 0.0}), Pace({"a": 3600.0}), Pace({"a": float("nan")}), Pace({"d": 1.0}), Pace(unit_s=5e-324)],
    ids=["zero", "an hour", "no number", "nobody", "a unit without end"],
)
async def test_what_cannot_be_true_is_malformed_and_forgotten(wires, pace):
    async with wires.pair() as (_, b):
        assert await b.call([greet(b.guard.terms, pace)], "Ping") == "MALFORMED"
        assert b.counts.refused_all == [("a", Reason.MALFORMED)]
        assert b.agreement.known == Pace()


async def test_whoever_is_of_another_run_is_told_so_and_teaches_nothing(wires):
    async with wires.pair() as (_, b):
        terms, members = b.guard.terms, {"a", "b", "c"}
        other = Terms("another", terms.plan, terms.layout, terms.dtype)
        for pace in (Pace(dict.fromkeys(members, 1.0)), Pace({"d": 1.0})):
            assert await b.call([greet(other, pace)], "Ping") == "WRONG_RUN"
        assert await b.call([greet(terms, Pace({"a": 1.0}))], "Ping", sender="d") == "NOT_MY_NEIGHBOUR"
        assert await b.call([bytes(greeting_bytes_max(len(members)) + 1)], "Ping") == "MALFORMED"
        assert b.agreement.known == Pace()


async def test_a_stranger_is_refused_before_its_greeting_is_there(wires):
    async with wires.pair(limits=Limits(patience_s=600.0)) as (_, b):

        async def say_nothing():
            async with b.channel(None) as channel:
                call = channel.stream_unary("/gradvine.peer.v1.Peer/Ping")(metadata=(("gradvine-name", "d"),))
                return peer_pb2.Receipt.FromString(await call).code

        with trio.fail_after(20):
            assert await b.bridge.call(say_nothing) == peer_pb2.NOT_MY_NEIGHBOUR
        assert b.counts.refused_all == [("a stranger", Reason.NOT_MY_NEIGHBOUR)]


async def test_an_answer_that_cannot_be_true_is_malformed(wires):
    async with wires.pair(**own("d", 1.0)) as (a, _):
        with pytest.raises(Undelivered) as refusal:
            await a.transport.ping("b")
        assert refusal.value.reason is Reason.MALFORMED
        assert a.agreement.known == Pace()


# ---------------------------------------------------------------------------------------------- real daemons


class Daemons:
    """Three of them in a line, each measuring its own steps."""

    def __init__(self, folder):
        self.folder = folder
        plan = place_here(build_plan("line", 3))
        save_plan(plan, folder / "plan.json")
        names = [node.name for node in plan.nodes]
        prepare(load_task("digits", {"hidden": "4"}), names, "iid", 1.0, 0, folder / "data", spec="digits")
        self.running = []

    def start(self, *names, more=()):
        folder, commands = self.folder, {}
        for name in names:
            what = ["--plan", str(folder / "plan.json"), "--data", str(folder / "data"), "--name", name, "--insecure"]
            where = ["--state", str(folder / name), "--out", str(folder / "run"), "--report-every", "200ms"]
            how = ["--time-unit", "auto", "--duration", "10m", "--set", "hidden=4", "--wait-for-neighbours", "60s"]
            commands[name] = [sys.executable, "-m", "node.testbed.tether", "run", *what, *where, *how, *more]
        processes = Processes(commands, folder / "logs", {**os.environ, "OMP_NUM_THREADS": "1"})
        self.running.append(processes.__enter__())
        return processes

    def lines(self, name):
        path = self.folder / "run" / "peers" / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def log(self, name):
        return (self.folder / "logs" / f"{name}.log").read_text()


@pytest.fixture
def daemons(tmp_path):
    daemons = Daemons(tmp_path)
    yield daemons
    for processes in daemons.running:
        processes.kill()


def wait_until(holds, what):
    deadline = time.monotonic() + LONG_S
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.05)


async def test_daemons_agree_and_one_that_comes_back_counts_as_the_others_do(daemons):
    names = ["n0", "n1", "n2"]
    first = daemons.start(*names)
    wait_until(lambda: all(daemons.lines(name) for name in names), "reports")
    units = {name: daemons.lines(name)[-1]["unit_s"] for name in names}
    assert len(set(units.values())) == 1
    measured = [float(daemons.log(name).split("a local step takes ")[1].split(" ms")[0]) / 1e3 for name in names]
    assert units["n0"] == pytest.approx(max(1e-3, sum(measured) / 3), rel=1e-2)

    os.kill(first.pid("n2"), signal.SIGTERM)
    wait_until(lambda: "n2" in first.wait(1), "n2's end")
    ended = daemons.lines("n2")
    daemons.start("n2", more=("--resume",))
    wait_until(lambda: len(daemons.lines("n2")) > len(ended) + 1, "reports after the resume")
    line = daemons.lines("n2")[-1]
    assert line["unit_s"] == units["n0"]
    assert line["units"] > ended[-1]["units"]
    assert daemons.log("n2").count("a local step takes") == 1, "it is not measured again"
