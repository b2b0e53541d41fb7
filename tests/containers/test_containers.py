"""Eight peers in containers: up, four faults while they learn, the end, and nothing left behind.

The tests are the chapters of one run, in this order.
"""

from __future__ import annotations

import json
import re
import urllib.request
from typing import Any

import pytest

from node.deploy.volumes import DOWN
from tests.containers.project import Project

pytestmark = pytest.mark.timeout(600)

LINE = re.compile(r"(?:n\d_1|n\d-1|n\d) *\| +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (?:INFO|WARNING) +(n\d) ")
"""A line of a peer in the log of all: whose container, when, how severe, whose line."""

Statuses = dict[str, Any]


def all_learn(now: Statuses) -> bool:
    return all(status and status["phase"] == "learning" and status["gradients"] > 0 for status in now.values())


def gone_on(before: Statuses, now: Statuses, names: list[str], steps: int = 20) -> bool:
    """Whether all of these have done so many more gradients."""
    return all(now[name] and now[name]["gradients"] >= before[name]["gradients"] + steps for name in names)


def doubted(now: Statuses, name: str) -> bool:
    """Whether every neighbour of a peer that answers takes it for suspect or gone."""
    states = [status["peers"][name]["state"] for status in now.values() if status and name in status["peers"]]
    return bool(states) and "alive" not in states


def trusted(now: Statuses, name: str) -> bool:
    return bool(now[name]) and all(
        status["peers"][name]["state"] == "alive" for status in now.values() if status and name in status["peers"]
    )


def others_of(project: Project, *names: str) -> list[str]:
    return [name for name in project.names if name not in names]


def test_up_builds_the_image_and_all_peers_learn(project: Project) -> None:
    project.run("up", "-d", "--build")
    project.wait("all learn", all_learn)


def test_the_page_is_served_on_loopback(project: Project) -> None:
    with urllib.request.urlopen(f"http://localhost:{project.settings['WATCH_PORT']}/", timeout=10) as answer:
        page = answer.read().decode()
    assert 'id="story"' in page
    assert project.inspect("watch", "{{json .NetworkSettings.Ports}}").count("127.0.0.1") == 1


def test_a_volume_holds_its_own_peers_key_and_shard_only(project: Project) -> None:
    found = project.run("exec", "-T", "n2", "sh", "-c", "echo *.pem data/*").stdout.split()
    assert found == ["ca.pem", "cert.pem", "key.pem", "data/n2.safetensors", "data/task.json", "data/test.safetensors"]
    assert project.run("exec", "-T", "n2", "id", "-u").stdout.strip() == "10001"


def test_a_cut_link_is_noticed_at_both_ends_and_heals(project: Project) -> None:
    before = project.statuses()

    def seen(now: Statuses, states: set[str]) -> bool:
        return all(now[a] and now[a]["peers"][b]["state"] in states for a, b in (("n0", "n4"), ("n4", "n0")))

    project.run("exec", "-T", "links", "gradvine", "link", "n0", "n4", "--cut")
    cut = project.wait("both ends notice", lambda now: seen(now, {"suspect", "gone"}))
    project.wait("all go on", lambda now: gone_on(cut, now, project.names))
    project.run("exec", "-T", "links", "gradvine", "link", "n0", "n4", "--heal")
    project.wait("both ends are back", lambda now: seen(now, {"alive"}))
    exchanges = before["n0"]["peers"]["n4"]["exchanges"]
    project.wait("they exchange", lambda now: now["n0"]["peers"]["n4"]["exchanges"] > exchanges)


def test_a_paused_peer_is_missed_and_goes_on(project: Project) -> None:
    before = project.statuses()
    project.run("pause", "n5")
    paused = project.wait("it is missed", lambda now: doubted(now, "n5"))
    project.wait("the others go on", lambda now: gone_on(paused, now, others_of(project, "n5")))
    project.run("unpause", "n5")
    project.wait("it goes on", lambda now: trusted(now, "n5") and gone_on(before, now, ["n5"]))


