"""A browser to look at pages with, and watchers of runs that never were."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from node.watch.page import compose_page
from node.watch.server import Audience, serve
from tests.browser.stories import Story, news, write_report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; not for the whole session, since its event loop would be in the way of other tests."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on this machine")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@dataclass
class Window:
    """A page and what its console has said."""

    page: Any
    said: list[str] = field(default_factory=list)

    def text(self, selector: str) -> str:
        """What stands there once all is drawn, with plain spaces."""
        self.ask("0")
        found: str = self.page.locator(selector).inner_text()
        return found.replace("\u202f", " ")

    def ask(self, script: str) -> Any:
        """What a script comes to once all that has been asked for is drawn."""
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        return self.page.evaluate(script)

    def peer(self, name: str) -> set[str]:
        """How a peer is drawn in the network."""
        found = self.ask(f"{GRAPH}.nodes().filter(n => n.data('name') === {json.dumps(name)})[0].classes()")
        return set(found)

    def edge(self, k: int) -> set[str]:
        """How an edge is."""
        return set(self.ask(f"{GRAPH}.getElementById('e{k}').classes()"))


GRAPH = "document.getElementById('graph')._cyreg.cy"


@pytest.fixture
def open_page(browser: Any) -> Iterator[Callable[..., Window]]:
    """Opens an address in a window of its own; the console must stay silent but for what is ``expected``."""
    windows: list[tuple[Window, str]] = []

    def open_window(url: str, *, width: int = 1280, height: int = 860, expected: str = "", **more: Any) -> Window:
        page = browser.new_page(viewport={"width": width, "height": height}, **more)
        page.set_default_timeout(15_000)
        window = Window(page)
        page.on("console", lambda message: window.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: window.said.append(f"uncaught: {error}"))
        windows.append((window, expected))
        page.goto(url)
        return window

    yield open_window
    for window, expected in windows:
        window.page.close()
        assert [line for line in window.said if not expected or expected not in line] == []


@pytest.fixture
def open_report(open_page: Callable[..., Window], tmp_path: Path) -> Callable[..., Window]:
    """Opens the report of a story from its file."""

    def open_file(story: Story, sections: str = "", **more: Any) -> Window:
        window = open_page(write_report(tmp_path / "report.html", story, sections).as_uri(), **more)
        window.page.wait_for_selector("#figures dd")
        return window

    return open_file


class Watcher:
    """Serves a story, and whatever is told, until it is closed; it may be opened again at the same port."""

    def __init__(self, story: Story, port: int = 0) -> None:
        self.story, self._open = story, ExitStack()
        self.audience = Audience(lambda: json.dumps(self.story))
        page = compose_page(story["title"])
        self.url = self._open.enter_context(serve(f"127.0.0.1:{port}", page, self.audience)).rstrip("/") + "/"
        self.port = int(self.url.strip("/").rpartition(":")[2])

    def tell(self, frame: dict[str, Any], events: list[dict[str, Any]] | None = None) -> None:
        """A new frame for all who look on."""
        with self.audience.lock:
            self.story["frames"].append(frame)
            self.story["events"] += events or []
            self.audience.tell("frame", news(frame, self.story, events))

    def begin_anew(self, story: Story) -> None:
        """Another story for all who look on."""
        with self.audience.lock:
            self.story = story
            self.audience.tell("story", json.dumps(story))

    def close(self) -> None:
        """Hang up on everybody."""
        self._open.close()


@pytest.fixture
def watch() -> Iterator[Callable[..., Watcher]]:
    """Starts watchers."""
    watchers: list[Watcher] = []

    def start(story: Story, port: int = 0) -> Watcher:
        watchers.append(Watcher(story, port))
        return watchers[-1]

    yield start
    for watcher in watchers:
        watcher.close()
