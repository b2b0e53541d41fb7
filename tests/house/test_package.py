"""What the wheel installs."""

from __future__ import annotations

import sys

from setuptools import find_packages

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def test_the_wheel_has_neither_tests_nor_benchmarks(root):
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    packages = set(find_packages(str(root), **settings["tool"]["setuptools"]["packages"]["find"]))
    assert {package.split(".")[0] for package in packages} == {"algorithms", "topology", "node", "protos"}
    # a folder of source without __init__.py would be left out of the wheel without a word
    folders = {
        str(path.parent.relative_to(root)).replace("/", ".")
        for top in ("algorithms", "topology", "node", "protos")
        for path in (root / top).rglob("*.py")
    }
    assert folders == packages


def test_every_requirement_is_pinned(root):
    settings = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    wanted = [*settings["dependencies"], *(r for extra in settings["optional-dependencies"].values() for r in extra)]
    names = {r.split(";")[0].split(">")[0].split("[")[0].strip().lower() for r in wanted} - {"gradvine"}
    pinned = {
        line.split("==")[0].strip().lower()
        for line in (root / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    assert sorted(name for name in names if name.replace("_", "-") not in {p.replace("_", "-") for p in pinned}) == []
