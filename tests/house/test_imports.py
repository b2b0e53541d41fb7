"""Who may import what: algorithms are pure, plans need no torch, one folder knows the network, daemons start light."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

DEAR = ("cvxpy", "sklearn", "matplotlib", "pandas", "datasets", "networkx", "scipy")
"""What planning, preparing data and drawing need, and a daemon must not load."""

NEVER = {
    "algorithms/": (
        *("node", "topology", "protos", "grpc", "trio", "asyncio", "threading", "time", "random", "os"),
        *("networkx", "cvxpy", "torch.nn", "torch.distributed", "pathlib", "socket", "subprocess"),
    ),
    "topology/": ("node", "algorithms", "protos", "torch", "grpc", "trio"),
    "node/": ("cvxpy",),
    "node/tasks/": ("trio", "grpc", "topology"),
    "protos/": ("node", "algorithms", "topology", "torch", "trio"),
    "": ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "random"),
}
"""Folder or file: modules that nothing in it imports, anywhere in the file."""

ONLY = {
    "grpc": ("node/wire/", "benchmarks/", "tests/"),
    "asyncio": ("node/wire/", "benchmarks/", "tests/"),
    "protos": ("node/wire/", "tests/"),
    "cvxpy": ("topology/solvers/semidefinite.py", "benchmarks/", "tests/"),
    "importlib": ("node/tasks/__init__.py",),
}
"""Module: the only folders and files that import it."""

EXCEPTIONS = {
    ("tests/network/test_grpc_hostile.py", "pickle")  # the canary that must not be unpickled
}

LIGHT = {"topology/plan.py": DEAR, "topology/records.py": DEAR, "node/wire/memory.py": ("grpc", "asyncio", "protos")}


def within(module: str, names: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in names)


def offences(source) -> list[str]:
    found = []
    for module in sorted(source.imports()):
        banned = [names for folder, names in NEVER.items() if source.path.startswith(folder)]
        banned += [names for path, names in LIGHT.items() if source.path == path]
        bad = any(within(module, names) for names in banned)
        # importlib.metadata reads versions and loads no code
        elsewhere = [
            name for name, homes in ONLY.items() if within(module, (name,)) and not source.path.startswith(homes)
        ]
        if (bad or (elsewhere and not within(module, ("importlib.metadata",)))) and (
            source.path,
            module.split(".")[0],
        ) not in EXCEPTIONS:
            found.append(f"{source.path} imports {module}")
    return found


def test_every_room_keeps_to_itself(sources):
    assert [offence for source in sources for offence in offences(source)] == []


def test_offences_are_seen(sources):
    class Bad:
        path = "algorithms/gossip.py"

        @staticmethod
        def imports():
            return {"torch", "torch.nn", "numpy", "node.config.RunConfig", "importlib", "importlib.metadata"}

    assert len(offences(Bad)) == 3


def test_algorithms_import_little(sources):
    allowed = ("__future__", "algorithms", "torch", "numpy", "math", "hashlib", "dataclasses", "typing")
    allowed += ("collections", "enum", "functools", "statistics")
    modules = {module for source in sources if source.room == "algorithms" for module in source.imports()}
    assert [module for module in sorted(modules) if not within(module, allowed)] == []


def loaded_after(statements: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after some statements."""
    program = f"import sys\n{statements}\nprint('\\n' + ' '.join(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_reading_a_plan_is_cheap():
    loaded = loaded_after("import topology.plan")
    assert not loaded & {*DEAR, "torch", "grpc", "trio"}


def test_command_line_starts_without_torch():
    loaded = loaded_after("import node.cli")
    assert not loaded & {*DEAR, "torch", "grpc", "trio"}


@pytest.fixture
def daemon(tmp_path):
    """The arguments of a daemon that trains for a moment, alone."""
    from node.shards import prepare
    from node.tasks import load_task
    from topology.plan import save_plan
    from topology.planning import build_plan

    with socket.socket() as one, socket.socket() as two:
        for probe in (one, two):
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in (one, two)]
    save_plan(build_plan("line", 2), tmp_path / "plan.json")
    prepare(load_task("digits", {"hidden": "4"}), ["n0", "n1"], "iid", 1.0, 0, tmp_path / "data", spec="digits")
    where = ["--bind", f"127.0.0.1:{ports[0]}", "--http", f"127.0.0.1:{ports[1]}", "--out", str(tmp_path / "run")]
    what = ["--plan", str(tmp_path / "plan.json"), "--data", str(tmp_path / "data"), "--state", str(tmp_path / "state")]
    how = ["--insecure", "--set", "hidden=4", "--wait-for-neighbours", "10ms", "--steps", "3"]
    return ["gradvine", "run", "--name", "n0", *where, *what, *how]


def test_a_running_daemon_loads_nothing_dear(daemon, tmp_path):
    program = (
        "import atexit, json, pathlib, sys\n"
        f"sys.argv = {json.dumps(daemon)}\n"
        f"found = pathlib.Path({json.dumps(str(tmp_path / 'modules'))})\n"
        "atexit.register(lambda: found.write_text(' '.join(sorted({m.split('.')[0] for m in sys.modules}))))\n"
        "from node.cli import main\n"
        "main()\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "states" / "n0.safetensors").exists(), done.stderr
    loaded = set((tmp_path / "modules").read_text().split())
    assert {"torch", "grpc", "trio"} <= loaded
    assert not loaded & set(DEAR)
