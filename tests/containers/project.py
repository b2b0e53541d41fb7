"""A compose project in a folder of its own, and the engine that it is on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PATIENCE_S = 180
"""Longest wait for anything: what has not happened then will not."""

ASK = """
import json, sys, urllib.request
from concurrent.futures import ThreadPoolExecutor
def ask(name):
    try:
        with urllib.request.urlopen(f"http://{name}:9700/status", timeout=2) as answer:
            return json.load(answer)
    except OSError:
        return None
with ThreadPoolExecutor(len(sys.argv)) as pool:
    print(json.dumps(dict(zip(sys.argv[1:], pool.map(ask, sys.argv[1:])))))
"""
"""Asks peers by their names for their statuses, from inside of their network."""


def words_for_compose() -> list[str] | None:
    """How docker compose is called here, of either version."""
    for words in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(words[0]) and not subprocess.run([*words, "version"], capture_output=True).returncode:
            return words
    return None


@dataclass
class Project:
    """A compose project in a folder of its own.

    Parameters
    ----------
    folder : Path
        With the compose file and what the image is built from.
    name : str
        Of the project: the engine labels all that belongs to it.
    compose : list of str
        How docker compose is called.
    settings : dict
        Environment of its commands.
    """

    folder: Path
    name: str
    compose: list[str]
    settings: dict[str, str]

    @property
    def names(self) -> list[str]:
        return [f"n{k}" for k in range(8)]

    def run(self, *words: str, check: bool = True, **settings: str) -> subprocess.CompletedProcess[str]:
        """``docker compose`` with these words, to its end."""
        command = [*self.compose, "-p", self.name, *words]
        environment = os.environ | self.settings | settings
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True)
        assert not check or done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
        return done

    def docker(self, *words: str) -> str:
        return subprocess.run(["docker", *words], capture_output=True, text=True, check=True).stdout.strip()

    def container(self, service: str) -> str:
        """The id of a service's container, running or not."""
        label = f"label=com.docker.compose.project={self.name}"
        found = self.docker("ps", "-aq", "-f", label, "-f", f"label=com.docker.compose.service={service}")
        return found.split()[0]

    def inspect(self, service: str, template: str) -> str:
        return self.docker("inspect", "-f", template, self.container(service))

    def left(self) -> list[str]:
        """Containers, volumes and networks of the project that there are."""
        label = f"label=com.docker.compose.project={self.name}"
        listings = (["ps", "-aq"], ["volume", "ls", "-q"], ["network", "ls", "-q"])
        return [each for words in listings for each in self.docker(*words, "-f", label).split()]

    def statuses(self) -> dict[str, Any]:
        """What every peer says of itself; None for one that does not answer."""
        return json.loads(self.run("exec", "-T", "watch", "python", "-c", ASK, *self.names).stdout)

    def wait(self, what: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The statuses that a condition first holds for."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            now = self.statuses()
            if condition(now):
                return now
            time.sleep(0.5)
        pytest.fail(f"{what}: not within {PATIENCE_S} s\n{self.run('logs', '--tail', '15', check=False).stdout}")
