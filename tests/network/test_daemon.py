"""The daemon: what keeps it from starting, and one life from start to end as a process."""

import json
import os
import shutil
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace

import pytest

from node.cli.status import read_status
from node.config import RunConfig
from node.daemon import run_daemon
from node.errors import ConfigError, NetworkError, StorageError, TaskError
from node.orders import Orders
from node.shards import prepare
from node.tasks import load_task
from node.testbed.processes import Processes
from node.testbed.record import read_lines, read_states
from node.testbed.testbed import place_here
from node.wire.authority import make_certificates
from topology.plan import save_plan
from topology.planning import build_plan

OPTIONS = {"hidden": "4"}
LONG_S = 90


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A plan for two peers on this machine, their data and their certificates."""
    folder = tmp_path_factory.mktemp("home")
    plan = place_here(build_plan("line", 2))
    save_plan(plan, folder / "plan.json")
    prepare(load_task("digits", OPTIONS), ["n0", "n1"], "iid", 1.0, 0, folder / "data", spec="digits")
    make_certificates(["n0", "n1"], folder / "certs")
    return folder, plan


@pytest.fixture
def orders(home, tmp_path):
    folder, _ = home
    files = {"plan": folder / "plan.json", "certs": folder / "certs/n0", "state": tmp_path / "state"}
    return Orders("n0", folder / "data", **files, wait_s=0.1)


CONFIG = RunConfig(options=OPTIONS, steps=2, time_unit="10ms")


# ---------------------------------------------------------------------------------------- what is refused


def refused(kind, orders, config=CONFIG):
    with pytest.raises(kind) as caught:
        run_daemon(orders, config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_certificates_are_no_reason_for_plaintext(orders, tmp_path):
    assert "--certs" in refused(NetworkError, replace(orders, certs=None))
    assert "can't be read" in refused(NetworkError, replace(orders, certs=tmp_path / "nowhere"))
    assert "contradict" in refused(NetworkError, replace(orders, insecure=True))
    assert "--denied needs" in refused(NetworkError, replace(orders, certs=None, insecure=True, denied=tmp_path / "no"))
    assert not orders.state.exists(), "nothing was begun"


def test_anothers_certificate_is_refused(orders):
    assert "is for n1" in refused(NetworkError, replace(orders, certs=orders.certs.parent / "n1"))


def test_plan_task_and_data_must_fit(orders, tmp_path):
    assert "did you mean 'n0'" in refused(ConfigError, replace(orders, name="n00"))
    assert "can't be read" in refused(ConfigError, replace(orders, plan=tmp_path / "no.json"))
    assert "no data" in refused(TaskError, replace(orders, data=tmp_path))
    assert "model of" in refused(TaskError, orders, CONFIG.model_copy(update={"options": {"hidden": "5"}}))
    assert "did you mean 'gossip'" in refused(TaskError, orders, CONFIG.model_copy(update={"algorithm": "gosip"}))


@pytest.mark.parametrize("threads", ["0", "two", "2,4", ""])
def test_a_number_of_threads_that_is_none_is_refused_in_a_sentence(orders, monkeypatch, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert f"OMP_NUM_THREADS = '{threads}' can't be used" in refused(ConfigError, orders)


def test_port_that_is_taken_is_a_network_error(orders):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert address in refused(NetworkError, replace(orders, bind=address, http="127.0.0.1:0"))
        assert "--http" in refused(NetworkError, replace(orders, bind="127.0.0.1:0", http=address))


def test_state_is_never_taken_up_or_overwritten_unasked(orders):
    here = replace(orders, bind="127.0.0.1:0", http="127.0.0.1:0")
    refused(ConfigError, replace(here, state=None, resume=True))
    refused(ConfigError, replace(here, state=None), CONFIG.model_copy(update={"durability": "exact"}))
    assert run_daemon(here, CONFIG) == 0
    before = {path: path.read_bytes() for path in here.state.iterdir()}
    assert "--resume" in refused(StorageError, here)
    assert {path: path.read_bytes() for path in here.state.iterdir()} == before
    again = replace(here, resume=True)
    assert "run run-" in refused(StorageError, again, CONFIG.model_copy(update={"codec": "half"}))
    assert run_daemon(again, CONFIG.model_copy(update={"steps": 4})) == 0
    for path in here.state.glob("snapshot-*"):
        path.write_bytes(path.read_bytes()[:-1])
    assert "no snapshot" in refused(StorageError, again)


def test_resume_without_a_state_starts(orders):
    assert run_daemon(replace(orders, resume=True, bind="127.0.0.1:0", http="127.0.0.1:0"), CONFIG) == 0


def test_without_the_others_no_unit_is_agreed_on(orders):
    here = replace(orders, bind="127.0.0.1:0", http="127.0.0.1:0")
    error = refused(NetworkError, here, CONFIG.model_copy(update={"time_unit": "auto"}))
    assert "nothing was heard of n1 within 0.1s" in error
    assert "a longer --wait-for-neighbours, or --time-unit 50ms" in error


def test_a_peer_that_waits_for_nobody_starts_at_once(orders, caplog):
    here = replace(orders, bind="127.0.0.1:0", http="127.0.0.1:0", wait_s=0.0)
    assert run_daemon(here, CONFIG) == 0
    assert "starting without n1, after 0s" in caplog.messages


# ------------------------------------------------------------------------------------------------ one life


def fetch(address, path):
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wait_until(holds, what):
    deadline = time.monotonic() + LONG_S
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.05)


def status(node):
    try:
        return read_status(node.http)
    except NetworkError:
        return {"exchanges": 0, "peers": {}}


@pytest.fixture
def start(home, tmp_path):
    """Start a daemon over mTLS as a process of its own."""
    folder, _ = home
    running = []

    def start(name, *more):
        how = ["--durability", "exact", "--time-unit", "20ms", "--duration", "10m", "--set", "hidden=4"]
        where = [
            "--state",
            str(tmp_path / name),
            "--out",
            str(tmp_path / "run"),
            "--certs",
            str(folder / "certs" / name),
        ]
        what = ["--plan", str(folder / "plan.json"), "--data", str(folder / "data"), "--name", name]
        command = [sys.executable, "-m", "node.testbed.tether", "run", *what, *where, *how, *more]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        processes = Processes({name: command}, tmp_path / "logs", environment)
        running.append(processes.__enter__())
        return processes

    yield start
    for processes in running:
        processes.kill()


def end(processes, name, number):
    """Send a signal; the exit code and how long the end took."""
    os.kill(processes.pid(name), number)
    begun = time.monotonic()
    code = processes.wait(LONG_S)[name]
    return code, time.monotonic() - begun


def test_a_life(start, home, tmp_path):
    _, plan = home
    n0, n1 = plan.nodes
    first, second = start("n0"), start("n1")
    wait_until(lambda: status(n0)["exchanges"] + status(n1)["exchanges"] > 3, "exchanges over mTLS")

    assert [fetch(n0.http, path)[0] for path in ("/healthz", "/readyz", "/secret")] == [200, 200, 404]
    wait_until(lambda: 'gradvine_exchanges_total{peer="n1"}' in fetch(n0.http, "/metrics")[1], "metrics")
    wait_until(lambda: status(n0)["peers"]["n1"]["state"] == "alive", "a status in which the neighbour is alive")
    page = json.loads(fetch(n0.http, "/status")[1])
    assert (page["name"], page["task"]) == ("n0", "digits")

    os.kill(first.pid("n0"), signal.SIGHUP)
    code, seconds = end(second, "n1", signal.SIGTERM)
    assert code == 0, second.log("n1").read_text()
    assert seconds < 8
    assert list((tmp_path / "n1").glob("snapshot-*"))
    assert "n1" in read_states(tmp_path / "run")
    wait_until(lambda: status(n0)["peers"]["n1"]["state"] == "gone", "the one that is left notices")
    assert "read again" in first.log("n0").read_text()

    before = read_lines(tmp_path / "run")["n1"][-1]
    shutil.rmtree(tmp_path / "run" / "states")
    second = start("n1", "--resume")
    made = status(n0)["peers"]["n1"]["exchanges"]
    wait_until(lambda: status(n0)["peers"]["n1"]["exchanges"] > made, "exchanges after the resume")
    assert end(second, "n1", signal.SIGINT)[0] == 130
    after = read_lines(tmp_path / "run")["n1"][-1]
    assert after["units"] > before["units"]
    assert after["gradients"] > before["gradients"] > 0
    assert end(first, "n0", signal.SIGTERM)[0] == 0
