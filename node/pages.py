"""A few pages over HTTP for monitoring: small, bounded, read-only, in threads of their own.

They answer while the peer's loop is busy, since they only read what it has left for them. At most
:data:`REQUESTS_MAX` requests are served at once, the rest are hung up on; one that is slow is given up. Nothing but
GET is understood, and no answer ever holds the text of an exception.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

from node.errors import NetworkError

log = logging.getLogger(__name__)

REQUESTS_MAX = 8
PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class Page:
    """An answer."""

    status: int
    content_type: str
    body: bytes


class BoundedServer(ThreadingHTTPServer):
    """Serves so many requests at once, each in a thread that holds up nobody's end, and hangs up on the rest."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, address: tuple[str, int], handler: type[PatientRequest], requests_max: int) -> None:
        self._room = threading.BoundedSemaphore(requests_max)
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a request for a page failed", exc_info=True)


class PatientRequest(BaseHTTPRequestHandler):
    """A request that has :data:`PATIENCE_S` seconds in all, unless it calls its patience off, and says little."""

    server_version, sys_version = "gradvine", ""
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = "text/plain"

    def setup(self) -> None:
        super().setup()
        # The socket's own timeout begins again with every byte: one who sends them singly would stay for ever.
        self.patience = threading.Timer(PATIENCE_S, hang_up, (self.connection,))
        self.patience.daemon = True
        self.patience.start()

    def finish(self) -> None:
        self.patience.cancel()
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a probe every second is not worth a line."""


def hang_up(connection: socket.socket) -> None:
    """End a connection from this side, whoever is reading or writing."""
    with suppress(OSError):  # it has just been closed
        connection.shutdown(socket.SHUT_RDWR)


class _Server(BoundedServer):
    def __init__(self, address: tuple[str, int], pages: Mapping[str, Callable[[], Page]]) -> None:
        self.pages = pages
        super().__init__(address, _Request, REQUESTS_MAX)


class _Request(PatientRequest):
    server: _Server
    timeout = PATIENCE_S

    def do_GET(self) -> None:
        answer = self.server.pages.get(self.path.partition("?")[0])
        if answer is None:
            self.send_error(404)
            return
        page = answer()
        self.send_response(page.status)
        self.send_header("Content-Type", page.content_type)
        self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        self.wfile.write(page.body)


@contextmanager
def serve_pages(address: str, pages: Mapping[str, Callable[[], Page]]) -> Iterator[int]:
    """Serve pages by their paths for as long as the block lasts; gives the port.

    Parameters
    ----------
    address : str
        ``HOST:PORT``; port 0 is any free one.
    pages : mapping of str to callable
        Called in threads, often, and to answer at once.

    Raises
    ------
    NetworkError
        When the address can't be used.
    """
    with serving(address, lambda where: _Server(where, pages), "metrics") as server:
        yield server.server_address[1]


Server = TypeVar("Server", bound=BoundedServer)


@contextmanager
def serving(address: str, make: Callable[[tuple[str, int]], Server], what: str) -> Iterator[Server]:
    """Have a server answer, in threads, for as long as the block lasts.

    Parameters
    ----------
    address : str
        ``HOST:PORT``; port 0 is any free one.
    make : callable
        Makes it, given host and port.
    what : str
        What it serves, in a word.

    Raises
    ------
    NetworkError
        When the address can't be used.
    """
    host, _, port = address.rpartition(":")
    try:
        server = make((host.strip("[]"), int(port)))
    except (OSError, OverflowError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not HOST:PORT"
        raise NetworkError(f"can't serve {what} on {address}: {reason}; name another with --http.") from None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, name=what, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
