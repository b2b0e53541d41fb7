"""The project's compose file on a container engine: one image, one run, in a copy of the source."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.project import Project, words_for_compose

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The source as it is checked out, a free port for the page; all that is left behind is taken away."""
    if os.environ.get("CONTAINERS") != "yes":
        pytest.skip("containers are started with CONTAINERS=yes only")
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True).returncode:
        pytest.skip("no container engine answers here (docker info)")
    if (compose := words_for_compose()) is None:
        pytest.skip("there is neither docker compose nor docker-compose here")
    folder = tmp_path_factory.mktemp("source")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    settings = {"GRADVINE_DURATION": "1h", "GRADVINE_DURABILITY": "exact", "GRADVINE_TIME_UNIT": "200ms"}
    made = Project(folder, f"gradvine-test-{os.getpid()}", compose, settings | {"WATCH_PORT": port})
    (folder / "runs").mkdir()
    yield made
    made.run("--profile", "tools", "--profile", "observe", "down", "--volumes", "--timeout", "1", check=False)
