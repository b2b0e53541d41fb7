"""The proxy around its links: who calls, where it listens, how it is told to change, and how it ends."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from typer.testing import CliRunner

from node.cli import app
from node.errors import ConfigError, NetworkError, StorageError
from node.links.control import command, open_control, serve_control
from node.links.doors import Door, doors_of, read_doors
from node.links.proxy import Proxy, open_door
from node.links.sources import Sources, plain
from node.links.table import Links, say
from topology.plan import Plan, save_plan
from topology.planning import build_plan

HANG_S = 60.0


def slow_ring() -> Plan:
    """A ring of four, n0 – n1 with a delay of 20 ms and 1 MiB/s."""
    ring = build_plan("ring", 4)
    return replace(
        ring,
        edges=tuple(
            replace(edge, delay=0.02, bandwidth=2.0**20) if {edge.a, edge.b} == {"n0", "n1"} else edge
            for edge in ring.edges
        ),
    )


# ------------------------------------------------------------------------------------------- who calls


class Hosts:
    """A name service in which hosts move."""

    def __init__(self, **addresses: str) -> None:
        self.addresses, self.asked = addresses, 0

    async def resolve(self, name: str) -> set[str]:
        self.asked += 1
        await trio.sleep(0)
        return {self.addresses[name]} if name in self.addresses else set()


def test_callers_are_known_by_their_addresses_also_after_they_have_moved() -> None:
    async def test() -> None:
        hosts = Hosts(n0="10.0.0.1", n1="10.0.0.2")
        sources = Sources(["n0", "n1", "n2"], hosts.resolve)
        assert [await sources.who(f"10.0.0.{k}") for k in (1, 2, 3)] == ["n0", "n1", None]
        assert await sources.who("::ffff:10.0.0.2") == "n1"
        hosts.addresses = {"n0": "10.0.0.2", "n1": "10.0.0.1", "n2": "10.0.0.3"}
        assert [await sources.who(f"10.0.0.{k}") for k in (1, 2, 3)] == ["n1", "n0", "n2"]
        del hosts.addresses["n2"]
        assert await sources.who("10.0.0.3") is None

    trio.run(test)


def test_a_known_caller_costs_one_question_and_many_strangers_few() -> None:
    async def test() -> None:
        hosts = Hosts(n0="10.0.0.1", n1="10.0.0.2")
        sources = Sources(["n0", "n1"], hosts.resolve)
        await sources.who("10.0.0.1")
        hosts.asked = 0
        assert await sources.who("10.0.0.1") == "n0"
        assert hosts.asked == 1
        async with trio.open_nursery() as nursery:
            for k in range(50):
                nursery.start_soon(sources.who, f"10.0.9.{k}")
        assert hosts.asked <= 1 + 2 * 2

    trio.run(test)


def test_a_name_service_that_hangs_holds_nobody_up_for_long() -> None:
    async def hang(name: str) -> set[str]:
        if name == "n0":
            return {"10.0.0.1"}
        await trio.sleep_forever()
        raise AssertionError

    async def test() -> None:
        sources = Sources(["n0", "n1"], hang)
        assert await sources.who("10.0.0.9") is None
        assert await sources.who("10.0.0.1") == "n0"
        assert trio.current_time() == pytest.approx(2.0)

    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))


def test_whose_name_can_not_be_asked_for_of_late_is_still_who_it_was() -> None:
    slow: set[str] = set()

    async def resolve(name: str) -> set[str]:
        if name in slow:
            await trio.sleep_forever()
        return {"n0": {"10.0.0.1"}, "n1": {"10.0.0.2"}}[name]

    async def test() -> None:
        sources = Sources(["n0", "n1"], resolve)
        assert await sources.who("10.0.0.1") == "n0"
        slow.add("n0")
        assert [await sources.who(f"10.0.0.{k}") for k in (9, 1, 2)] == [None, "n0", "n1"]

    trio.run(test, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.parametrize(
    ("address", "form"), [("10.0.0.7", "10.0.0.7"), ("::ffff:10.0.0.7", "10.0.0.7"), ("fe80::1%eth0", "fe80::1")]
)
def test_an_address_has_one_form(address: str, form: str) -> None:
    assert plain(address) == form


# -------------------------------------------------------------------------------------------- the doors


def test_the_kth_peer_is_behind_the_kth_port() -> None:
    doors = doors_of(build_plan("ring", 12), "::", 20000, 7700)
    assert doors[0] == Door("[::]:20000", "n0", "n0:7700")
    assert doors[11] == Door("[::]:20011", "n11", "n11:7700")
    with pytest.raises(NetworkError, match="12 ports from 65530 on"):
        doors_of(build_plan("ring", 12), "::", 65530, 7700)


def test_doors_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "targets.csv"
    file.write_text("listen,source,target,address\n\n127.0.0.1:1, n0,n1 ,localhost:2\n")
    assert read_doors(file, build_plan("ring", 4)) == [Door("127.0.0.1:1", "n1", "localhost:2", "n0")]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("127.0.0.1:1,n0,n1", "line 1: it has 3 columns, write listen,source,target,address"),
        ("127.0.0.1:1,n0,n11,x:2", "unknown peer 'n11': did you mean 'n1'"),
        ("127.0.0.1,n0,n1,x:2", "line 1: 127.0.0.1 is no address, write HOST:PORT"),
        ("listen,source,target,address", "no targets in it"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(line: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "targets.csv").write_text(line)
    with pytest.raises(ConfigError, match=says):
        read_doors(tmp_path / "targets.csv", build_plan("ring", 4))
    with pytest.raises(ConfigError, match="can't be read"):
        read_doors(tmp_path / "nowhere", build_plan("ring", 4))


# ------------------------------------------------------------------------------------- over sockets


def call_from(address: str, port: int) -> bytes:
    """What an echo behind the port makes of a word, if one calls from this address."""
    with socket.socket() as caller:
        caller.settimeout(HANG_S)
        caller.bind((address, 0))
        caller.connect(("127.0.0.1", port))
        try:
            caller.sendall(b"word")
            caller.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: caller.recv(100), b""))
        except OSError:  # reset before all was said
            return b""


def test_who_calls_from_nowhere_is_refused_and_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        hosts = Hosts(n0="127.0.0.5", n1="127.0.0.6")
        links = Links(slow_ring())
        proxy = Proxy(links, Sources(["n0", "n1"], hosts.resolve))

        async def echo(stream: trio.SocketStream) -> None:
            async with stream:
                async for data in stream:
                    await stream.send_all(data)

        with trio.fail_after(HANG_S):
            async with trio.open_nursery() as nursery:
                (target,) = await nursery.start(partial(trio.serve_tcp, echo, 0, host="127.0.0.1"))
                address = f"127.0.0.1:{target.socket.getsockname()[1]}"
                door = Door("127.0.0.1:0", "n1", address)
                listeners = await open_door(door)
                nursery.start_soon(proxy.serve, [(door, listeners)])
                port = listeners[0].socket.getsockname()[1]
                for caller, heard in (("127.0.0.5", b"word"), ("127.0.0.9", b""), ("127.0.0.9", b"")):
                    assert await trio.to_thread.run_sync(call_from, caller, port) == heard
                nursery.cancel_scope.cancel()
        assert proxy.refused == 2
        assert links.between("n1", "n0").carried == 2 * len(b"word")
        assert [record.getMessage() for record in caplog.records] == [
            "a connection from 127.0.0.9 is refused: no peer of the plan is there"
        ]

    trio.run(test)


@pytest.mark.parametrize("host", ["127.0.0.1", "a..b"])
def test_a_peer_that_is_not_there_ends_the_call(host: str) -> None:
    async def test() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            door = Door("127.0.0.1:0", "n1", f"{host}:{taken.getsockname()[1]}", "n0")
            proxy = Proxy(Links(slow_ring()), Sources([]))
            with trio.fail_after(HANG_S):
                async with trio.open_nursery() as nursery:
                    listeners = await open_door(door)
                    nursery.start_soon(proxy.serve, [(door, listeners)])
                    port = listeners[0].socket.getsockname()[1]
                    assert await trio.to_thread.run_sync(call_from, "127.0.0.1", port) == b""
                    with pytest.raises(NetworkError, match="can't listen on"):
                        await open_door(replace(door, listen=f"{host}:{port}"))
                    nursery.cancel_scope.cancel()

    trio.run(test)


# ----------------------------------------------------------------------------------------------- orders


def test_links_begin_as_the_plan_says_and_others_have_no_limit() -> None:
    links = Links(slow_ring())
    first, *others = links.describe()
    assert first == {
        "a": "n0",
        "b": "n1",
        "delay": 0.02,
        "bandwidth": 2.0**20,
        "state": "up",
        "bytes": 0,
        "connections": 0,
    }
    assert [(each["a"], each["b"], each["delay"], each["bandwidth"]) for each in others] == [
        ("n0", "n3", 0.0, None),
        ("n1", "n2", 0.0, None),
        ("n2", "n3", 0.0, None),
    ]
    assert links.between("n1", "n0") is links.between("n0", "n1")
    assert links.between("n0", "n2").delay == 0.0
    assert say(first) == "n0 – n1 is up: 20 ms one way, 1 MiB/s"


def test_an_order_changes_what_it_names_and_nothing_else() -> None:
    links = Links(slow_ring())
    link = links.between("n0", "n1")
    links.obey({"a": "n1", "b": "n0", "cut": True})
    assert (link.is_cut, link.delay, link.bandwidth) == (True, 0.02, 2.0**20)
    links.obey({"a": "n1", "b": "n0", "bandwidth": None})
    assert (link.is_cut, link.delay, link.bandwidth) == (True, 0.02, float("inf"))
    links.obey({"a": "n0", "b": "n1", "delay": 0, "cut": False})
    assert (link.is_cut, link.delay, link.bandwidth) == (False, 0.0, float("inf"))
    assert len(links.obey({})) == 4
    assert [each["state"] for each in links.describe()] == ["up"] * 4


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ({"a": "n0", "b": "n7"}, "unknown peer 'n7'"),
        ({"a": "n0"}, "unknown peer ''"),
        ({"a": "n0", "b": "n2"}, "n0 and n2 are not joined in the plan: n0's links are to n1, n3"),
        ({"a": "n0", "b": "n1", "delay": -1}, "--delay -1 can't be used: write 0s to 1h"),
        ({"a": "n0", "b": "n1", "delay": "1s"}, "--delay 1s can't be used"),
        ({"a": "n0", "b": "n1", "cut": True, "bandwidth": 0}, "--bandwidth 0 can't be used: write 1B or more"),
        ({"a": "n0", "b": "n1", "bandwidth": 10**400}, "--bandwidth 10+ can't be used"),
        ({"a": "n0", "b": "n1", "cut": "no"}, "cut is true or false"),
        ({"a": "n0", "b": "n1", "dealy": 1}, "unknown order 'dealy': did you mean 'delay'"),
    ],
)
def test_an_order_that_makes_no_sense_changes_nothing(order: dict[str, Any], says: str) -> None:
    links = Links(slow_ring())
    before = links.describe()
    with pytest.raises(ConfigError, match=says):
        links.obey(order)
    assert links.describe() == before


@pytest.fixture
def control(tmp_path: Path) -> Iterator[tuple[Path, Links]]:
    """A file by which links can be changed, in a thread of its own."""
    path, links, there = tmp_path / "control", Links(slow_ring()), queue.SimpleQueue[trio.lowlevel.TrioToken]()
    scope = trio.CancelScope()

    async def serve() -> None:
        with open_control(path) as listener, scope:
            there.put(trio.lowlevel.current_trio_token())
            await serve_control(listener, links)

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    token = there.get(timeout=HANG_S)
    yield path, links
    trio.from_thread.run_sync(scope.cancel, trio_token=token)
    thread.join(HANG_S)
    assert not path.exists()


def test_orders_by_a_file(control: tuple[Path, Links]) -> None:
    path, links = control
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(command(path, {})) == 4
    assert command(path, {"a": "n0", "b": "n1", "cut": True})[0]["state"] == "cut"
    assert links.between("n0", "n1").is_cut
    with pytest.raises(ConfigError, match="unknown peer 'x'"):
        command(path, {"a": "x", "b": "n1"})
    with pytest.raises(StorageError, match="--control"), open_control(path):
        pass


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\n",
        b"x\n",
        b"[]\n",
        b"[" * 4000 + b"\n",
        b'{"a": "n0", "b": "n1", "bandwidth": 1' + b"0" * 400 + b"}\n",
        b"\xff" * 4096,
        b'{"a": 1}\n',
    ],
)
def test_nonsense_is_answered_with_a_sentence(said: bytes, control: tuple[Path, Links]) -> None:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(HANG_S)
        stream.connect(str(control[0]))
        stream.sendall(said)
        stream.shutdown(socket.SHUT_WR)
        assert list(json.loads(stream.makefile("rb").read())) == ["error"]
    assert len(command(control[0], {})) == 4


def test_a_file_that_a_killed_proxy_has_left_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "control"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(NetworkError, match="no proxy answers"):
        command(path, {})

    async def test() -> None:
        with open_control(path):
            assert path.is_socket()

    trio.run(test)
    path.write_text("something of the user's own")
    with pytest.raises(StorageError, match="--control"):
        trio.run(test)
    assert path.read_text() == "something of the user's own"


# --------------------------------------------------------------------------------------- the command line


def test_a_proxy_as_a_process(tmp_path: Path) -> None:
    save_plan(slow_ring(), tmp_path / "plan.json")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        (tmp_path / "targets.csv").write_text(f"127.0.0.1:{probe.getsockname()[1]},n0,n1,127.0.0.1:1\n")
    where = ["--plan", str(tmp_path / "plan.json"), "--targets", str(tmp_path / "targets.csv")]
    own = ["--control", str(tmp_path / "control")]
    start = "from node.cli import main; main()"
    proxy = subprocess.Popen([sys.executable, "-c", start, "links", *where, *own], stderr=subprocess.PIPE, text=True)
    try:
        assert proxy.stderr is not None
        assert "4 links" in proxy.stderr.readline()
        shown = CliRunner().invoke(app, ["link", "n3", "n0", "--delay", "50ms", "--bandwidth", "2MiB", "--cut", *own])
        assert shown.stdout == "n0 – n3 is cut: 50 ms one way, 2 MiB/s\n"
        assert "n0 – n3 is cut: 50 ms one way, 2 MiB/s" in proxy.stderr.readline()
        shown = CliRunner().invoke(app, ["link", "n0", "n3", "--heal", "--bandwidth", "none", "--json", *own])
        assert json.loads(shown.stdout)[0] | {"delay": 0} == {
            "a": "n0",
            "b": "n3",
            "delay": 0,
            "bandwidth": None,
            "state": "up",
            "bytes": 0,
            "connections": 0,
        }
        table = CliRunner().invoke(app, ["link", *own]).stdout
        assert [line for line in table.splitlines() if "50 ms" in line and "n0 – n3" in line and "up" in line]
    finally:
        os.kill(proxy.pid, signal.SIGTERM)
        assert proxy.wait(HANG_S) == 0
    assert not (tmp_path / "control").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["n0"], "a link has two ends"),
        (["--cut"], "which link is to change"),
        (["n0", "n1", "--delay", "soon"], "--delay soon can't be used: write a duration"),
        (["n0", "n1", "--bandwidth", "much"], "--bandwidth much can't be used: write a size"),
    ],
)
def test_mistakes_of_the_command_line(arguments: list[str], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        CliRunner().invoke(app, ["link", *arguments, "--control", str(tmp_path / "c")], catch_exceptions=False)
