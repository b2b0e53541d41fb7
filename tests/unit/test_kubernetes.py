"""Kubernetes manifests: what the API takes, whose keys and data get where, and scripts that were really run."""

from __future__ import annotations

import copy
import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from node.cli import app
from node.config import RunConfig, duration_s, load_config
from node.daemon import STOP_S
from node.deploy import PORT
from node.deploy.kubernetes import CONFIG_BYTES_MAX, kubernetes_manifests
from node.deploy.yaml import to_yaml
from node.errors import ConfigError
from node.shards import load_shard, load_test, prepare
from node.tasks import load_task
from node.wire.authority import make_certificates
from node.wire.tls import Identity
from topology.plan import Plan, PlanEdge, load_plan, plan_from_json
from topology.planning import build_plan

ROOT = Path(__file__).parents[2]
VERSIONS = ("1.29", "1.33", "1.37")
NAMES = ("zeta", "n-0", "007")
CONFIG = RunConfig(options={"hidden": "4"}, partition="iid", steps=9)
LABEL = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


@pytest.fixture(scope="module")
def plan() -> Plan:
    """A ring of three whose names say nothing of their order."""
    ring, names = build_plan("ring", 3), dict(zip(("n0", "n1", "n2"), NAMES, strict=True))
    nodes = tuple(replace(node, name=names[node.name]) for node in ring.nodes)
    edges = tuple(replace(edge, a=names[edge.a], b=names[edge.b]) for edge in ring.edges)
    return replace(ring, nodes=nodes, edges=edges)


@pytest.fixture(scope="module")
def documents(plan) -> dict[str, dict]:
    return {each["kind"]: each for each in yaml.safe_load_all(kubernetes_manifests(plan, CONFIG, "registry:5000/g:1"))}


@pytest.fixture
def pod(documents) -> dict:
    return documents["StatefulSet"]["spec"]["template"]["spec"]


def containers(pod: dict) -> dict[str, dict]:
    return {each["name"]: each for each in [*pod["initContainers"], *pod["containers"]]}


# ------------------------------------------------------------------------------------------------- the API


@pytest.mark.parametrize("version", VERSIONS)
def test_the_api_takes_every_document(documents, version):
    assert set(documents) == {"ConfigMap", "Service", "NetworkPolicy", "PodDisruptionBudget", "StatefulSet"}
    for document in documents.values():
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        ((), "specs", {}),
        (("spec",), "replicas", "three"),
        (("spec", "template", "spec", "containers", 0), "readynessProbe", {}),
        (("spec", "template", "spec", "containers", 0, "readinessProbe", "httpGet"), "port", None),
        (("spec", "template", "spec", "volumes", 0, "configMap"), "names", "x"),
        (("spec", "volumeClaimTemplates", 0, "spec"), "accessMode", ["ReadWriteOnce"]),
    ],
)
def test_what_the_api_does_not_know_is_seen(documents, where, key, value):
    broken = copy.deepcopy(documents["StatefulSet"])
    place = broken
    for step in where:
        place = place[step]
    place[key] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_everything_has_the_name_of_the_run_and_fits_together(plan):
    manifests = kubernetes_manifests(plan, CONFIG.model_copy(update={"run": "a" * 43}), "g")
    documents = {each["kind"]: each for each in yaml.safe_load_all(manifests)}
    name = "gradvine-" + "a" * 43
    assert {document["metadata"]["name"] for document in documents.values()} == {name}
    spec = documents["StatefulSet"]["spec"]
    assert spec["serviceName"] == name
    assert LABEL.fullmatch(f"{name}-99999")
    assert LABEL.fullmatch(f"{name}-0123456789")  # the label of a revision
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == documents["Service"]["spec"]["selector"] == labels
    assert documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    volumes = {volume["name"]: volume for volume in spec["template"]["spec"]["volumes"]}
    assert volumes["config"]["configMap"]["name"] == name
    assert volumes["secret"]["secret"]["secretName"] == f"{name}-certs"


@pytest.mark.parametrize("run", ["a" * 44, "a-"])
def test_run_that_can_not_be_part_of_a_name_is_a_sentence(plan, run):
    with pytest.raises(ConfigError, match=f"^--run {run} can't be part of a name in Kubernetes: .*$"):
        kubernetes_manifests(plan, CONFIG.model_copy(update={"run": run}), "g")


