"""Names say what a thing is; nothing deserialises objects, runs text or depends on whose machine it is."""

from __future__ import annotations

import ast
import re
import subprocess

import pytest

NAMES = re.compile(r"(^|_)(utils?|manager|helpers?|base|common|misc)(_|$)|Manager|Helper|Utils?$|^Base[A-Z]")
"""Names that say nothing about what is behind them."""

CALLS = {
    "eval": "runs text",
    "exec": "runs text",
    "compile": "runs text",
    "__import__": "loads what a text names",
    "torch.load": "deserialises objects",
    "torch.save": "serialises objects",
    "torch.manual_seed": "seeds what everybody shares",
    "torch.hub.load": "fetches code",
    "numpy.random.seed": "seeds what everybody shares",
    "time.sleep": "holds up a whole event loop: wait on an event or with trio",
    "os.system": "runs text",
}
HOME = re.compile(r"/(?:home|Users|root|work|mnt|workspace)/[A-Za-z0-9_.-]+|[A-Z]:\\\\Users")
"""What a path of somebody's own machine looks like."""


def dotted(node: ast.expr) -> str:
    """``np.random.seed`` as ``numpy.random.seed``; an empty text for what is not a dotted name."""
    if isinstance(node, ast.Name):
        return {"np": "numpy"}.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def dangerous(tree: ast.Module) -> list[str]:
    """Calls that are banned everywhere, and numpy's shared generator."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        shared = name.startswith("numpy.random.") and not name.split(".")[2][:1].isupper() and name.count(".") == 2
        if name in CALLS or (shared and name != "numpy.random.default_rng"):
            found.append(name)
        found += ["allow_pickle" for word in node.keywords if word.arg == "allow_pickle" and not is_false(word.value)]
    return found


def is_false(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is False


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("eval('1')", ["eval"]),
        ("import numpy as np\nnp.random.normal(3)", ["numpy.random.normal"]),
        ("import numpy as np\nnp.random.default_rng(3).normal()", []),
        ("np.random.Generator(np.random.PCG64(1))", []),
        ("np.load('x', allow_pickle=True)", ["allow_pickle"]),
        ("np.load('x', allow_pickle=False)", []),
        ("model.eval()", []),
        ("torch.load('x')", ["torch.load"]),
    ],
)
def test_dangerous_calls_are_seen(text, found):
    assert dangerous(ast.parse(text)) == found


def test_nothing_dangerous_is_called(sources):
    found = [(source.path, name) for source in sources for name in dangerous(source.tree)]
    allowed = {
        "time.sleep": ("benchmarks/", "tests/"),
        "torch.manual_seed": ("tests/",),
        "exec": ("tests/house/",),
        "compile": ("tests/house/",),
    }
    assert [(path, name) for path, name in found if not path.startswith(allowed.get(name, ("?",)))] == []


def test_names_say_something(sources):
    found = []
    for source in sources:
        names = [part.removesuffix(".py") for part in source.path.split("/")]
        names += [
            node.name
            for node in ast.walk(source.tree)
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        found += [(source.path, name) for name in names if NAMES.search(name)]
    assert found == []


@pytest.mark.parametrize("name", ["string_utils", "PeerManager", "helper", "base_task", "BaseTask", "common"])
def test_empty_names_are_seen(name):
    assert NAMES.search(name)


def test_no_path_of_anybodys_machine(root):
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=root, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    found = []
    for name in listed.stdout.splitlines():
        path = root / name
        if name == "tests/house/test_words.py" or not path.is_file():
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [(name, match[0]) for match in HOME.finditer(text)]
    assert found == []


def test_paths_are_seen():
    assert HOME.search("open('/" + "home/ada/data.npz')")
    assert not HOME.search("HOME=/peer docs/home.md https://host/homework/x")
