"""The compose file and the image, read as they are written; no engine is needed."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from node.config import duration_s
from node.daemon import STOP_S
from node.deploy import USER
from node.deploy.volumes import DOWN

ROOT = Path(__file__).parents[2]
PEERS = tuple(f"n{k}" for k in range(8))
NUMBER = re.compile(r"\d+\.\d+(?:e-?\d+)?")
VARYING = re.compile(r'"seconds": [^,]*|sha256:[0-9a-f]*')
"""How long the solver took, and the hash of what it found to the last digit."""


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def image() -> list[str]:
    """The instructions of the Dockerfile, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def gaps_and_numbers(text: str) -> tuple[list[str], list[float]]:
    text = VARYING.sub("", text)
    return NUMBER.split(text), [float(number) for number in NUMBER.findall(text)]


def test_the_file_is_what_gradvine_compose_writes() -> None:
    """But for the last digits of the plan's rates, which differ between machines."""
    from node.cli.compose import compose as command

    app = typer.Typer()
    app.command()(command)
    made = CliRunner().invoke(app, ["--output", "-"]).stdout
    there = (ROOT / "docker-compose.yml").read_text()
    head = re.compile(r"Made by: .*")  # here, by the test's command line
    (gaps, numbers), (made_gaps, made_numbers) = (gaps_and_numbers(head.sub("", text)) for text in (there, made))
    assert head.search(there)[0] == "Made by: gradvine compose"
    assert gaps == made_gaps, "write it anew: gradvine compose"
    assert numbers == pytest.approx(made_numbers, rel=1e-6, abs=1e-6)


def test_numbers_and_what_is_between_them_are_told_apart() -> None:
    text = 'image: x\n{"rate": 0.25, "gap": 1e-7, "seconds": 0.1, "digest": "sha256:ab0"} 1.5e-06'
    assert gaps_and_numbers(text) == (['image: x\n{"rate": ', ', "gap": 1e-7, , "digest": ""} ', ""], [0.25, 1.5e-06])


def test_every_service_is_a_peer_of_the_plan_or_a_known_one(compose: dict[str, Any]) -> None:
    known = {"certs", "data", "links", "watch", "report", "finish", "prometheus"}
    assert set(compose["services"]) == {*PEERS, *known}
    assert "version" not in compose
    for name in PEERS:
        own = {key: value for key, value in compose["services"][name].items() if key not in compose["x-peer"]}
        assert own == {"command": [f"--name={name}"], "volumes": [f"{name}:/peer", "record:/record"]}


def test_whoever_waits_waits_for_services_that_there_are(compose: dict[str, Any]) -> None:
    waits = {name: dict(service.get("depends_on", {})) for name, service in compose["services"].items()}
    done = {"certs": set(), "data": {"certs"}, "finish": set()}
    done |= {name: {"data"} for name in ("links", "watch", "report", "prometheus", *PEERS)}
    started = {name: others.pop("links") for name, others in waits.items() if "links" in others}
    assert started == {name: {"condition": "service_started"} for name in PEERS}
    assert {name: set(others) for name, others in waits.items()} == done
    assert {others[name]["condition"] for others in waits.values() for name in others} == {
        "service_completed_successfully"  # which 1.29 knows too
    }


