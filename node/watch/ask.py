"""Asks peers for their statuses, all at once, in threads, and never for longer than it has been given.

A peer that is slow, silent or speaks nonsense has not answered; nothing that it sends can hold anybody else up, or be
more than :data:`SIZE_MAX`.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from node.watch.answer import Answer, read_answer

THREADS_MAX = 32
PATIENCE_S = 0.8
"""A peer has so long to answer; looking up its name comes on top where the system takes its time."""
SIZE_MAX = 2**20
CHUNK = 2**16


class Asker:
    """Asks the same peers again and again.

    Parameters
    ----------
    addresses : mapping of str to str
        ``HOST:PORT`` of each peer's status page, by whatever the caller calls it.
    fetch : callable
        ``fetch(address)`` is what answers there, as bytes; it raises OSError or ValueError where nothing does.
    """

    def __init__(self, addresses: Mapping[str, str], fetch: Callable[[str], bytes] | None = None) -> None:
        self._addresses, self._fetch = addresses, fetch or fetch_status
        self._asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._answered: queue.SimpleQueue[tuple[str, Answer | None]] = queue.SimpleQueue()
        self._under_way: set[str] = set()
        for _ in range(min(THREADS_MAX, len(addresses))):
            # Daemon threads: whoever ends the program waits for no name server.
            threading.Thread(target=self._work, name="ask", daemon=True).start()

    def ask_all(self, wait_s: float) -> dict[str, Answer]:
        """Ask everybody who is not being asked already, and gather what comes in within so many seconds."""
        deadline = time.monotonic() + wait_s
        for key in self._addresses.keys() - self._under_way:
            self._under_way.add(key)
            self._asked.put(key)
        answers = {}
        while self._under_way:
            try:
                key, answer = self._answered.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            self._under_way.discard(key)
            if answer is not None:
                answers[key] = answer
        return answers

    def _work(self) -> None:
        while True:
            key, answer = self._asked.get(), None
            with suppress(OSError, ValueError):
                answer = read_answer(self._fetch(self._addresses[key]))
            self._answered.put((key, answer))


def fetch_status(address: str) -> bytes:
    """The body of ``GET /status``.

    Raises
    ------
    OSError, ValueError
        When nothing answers, not in time, or not with a page of at most :data:`SIZE_MAX` bytes.
    """
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + PATIENCE_S
    with socket.create_connection((host.strip("[]"), int(port)), PATIENCE_S) as stream:
        stream.sendall(f"GET /status HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n".encode("ascii"))
        data = _read_all(stream, deadline)
    head, _, body = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.") or head.split(None, 2)[1:2] != [b"200"]:
        raise ValueError("no status page")
    return body


def _read_all(stream: socket.socket, deadline: float) -> bytes:
    """Until the other end hangs up: the timeout of a socket alone would begin again with every byte."""
    data = bytearray()
    while (left_s := deadline - time.monotonic()) > 0:
        stream.settimeout(left_s)
        chunk = stream.recv(CHUNK)
        if not chunk:
            return bytes(data)
        data += chunk
        if len(data) > SIZE_MAX:
            raise ValueError("too long")
    raise TimeoutError
