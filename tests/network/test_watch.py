"""A real run that is watched: daemons learn, one is killed, the others end, and all of it is told."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.unit.story_form import check_news, check_story

HANG_S = 90.0
GRADVINE = [sys.executable, "-c", "from node.cli import main; main()"]


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    with subprocess.Popen([*GRADVINE, *arguments], stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def read_port(process: subprocess.Popen[str]) -> int:
    """Out of the first line that says where the page is."""
    assert process.stderr
    line = next(line for line in process.stderr if "http://" in line)
    return int(line.rpartition(":")[2])


@contextmanager
def stream(port: int) -> Iterator[Iterator[tuple[str, Any]]]:
    """The messages of a page's stream."""
    with socket.create_connection(("127.0.0.1", port), HANG_S) as connection, connection.makefile("rb") as file:
        connection.sendall(b"GET /events HTTP/1.0\r\nHost: localhost\r\n\r\n")
        texts = (line.decode().rstrip() for line in file)
        names = (text.removeprefix("event: ") for text in texts if text.startswith("event: "))
        yield ((name, json.loads(next(texts).removeprefix("data: "))) for name in names)


class Viewer:
    """Reads a stream to its end, as the page does, and checks all of it."""

    def __init__(self, messages: Iterator[tuple[str, Any]]) -> None:
        self.story: dict[str, Any] = {}
        self._messages = messages

    def read(self) -> bool:
        """The next message; whether there was one."""
        name, told = next(self._messages, ("", None))
        if name == "story":
            check_story(told)
            self.story = told
        elif name == "frame":
            check_news(told, len(self.story["nodes"]), len(self.story["edges"]))
            self.story["frames"].append(told["frame"])
            self.story["events"] += told["events"]
            self.story |= {key: told[key] for key in ("promises", "merged", "over")}
        return bool(name)

    @property
    def state(self) -> str:
        return str(self.story["frames"][-1]["state"])

    def until(self, state: str) -> None:
        while self.state != state:
            assert self.read(), f"the stream ends before {state}, with {self.state}"


def test_a_killed_peer_is_seen_to_be_gone_and_the_others_to_end(tmp_path: Path) -> None:
    run = ["testbed", "--nodes", "3", "--topology", "ring", "--insecure", "--duration", "6s", "--set", "hidden=4"]
    with started(*run, "--watch", "--http", "127.0.0.1:0", "--out", str(tmp_path / "run")) as testbed:
        with stream(read_port(testbed)) as messages:
            viewer = Viewer(messages)
            viewer.read()
            viewer.until("lll")
            lines = (tmp_path / "run" / "events.jsonl").read_text().splitlines()
            (pid,) = [one["pid"] for one in map(json.loads, lines) if one["peer"] == "n1"]
            os.kill(pid, signal.SIGKILL)
            viewer.until("lgl")
            while viewer.read():
                pass
        testbed.communicate(timeout=HANG_S)
        assert testbed.returncode == 0
    story = viewer.story
    assert (story["over"], viewer.state) == (True, "ege")
    told = [(event["kind"], event["peer"]) for event in story["events"]]
    assert [kind for kind, peer in told if peer == "n1"][:1] == ["joined"]
    assert ("gone", "n1") in told
    assert ("gone", "n0") not in told
    assert told[-1] == ("over", "")
    assert all(edge["asked"] for edge in story["edges"])
    assert any(value for frame in story["frames"] for value in frame["achieved"])
    assert any(value for frame in story["frames"] for value in frame["apart"])
    steps = story["frames"][-1]["steps"]
    assert steps[0] > steps[1], "it has learnt no more"
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_it_ends_at_once_though_somebody_looks_on(number: int, code: int) -> None:
    with started("watch", "127.0.0.1:1", "127.0.0.1:2", "--http", "127.0.0.1:0") as watch:
        with stream(read_port(watch)) as messages:
            viewer = Viewer(messages)
            viewer.read()
            assert (viewer.story["nodes"], viewer.story["live"]) == ([], True)
            watch.send_signal(number)
            while viewer.read():
                pass
        watch.communicate(timeout=HANG_S)
        assert watch.returncode == code
