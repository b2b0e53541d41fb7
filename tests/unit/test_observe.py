"""Prometheus' and Grafana's files: what they ask for is what peers tell, and every alert says what to do."""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from algorithms import ALGORITHMS
from algorithms.protocol import Reason
from node.deploy.observe import write_prometheus
from node.errors import ConfigError, StorageError
from node.meter import Meter, PeerStatus, Status
from topology.planning import build_plan

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"\b(?:gradvine|process)[a-z0-9_:]*")
"""Of a metric or a recording rule, in an expression."""

LABELS = re.compile(r"\{([^}]*)\}")


@pytest.fixture(scope="module")
def plan():
    return build_plan("ring", 4)


@pytest.fixture(scope="module")
def folder(plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prometheus")
    write_prometheus(plan, folder)
    return folder


@pytest.fixture(scope="module")
def rules(folder):
    return [rule for group in yaml.safe_load((folder / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


@pytest.fixture(scope="module")
def alerts(rules):
    return {rule["alert"]: rule for rule in rules if "alert" in rule}


@pytest.fixture(scope="module")
def dashboard(folder):
    return json.loads((folder / "dashboard.json").read_text())


@pytest.fixture(scope="module")
def told():
    """The samples of a peer that has something to say of everything: their labels by their names."""
    near = {"n1": PeerStatus("alive", 2.0, 1.5, 3, distance=0.5)}
    meter = Meter(Status("n0", "r", "gossip", "digits", round=3, peers=near))
    meter.sent("n1", "offer", 1, 0.1)
    meter.received("n1", "reply", 1)
    text = meter.pages()["/metrics"]().body.decode()
    labels = defaultdict(lambda: defaultdict(set))
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            for key, value in [("", ""), *sample.labels.items()]:
                labels[sample.name][key].add(value)
    return labels


def expressions(rules, dashboard):
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    return [rule["expr"] for rule in rules] + panels + [each["expr"] for each in dashboard["annotations"]["list"]]


def bare(expression):
    """Without what stands in quotes."""
    return re.sub(r'"[^"]*"', '""', expression)


# ------------------------------------------------------------------------------------------------ the files


def test_prometheus_asks_every_peer_of_the_plan(folder, plan):
    targets = json.loads((folder / "peers.json").read_text())
    assert {target["labels"]["peer"]: target["targets"] for target in targets} == {
        node.name: [node.http] for node in plan.nodes
    }
    job, *others = yaml.safe_load((folder / "prometheus.yml").read_text())["scrape_configs"]
    assert (job["job_name"], job["file_sd_configs"], others) == ("gradvine", [{"files": ["peers.json"]}], [])


def test_promtool_takes_the_files(promtool, folder):
    done = subprocess.run([promtool, "check", "config", folder / "prometheus.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "bad.yml").write_text((folder / "prometheus.yml").read_text().replace("rule_files", "rule_flies"))
    assert subprocess.run([promtool, "check", "config", folder / "bad.yml"], capture_output=True).returncode != 0


def test_files_that_say_something_else_are_left(plan, folder, tmp_path):
    (tmp_path / "alerts.yml").write_text("groups: []\n")
    with pytest.raises(ConfigError, match=r"holds alerts.yml with something else: .*\.$"):
        write_prometheus(plan, tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"alerts.yml": "groups: []\n"}
    write_prometheus(plan, folder)  # and those that say the same are no hindrance


def test_files_are_replaced_where_that_is_asked_for_and_nothing_else_is_touched(plan, tmp_path):
    write_prometheus(plan, tmp_path / "new" / "folder")
    (tmp_path / "new" / "folder" / "peers.json").write_text("[]")
    (tmp_path / "new" / "folder" / "mine").write_text("mine")
    write_prometheus(plan, tmp_path / "new" / "folder", replace=True)
    assert len(json.loads((tmp_path / "new" / "folder" / "peers.json").read_text())) == 4
    assert (tmp_path / "new" / "folder" / "mine").read_text() == "mine"


def test_folder_that_can_not_be_written_is_a_sentence(plan, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"^Prometheus' configuration can't be written to .*\.$"):
        write_prometheus(plan, tmp_path / "file" / "folder")


# --------------------------------------------------------------------------------------- what they ask for


def test_every_metric_that_is_asked_for_is_told_or_recorded(rules, dashboard, told):
    known = {*told, *(rule["record"] for rule in rules if "record" in rule)}
    asked = {name for text in expressions(rules, dashboard) for name in NAME.findall(bare(text))}
    assert len(asked) > 25
    assert sorted(asked - known) == []


def test_every_recorded_figure_is_used(rules, dashboard):
    used = [name for text in expressions(rules, dashboard) for name in NAME.findall(bare(text))]
    recorded = [rule["record"] for rule in rules if "record" in rule]
    for rule in rules:  # but for what a rule says of its own past
        if rule.get("record") in NAME.findall(rule["expr"]):
            used.remove(rule["record"])
    assert [name for name in recorded if name not in used] == []


def test_every_label_that_is_asked_for_has_that_value(rules, dashboard, told):
    values = told["gradvine_refused_total"]["reason"] | {"dadao", "modest", "fedavg"}
    assert told["gradvine_refused_total"]["reason"] == {reason.value for reason in Reason}
    assert {"dadao", "modest", "fedavg"} <= set(ALGORITHMS)
    values |= told["gradvine_phase"]["phase"] | told["gradvine_peers"]["state"]
    for text in expressions(rules, dashboard):
        for matchers in LABELS.findall(text):
            for key, _, value in re.findall(r'(\w+)(=~|!=|=)"([^"]*)"', matchers):
                if key in ("reason", "phase", "state", "algorithm"):
                    assert set(value.split("|")) <= values, text


def test_names_that_nobody_tells_are_seen(rules, dashboard, told):
    assert "gradvine_los" not in told
    assert NAME.findall(bare('sum by (peer) (gradvine_los{a="gradvine_x"}) / process_cpu_seconds_total')) == [
        "gradvine_los",
        "process_cpu_seconds_total",
    ]


# -------------------------------------------------------------------------------------------------- alerts


def test_every_alert_says_what_it_is_and_what_to_do(alerts):
    assert len(alerts) > 20
    for name, rule in alerts.items():
        assert rule["labels"]["severity"] in ("critical", "warning", "info"), name
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "runbook"}, name
        assert len(notes["summary"]) < 100 < len(notes["description"]), name


def test_every_alert_has_its_place_in_the_docs(alerts):
    page = (ROOT / "docs" / "operating.md").read_text()
    headings = re.findall(r"^### (\w+)$", page, flags=re.MULTILINE)
    assert sorted(headings) == sorted(alerts)
    for name, rule in alerts.items():
        assert rule["annotations"]["runbook"] == f"docs/operating.md#{name.lower()}"
        assert f"| [{name}](#{name.lower()}) | {rule['labels']['severity']} |" in page, "the table"


# ----------------------------------------------------------------------------------------------- dashboard


def test_panels_have_numbers_of_their_own_and_do_not_overlap(dashboard):
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 25
    boxes = [panel["gridPos"] for panel in panels]
    for box in boxes:
        assert 0 <= box["x"] < box["x"] + box["w"] <= 24
    for one, other in combinations(boxes, 2):
        apart = [
            one[at] + one[size] <= other[at] or other[at] + other[size] <= one[at]
            for at, size in (("x", "w"), ("y", "h"))
        ]
        assert any(apart), (one, other)


def test_every_panel_asks_the_source_that_was_chosen(dashboard):
    assert [each["name"] for each in dashboard["templating"]["list"]] == ["datasource", "job", "peer"]
    for panel in dashboard["panels"]:
        assert panel["title"]
        for target in panel.get("targets", []):
            assert target["datasource"] == panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert "$job" in target["expr"], target


def test_promtool_takes_what_panels_ask(promtool, dashboard, tmp_path):
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    filled = [text.replace("$__rate_interval", "1m").replace("$job", "a").replace("$peer", "b") for text in asked]
    rules = [{"record": f"panel:{k}", "expr": text} for k, text in enumerate(filled)]
    (tmp_path / "rules.json").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", tmp_path / "rules.json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(asked)} rules found" in done.stdout
