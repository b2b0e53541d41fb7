"""Stands in for a peer whose run is over: ``python -m node.deploy.over``.

Where containers are started again whenever they end, a peer would begin to learn again after an operator has ended the
run. This answers in its place, as one that is well and has no time left, until it is told to end, so that the merged
model can be fetched out of the container.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from functools import partial

from node.deploy import HTTP_PORT, telling_mistakes
from node.pages import Page, serve_pages

ADDRESS = f"0.0.0.0:{HTTP_PORT}"
METRICS = "# TYPE gradvine_seconds_left gauge\ngradvine_seconds_left 0\n"


def pages() -> dict[str, Callable[[], Page]]:
    """What is asked of a peer by those that keep it running and watch it; by their paths."""
    texts = {"/healthz": "ok\n", "/readyz": "ok\n", "/metrics": METRICS}
    return {path: partial(Page, 200, "text/plain", text.encode()) for path, text in texts.items()}


def main() -> None:
    """Answer until SIGTERM or SIGINT."""
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before there are threads, which inherit it
    with telling_mistakes(), serve_pages(sys.argv[1] if len(sys.argv) > 1 else ADDRESS, pages()):
        print("the run is over, and this peer has the merged model: state/merged.safetensors", flush=True)  # noqa: T201
        signal.sigwait(signals)


if __name__ == "__main__":
    main()
