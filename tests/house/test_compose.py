"""The compose file and the image, read as they are written; no engine is needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from node.config import duration_s
from node.daemon import STOP_S

ROOT = Path(__file__).parents[2]
PEERS = ("n0", "n1", "n2", "n3")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def image() -> list[str]:
    """The instructions of the Dockerfile, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def test_the_file_has_no_version_and_one_peer_is_like_another(compose: dict[str, Any]) -> None:
    assert "version" not in compose
    for name in PEERS:
        own = {key: value for key, value in compose["services"][name].items() if key not in compose["x-peer"]}
        assert own == {"command": [f"--name={name}"], "volumes": [f"{name}:/peer", "record:/record"]}


def test_every_service_is_a_peer_of_the_plan_or_runs_once(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {*PEERS, "prepare", "report"}
    (script,) = compose["services"]["prepare"]["command"]
    assert f"--nodes {len(PEERS)} --named-hosts" in script
    assert f"gradvine data digits --nodes {len(PEERS)}" in script
    assert f"for peer in {' '.join(PEERS)}; do" in script


def test_whoever_waits_waits_for_services_that_there_are(compose: dict[str, Any]) -> None:
    waits = {name: set(service.get("depends_on", {})) for name, service in compose["services"].items()}
    assert waits == {"prepare": set(), "report": set(PEERS)} | {name: {"prepare"} for name in PEERS}
    conditions = [c["condition"] for s in compose["services"].values() for c in s.get("depends_on", {}).values()]
    assert set(conditions) == {"service_completed_successfully"}  # which 1.29 knows too


def test_every_volume_is_declared_and_used(compose: dict[str, Any]) -> None:
    mounted = {v.split(":")[0] for service in compose["services"].values() for v in service["volumes"]}
    assert mounted - {"./runs"} == set(compose["volumes"])


def test_keys_are_in_their_own_peers_volume_only_and_never_in_the_environment(compose: dict[str, Any]) -> None:
    (script,) = compose["services"]["prepare"]["command"]
    assert re.findall(r"^.*\bcerts\b.*$", script, re.MULTILINE) == [
        "gradvine certs --plan plan.json -o certs",
        "  cp -r certs/$$peer /peers/$$peer/certs",
    ]
    assert all("environment" not in service for service in compose["services"].values())


def test_peers_run_without_rights_and_have_time_to_drain(compose: dict[str, Any], image: list[str]) -> None:
    peer = compose["x-peer"]
    assert duration_s(peer["stop_grace_period"]) > STOP_S
    assert peer["init"] is True
    assert peer["read_only"] is True
    assert peer["cap_drop"] == ["ALL"]
    assert "user" not in peer
    (user,) = [line for line in image if line.startswith("USER")]
    assert re.fullmatch(r"USER [1-9]\d*:[1-9]\d*", user)


def test_the_image_is_plain(image: list[str]) -> None:
    assert image[0] == "FROM python:3.11-slim"
    assert not [line for line in image if re.search(r"\b(apt|apt-get|useradd|curl)\b", line)]
    copied = [line.split()[1] for line in image if line.startswith("COPY")]
    assert copied[0] == "constraints.txt"  # the dearest layer depends on nothing else


def test_what_the_image_copies_is_not_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line[1:] for line in lines if line.startswith("!")]
    assert "*" in lines
    for name in (*kept, "pyproject.toml", "constraints.txt"):
        assert (ROOT / name).exists(), name
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages - {"benchmarks"} <= set(kept)


def flags_of(peer: Any) -> list[str]:
    """The flags of ``gradvine run`` that all peers have."""
    return [word.split("=")[0] for word in peer["entrypoint"] if word.startswith("--")]


def test_the_flags_of_run_exist(compose: dict[str, Any]) -> None:
    import typer

    from node.cli import app

    run = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    known = {option for parameter in run.params for option in parameter.opts}
    assert {*flags_of(compose["x-peer"]), "--name"} <= known
