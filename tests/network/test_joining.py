"""Joining with one known address: who is told what run there is, and what a peer that was told makes of it."""

from __future__ import annotations

import queue
import socket
import threading
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import grpc
import pytest
import trio

from algorithms import ALGORITHMS
from algorithms.protocol import Delivered, Done, Finish, Kind, Message, Reason, Save, Send, Snapshot, Start, Tempo
from algorithms.view import Standing
from node.config import RunConfig
from node.daemon import run_daemon
from node.errors import ConfigError, NetworkError, StorageError
from node.orders import Orders
from node.pace import Agreement, Pace
from node.parts import Parts
from node.shards import prepare
from node.tasks import load_task
from node.testbed.record import read_lines
from node.wire.authority import add_certificates, make_certificates
from node.wire.bridge import open_bridge
from node.wire.grpc import open_grpc
from node.wire.introduction import Introducer, Introduction, ask, introduce
from node.wire.joining import find_run
from node.wire.tls import Identity
from node.wire.transport import Undelivered
from topology.plan import save_plan
from topology.planning import build_plan

PLAN = build_plan("ring", 3)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Of a run's three peers, and one that was made later."""
    folder = tmp_path_factory.mktemp("certs")
    make_certificates(["a", "b", "c"], folder)
    add_certificates(["x"], folder)
    return folder


@asynccontextmanager
async def member(wires, *, plan=PLAN, open_=True, **more):
    """A running member of an open run, and where it is."""
    async with open_bridge() as bridge, wires.peer(bridge, "b", {}, owned=False, plan=plan, open_=open_, **more) as b:
        yield b, f"127.0.0.1:{b.transport.port}"


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


async def refused(address, name, identity, wait_s=0.0):
    with trio.fail_after(20), pytest.raises(NetworkError) as caught:
        await find_run(address, name, identity, wait_s)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


@pytest.mark.trio
@pytest.mark.parametrize("tls", [True, False])
async def test_who_knows_one_address_is_told_run_and_plan(wires, tls):
    identity = Identity.load(wires.certificates / "x") if tls else None
    async with member(wires, tls=tls) as (b, address):
        assert await find_run(address, "x", identity, 0.0) == Introduction("b", address, "r", PLAN)
        assert b.counts.refused_all == []


@pytest.mark.trio
async def test_a_certificate_of_another_authority_is_of_no_use(wires, tmp_path):
    make_certificates(["x", "b"], tmp_path)
    async with member(wires, tls=True) as (b, address):
        assert "is not to be trusted" in await refused(address, "x", Identity.load(tmp_path / "x"))
        (tmp_path / "x" / "ca.pem").write_bytes((wires.certificates / "x" / "ca.pem").read_bytes())
        for folder, status in ((wires.certificates, "MALFORMED"), (tmp_path, "UNAVAILABLE")):
            files = [(folder / "x" / file).read_bytes() for file in ("ca.pem", "key.pem", "cert.pem")]
            credentials = grpc.ssl_channel_credentials(*files)
            assert await b.call([b"\xff"], "Introduce", credentials=credentials) == status


@pytest.mark.trio
async def test_a_member_of_a_closed_run_tells_nothing(wires):
    async with member(wires, plan=None, open_=False, tls=True) as (b, address):
        assert "does not let c in" in await refused(address, "c", Identity.load(wires.certificates / "c"))
        assert b.counts.refused_all == [("c", Reason.NOT_MY_NEIGHBOUR)]


@pytest.mark.trio
async def test_the_denied_are_told_nothing_and_ask_no_denied(wires, tmp_path):
    (tmp_path / "denied").write_text("x\n")
    (tmp_path / "denied-there").write_text("b\n")
    async with member(wires, tls=True, denied=tmp_path / "denied") as (b, address):
        assert "does not let x in" in await refused(address, "x", Identity.load(wires.certificates / "x"))
        assert b.counts.refused_all == [("a stranger", Reason.NOT_MY_NEIGHBOUR)]
        identity = Identity.load(wires.certificates / "c", tmp_path / "denied-there")
        assert "--denied" in await refused(address, "c", identity)


