"""Kubernetes manifests for a plan: one pod a peer, each with its own key, its own data and its own volume.

Theory of operation
-------------------
The pods are those of a StatefulSet: pod ``gradvine-k`` is the k-th node of the plan, whatever that is called, and is
reached at ``gradvine-k.gradvine``, whether it is ready or not, since peers wait for each other before they begin. Plan,
settings and the nodes' names are in a ConfigMap. The certificates are in a Secret that the user makes, of all peers: a
container that runs first takes this peer's out of it, so that the daemon's own container never sees another's key.

Invariants
----------
* Nothing runs as root, may gain rights, or writes anywhere but to volumes.
* What a pod is given depends on its number alone: one that is made anew is the same peer.
* A peer that has the merged model learns no more, though Kubernetes starts it again: see ``over.py``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from node.config import RunConfig, dump_toml
from node.deploy import HTTP_PORT, PORT, USER
from node.deploy.observe import PEERS, peers_json
from node.deploy.yaml import to_yaml
from node.errors import ConfigError
from topology.plan import Plan, plan_to_json

CONFIG_BYTES_MAX = 2**20
"""What a ConfigMap may hold."""

NAME = re.compile(r"[a-z]([a-z0-9-]{0,50}[a-z0-9])?")
"""Of a Service and a StatefulSet: a label of DNS, and room for the ends that Kubernetes puts to the names of pods."""

DAYS_30_S = 30 * 86400.0
"""How long a run is for which nothing is said: a StatefulSet is for what goes on."""

GRACE_S = 15
"""A daemon ends within 7.5 s."""

WAIT = "10m"
"""Longest wait for neighbours: some nodes have the image, others fetch it first."""

WHO = 'name=$(sed -n "$((${POD_NAME##*-} + 1))p" config/names)\n'
"""The pod's number says which line of the file has the peer's name; the first is 1."""

KEYS = (
    WHO
    + """umask 077
cp -f "secret/$name.key.pem" certs/key.pem
cp -f "secret/$name.cert.pem" certs/cert.pem
cp -f secret/ca.pem certs/ca.pem
"""
)
DATA = WHO + 'python -m node.deploy.shard "$name"\n'
RUN = (
    "if [ -e state/merged.safetensors ]; then exec python -m node.deploy.over; fi\n"
    + WHO
    + f"""exec gradvine run --name "$name" --plan config/plan.json --config config/config.toml --data data \\
  --certs certs --denied config/denied --state state --resume \\
  --bind 0.0.0.0:{PORT} --http 0.0.0.0:{HTTP_PORT} --wait-for-neighbours {WAIT}
