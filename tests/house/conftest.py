"""The project's own source, for tests that read it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("algorithms", "topology", "node", "protos", "benchmarks", "tests")
GENERATED = ("peer_pb2.py", "peer_pb2.pyi")


@dataclass(frozen=True)
class Source:
    """One Python file."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def room(self) -> str:
        return self.path.split("/")[0]

    def imports(self) -> set[str]:
        """Dotted names of all modules that it imports, at the top or later; ``a.b`` for ``from a import b``."""
        found: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{self.path}: relative import"
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
        return found


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def sources() -> list[Source]:
    """Every Python file of the project that people write."""
    paths = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")) if path.name not in GENERATED]
    assert len(paths) > 60
    return [Source(str(path.relative_to(ROOT)), path.read_text()) for path in paths]


@pytest.fixture(scope="session")
def shipped(sources: list[Source]) -> list[Source]:
    """Those of them that the wheel installs."""
    return [source for source in sources if source.room in ("algorithms", "topology", "node", "protos")]