def test_plan_that_no_config_map_holds_is_a_sentence(plan):
    complete = build_plan("complete", 8)
    names = [f"{'n' * 58}{i:04}" for i in range(100)]
    nodes = [replace(plan.nodes[0], name=name, address=f"10.0.0.1:{i + 1}") for i, name in enumerate(names)]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    rate = complete.rates.total_rate / len(pairs)
    edges = tuple(PlanEdge(a, b, rate, 0.005) for a, b in pairs)
    large = replace(complete, nodes=tuple(nodes), edges=edges)
    with pytest.raises(ConfigError, match=r"^the plan .* have 1\.\d MiB, and a ConfigMap holds 1 MiB: write .*\.$"):
        kubernetes_manifests(large, CONFIG, "g")


# ------------------------------------------------------------------------------------------------ the parts


def test_pod_k_is_the_kth_node_and_is_the_same_run(documents, plan):
    files = documents["ConfigMap"]["data"]
    assert documents["StatefulSet"]["spec"]["replicas"] == 3
    assert files["names"].splitlines() == list(NAMES)
    placed = plan_from_json(files["plan.json"])
    assert placed.digest == plan.digest
    assert [node.address for node in placed.nodes] == [f"gradvine-{k}.gradvine:7700" for k in range(3)]
    assert [node.http for node in placed.nodes] == [f"gradvine-{k}.gradvine:9700" for k in range(3)]
    watched = json.loads(files["peers.json"])
    assert [(t["labels"]["peer"], *t["targets"]) for t in watched] == [(n.name, n.http) for n in placed.nodes]
    assert sum(len(text.encode()) for text in files.values()) < CONFIG_BYTES_MAX


def test_peers_find_each_other_before_they_are_ready_and_start_all_at_once(documents):
    spec = documents["Service"]["spec"]
    assert (spec["clusterIP"], spec["publishNotReadyAddresses"]) == ("None", True)
    assert documents["StatefulSet"]["spec"]["podManagementPolicy"] == "Parallel"


def test_settings_are_those_that_were_given(documents, plan, tmp_path):
    (tmp_path / "config.toml").write_text(documents["ConfigMap"]["data"]["config.toml"])
    assert load_config({}, tmp_path / "config.toml", {}) == CONFIG
    (given,) = [d for d in yaml.safe_load_all(kubernetes_manifests(plan, RunConfig(), "g")) if d["kind"] == "ConfigMap"]
    (tmp_path / "config.toml").write_text(given["data"]["config.toml"])
    assert load_config({}, tmp_path / "config.toml", {}) == RunConfig(duration=duration_s("30d"))


def test_only_peers_reach_peers(documents):
    spec = documents["NetworkPolicy"]["spec"]
    labels = documents["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"] == labels
    peers = [rule for rule in spec["ingress"] if {"port": PORT} in rule["ports"]]
    assert [rule["from"] for rule in peers] == [[{"podSelector": {"matchLabels": labels}}]]
    assert all("ports" in rule for rule in spec["ingress"]), "a rule without ports opens all"


def test_nobody_has_rights_and_everybody_has_bounds(pod):
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in containers(pod).values():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["image"] == "registry:5000/g:1"
        assert "memory" in container["resources"]["limits"]
    assert pod["terminationGracePeriodSeconds"] > STOP_S


def test_the_daemon_never_sees_others_keys(pod):
    mounts = {name: {m["name"]: m for m in each["volumeMounts"]} for name, each in containers(pod).items()}
    assert [name for name in mounts if "secret" in mounts[name]] == ["keys"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]} | {"state": {}}
    assert volumes["certs"]["emptyDir"]["medium"] == "Memory"
    assert {name for each in mounts.values() for name in each} == set(volumes)
    assert all(m["secret"]["readOnly"] for m in mounts.values() if "secret" in m)