@pytest.mark.trio
async def test_a_peer_does_not_join_through_itself(wires):
    async with member(wires, tls=True) as (_, address):
        assert "is where b itself is" in await refused(address, "b", Identity.load(wires.certificates / "b"))


@pytest.mark.trio
@pytest.mark.parametrize(
    "answer", [b"\xff", b"", introduce("b", "r", b"no plan"), "another name"], ids=["bytes", "empty", "no plan", "name"]
)
async def test_an_answer_that_makes_no_sense_is_said_so(wires, monkeypatch, answer):
    async with member(wires, tls=True) as (b, address):
        if answer == "another name":
            monkeypatch.setattr(b.guard, "name", "c")
            answer = Introducer(b.guard, PLAN).answer("x", ask())
        monkeypatch.setattr(Introducer, "answer", lambda *_: answer)
        assert "makes sense" in await refused(address, "x", Identity.load(wires.certificates / "x"))


@pytest.mark.trio
async def test_where_nobody_answers_it_is_tried_as_long_as_there_is_time(wires):
    identity = Identity.load(wires.certificates / "x")
    address = free_address()
    for nowhere in (address, "a..b:7000"):  # which is no name of a host
        assert f"at {nowhere} within 0s (unreachable)" in await refused(nowhere, "x", identity)
    found = []
    async with trio.open_nursery() as nursery:

        async def look():
            found.append(await find_run(address, "x", identity, 60.0))

        nursery.start_soon(look)
        await trio.sleep(0.1)
        async with member(wires, tls=True, bind=address):
            with trio.fail_after(20):
                while not found:
                    await trio.sleep(0.05)
    assert found[0].contact == "b"


@pytest.mark.trio
@pytest.mark.parametrize("tls", [True, False])
async def test_plaintext_and_tls_do_not_find_each_other(wires, tls):
    identity = None if tls else Identity.load(wires.certificates / "x")
    async with member(wires, tls=tls) as (_, address):
        assert "--insecure" in await refused(address, "x", identity)


@pytest.mark.trio
async def test_who_has_not_said_where_it_is_cannot_be_reached_until_it_is_met(wires):
    async with member(wires) as (b, address), wires.peer(b.bridge, "a", {}, owned=True, open_=True) as a:
        for ask_it in (a.transport.ping("b"), a.transport.send("b", a.offer())):
            with pytest.raises(Undelivered) as refusal:
                await ask_it
            assert refusal.value.reason is Reason.UNREACHABLE
        a.transport.meet("b", address)
        await a.transport.ping("b")


# ------------------------------------------------------------------------------------------- the daemon


class Lobby:
    """An open algorithm that says where it is to its contact, and is done; when it comes back, at once."""

    kinds = {"join": Kind("member", view=True)}
    options = {}
    defaults = {}
    tempo = Tempo()
    born = []

    def __init__(self, place):
        self.place, self.x = place, place.start.clone()
        self.born.append(self)

    def step(self, event, now):
        place = self.place
        if isinstance(event, Start) and not event.recovered:
            return [Send(place.contact, Message("join", 1, view={place.name: Standing(0, 1, False, place.address)}))]
        ended = isinstance(event, Delivered | Finish | Start)
        return [Save(durable=True), Done(self.x)] if ended else []

    def plausible(self, message):
        return message.number == 1

    def model(self, now):
        return self.x

    def ledger(self):
        return None

    def counters(self):
        return {}

    def snapshot(self):
        return Snapshot({"x": self.x})

    def restore(self, snapshot):
        self.x = snapshot.vectors["x"]


CONFIG = RunConfig(algorithm="lobby", options={"hidden": "4"}, time_unit="auto", duration=60.0)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """What is on the disks of a plan's two peers and of one that joins them."""
    folder = tmp_path_factory.mktemp("home")
    save_plan(build_plan("line", 2), folder / "plan.json")
    prepare(load_task("digits", {"hidden": "4"}), ["n0", "n1", "x"], "iid", 1.0, 0, folder / "data", spec="digits")
    make_certificates(["n0", "n1", "x"], folder / "certs")
    return folder


