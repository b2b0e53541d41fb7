"""How a running proxy is told to change a link, and tells how its links are: a socket file on the same machine.

An order is one line of JSON and so is the answer; see :meth:`node.links.table.Links.obey`. Whoever may open the file
may give orders: the user that runs the proxy.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import trio

from node.errors import ConfigError, NetworkError, StorageError
from node.links.table import Links

CONTROL = Path(tempfile.gettempdir()) / "gradvine-links"
ORDER_BYTES_MAX = 2**12
PATIENCE_S = 5.0


@contextmanager
def open_control(path: Path) -> Iterator[trio.SocketListener]:
    """The file is there, and only its owner may use it, for as long as the block lasts.

    Raises
    ------
    StorageError
        When it can't be made, or another proxy has it.
    """
    with ExitStack() as held:
        try:
            server = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            lock = held.enter_context(path.with_name(f"{path.name}.lock").open("a"))
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.is_socket():
                path.unlink()  # of a proxy that was killed
            before = os.umask(0o177)
            try:
                server.bind(str(path))
            finally:
                os.umask(before)
            held.callback(path.unlink, missing_ok=True)
            server.listen()
        except OSError as error:
            reason = "another proxy has it" if isinstance(error, BlockingIOError) else error.strerror or error
            raise StorageError(f"{path} can't be used: {reason}; name another file with --control.") from None
        yield trio.SocketListener(trio.socket.from_stdlib_socket(server))


async def serve_control(listener: trio.SocketListener, links: Links) -> None:
    """Obey orders for ever."""

    async def answer(stream: trio.SocketStream) -> None:
        with suppress(OSError, trio.BrokenResourceError), trio.move_on_after(PATIENCE_S):
            async with stream:
                await stream.send_all(_answer(links, await _line(stream)))

    await trio.serve_listeners(answer, [listener])


async def _line(stream: trio.SocketStream) -> bytes:
    data = b""
    while b"\n" not in data and len(data) < ORDER_BYTES_MAX:
        more = await stream.receive_some(ORDER_BYTES_MAX)
        if not more:
            break
        data += more
    return data


def _answer(links: Links, line: bytes) -> bytes:
    try:
        order = json.loads(line)
        if not isinstance(order, dict):
            raise ValueError
        answer: dict[str, Any] = {"links": links.obey(order)}
    except ConfigError as error:
        answer = {"error": str(error)}
    except (ValueError, RecursionError):
        answer = {"error": "an order is an object in JSON, on one line."}
    return json.dumps(answer).encode() + b"\n"


def command(path: Path, order: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give an order to the proxy behind a file, and wait for its answer: how the links in question are now.

    Raises
    ------
    NetworkError
        When there is none.
    ConfigError
        When it refuses.
    """
    data = b""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(PATIENCE_S)
            stream.connect(str(path))
            stream.sendall(json.dumps(order).encode() + b"\n")
            while more := stream.recv(2**16):
                data += more
        answer: dict[str, Any] = json.loads(data)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        advice = "start gradvine links, or name its --control"
        raise NetworkError(f"no proxy answers at {path}: {reason}; {advice}.") from None
    if "error" in answer:
        raise ConfigError(answer["error"])
    return list(answer["links"])