def test_nothing_is_open_to_other_machines(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert sorted(re.sub(r"\$\{\w+:-(\d+)\}", r"\1", port) for port in ports) == [
        "127.0.0.1:9090:9090",
        "127.0.0.1:9600:9600",
    ]


def test_only_what_fills_volumes_is_root_and_it_has_no_network(compose: dict[str, Any], image: list[str]) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if "user" in service:
            assert name in ("certs", "data", "report")
            assert service["network_mode"] == "none"
            more = ["SETUID", "SETGID"] if name == "report" else []  # to be root no longer
            assert service["cap_add"] == ["CHOWN", "DAC_OVERRIDE", *more]
        else:
            assert service["read_only"] is True, name
    (user,) = [line for line in image if line.startswith("USER")]
    assert user == f"USER {USER}:{USER}"
    assert USER > 0


@pytest.mark.parametrize(("number", "file"), [("7700", None), ("9700", "__init__.py"), ("10001", "__init__.py")])
def test_ports_and_user_are_written_down_in_one_place(number: str, file: str | None) -> None:
    """Where peers listen is said by what connects them, node.links."""
    files = {path.name for path in (ROOT / "node" / "deploy").glob("*.py") if number in path.read_text()}
    assert files == ({file} if file else set())


def test_what_takes_all_away_names_every_profile_that_stays_up(compose: dict[str, Any]) -> None:
    """Compose 2 leaves services of other profiles, and with them the network and their volumes."""
    stay = {name: service["profiles"] for name, service in compose["services"].items() if "profiles" in service}
    assert stay.pop("finish") == ["tools"]  # docker compose run --rm, which takes itself away
    assert [f"--profile {profile}" for profiles in stay.values() for profile in profiles] == re.findall(
        r"--profile \S+", DOWN
    )
    for told in ("docker-compose.yml", "docs/containers.md"):
        assert DOWN in (ROOT / told).read_text()


def test_figures_have_a_volume_of_their_own_and_an_end(compose: dict[str, Any]) -> None:
    prometheus = compose["services"]["prometheus"]
    folder = next(word for word in prometheus["command"] if "tsdb.path" in word).partition("=")[2]
    assert f"figures:{folder}" in prometheus["volumes"]
    assert [word for word in prometheus["command"] if word.startswith("--storage.tsdb.retention.time=")]
    assert [name for name, service in compose["services"].items() if "figures" in str(service.get("volumes"))] == [
        "prometheus"
    ]


def test_peers_have_time_to_drain(compose: dict[str, Any]) -> None:
    peer = compose["x-peer"]
    assert duration_s(peer["stop_grace_period"]) > STOP_S
    assert peer["init"] is True


def test_a_peer_that_always_fails_is_left_alone_in_the_end(compose: dict[str, Any]) -> None:
    """Else `docker compose up` would wait for it for ever."""
    assert re.fullmatch(r"on-failure:[1-9]\d*", compose["x-peer"]["restart"])


def test_certificates_are_given_away_without_what_peers_have_made(compose: dict[str, Any], tmp_path: Path) -> None:
    """The service's own script, with stand-ins for the two programs that only root and an authority can run."""
    for who in ("authority", "n0"):
        (tmp_path / who / "state").mkdir(parents=True)
        (tmp_path / who / "key.pem").touch()
    (tmp_path / "n0" / "mine.pem").symlink_to(tmp_path / "authority" / "key.pem")
    for program, does in (("gradvine", ":"), ("chown", f'echo "$@" >> {tmp_path}/asked')):
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / program).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / "bin" / program).chmod(0o755)
    (tmp_path / "certs").mkdir()
    for who in ("authority", "n0"):
        (tmp_path / who).rename(tmp_path / "certs" / who)
    sh, flags, script, name = compose["services"]["certs"]["entrypoint"]
    script = script.replace("$$", "$").replace("/certs", str(tmp_path / "certs"))
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    subprocess.run([sh, flags, script, name, "--renew"], env={"PATH": path}, check=True)
    assert (tmp_path / "asked").read_text() == f"-h {USER}:{USER} n0 n0/key.pem n0/mine.pem\n"


def test_the_image_is_plain(image: list[str]) -> None:
    assert image[0] == "FROM python:3.11-slim AS build"
    assert [line for line in image if line.startswith("FROM")][1:] == ["FROM python:3.11-slim"]
    assert not [line for line in image if re.search(r"\b(apt|apt-get|useradd|curl)\b", line)]
    copied = [line.split()[1] for line in image if line.startswith("COPY")]
    assert copied[0] == "constraints.txt"  # the dearest layer depends on nothing else
    assert copied[-1] == "--from=build"  # and the last stage has nothing but what was installed


def test_what_the_image_copies_is_not_ignored() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [line[1:] for line in lines if line.startswith("!")]
    assert "*" in lines
    for name in (*kept, "pyproject.toml", "constraints.txt"):
        assert (ROOT / name).exists(), name
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages - {"benchmarks"} <= set(kept)


def command_lines(compose: dict[str, Any]) -> list[list[str]]:
    """What services run and check: commands as words, or lines of a script."""
    services = [*compose["services"].values(), compose["x-peer"]]
    words = [service["entrypoint"] for service in services if "entrypoint" in service]
    scripts = [line.split() for each in words if each[0] == "sh" for line in each[2].splitlines()]
    return [line[line.index("gradvine") :] for line in words + scripts if "gradvine" in line]


def test_commands_and_flags_exist(compose: dict[str, Any]) -> None:
    from node.cli import app

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    lines = command_lines(compose)
    assert {line[1] for line in lines} == {"certs", "run", "links", "watch", "finish"}
    for line in lines:
        known = {option for parameter in commands[line[1]].params for option in parameter.opts}
        assert {word.split("=")[0] for word in line if word.startswith("--")} <= known, line
