"""Compose files as a YAML parser reads them: the plan and the settings inside, who mounts what, what is refused."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from node.cli.compose import compose
from node.config import RunConfig, load_config
from node.deploy.compose import compose_file, place_in_containers
from node.errors import ConfigError
from topology.plan import Node, Plan, load_plan, plan_from_json, save_plan
from topology.planning import build_plan

SETTINGS = load_config({}, None, {})
ARGUMENT_BYTES_MAX = 128 << 10
"""Of one argument in Linux (MAX_ARG_STRLEN), its end included."""


def read(plan: Plan, config: RunConfig = SETTINGS, **how: Any) -> dict[str, Any]:
    return yaml.safe_load(compose_file(plan, config, **how))


def arguments(file: dict[str, Any]) -> tuple[str, Plan]:
    """The settings and the plan that the service ``data`` gets, as Compose hands them over."""
    settings, *parts = (text.replace("$$", "$") for text in file["services"]["data"]["command"])
    return settings, plan_from_json("".join(parts))


def renamed(plan: Plan, names: list[str]) -> Plan:
    new = dict(zip((node.name for node in plan.nodes), names, strict=True))
    nodes = tuple(Node(new[node.name], node.address, node.http) for node in plan.nodes)
    edges = tuple(dataclasses.replace(edge, a=new[edge.a], b=new[edge.b]) for edge in plan.edges)
    return dataclasses.replace(plan, nodes=nodes, edges=edges)


@pytest.mark.parametrize(("family", "n", "degree"), [("line", 2, None), ("torus", 9, None), ("regular", 200, 26)])
def test_the_plan_is_inside_with_services_for_hosts(family: str, n: int, degree: int | None) -> None:
    plan = build_plan(family, n, degree=degree)
    file = read(plan, links=False)
    _, inside = arguments(file)
    assert inside.edges == plan.edges
    assert [(node.name, node.address, node.http) for node in inside.nodes] == [
        (f"n{k}", f"n{k}:7700", f"n{k}:9700") for k in range(n)
    ]
    assert inside.digest == plan.digest
    assert {f"n{k}" for k in range(n)} <= file["services"].keys() & file["volumes"].keys()
    assert all(len(text.encode()) < ARGUMENT_BYTES_MAX for text in file["services"]["data"]["command"])


def test_with_links_every_peer_is_behind_a_port_of_that_service() -> None:
    _, inside = arguments(read(build_plan("ring", 3)))
    assert [node.address for node in inside.nodes] == ["links:20000", "links:20001", "links:20002"]
    assert [node.http for node in inside.nodes] == ["n0:9700", "n1:9700", "n2:9700"]


def test_the_service_links_is_there_when_asked_for() -> None:
    with_links, without = read(build_plan("ring", 3)), read(build_plan("ring", 3), links=False)
    assert with_links["services"].keys() - without["services"].keys() == {"links"}
    assert "links" in with_links["services"]["n0"]["depends_on"]
    assert "links" not in without["services"]["n0"]["depends_on"]


def test_settings_are_those_that_were_asked_for(tmp_path: Path) -> None:
    asked = RunConfig(task="digits-cnn", lr=0.3, duration=90.0, options={"hidden": "a $b", "rho": "0.5"})
    settings, _ = arguments(read(build_plan("ring", 3), asked))
    (tmp_path / "config.toml").write_text(settings)
    assert load_config({}, tmp_path / "config.toml", {}) == asked
    assert "momentum" not in settings


def test_every_setting_is_passed_on_to_peers_and_data() -> None:
    services = read(build_plan("ring", 3))["services"]
    for name in ("data", "n0", "n2"):
        assert services[name]["environment"] == [f"GRADVINE_{field.upper()}" for field in RunConfig.model_fields]


def test_a_peers_volume_is_its_own() -> None:
    file = read(build_plan("ring", 3))
    mounts = {
        (service, mount.split(":")[0])
        for service, about in file["services"].items()
        for mount in about.get("volumes", [])
    }
    for peer in ("n0", "n1", "n2"):
        assert {service for service, volume in mounts if volume == peer} == {peer, "certs", "data"}
    assert {service for service, volume in mounts if volume == "authority"} == {"certs"}
    assert {service for service, volume in mounts if volume == "operator"} == {"certs", "finish"}
    assert {volume for _, volume in mounts} - {"./runs"} == file["volumes"].keys()


@pytest.mark.parametrize("names", [["y", "null", "1e5"], ["0x1g", "on", "12-3"], ["a" * 63, "zz9", "no"]])
def test_names_that_yaml_would_take_for_something_else(names: list[str]) -> None:
    file = read(renamed(build_plan("ring", 3), names), links=False)
    assert set(names) <= file["services"].keys()
    assert set(names) <= file["volumes"].keys()
    for name in names:
        assert file["services"][name]["command"] == [f"--name={name}"]
        assert file["services"][name]["volumes"] == [f"{name}:/peer", "record:/record"]


@pytest.mark.parametrize(
    "name", ["watch", "record", "figures", "operator", "7", "0x1f", "-a", "a-", "localhost", "test"]
)
def test_names_that_no_container_can_have_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"by the name {name}: "):
        place_in_containers(renamed(build_plan("ring", 3), ["a", name, "b"]))


def test_the_head_stays_a_comment_whatever_the_plan_and_the_command_are() -> None:
    plan = dataclasses.replace(build_plan("ring", 3), family="file:a$b\nservices: {}")
    file = read(plan, command="gradvine compose --plan 'x\ny: z'")
    assert file["services"].keys() > {"n0", "n1", "n2"}
    assert arguments(file)[1].family == plan.family


def test_a_plan_that_no_process_could_be_given_is_refused() -> None:
    with pytest.raises(ConfigError, match="fewer edges"):
        compose_file(build_plan("complete", 200), SETTINGS)


def test_many_peers_are_looked_at_less_often_and_have_more_time_to_come() -> None:
    few, many = (read(build_plan("ring", n))["x-peer"] for n in (8, 200))
    assert few["healthcheck"]["interval"] == "15s"
    assert few["entrypoint"][-1] == "--wait-for-neighbours=60s"
    assert many["healthcheck"]["interval"] == "50s"
    assert many["entrypoint"][-1] == "--wait-for-neighbours=400s"


# ------------------------------------------------------------------------------------------ the command


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(compose)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_without_a_plan_eight_peers_at_optimal_rates(invoke, tmp_path) -> None:
    assert invoke("--algorithm", "dpsgd", "--no-links").exit_code == 0
    settings, plan = arguments(yaml.safe_load((tmp_path / "docker-compose.yml").read_text()))
    best = build_plan("exponential", 8, rates="optimal")
    assert [(edge.a, edge.b) for edge in plan.edges] == [(edge.a, edge.b) for edge in best.edges]
    assert plan.rates.policy == "optimal"
    assert 'algorithm = "dpsgd"' in settings


def test_a_plan_of_ones_own_goes_to_stdout(invoke, tmp_path) -> None:
    save_plan(build_plan("star", 5), tmp_path / "plan.json")
    result = invoke("--plan", "plan.json", "-o", "-", "--image", "mine:1")
    file = yaml.safe_load(result.stdout)
    assert arguments(file)[1].edges == load_plan(tmp_path / "plan.json").edges
    used = {name: service["image"] for name, service in file["services"].items()}
    assert {image for name, image in used.items() if name != "prometheus"} == {"mine:1"}
    assert list(tmp_path.iterdir()) == [tmp_path / "plan.json"]


def test_prometheus_is_told_where_the_plans_peers_are(invoke, tmp_path) -> None:
    save_plan(build_plan("star", 5, named_hosts=True), tmp_path / "plan.json")
    assert invoke("--plan", "plan.json", "--prometheus", "there").exit_code == 0
    assert "n4:9700" in (tmp_path / "there" / "peers.json").read_text()


def test_kubernetes_gets_manifests(invoke, tmp_path) -> None:
    save_plan(build_plan("star", 5), tmp_path / "plan.json")
    assert invoke("--plan", "plan.json", "--kubernetes").exit_code == 0
    kinds = [each["kind"] for each in yaml.safe_load_all((tmp_path / "kubernetes.yaml").read_text())]
    assert "StatefulSet" in kinds


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--plan", "none.json"], "none.json can't be read"),
        (["-o", "none/x.yml"], "there is no folder none"),
        (["-o", "other.yml"], "not of gradvine's making: name another"),
        (["--kubernetes", "--prometheus", "x"], "one at a time"),
        (["--kubernetes", "-o", "other.yml"], "not of gradvine's making: name another"),
        (["--kubernetes", "--no-links"], "--kubernetes has no use for --links: leave that out"),
        (["--kubernetes", "--links"], "--kubernetes has no use for --links: leave that out"),
        (["--prometheus", "x", "-o", "y"], "--prometheus has no use for --output: leave that out"),
        (["--prometheus", "x", "--no-links", "--image", "y"], "no use for --links and --image: leave that out"),
        (["--prometheus", "there"], "there holds alerts.yml with something else"),
        (["--image", "x: {y"], "--image x: {y can't be used"),
    ],
)
def test_refusals_are_sentences(invoke, tmp_path, words, says) -> None:
    others = {
        tmp_path / "other.yml": "# in place of gradvine\nservices: {}\n",
        tmp_path / "there" / "alerts.yml": "mine",
    }
    for path, text in others.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    result = invoke(*words)
    assert isinstance(result.exception, ConfigError)
    assert says in str(result.exception)
    assert {path: path.read_text() for path in tmp_path.rglob("*.*")} == others


@pytest.mark.parametrize("form", [[], ["--kubernetes"]])
def test_a_file_of_its_own_making_is_written_anew(invoke, tmp_path, form) -> None:
    save_plan(build_plan("star", 5), tmp_path / "plan.json")
    assert invoke("-o", "x.yml", "--plan", "plan.json", *form).exit_code == 0
    before = (tmp_path / "x.yml").read_text()
    (tmp_path / "x.yml").write_text(before + "changed: true\n")
    assert invoke("-o", "x.yml", "--plan", "plan.json", *form).exit_code == 0
    assert (tmp_path / "x.yml").read_text() == before


# ------------------------------------------------------------------------------------------- the health


@pytest.mark.parametrize(("code", "healthy"), [(200, True), (503, False)])
def test_a_peer_is_healthy_when_it_says_that_it_is_ready(code: int, healthy: bool) -> None:
    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Pages) as server:
        threading.Thread(target=server.handle_request).start()
        _, program, *words = read(build_plan("ring", 3))["x-peer"]["healthcheck"]["test"]
        words[-1] = words[-1].replace("9700", str(server.server_port))
        done = subprocess.run([sys.executable if program == "python" else program, *words], check=False)
    assert (done.returncode == 0) == healthy
