"""Serves the page and the stream of what happens, to a few viewers, in threads of their own.

Theory of operation
-------------------
Whoever opens ``/events`` gets the whole story and from then on every frame, out of a queue of its own. A viewer whose
queue is full does not keep up and is hung up on; its browser comes again by itself and begins with the whole story.

Only GET is understood, no answer holds the text of an exception, and a request is read for no longer than those of
other pages, see ``node/pages.py``. Another site may have its name point here: what asks for anything but an address,
this machine or a name that was allowed is refused.
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress

from node.pages import BoundedServer, PatientRequest, hang_up, serving
from node.watch.page import content_security_policy

VIEWERS_MAX = 32
OTHERS_MAX = 16
"""Requests that may be served beside the viewers."""
BACKLOG_MAX = 32
"""Messages that may wait for a viewer."""
WRITE_S = 5.0
"""A viewer takes at least :data:`CHUNK` bytes of what is written within this time."""
CHUNK = 2**14
STILL_HERE_S = 15.0
RETRY = b"retry: 1000\n\n"
"""A browser whose stream has broken off asks for another after a second."""
FAREWELL_S = 1.0
END = None


class Audience:
    """Who looks on.

    Parameters
    ----------
    story : callable
        The whole story as JSON.
    """

    def __init__(self, story: Callable[[], str]) -> None:
        self._story = story
        self._viewers: dict[queue.Queue[bytes | None], socket.socket] = {}
        self.lock = threading.Condition()
        """Held while the story changes, so that no viewer misses a part of it."""

    def __len__(self) -> int:
        return len(self._viewers)

    def join(self, connection: socket.socket) -> queue.Queue[bytes | None] | None:
        """One more viewer, whose queue begins with the whole story; None where there are enough."""
        with self.lock:
            if len(self._viewers) >= VIEWERS_MAX:
                return None
            waiting: queue.Queue[bytes | None] = queue.Queue(BACKLOG_MAX)
            waiting.put(_message("story", self._story()))
            self._viewers[waiting] = connection
            return waiting

    def leave(self, waiting: queue.Queue[bytes | None]) -> None:
        """One less."""
        with self.lock:
            self._viewers.pop(waiting, None)
            self.lock.notify_all()

    def tell(self, name: str, text: str) -> None:
        """A message to all, while the lock is held; who does not keep up is hung up on."""
        message = _message(name, text)
        for waiting, connection in list(self._viewers.items()):
            try:
                waiting.put_nowait(message)
            except queue.Full:
                del self._viewers[waiting]
                hang_up(connection)

    def dismiss(self) -> None:
        """The stream is over for all, when they have read what waits for them; they have a moment for that."""
        with self.lock:
            for waiting, connection in self._viewers.items():
                try:
                    waiting.put_nowait(END)
                except queue.Full:
                    hang_up(connection)
            self.lock.wait_for(lambda: not self._viewers, FAREWELL_S)


def _message(name: str, text: str) -> bytes:
    return f"event: {name}\ndata: {text}\n\n".encode()


class _Server(BoundedServer):
    def __init__(self, address: tuple[str, int], page: str, audience: Audience, allowed: Collection[str]) -> None:
        self.page, self.policy, self.audience = page.encode(), content_security_policy(page), audience
        self.allowed = {name.lower() for name in allowed}
        super().__init__(address, _Request, VIEWERS_MAX + OTHERS_MAX)

    def knows(self, host: str) -> bool:
        """Whether a Host header names this server and can't be another site's name."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        name = name.lower().rstrip(".")
        if name == "localhost" or name.endswith(".localhost") or name in self.allowed:
            return True
        with suppress(ValueError):
            return bool(ipaddress.ip_address(name.strip("[]")))
        return False


class _Request(PatientRequest):
    server: _Server
    timeout = WRITE_S

    def do_GET(self) -> None:
        self.patience.cancel()  # viewers stay
        path = self.path.partition("?")[0]
        if not self.server.knows(self.headers.get("Host", "")):
            self.send_error(403, "Unknown host: allow it with --allow-host")
        elif path == "/":
            self._begin("text/html; charset=utf-8", len(self.server.page))
            self._write(self.server.page)
        elif path == "/events":
            self._stream()
        else:
            self.send_error(404)

    def _stream(self) -> None:
        waiting = self.server.audience.join(self.connection)
        if waiting is None:
            self.send_error(503, "Too many viewers")
            return
        try:
            self._begin("text/event-stream")
            self.wfile.write(RETRY)
            while (message := _next(waiting)) is not END:
                self._write(message)
        finally:
            self.server.audience.leave(waiting)

    def _write(self, data: bytes) -> None:
        """A socket's timeout is for all that it is given at once: who is slow, but takes some, is given a little."""
        for start in range(0, len(data), CHUNK):
            self.wfile.write(data[start : start + CHUNK])

    def _begin(self, content_type: str, length: int | None = None) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", self.server.policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        super().end_headers()


def _next(waiting: queue.Queue[bytes | None]) -> bytes | None:
    try:
        return waiting.get(timeout=STILL_HERE_S)
    except queue.Empty:
        return b": still here\n\n"


@contextmanager
def serve(address: str, page: str, audience: Audience, allowed: Collection[str] = ()) -> Iterator[str]:
    """Serve for as long as the block lasts; gives the page's address as a browser on this machine has it.

    Parameters
    ----------
    address : str
        ``HOST:PORT``; port 0 is any free one.
    page : str
        The live page.
    allowed : collection of str
        Host names under which it may be asked for, besides addresses and this machine's own.

    Raises
    ------
    NetworkError
        When the address can't be used.
    """
    host = address.rpartition(":")[0]
    near = "localhost" if host in ("", "0.0.0.0", "[::]") else host
    with serving(address, lambda where: _Server(where, page, audience, allowed), "the page") as server:
        try:
            yield f"http://{near}:{server.server_address[1]}"
        finally:
            audience.dismiss()
