"""The proxy around its links: who calls, and where it listens."""

from __future__ import annotations

import socket
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from node.errors import ConfigError, NetworkError
from node.links.doors import Door, doors_of, read_doors
from node.links.proxy import Proxy, open_door
from node.links.sources import Sources, plain
from node.links.table import Links
from topology.planning import build_plan

HANG_S = 60.0


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
        links = Links(build_plan("ring", 4))
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
            proxy = Proxy(Links(build_plan("ring", 4)), Sources([]))
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