"""
)

HEAD = """\
# {peers} peers of a plan, {family}, on Kubernetes.
#
# Made by: gradvine compose --kubernetes
#
# The certificates come first, as a Secret {name}-certs of which each pod takes its own; docs/kubernetes.md has the
# commands. Then: kubectl apply --server-side -f THIS_FILE
#
"""


def kubernetes_manifests(plan: Plan, config: RunConfig, image: str) -> str:
    """The manifests as one YAML text of several documents.

    Parameters
    ----------
    plan : Plan
        Who takes part; addresses are replaced.
    config : RunConfig
        How the run is. It lasts 30 days where nothing is said of its length. Its run id, if it has one, is part of the
        objects' names, so that several runs fit into one namespace.
    image : str
        The image of all containers.

    Raises
    ------
    ConfigError
        When the run id can't be part of a name, or the plan is too large for a ConfigMap.
    """
    name = _name(config)
    if not config.model_fields_set & {"duration", "steps", "rounds"}:
        config = config.model_copy(update={"duration": DAYS_30_S})
    placed = place_in_pods(plan, name)
    files = {
        "names": "".join(f"{node.name}\n" for node in plan.nodes),
        "denied": "",
        "config.toml": dump_toml(config),
        PEERS: peers_json(placed),
        "plan.json": plan_to_json(placed),
    }
    size = sum(len(text.encode()) for text in files.values())
    if size > CONFIG_BYTES_MAX:
        raise ConfigError(
            f"the plan and what goes with it have {size / 2**20:.1f} MiB, and a ConfigMap holds 1 MiB: write a plan "
            "with fewer edges, such as one of the family exponential."
        )
    documents = [
        _config_map(name, files),
        _service(name),
        _network_policy(name),
        _disruption_budget(name),
        _stateful_set(name, len(plan.nodes), image),
    ]
    family = re.sub(r"[^ -~]", "?", plan.family)
    head = HEAD.format(peers=len(plan.nodes), family=family, name=name)
    return head + "".join(f"---\n{to_yaml(document)}" for document in documents)


def place_in_pods(plan: Plan, name: str) -> Plan:
    """The same plan with the k-th node in the pod ``NAME-k`` of the service ``NAME``."""
    hosts = [f"{name}-{k}.{name}" for k in range(len(plan.nodes))]
    nodes = (
        replace(node, address=f"{host}:{PORT}", http=f"{host}:{HTTP_PORT}")
        for node, host in zip(plan.nodes, hosts, strict=True)
    )
    return replace(plan, nodes=tuple(nodes))


def _name(config: RunConfig) -> str:
    name = "gradvine" if config.run is None else f"gradvine-{config.run}"
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"--run {config.run} can't be part of a name in Kubernetes: write at most 43 characters, the last of them "
            "no '-'."
        )
    return name


# -------------------------------------------------------------------------------------------- documents


def _labels(name: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": "gradvine", "app.kubernetes.io/instance": name}


def _document(api: str, kind: str, name: str, **parts: Any) -> dict[str, Any]:
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name, "labels": _labels(name)}, **parts}


def _config_map(name: str, files: dict[str, str]) -> dict[str, Any]:
    return _document("v1", "ConfigMap", name, data=files)


def _service(name: str) -> dict[str, Any]:
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": _labels(name),
        "ports": [{"name": "peer", "port": PORT}, {"name": "http", "port": HTTP_PORT}],
    }
    return _document("v1", "Service", name, spec=spec)


def _network_policy(name: str) -> dict[str, Any]:
    """Peers are reached by peers, and their status by whoever is in the cluster."""
    selector = {"matchLabels": _labels(name)}
    spec = {
        "podSelector": selector,
        "policyTypes": ["Ingress"],
        "ingress": [
            {"from": [{"podSelector": selector}], "ports": [{"port": PORT}]},
            {"from": [{"namespaceSelector": {}}], "ports": [{"port": HTTP_PORT}]},
        ],
    }
    return _document("networking.k8s.io/v1", "NetworkPolicy", name, spec=spec)


def _disruption_budget(name: str) -> dict[str, Any]:
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": _labels(name)}}
    return _document("policy/v1", "PodDisruptionBudget", name, spec=spec)


def _stateful_set(name: str, replicas: int, image: str) -> dict[str, Any]:
    claim = {
        "metadata": {"name": "state"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    spec = {
        "serviceName": name,
        "replicas": replicas,
        "podManagementPolicy": "Parallel",
        "minReadySeconds": 10,
        "selector": {"matchLabels": _labels(name)},
        "template": {
            "metadata": {
                "labels": _labels(name),
                "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": str(HTTP_PORT)},
            },
            "spec": _pod(name, image),
        },
        "volumeClaimTemplates": [claim],
    }
    return _document("apps/v1", "StatefulSet", name, spec=spec)


def _pod(name: str, image: str) -> dict[str, Any]:
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _labels(name)},
            }
        ],
        "initContainers": [
            _container("keys", image, KEYS, ["config", "secret", "certs"], "16Mi", "64Mi"),
            _container("data", image, DATA, ["config", "data", "tmp"], "512Mi", "2Gi"),
        ],
        "containers": [_daemon(image)],
        "volumes": [
            {"name": "config", "configMap": {"name": name}},
            {"name": "secret", "secret": {"secretName": f"{name}-certs", "defaultMode": 0o440}},
            {"name": "certs", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "data", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }


def _container(
    name: str, image: str, script: str, folders: list[str], memory: str, memory_max: str, cpu: str = "100m"
) -> dict[str, Any]:
    """A container that runs a script in ``/peer``, where the volumes are."""
    read_only = ("config", "secret")
    return {
        "name": name,
        "image": image,
        "workingDir": "/peer",
        "command": ["sh", "-euc", script],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "OMP_NUM_THREADS", "value": "1"},
            {"name": "HOME", "value": "/tmp"},
        ],
        "volumeMounts": [
            {"name": folder, "mountPath": "/tmp" if folder == "tmp" else f"/peer/{folder}"}
            | ({"readOnly": True} if folder in read_only else {})
            for folder in folders
        ],
        "resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": memory_max}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }


def _daemon(image: str) -> dict[str, Any]:
    alive, ready = (
        {"httpGet": {"path": path, "port": "http"}, "timeoutSeconds": 5} for path in ("/healthz", "/readyz")
    )
    return _container("peer", image, RUN, ["config", "certs", "data", "state", "tmp"], "512Mi", "1Gi", cpu="250m") | {
        "ports": [{"name": "peer", "containerPort": PORT}, {"name": "http", "containerPort": HTTP_PORT}],
        # Three minutes to start where torch comes from a slow disk; then a loop that stands still for one is ended.
        "startupProbe": alive | {"periodSeconds": 2, "failureThreshold": 90},
        "livenessProbe": alive | {"periodSeconds": 10, "failureThreshold": 6},
        "readinessProbe": ready | {"periodSeconds": 5, "failureThreshold": 3},
    }
