"""How the proxy of links is told to change one: orders, the file that they come by, and the commands."""

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
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from typer.testing import CliRunner

from node.cli import app
from node.errors import ConfigError, NetworkError, StorageError
from node.links.control import command, open_control, serve_control
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
