"""A real Prometheus with the configuration as it is written, looking at real daemons of which one is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import time
import urllib.parse
import urllib.request

import pytest

from node.deploy.observe import write_prometheus
from node.shards import prepare
from node.tasks import load_task
from node.testbed.processes import Processes
from node.testbed.testbed import place_here
from topology.plan import save_plan
from topology.planning import build_plan

LONG_S = 60
OPTIONS = {"hidden": "4"}
NAMES = ["n0", "n1", "n2"]
HASTE = {"5s": "1s", "4s": "900ms", "for: 1m": "for: 2s"}
"""Intervals of the files, and the shorter ones here."""

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed: apt-get install prometheus"
)


class Prometheus:
    """Its HTTP interface."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, path: str, **query: str):
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.loads(answer.read())["data"]

    def value(self, expression: str) -> dict[tuple[str | None, str | None], float]:
        """By peer and neighbour."""
        found = self.ask("query", query=expression)["result"]
        return {(f["metric"].get("peer"), f["metric"].get("neighbour")): float(f["value"][1]) for f in found}

    def firing(self) -> set[tuple[str, str | None]]:
        alerts = self.ask("alerts")["alerts"]
        return {(a["labels"]["alertname"], a["labels"].get("peer")) for a in alerts if a["state"] == "firing"}


def wait_until(holds, what):
    deadline = time.monotonic() + LONG_S
    while True:
        try:
            if holds():
                return
        except OSError:  # it does not listen yet
            pass
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.1)


@pytest.fixture
def daemons(tmp_path):
    """Three peers, and a folder with Prometheus' configuration for them."""
    plan = place_here(build_plan("ring", 3))
    save_plan(plan, tmp_path / "plan.json")
    prepare(load_task("digits", OPTIONS), NAMES, "iid", 1.0, 0, tmp_path / "data", spec="digits")
    write_prometheus(plan, tmp_path)
    gradvine = [sys.executable, "-m", "node.testbed.tether", "run", "--plan", str(tmp_path / "plan.json")]
    how = ["--data", str(tmp_path / "data"), "--insecure", "--set", "hidden=4", "--time-unit", "50ms"]
    how += ["--duration", "10m"]
    commands = {name: [*gradvine, *how, "--name", name, "--state", str(tmp_path / name)] for name in NAMES}
    with Processes(commands, tmp_path / "logs", {**os.environ, "OMP_NUM_THREADS": "1"}) as processes:
        yield processes


@pytest.fixture
def prometheus(tmp_path, daemons):
    for name in ("prometheus.yml", "alerts.yml"):
        text = (tmp_path / name).read_text()
        for usual, short in HASTE.items():
            text = text.replace(usual, short)
        (tmp_path / name).write_text(text)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    store = [f"--storage.tsdb.path={tmp_path / 'tsdb'}", f"--web.listen-address={address}"]
    command = ["prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", *store]
    with Processes({"prometheus": command}, tmp_path / "logs", dict(os.environ)):
        yield Prometheus(address)


def test_a_peer_that_is_killed_raises_its_alert_and_no_other(daemons, prometheus, tmp_path):
    wait_until(lambda: len(prometheus.value("gradvine_gradients_total > 0")) == 3, "all peers learn")
    wait_until(lambda: len(prometheus.value("gradvine_exchanges_total > 0")) == 6, "exchanges along all edges")
    pairs = {(a, b) for a in NAMES for b in NAMES if a != b}
    assert set(prometheus.value("gradvine_alive")) == set(prometheus.value("gradvine_exchanges_total")) == pairs
    assert set(prometheus.value("up == 1")) == {(name, None) for name in NAMES}
    left = prometheus.value("gradvine_seconds_left")
    assert all(0 < seconds < 600 for seconds in left.values())
    assert set(prometheus.value("process_resident_memory_bytes > 1e7")) == set(left)
    wait_until(lambda: len(prometheus.value("gradvine:over == 0")) == 3, "rules that were evaluated")
    assert not prometheus.firing()

    os.kill(daemons.pid("n2"), signal.SIGKILL)
    wait_until(lambda: ("GradvinePeerDown", "n2") in prometheus.firing(), "the alert")
    (alert,) = [a for a in prometheus.ask("alerts")["alerts"] if a["labels"]["alertname"] == "GradvinePeerDown"]
    assert alert["annotations"]["summary"] == "n2 does not answer"
    wait_until(lambda: prometheus.value("gradvine_alive == 0").keys() == {("n0", "n2"), ("n1", "n2")}, "it is gone")
    assert prometheus.firing() == {("GradvinePeerDown", "n2")}

    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"]: rule["lastError"] for rule in rules if rule["health"] != "ok"} == {}
    dashboard = json.loads((tmp_path / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            filled = target["expr"].replace("$__rate_interval", "1m").replace("$job", "gradvine").replace("$peer", ".+")
            prometheus.ask("query", query=filled)  # an error is one of HTTP