def test_a_peer_that_is_cut_off_the_network_comes_back(project: Project) -> None:
    before = project.statuses()
    network, container = f"{project.name}_default", project.container("n2")
    project.docker("network", "disconnect", network, container)
    away = project.wait("it is missed", lambda now: doubted(now, "n2"))
    assert away["n2"] is None
    project.wait("the others go on", lambda now: gone_on(away, now, others_of(project, "n2")))
    project.docker("network", "connect", "--alias", "n2", network, container)
    project.wait("it is back", lambda now: trusted(now, "n2") and gone_on(before, now, ["n2"]))


def test_a_peer_that_is_killed_is_started_again(project: Project) -> None:
    before = project.statuses()
    project.run("exec", "-T", "n3", "sh", "-c", "kill -9 -1", check=False)
    project.wait("it is back", lambda now: trusted(now, "n3") and gone_on(before, now, ["n3"]))
    assert int(project.inspect("n3", "{{.RestartCount}}")) == 1
    project.wait("the others go on", lambda now: gone_on(before, now, others_of(project, "n3")))
    assert "going on from unit" in project.run("logs", "n3").stdout


def test_certificates_are_renewed_while_peers_run(project: Project) -> None:
    def certificate() -> str:
        return project.run("exec", "-T", "n1", "cat", "cert.pem").stdout

    before = certificate()
    project.run("run", "--rm", "certs", "--renew")
    assert "BEGIN CERTIFICATE" in certificate()
    assert certificate() != before


def test_memory_of_a_container(project: Project) -> None:
    """Printed for the record; the bound is what a peer of this size must never reach."""
    containers = [project.container(service) for service in (*project.names, "links", "watch", "report")]
    listing = project.docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", *containers)
    print(f"\n{listing}")  # noqa: T201
    peers = re.findall(r"[_-]n\d[_-]1 ([\d.]+)MiB", listing)
    assert len(peers) == len(project.names)
    assert max(map(float, peers)) < 1024


def test_finish_ends_the_run_with_one_model_and_a_report(project: Project) -> None:
    project.run("run", "--rm", "finish")
    report = project.container("report")
    assert project.docker("wait", report) == "0", project.run("logs", "report").stdout
    for service in (*project.names, "links", "watch"):
        assert project.docker("wait", project.container(service)) == "0", service
    run = project.folder / "runs" / "compose-1"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["lost_peers"] == []
    assert summary["lost_exchanges"] == 0
    assert summary["ledger_error"] < 1e-5
    assert (summary["merged"]["members"], summary["merged"]["identical"]) == (8, True)
    assert len({(run / "merged" / f"{name}.safetensors").read_bytes() for name in project.names}) == 1
    assert summary["merged_accuracy"] > 0.9
    assert (run / "report.html").stat().st_size > 0
    assert {path.stat().st_uid for path in run.rglob("*")} == {(project.folder / "runs").stat().st_uid}


def test_every_line_of_the_log_says_when_and_who(project: Project) -> None:
    text = project.run("logs", "--no-color", *project.names).stdout
    lines = [line for line in text.splitlines() if "|" in line]
    assert [line for line in lines if not LINE.match(line)] == []
    assert {LINE.match(line)[1] for line in lines} == set(project.names)  # type: ignore[index]


def test_other_data_in_volumes_that_are_in_use_is_refused_in_a_sentence(project: Project) -> None:
    done = project.run("run", "--rm", "data", check=False, GRADVINE_TASK="digits-cnn")
    assert f"a run with task digits, not digits-cnn: begin anew with {DOWN}." in done.stdout + done.stderr
    assert done.returncode == 40


def test_down_leaves_nothing(project: Project) -> None:
    assert project.left()
    project.run(*DOWN.split()[2:])
    assert project.left() == []
