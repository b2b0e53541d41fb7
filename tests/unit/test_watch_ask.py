"""Answers that can't be believed, and pages that are no peers': none of them gets past the door."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from node.meter import Meter, PeerStatus, Status
from node.pages import serve_pages
from node.watch import ask
from node.watch.answer import PEERS_MAX, Word, read_answer
from node.watch.ask import Asker, fetch_status

PEERS = {"n1": PeerStatus("alive", 2.0, 1.5, 3, 0.5), "n2": PeerStatus("gone")}
STATUS = Status(name="n0", run="r", algorithm="gossip", task="digits", phase="learning", accuracy=0.5, peers=PEERS)


def written(**changes: Any) -> bytes:
    """The status of a peer, with some of it replaced."""
    value = json.loads(Meter(STATUS).pages()["/status"]().body)
    return json.dumps(value | changes).encode()


def test_what_a_peer_writes_is_read() -> None:
    answer = read_answer(written(loss=2, seconds_left=None, from_the_future=[1]))
    assert (answer.name, answer.phase, answer.accuracy, answer.loss) == ("n0", "learning", 0.5, 2.0)
    assert (answer.distance, answer.seconds_left, answer.round) == (None, None, None)
    assert answer.peers == {"n1": Word("alive", 2.0, 3, 0.5), "n2": Word("gone")}


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "<img src=x onerror=alert(1)>"},
        {"name": "N0"},
        {"name": "a" * 64},
        {"name": None},
        {"phase": "<b>learning</b>"},
        {"phase": ["learning"]},
        {"algorithm": 7},
        {"task": "x" * 1000},
        {"accuracy": "0.5"},
        {"accuracy": True},
        {"accuracy": 1.5},
        {"loss": math.nan},
        {"loss": math.inf},
        {"loss": 1e305},
        {"loss": [1]},
        {"seconds": -1},
        {"seconds": 1e300},
        {"unit_seconds": 0},
        {"gradients": 1.5},
        {"gradients": -1},
        {"bytes_sent": 2**63},
        {"round": "12"},
        {"peers": []},
        {"peers": None},
        {"peers": {"<script>": {"state": "alive"}}},
        {"peers": {"n1": "alive"}},
        {"peers": {"n1": {"state": "dead"}}},
        {"peers": {"n1": {"state": {}}}},
        {"peers": {"n1": {"state": "alive", "exchanges": -1}}},
        {"peers": {"n1": {"state": "alive", "rate_asked_hz": -1.0}}},
        {"peers": {"n1": {"state": "alive", "rate_asked_hz": 1e300}}},
        {"peers": {f"n{k}": {"state": "alive"} for k in range(PEERS_MAX + 1)}},
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_what_no_peer_writes_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        read_answer(written(**changes))


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b"{}", b"\xff\xfe", b"[" * 200_000, b"<html>", b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_what_is_no_status_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_answer(data)


def test_letters_that_can_not_be_seen_are_left_out() -> None:
    assert read_answer(written(algorithm="gos\u202esip\n\x00")).algorithm == "gossip"


# ------------------------------------------------------------------------------------------------ over the network


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """An address where everybody who calls is served like this."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, suppress(OSError):
                        connection.recv(1000)
                        serve(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_a_peers_page_is_fetched() -> None:
    with serve_pages("127.0.0.1:0", Meter(STATUS).pages()) as port:
        assert read_answer(fetch_status(f"127.0.0.1:{port}")).name == "n0"


def test_what_is_no_page_is_no_answer() -> None:
    for said in (b"HTTP/1.0 404 Not Found\r\n\r\n{}", b"SSH-2.0-x\r\n", b"", b"HTTP/1.0\r\n\r\n"):
        with listening(lambda one, said=said: one.sendall(said)) as address, pytest.raises(ValueError):  # type: ignore[misc]
            fetch_status(address)


def test_who_sends_byte_after_byte_or_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "PATIENCE_S", 0.3)
    pause = threading.Event()

    def drip(connection: socket.socket) -> None:
        while not pause.wait(0.05):
            connection.sendall(b"H")

    def flood(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
        while True:
            connection.sendall(b" " * 2**16)

    with listening(drip) as address, pytest.raises(TimeoutError):
        fetch_status(address)
    pause.set()
    monkeypatch.setattr(ask, "PATIENCE_S", 30.0)
    with listening(flood) as address, pytest.raises(ValueError, match="too long"):
        fetch_status(address)


def test_nobody_holds_up_the_others() -> None:
    stuck = threading.Event()

    def fetch(address: str) -> bytes:
        if address == "stuck":
            stuck.wait(60)
            raise OSError
        if address == "broken":
            raise ValueError
        return written(name=address)

    asker = Asker({name: name for name in ("n1", "stuck", "broken", "n2")}, fetch)
    assert set(asker.ask_all(0.5)) == {"n1", "n2"}
    assert set(asker.ask_all(0.5)) == {"n1", "n2"}, "who is still being asked is not asked again"
    stuck.set()
