"""The page's server: streams, viewers that are slow or too many, and who may ask for what."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from node.errors import NetworkError
from node.watch import server
from node.watch.page import compose_page, content_security_policy
from node.watch.server import Audience, serve

STORY = '{"version":1}'
HANG_S = 20.0


@pytest.fixture
def audience() -> Audience:
    return Audience(lambda: STORY)


@pytest.fixture
def port(audience: Audience) -> Iterator[int]:
    with serve("127.0.0.1:0", "<html><script>1</script></html>", audience, ["Watch.example"]) as url:
        yield int(url.rpartition(":")[2])


def call(
    port: int, path: str = "/", host: str | None = "localhost", method: str = "GET", room: int = 0
) -> socket.socket:
    stream = socket.socket()
    if room:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    stream.settimeout(HANG_S)
    stream.connect(("127.0.0.1", port))
    named = f"Host: {host}\r\n" if host is not None else ""
    stream.sendall(f"{method} {path} HTTP/1.1\r\n{named}\r\n".encode())
    return stream


def answer(stream: socket.socket) -> tuple[int, dict[str, str], str]:
    """Status, headers by small letters, and body."""
    with stream, stream.makefile("rb") as file:
        head, _, body = file.read().decode().partition("\r\n\r\n")
    first, *lines = head.split("\r\n")
    headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines)}
    return int(first.split()[1]), headers, body


@contextmanager
def viewing(port: int) -> Iterator[Iterator[bytes]]:
    """The lines of the stream of somebody who looks on."""
    with call(port, "/events") as stream, stream.makefile("rb") as file:
        lines = (line.rstrip() for line in file)
        head = list(iter(lambda: next(lines), b""))
        assert b"Content-Type: text/event-stream" in head
        assert [next(lines), next(lines)] == [b"retry: 1000", b""]
        yield lines


def message(lines: Iterator[bytes]) -> tuple[bytes, bytes]:
    name, data, end = next(lines), next(lines), next(lines)
    assert end == b""
    return name.removeprefix(b"event: "), data.removeprefix(b"data: ")


def tell(audience: Audience, text: str) -> None:
    with audience.lock:
        audience.tell("frame", text)


# ------------------------------------------------------------------------------------------------------ the stream


def test_a_viewer_gets_the_story_and_then_what_is_new(port: int, audience: Audience) -> None:
    with viewing(port) as one, viewing(port) as other:
        assert message(one) == message(other) == (b"story", STORY.encode())
        tell(audience, "1")
        tell(audience, "2")
        assert [message(one), message(one)] == [(b"frame", b"1"), (b"frame", b"2")]
        assert message(other) == (b"frame", b"1")


def test_a_stream_in_which_nothing_happens_is_kept_open(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STILL_HERE_S", 0.05)
    with viewing(port) as lines:
        message(lines)
        assert [next(lines), next(lines), next(lines)] == [b": still here", b"", b": still here"]


def test_a_viewer_that_does_not_read_is_hung_up_on(port: int, audience: Audience) -> None:
    with call(port, "/events", room=4096) as slow, viewing(port) as quick:
        message(quick)
        wait_until_there(audience, 2)
        seen = 0
        while len(audience) == 2:
            assert seen < 10_000, "it is never hung up on"
            tell(audience, "x" * 2**20)
            assert message(quick)[0] == b"frame"
            seen += 1
        tell(audience, "still here")
        assert message(quick) == (b"frame", b"still here")
        assert slow.recv(1)


def test_who_reads_slowly_but_reads_gets_all(port: int, audience: Audience, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server._Request, "timeout", 0.3)
    pause, size, got = threading.Event(), 8 * 2**20, 0
    with call(port, "/events", room=2**16) as slow:
        wait_until_there(audience, 1)
        tell(audience, "x" * size)
        while got < size:  # takes more than a second in all
            pause.wait(0.02)
            data = slow.recv(2**17)
            assert data, f"hung up on after {got} bytes"
            got += len(data)


def wait_until_there(audience: Audience, viewers: int) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if len(audience) == viewers:
            return
        pause.wait(0.01)
    raise AssertionError("they never come")


def test_more_viewers_than_there_is_room_for_are_told_so(
    port: int, audience: Audience, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "VIEWERS_MAX", 2)
    with viewing(port) as one, viewing(port) as other:
        message(one)
        message(other)
        assert answer(call(port, "/events"))[0] == 503
        assert answer(call(port, "/"))[0] == 200


def test_who_leaves_makes_room(port: int, audience: Audience) -> None:
    with viewing(port) as lines:
        message(lines)
    pause = threading.Event()
    for _ in range(1000):
        tell(audience, "?")
        if not len(audience):
            return
        pause.wait(0.01)
    raise AssertionError("it is never noticed")


def test_the_end_is_the_end_for_all(audience: Audience) -> None:
    with serve("127.0.0.1:0", "", audience) as url:
        port = int(url.rpartition(":")[2])
        stream = call(port, "/events")
        wait_until_there(audience, 1)
        tell(audience, "last")
    assert answer(stream)[2].endswith("data: last\n\n")
    assert len(audience) == 0
    with pytest.raises(OSError):
        call(port)


# ----------------------------------------------------------------------------------------------------- who may what


@pytest.mark.parametrize(
    ("host", "code"),
    [
        ("localhost", 200),
        ("LOCALHOST:9600", 200),
        ("127.0.0.1:9600", 200),
        ("[::1]:9600", 200),
        ("192.168.7.7", 200),
        ("watch.example:80", 200),
        ("run.localhost", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example:9600", 403),
        ("watch.example.evil", 403),
        ("", 403),
        (None, 403),
    ],
)
def test_other_sites_names_get_nothing(port: int, host: str | None, code: int) -> None:
    for path in ("/", "/nothing") if code == 403 else ("/",):
        assert answer(call(port, path, host))[0] == code


@pytest.mark.parametrize(("method", "path", "code"), [("POST", "/", 501), ("PUT", "/events", 501), ("GET", "/x", 404)])
def test_nothing_else_is_understood(port: int, method: str, path: str, code: int) -> None:
    status, _, body = answer(call(port, path, method=method))
    assert status == code
    assert "Traceback" not in body


def test_every_answer_tells_the_browser_to_be_strict(port: int) -> None:
    for path in ("/", "/x"):
        _, headers, _ = answer(call(port, path))
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script-src 'sha256-" in policy


def test_who_asks_too_slowly_is_hung_up_on(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.pages.PATIENCE_S", 0.1)
    with socket.create_connection(("127.0.0.1", port), HANG_S) as stream:
        stream.sendall(b"GET / HT")
        assert stream.recv(1) == b""


def test_an_address_that_is_taken_is_a_sentence(port: int, audience: Audience) -> None:
    for address in (f"127.0.0.1:{port}", "127.0.0.1:x", "127.0.0.1:99999"):
        with pytest.raises(NetworkError, match="--http"), serve(address, "", audience):
            pass


# --------------------------------------------------------------------------------------------------------- the page


def test_the_page_is_whole_and_loads_nothing() -> None:
    page = compose_page()
    assert '<script type="application/json" id="story">null</script>' in page
    assert not re.search(r"<!-- (style|vendor|script|sections) -->", page)
    assert not re.search(r"<(script|link|img)[^>]* (src|href)=\"(?!data:)", page)
    for part in ("cytoscape", "uPlot", "EventSource", ":root"):
        assert part in page
    assert page.count("</script>") == page.count("<script") == 3


def test_a_report_is_the_same_page_with_a_story() -> None:
    story = json.dumps({"title": "<!-- script --> \\1"}).replace("<", "\\u003c")
    page = compose_page("a <b>run</b>", story, "<p>table <!-- vendor --></p>")
    assert f'id="story">{story}</script>' in page
    assert "<title>a &lt;b&gt;run&lt;/b&gt;</title>" in page
    assert "<p>table <!-- vendor --></p>" in page
    live = compose_page("a <b>run</b>")
    assert page.replace(story, "null").replace("<p>table <!-- vendor --></p>", "") == live


def test_only_the_pages_own_scripts_may_run() -> None:
    page = '<script>one</script><script type="application/json" id="story">null</script>'
    page += '<script type="module">two\n</script>'
    hashes = [base64.b64encode(hashlib.sha256(text).digest()).decode() for text in (b"one", b"two\n")]
    assert f"script-src 'sha256-{hashes[0]}' 'sha256-{hashes[1]}';" in content_security_policy(page)
    assert content_security_policy(compose_page()).count("sha256-") == 2
