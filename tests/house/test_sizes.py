"""Files and functions stay small enough to be read in one sitting."""

from __future__ import annotations

import ast
from statistics import median

FILE_LINES = 350
TEST_FILE_LINES = 450
FUNCTION_LINES = 60
FUNCTION_MEDIAN = 12

LONGER = {
    "algorithms/protocol.py": "two thirds of it is the reference of all types, which nobody wants in several files",
    "algorithms/exchange.py": "the rules in its docstring and the code that follows them belong side by side",
}
"""Files that may be longer than FILE_LINES, and why."""


def functions(source):
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node, code_lines(node)


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body without its docstring; the flags of a command are a table, not code."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return 1 + node.end_lineno - body[0].lineno if body else 0


def test_files_are_short(sources):
    limits = {"tests": TEST_FILE_LINES}
    lengths = {source.path: len(source.text.splitlines()) for source in sources}
    long = {s.path: lengths[s.path] for s in sources if lengths[s.path] > limits.get(s.room, FILE_LINES)}
    assert {path: lines for path, lines in long.items() if path not in LONGER} == {}
    assert sorted(LONGER) == sorted(set(LONGER) & set(long)), "an exception that is no longer needed"
    assert all(lines < 500 for lines in long.values())


def test_functions_are_short(sources):
    long = {
        f"{source.path}:{node.name}": n for source in sources for node, n in functions(source) if n > FUNCTION_LINES
    }
    assert long == {}


def test_the_median_function_is_very_short(shipped):
    assert median(n for source in shipped for _, n in functions(source)) < FUNCTION_MEDIAN


def test_docstrings_do_not_count():
    two, four = ast.parse(
        'def f():\n    """A\n    B."""\n    return 1\n\ndef g():\n    a = 1\n    b = 2\n    return a'
    ).body
    assert (code_lines(two), code_lines(four)) == (1, 3)
