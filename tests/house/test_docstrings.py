"""Everything that others may use says what it is.

A method that fulfils a protocol or overrides a method of its base class is described there.
"""

from __future__ import annotations

import ast

import pytest


def undocumented(source, described: set[str]) -> list[str]:
    """Public modules, classes, functions and methods without a docstring."""
    found = [] if ast.get_docstring(source.tree) or not source.tree.body else [source.path]
    for node in source.tree.body:
        found += [f"{source.path}: {name}" for name in bare(node, described)]
    return found


def bare(node: ast.stmt, described: set[str]) -> list[str]:
    if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
        return []
    if any(isinstance(each, ast.Attribute) and each.attr == "setter" for each in node.decorator_list):
        return []
    found = [] if ast.get_docstring(node) else [node.name]
    if isinstance(node, ast.ClassDef):
        inherits = any(
            not isinstance(base, ast.Name) or base.id not in ("Protocol", "Exception") for base in node.bases
        )
        for method in node.body:
            if (
                isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
                and not inherits
                and method.name not in described
            ):
                found += [f"{node.name}.{name}" for name in bare(method, described)]
    return found


def protocol_methods(sources) -> set[str]:
    """Names of methods that some protocol describes."""
    found = set()
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef) and any(
                isinstance(b, ast.Name) and b.id == "Protocol" for b in node.bases
            ):
                found |= {
                    m.name
                    for m in node.body
                    if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(m)
                }
    return found


def test_everything_public_is_described(shipped):
    described = protocol_methods(shipped)
    assert {"step", "train", "round"} <= described
    assert [name for source in shipped for name in undocumented(source, described)] == []


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("def f(): ...", 2),
        ('"""M."""\ndef _f(): ...', 0),
        ('"""M."""\nclass A:\n    """A."""\n    def f(self): ...', 1),
        ('"""M."""\nclass A:\n    """A."""\n    def step(self): ...', 0),
        ("", 0),
    ],
)
def test_bare_things_are_seen(text, count):
    class Written:
        path = "node/x.py"
        tree = ast.parse(text)

    assert len(undocumented(Written, {"step"})) == count