def test_probes_ask_what_is_served(pod):
    peer = containers(pod)["peer"]
    assert {port["name"]: port["containerPort"] for port in peer["ports"]} == {"peer": 7700, "http": 9700}
    paths = {probe: peer[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert {peer[probe]["httpGet"]["port"] for probe in paths} == {"http"}


# ---------------------------------------------------------------------------------------------- the scripts


@pytest.fixture
def home(documents, plan, tmp_path):
    """A pod's folders, with the Secret that holds everybody's certificates."""
    for name in ("config", "secret", "certs", "data", "state"):
        (tmp_path / name).mkdir()
    for name, text in documents["ConfigMap"]["data"].items():
        (tmp_path / "config" / name).write_text(text)
    made = tmp_path / "made"
    make_certificates(NAMES, made)
    for name in NAMES:
        for file in ("key", "cert"):
            (tmp_path / "secret" / f"{name}.{file}.pem").write_bytes((made / name / f"{file}.pem").read_bytes())
    (tmp_path / "secret" / "ca.pem").write_bytes((made / "operator" / "ca.pem").read_bytes())
    return tmp_path


def run(container: dict, pod_name: str, home: Path, path: str = "") -> subprocess.CompletedProcess[str]:
    """A container's command, in a folder that stands for /peer."""
    assert container["workingDir"] == "/peer"
    assert all(m["mountPath"] in (f"/peer/{m['name']}", f"/{m['name']}") for m in container["volumeMounts"])
    kept = {key: value for key, value in os.environ.items() if not key.startswith("GRADVINE_")}
    environ = kept | {"POD_NAME": pod_name, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environ["PATH"] = f"{path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(container["command"], cwd=home, env=environ, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("k", range(3))
def test_each_pod_gets_its_own_key_and_no_other(home, pod, k):
    for _ in range(2):  # a pod whose sandbox is made anew runs it again
        done = run(containers(pod)["keys"], f"gradvine-{k}", home)
        assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (home / "certs").iterdir()) == ["ca.pem", "cert.pem", "key.pem"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in (home / "certs").iterdir())
    assert Identity.load(home / "certs").name == NAMES[k]


def test_the_secret_is_made_as_the_docs_say(home, pod):
    """By a program in kubectl's place that writes the Secret's files to where a pod has them."""
    block = re.search(
        r"^    flags=.*?\$flags\n", (ROOT / "docs" / "kubernetes.md").read_text(), re.MULTILINE | re.DOTALL
    )[0]
    (home / "made").rename(home / "certs-of-all")
    (home / "bin").mkdir()
    stand_in = home / "bin" / "kubectl"
    stand_in.write_text(
        '#!/bin/sh\n[ "$1 $2 $3 $4" = "create secret generic gradvine-certs" ]\nshift 4\nfor flag; do\n'
        '  entry=${flag#--from-file=}\n  cp "${entry#*=}" "secret/${entry%%=*}"\ndone\n'
    )
    stand_in.chmod(0o755)
    there = {path.name: path.read_bytes() for path in (home / "secret").iterdir()}
    for path in (home / "secret").iterdir():
        path.unlink()
    environ = os.environ | {"PATH": f"{stand_in.parent}:{os.environ['PATH']}"}
    script = block.replace("certs/", "certs-of-all/").replace("ls certs", "ls certs-of-all")
    subprocess.run(["sh", "-euc", script], cwd=home, env=environ, check=True)
    assert {path.name: path.read_bytes() for path in (home / "secret").iterdir()} == there


def test_a_pod_without_a_key_or_a_node_does_not_start(home, pod):
    assert run(containers(pod)["keys"], "gradvine-3", home).returncode != 0
    (home / "secret" / "zeta.key.pem").unlink()
    done = run(containers(pod)["keys"], "gradvine-0", home)
    assert (done.returncode != 0, "zeta.key.pem" in done.stderr) == (True, True)


def test_each_pod_gets_its_own_shard_and_no_other(home, pod):
    done = run(containers(pod)["data"], "gradvine-1", home)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (home / "data").iterdir()) == [
        "n-0.safetensors",
        "task.json",
        "test.safetensors",
    ]
    prepare(load_task("digits", {"hidden": "4"}), list(NAMES), "iid", 0.1, 0, home / "all", spec="digits")
    for name in ("n-0", "test"):
        assert load_shard(home / "data", name).x.equal(load_shard(home / "all", name).x)
    assert len(load_test(home / "data")) > 0


def test_the_users_own_data_stays_as_it_is(home, pod):
    (home / "data" / "task.json").write_text("mine")
    done = run(containers(pod)["data"], "gradvine-2", home)
    assert (done.returncode, done.stdout) == (0, "data holds data already\n")
    assert [path.name for path in (home / "data").iterdir()] == ["task.json"]


def test_settings_that_can_not_be_used_are_a_sentence(home, pod):
    config = home / "config" / "config.toml"
    config.write_text(config.read_text().replace('"digits"', '"digit"'))
    done = run(containers(pod)["data"], "gradvine-2", home)
    assert done.returncode == 20
    assert done.stderr.count("\n") == 1
    assert "did you mean 'digits'" in done.stderr


def test_the_daemon_is_told_who_it_is_by_flags_that_exist(home, pod, tmp_path):
    """A program in gradvine's place writes down what it was given."""
    import typer

    (tmp_path / "bin").mkdir()
    stand_in = tmp_path / "bin" / "gradvine"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    given = run(containers(pod)["peer"], "gradvine-2", home, str(stand_in.parent)).stdout.splitlines()
    assert given[:3] == ["run", "--name", "007"]
    flags = {word for word in given if word.startswith("--")}
    command = typer.main.get_command(app).commands["run"]
    assert flags <= {option for parameter in command.params for option in parameter.opts}
    values = dict(pairwise(given))
    assert (values["--bind"], values["--http"], values["--state"]) == ("0.0.0.0:7700", "0.0.0.0:9700", "state")
    assert load_plan(home / values["--plan"]).node("007").address == "gradvine-2.gradvine:7700"


def test_a_peer_that_has_the_merged_model_learns_no_more(home, pod):
    (home / "state" / "merged.safetensors").write_bytes(b"")
    (home / "bin").mkdir()
    stand_in = home / "bin" / "python"
    stand_in.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    stand_in.chmod(0o755)
    given = run(containers(pod)["peer"], "gradvine-2", home, str(stand_in.parent)).stdout.splitlines()
    assert given == ["-m", "node.deploy.over"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    over = subprocess.Popen([sys.executable, *given, address], stdout=subprocess.PIPE, text=True)
    try:
        assert "merged.safetensors" in over.stdout.readline()
        for path in ("/healthz", "/readyz", "/metrics"):
            with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as answer:
                text = answer.read().decode()
        (family,) = text_string_to_metric_families(text)
        assert [(sample.name, sample.value) for sample in family.samples] == [("gradvine_seconds_left", 0)]
    finally:
        over.terminate()
        assert over.wait(20) == 0


# ------------------------------------------------------------------------------------------------ the text


@pytest.mark.parametrize(
    "value",
    [
        {"a": {"b": [], "c": {}, "d": [[1, 2], {"e": None}]}},
        {"on": "yes", "no": ["off", "null", "~", "1e3", "0x1F", "12:30:00", "2020-01-01", "-", "- a", "a: b", "#", ""]},
        {"block": "one\n  two\n\n{three}\n", "ends": "none", "two": "a\n\n", "spaces": " a\nb\n", "end ": "a \nb\n"},
        {"tab": "a\tb\n", "unicode": "é\u2028\n", "quote": 'say "hi"\\n', "percent": "%d", "list": ["one\ntwo\n", "x"]},
        [True, False, 3, -1.5, "true", "7700"],
    ],
)
def test_a_reader_of_yaml_finds_what_was_written(value):
    assert yaml.safe_load(to_yaml(value)) == value


def test_a_new_release_touches_nothing_but_the_images_of_the_pods(documents):
    """Applying the file again would undo what was edited in the ConfigMap, such as who is denied."""
    (row,) = re.findall(r"^\| a new release \| (.*?) *\|$", (ROOT / "docs" / "kubernetes.md").read_text(), re.MULTILINE)
    verb, field, kind, name, images = re.match(r"`kubectl (\w+) (\w+) (\w+) (\S+) (\S+)`", row).groups()
    assert (verb, field, kind, name) == ("set", "image", "statefulset", documents["StatefulSet"]["metadata"]["name"])
    assert images.startswith("'*=")  # of the init containers too
