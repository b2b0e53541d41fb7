"""How a run of daemons ends: who may order it, who leaves before, who dies meanwhile, and what the others have then."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from contextlib import asynccontextmanager, contextmanager

import pytest
import torch
import trio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from safetensors import safe_open
from typer.testing import CliRunner

from algorithms.protocol import Message, Reason
from node.cli import app
from node.cli.status import read_status
from node.config import RunConfig
from node.daemon import run_daemon
from node.errors import ConfigError, NetworkError
from node.orders import Orders
from node.shards import prepare
from node.tasks import load_task
from node.testbed.processes import Processes
from node.testbed.record import read_states
from node.testbed.testbed import place_here
from node.wire.authority import make_certificates
from node.wire.bridge import open_bridge
from node.wire.ending import Ending, give_order
from node.wire.finishing import finish_run
from node.wire.tls import Identity
from topology.plan import save_plan
from topology.planning import build_plan

LONG_S = 90
NAMES = [f"n{k}" for k in range(5)]


# ----------------------------------------------------------------------------------------------- the order


@asynccontextmanager
async def member(wires, ending, **more):
    """A peer that may be ordered to end its run, and where it is."""
    async with open_bridge() as bridge, wires.peer(bridge, "b", {}, owned=False, ending=ending, **more) as b:
        yield b, f"127.0.0.1:{b.transport.port}"


async def refused(kind, address, identity):
    with trio.fail_after(20), pytest.raises(kind) as caught:
        await finish_run(address, identity)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


@pytest.mark.trio
@pytest.mark.parametrize("tls", [True, False])
async def test_the_operator_gives_the_order_as_often_as_it_likes(wires, tls):
    identity = Identity.load(wires.certificates / "operator") if tls else None
    ending = Ending(True, 3)
    async with member(wires, ending, tls=tls) as (b, address):
        for _ in range(2):
            assert await finish_run(address, identity) == ("b" if tls else "", 3)
            with trio.fail_after(20):
                await ending.ordered.wait()
        assert b.counts.refused_all == []


@pytest.mark.trio
@pytest.mark.parametrize(
    ("ending", "name", "kind", "words", "reason"),
    [
        (Ending(True, 3), "c", NetworkError, "nobody but the operator", Reason.NOT_MY_NEIGHBOUR),
        (Ending(False, 3), "operator", ConfigError, "without a final merge", Reason.WRONG_RUN),
        (Ending(True, None), "operator", NetworkError, "does not learn yet", Reason.BUSY),
    ],
    ids=["a peer", "no merge", "too early"],
)
async def test_orders_that_are_not_taken(wires, ending, name, kind, words, reason):
    async with member(wires, ending, tls=True) as (b, address):
        assert words in await refused(kind, address, Identity.load(wires.certificates / name))
        assert [found for _, found in b.counts.refused_all] == [reason]
        assert not ending.ordered.is_set()


@pytest.mark.trio
async def test_strangers_cannot_use_up_the_operators_calls(wires):
    held = trio.Event()
    async with member(wires, Ending(True, 3)) as (b, address), trio.open_nursery() as nursery:

        async def hold():
            async with b.channel(None) as channel:
                ask = health_pb2_grpc.HealthStub(channel).Watch
                who = (("gradvine-name", "nobody"),)
                calls = [ask(health_pb2.HealthCheckRequest(), metadata=who) for _ in range(4)]
                for call in calls:
                    await call.read()
                b.bridge.post(held.set)
                await calls[0].code()

        nursery.start_soon(b.bridge.call, hold)
        with trio.fail_after(20):
            await held.wait()
        assert await finish_run(address, None) == ("", 3)
        nursery.cancel_scope.cancel()


@pytest.mark.trio
@pytest.mark.parametrize(
    ("order", "code"), [(b"\x08\x02", "WRONG_VERSION"), (b"\xff" * 9, "MALFORMED"), (bytes(999), "MALFORMED")]
)
async def test_orders_that_are_none(wires, order, code):
    ending = Ending(True, 3)
    async with member(wires, ending) as (b, _):
        assert await b.call([order], "Finish", "operator") == code
        assert not ending.ordered.is_set()


@pytest.mark.trio
@pytest.mark.parametrize("open_", [True, False])
async def test_the_operator_can_do_nothing_else(wires, open_):
    credentials = Identity.load(wires.certificates / "operator").channel_credentials()
    async with member(wires, Ending(True, 3), tls=True, open_=open_) as (b, _):
        for method, frames in (("Deliver", b.frames(Message("hello", 1))), ("Ping", [b""]), ("Introduce", [b""])):
            assert await b.call(frames, method, credentials=credentials) == "NOT_MY_NEIGHBOUR"
        assert await b.call([give_order()], "Finish", credentials=credentials) == "ACCEPTED"


@pytest.mark.trio
async def test_where_nobody_answers_it_is_said_at_once(wires):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    assert f"no peer answers at {address} (unreachable)" in await refused(NetworkError, address, None)
    identity = Identity.load(wires.certificates / "operator")
    assert "(unreachable)" in await refused(NetworkError, address, identity)
    async with member(wires, Ending(True, 3)) as (_, address):
        assert "or --insecure, as the run does" in await refused(NetworkError, address, identity)


def gradvine(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("flags", [[], ["--insecure", "--certs", "nowhere"]])
def test_either_certificates_or_none(flags):
    error = gradvine("finish", "127.0.0.1:7", *flags).exception
    assert isinstance(error, NetworkError)
    assert "--certs" in str(error)


@pytest.mark.parametrize("address", ["nowhere", "10.0.0.1:70000", "127.0.0.1"])
def test_an_address_that_is_none(address):
    error = gradvine("finish", address, "--insecure").exception
    assert isinstance(error, ConfigError)
    assert address in str(error)


# ------------------------------------------------------------------------------------------------- daemons


def test_who_comes_back_when_all_is_over_keeps_the_merged_model(home):
    """It would be alone with its own one now."""
    folder, _ = home
    here = {"plan": folder / "plan.json", "certs": folder / "certs" / "n0", "state": folder / "state", "wait_s": 0.0}
    orders = Orders("n0", folder / "data", **here, resume=True)
    config = RunConfig(options={"hidden": "4"}, steps=2, time_unit="10ms")
    merged = orders.state / "merged.safetensors"
    assert run_daemon(orders, config) == 0
    assert read_merged(merged)[0]["members"] == ["n0"], "nobody else was ever there"
    merged.write_text("of all")
    assert run_daemon(orders, config) == 0
    assert merged.read_text() == "of all"
    assert run_daemon(orders, config.model_copy(update={"steps": 4})) == 0
    assert read_merged(merged)[0]["members"] == ["n0"]


@pytest.fixture
def home(tmp_path):
    """A plan in which all are neighbours, their data and their certificates."""
    plan = place_here(build_plan("complete", len(NAMES)))
    save_plan(plan, tmp_path / "plan.json")
    prepare(load_task("digits", {"hidden": "4"}), NAMES, "iid", 1.0, 0, tmp_path / "data", spec="digits")
    make_certificates(NAMES, tmp_path / "certs")
    return tmp_path, plan


@contextmanager
def running(folder):
    """Daemons that learn until they are told to end."""
    fixed = [sys.executable, "-m", "node.testbed.tether", "run", "--plan", folder / "plan.json"]
    fixed += ["--data", folder / "data", "--out", folder / "run", "--duration", "1h"]
    fixed += ["--time-unit", "50ms", "--set", "hidden=4", "--snapshot-every", "1h"]
    commands = {}
    for name in NAMES:
        own = ["--name", name, "--certs", folder / "certs" / name, "--state", folder / "state" / name]
        commands[name] = [str(part) for part in fixed + own]
    with Processes(commands, folder / "logs", {**os.environ, "OMP_NUM_THREADS": "1"}) as processes:
        yield processes


def wait_until(holds, what):
    deadline = time.monotonic() + LONG_S
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.05)


def status(node):
    try:
        return read_status(node.http)
    except NetworkError:
        return {"gradients": 0, "phase": "unknown", "peers": {}}


def end(processes, name):
    """Until a daemon has ended by itself; its code."""
    wait_until(lambda: name in processes.codes or name in processes.wait(0.05), f"{name} ends")
    return processes.codes[name]


def read_merged(path):
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["merged"]), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def come_back(folder, name):
    """Start a peer again, whose hour is not over; to its end."""
    here = {"plan": folder / "plan.json", "certs": folder / "certs" / name, "state": folder / "state" / name}
    config = RunConfig(options={"hidden": "4"}, duration=3600, time_unit="50ms")
    assert run_daemon(Orders(name, folder / "data", **here, resume=True, wait_s=0.0), config) == 0


def test_a_run_that_its_operator_ends(home):
    """One peer has left before, and one dies in the merge: the three others end with the mean of their three models."""
    folder, plan = home
    address, certs, run = plan.node("n0").address, folder / "certs", folder / "run"
    with running(folder) as processes:
        wait_until(lambda: all(status(node)["gradients"] > 20 for node in plan.nodes), "all learn")
        error = gradvine("finish", address, "--certs", certs / "n1").exception
        assert isinstance(error, NetworkError)
        assert "nobody but the operator" in str(error)

        begun = time.monotonic()
        os.kill(processes.pid("n4"), signal.SIGTERM)
        assert end(processes, "n4") == 0
        assert time.monotonic() - begun < 8
        assert not (run / "merged").exists()
        wait_until(lambda: status(plan.node("n0"))["peers"]["n4"]["state"] == "gone", "n4 is missed")
        assert {status(node)["phase"] for node in plan.nodes[:4]} == {"learning"}

        os.kill(processes.pid("n3"), signal.SIGSTOP)  # it says nothing any more, and nobody knows
        answer = gradvine("finish", address, "--certs", certs / "operator", "--json")
        assert answer.exit_code == 0, answer.output
        told = json.loads(answer.stdout)
        assert (told["address"], told["peer"]) == (address, "n0")
        assert told["neighbours"] in (2, 3)
        os.kill(processes.pid("n3"), signal.SIGKILL)
        assert [end(processes, name) for name in NAMES[:3]] == [0, 0, 0]

    files = sorted((run / "merged").iterdir())
    assert [file.name for file in files] == ["n0.safetensors", "n1.safetensors", "n2.safetensors"]
    assert len({file.read_bytes() for file in files}) == 1
    assert (folder / "state" / "n1" / "merged.safetensors").read_bytes() == files[0].read_bytes()
    come_back(folder, "n1")
    assert (folder / "state" / "n1" / "merged.safetensors").read_bytes() == files[0].read_bytes()
    about, tensors = read_merged(files[0])
    assert about["members"] == ["n0", "n1", "n2"]
    states = read_states(run)
    assert sorted(states) == ["n0", "n1", "n2", "n4"]
    mean = torch.stack([states[name].model.double() for name in about["members"]]).mean(0)
    merged = torch.cat([value.flatten() for value in tensors.values()]).double()
    torch.testing.assert_close(merged.sort().values, mean.sort().values, rtol=1e-6, atol=1e-8)
    summary = json.loads(gradvine("report", prepare_report(folder), "--json").stdout)
    assert summary["merged"] == {"members": 3, "peers": 3, "identical": True, "waves": summary["merged"]["waves"]}
    assert summary["lost_peers"] == ["n3"]


def prepare_report(folder):
    """Collect what a run of daemons without a driver leaves."""
    for name in ("plan.json", "data"):
        (folder / name).rename(folder / "run" / name)
    return folder / "run"
