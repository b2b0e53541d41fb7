"""Real daemons of an open run: one joins, one is killed, one leaves, and the others come to the same end."""

import os
import signal
import sys
import time
from dataclasses import replace

import pytest

from node.cli.status import read_status
from node.errors import NetworkError
from node.shards import prepare
from node.tasks import load_task
from node.testbed.processes import Processes
from node.testbed.record import read_lines, read_states
from node.testbed.testbed import place_here
from node.wire.authority import make_certificates
from topology.plan import save_plan
from topology.planning import build_plan

LONG_S = 90
ROUNDS = 30
JOINER = "n4"


class Run:
    """Four daemons of a plan and one that it does not know, each a process."""

    def __init__(self, folder):
        self.folder, self.places = folder, {node.name: node for node in place_here(build_plan("ring", 5)).nodes}
        plan = build_plan("ring", 4)
        self.founders = [node.name for node in plan.nodes]
        nodes = tuple(self.places[name] for name in self.founders)
        save_plan(replace(plan, nodes=nodes), folder / "plan.json")
        make_certificates(self.places, folder / "certs")
        prepare(load_task("digits", {"hidden": "4"}), list(self.places), "iid", 1.0, 0, folder / "data", spec="digits")
        joiner = self.places[JOINER]
        who = ["--join", self.places["n0"].address, "--address", joiner.address, "--http", joiner.http]
        commands = {JOINER: self.command(JOINER, who)}
        commands |= {name: self.command(name, ["--plan", str(folder / "plan.json")]) for name in self.founders}
        self.processes = Processes(commands, folder / "logs", {**os.environ, "OMP_NUM_THREADS": "1"})
        self.processes.__enter__()

    def command(self, name, who):
        what = ["--algorithm", "modest", "--set", "samples=2", "--set", "hidden=4", "--time-unit", "20ms"]
        where = ["--data", str(self.folder / "data"), "--certs", str(self.folder / "certs" / name)]
        where += ["--state", str(self.folder / "state" / name), "--out", str(self.folder)]
        begin = [sys.executable, "-m", "node.testbed.tether", "run", "--name", name, "--rounds", str(ROUNDS)]
        return [*begin, *what, *where, *who]

    def status(self, name):
        try:
            return read_status(self.places[name].http)
        except NetworkError:
            return {"gradients": 0, "round": 0, "peers": {}}

    def end(self, name, number):
        """Send a signal; the exit code and how long the end took."""
        os.kill(self.processes.pid(name), number)
        begun = time.monotonic()
        self.wait_for([name])
        return self.processes.codes[name], time.monotonic() - begun

    def wait_for(self, names):
        wait_until(lambda: self.processes.wait(0.05) is not None and self.processes.codes.keys() >= {*names}, "the end")

    def log(self, name):
        return self.processes.log(name).read_text()


def wait_until(holds, what):
    deadline = time.monotonic() + LONG_S
    while not holds():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.05)


@pytest.fixture
def run(tmp_path):
    started = Run(tmp_path)
    yield started
    started.processes.kill()


def test_whoever_joins_dies_or_leaves_the_others_end_with_the_same_model(run):
    wait_until(lambda: run.status(JOINER)["gradients"] > 0, "the joiner to be sampled")
    assert run.end("n1", signal.SIGKILL)[0] == -signal.SIGKILL
    wait_until(lambda: run.status("n0")["peers"].get("n1", {}).get("state") == "gone", "n0 to miss the dead")
    code, seconds = run.end("n2", signal.SIGTERM)
    assert code == 0, run.log("n2")
    assert seconds < 8

    rest = ["n0", "n3", JOINER]
    run.wait_for(rest)
    assert [run.processes.codes[name] for name in rest] == [0, 0, 0]
    states, lines = read_states(run.folder), read_lines(run.folder)
    assert states["n0"].model.norm() > 0.1
    assert len({states[name].model.numpy().tobytes() for name in rest}) == 1
    for name in rest:
        last = lines[name][-1]
        assert last["rounds"] == ROUNDS
        assert last["trained_rounds"] > 0
        assert last["members"] == 4, "all but the one that has left: the dead may come back"