@pytest.fixture
def orders(home, tmp_path, monkeypatch):
    """Those of the peer that joins."""
    monkeypatch.setitem(ALGORITHMS, "lobby", Lobby)
    monkeypatch.setattr(Lobby, "born", [])
    where = {"join": free_address(), "address": free_address(), "certs": home / "certs" / "x"}
    return Orders("x", home / "data", state=tmp_path / "state", out=tmp_path / "run", wait_s=20.0, **where)


@contextmanager
def founder(home, address):
    """A member of the plan, in a thread; what comes into its inbox."""
    came: queue.Queue[tuple[str, Message]] = queue.Queue()
    up, over = threading.Event(), threading.Event()

    async def live(parts):
        wire = {"guard": parts.guard, "identity": parts.identity, "observer": parts.meter, "plan": parts.plan}
        agreement = Agreement(parts.place.nodes, Pace(unit_s=0.02))
        async with (
            open_grpc(name="n0", bind=address, addresses={}, agreement=agreement, **wire) as transport,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(take, transport)
            up.set()
            await trio.to_thread.run_sync(over.wait)
            nursery.cancel_scope.cancel()

    async def take(transport):
        async for arrival in transport.receive():
            came.put(arrival)

    orders = Orders("n0", home / "data", plan=home / "plan.json", certs=home / "certs" / "n0")
    with Parts(orders, CONFIG) as parts:
        thread = threading.Thread(target=trio.run, args=(live, parts))
        thread.start()
        try:
            assert up.wait(20)
            yield came
        finally:
            over.set()
            thread.join()


def test_a_daemon_joins_with_one_address_and_comes_back_without(orders, home, tmp_path):
    with founder(home, orders.join) as came:
        assert run_daemon(orders, CONFIG) == 0
        sender, message = came.get(timeout=20)
    assert (sender, message.view) == ("x", {"x": Standing(0, 1, False, orders.address)})
    (line,) = read_lines(tmp_path / "run")["x"][-1:]
    assert line["unit_s"] == 0.02, "the contact's, not its own"

    assert run_daemon(replace(orders, resume=True, wait_s=0.0), CONFIG) == 0
    assert {(each.place.name, each.place.contact) for each in Lobby.born} == {("n0", ""), ("x", "n0")}

    with pytest.raises(ConfigError, match=r"n0 is in run-\w+, and this peer would be in run-"):
        run_daemon(replace(orders, resume=True), CONFIG.model_copy(update={"codec": "half"}))
    with pytest.raises(NetworkError, match="within 0s"):
        run_daemon(replace(orders, resume=True, join=free_address(), wait_s=0.0), CONFIG)
    (orders.state / "joined.json").write_text("{")
    with pytest.raises(StorageError, match="delete it"):
        run_daemon(replace(orders, resume=True), CONFIG)


def test_a_peer_of_the_plan_has_no_need_to_join(orders, home):
    sentence = "n1 is a peer of the run's plan: start it with --plan"
    with founder(home, orders.join), pytest.raises(ConfigError, match=sentence):
        run_daemon(replace(orders, name="n1", certs=home / "certs" / "n1"), CONFIG)
    assert not orders.state.exists()


@pytest.mark.parametrize(
    ("more", "algorithm", "words"),
    [
        ({"join": None, "address": None}, "lobby", "--plan plan.json, or --join HOST:PORT"),
        ({"plan": "plan.json"}, "lobby", "--plan and --join contradict each other"),
        ({"plan": "plan.json", "join": None}, "lobby", "--address goes with --join"),
        ({}, "gossip", "--join can't be used with gossip"),
        ({"address": None}, "lobby", "--join needs --address"),
        ({"address": "10.0.0.5"}, "lobby", "--address 10.0.0.5 can't be used: write HOST:PORT"),
        ({"join": "10.0.0.5:70000"}, "lobby", "--join 10.0.0.5:70000 can't be used: write HOST:PORT"),
        ({"name": "X", "certs": None, "insecure": True}, "lobby", "--name X can't be used"),
    ],
)
def test_orders_that_contradict_each_other(orders, home, more, algorithm, words):
    if "plan" in more:
        more = more | {"plan": home / "plan.json"}
    with pytest.raises(ConfigError) as caught:
        run_daemon(replace(orders, **more), CONFIG.model_copy(update={"algorithm": algorithm}))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
