"""A docker-compose file for a plan: one readable file that carries all a run needs but the image.

Theory of operation
-------------------
The plan and the settings travel in the file as arguments of the service ``data``, a one-shot that writes every peer's
own part into that peer's volume (see ``volumes.py``). Addresses in the plan become names of services, which resolve
inside of the project's network; a plan's digest does not cover them.

Invariant
---------
The file is plain YAML for Docker Compose 2 and docker-compose 1.29, and the same plan and settings give the same text.
"""

from __future__ import annotations

import re
from dataclasses import replace
from string import Template

from node.config import RunConfig, dump_toml
from node.deploy import HTTP_PORT, PORT, USER, services
from node.deploy.yaml import scalar
from node.errors import ConfigError
from node.links.doors import FIRST_PORT
from topology.plan import Node, Plan, plan_to_json

ARGUMENT_BYTES = 100_000
"""Longest argument that is written; Linux takes 128 KiB."""

PLAN_BYTES_MAX = 1_500_000
"""Longest plan that is written; all arguments of a process together may have 2 MiB."""

ALWAYS = {"algorithm", "task", "duration"}
"""Settings that are always written down."""

TAKEN = {"certs", "data", "links", "watch", "report", "finish", "prometheus"} | {
    *("authority", "operator", "record", "figures"),
    *("localhost", "test"),
}
"""Services, volumes and hosts that are no peers."""

LIKE_AN_ADDRESS = re.compile(r"[0-9]+|0x[0-9a-f]*|-.*|.*-")
"""What a resolver takes for a number of an address, or does not take at all."""

IMAGE = re.compile(r"[a-z0-9][\w.:/@-]*")

HEALTHY = (
    f"from http.client import HTTPConnection as To; peer = To('127.0.0.1', {HTTP_PORT}, timeout=5); "
    "peer.request('GET', '/readyz'); exit(peer.getresponse().status != 200)"
)
"""What gradvine status --quiet does, for a fifth of the work; many peers do it all the time."""

HEALTHY_S, HEALTHY_S_PER_PEER = 15, 0.25
"""Time between two looks at a peer's health."""

WAIT_S, WAIT_S_PER_PEER = 60, 2
"""Longest wait for neighbours: many containers that start at once on few cores take long to import torch."""


class _Text(Template):
    delimiter = "%"


def place_in_containers(plan: Plan, links: bool = False) -> Plan:
    """The same plan with every peer in a container that has its name.

    Parameters
    ----------
    links : bool
        Peers reach each other through the service ``links``, where each has a port of its own.

    Raises
    ------
    ConfigError
        When a peer has a name that no container can have.
    """
    for node in plan.nodes:
        if node.name in TAKEN or LIKE_AN_ADDRESS.fullmatch(node.name):
            raise ConfigError(
                f"no container can be reached by the name {node.name}: give the node another, such as n0."
            )
    addresses = [f"links:{FIRST_PORT + k}" if links else f"{node.name}:{PORT}" for k, node in enumerate(plan.nodes)]
    pages = [f"{node.name}:{HTTP_PORT}" for node in plan.nodes]
    nodes = (Node(node.name, *where) for node, *where in zip(plan.nodes, addresses, pages, strict=True))
    return replace(plan, nodes=tuple(nodes))


def compose_file(
    plan: Plan, config: RunConfig, *, links: bool = True, image: str = "gradvine", command: str = "gradvine compose"
) -> str:
    """The text of a docker-compose file.

    Parameters
    ----------
    plan : Plan
        Who takes part; addresses are replaced.
    config : RunConfig
        How the run is, where the environment of ``docker compose`` says nothing else.
    links : bool
        With a service through which all that peers say goes, and that can delay, limit and cut their links.
    image : str
        The image of all services.
    command : str
        The command line that asked for the file, for its head.

    Raises
    ------
    ConfigError
        When the plan has a name that no container can have, or is too large, or the image's name is none.
    """
    if not IMAGE.fullmatch(image):
        raise ConfigError(f"--image {image} can't be used: write a name such as gradvine or host:5000/gradvine:1.")
    placed = place_in_containers(plan, links)
    names = [node.name for node in placed.nodes]
    edge = placed.edges[0]
    fill = {
        "peers": str(len(names)),
        "port": str(PORT),
        "http_port": str(HTTP_PORT),
        "user": str(USER),
        "family": _printable(plan.family),
        "command": _printable(command),
        "image": image,
        "first": edge.a,
        "second": edge.b,
        "last": names[-1],
        "names": ",".join(names),
        "settings": "".join(f"  - GRADVINE_{field.upper()}\n" for field in RunConfig.model_fields),
        "after": "    links: { condition: service_started }\n" if links else "",
        "wait": str(max(WAIT_S, WAIT_S_PER_PEER * len(names))),
        "healthy": HEALTHY,
        "look_every": str(max(HEALTHY_S, round(HEALTHY_S_PER_PEER * len(names)))),
    }
    fill["usage"] = _usage(fill, links)
    parts = [
        _filled(services.HEAD, fill),
        _filled(services.ANCHORS, fill),
        _filled(services.CERTS, fill | {"volumes": _mounts(names, "/certs")}),
        _filled(services.DATA, fill | {"arguments": _arguments(placed, config), "volumes": _mounts(names, "/peers")}),
        services.LINKS if links else "",
        *(_filled(services.PEER, {"key": scalar(name), "name": name}) for name in names),
        services.WATCH,
        _filled(services.REPORT, fill),
        services.PROMETHEUS,
        services.VOLUMES + "".join(f"  {scalar(name)}:\n" for name in names),
    ]
    return "".join(parts)


def _filled(text: str, fill: dict[str, str]) -> str:
    return _Text(text).substitute(fill)


def _usage(fill: dict[str, str], links: bool) -> str:
    rows = [(_filled(words, fill), what) for words, what in services.USAGE if links or " links " not in words]
    width = max(len(words) for words, _ in rows)
    return "".join(f"#   {words:{width}}   {what}\n" for words, what in rows)


def _printable(text: str) -> str:
    """A text that may stand in a comment."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _mounts(names: list[str], folder: str) -> str:
    return "".join(f"      - {name}:{folder}/{name}\n" for name in names)


def _arguments(plan: Plan, config: RunConfig) -> str:
    """The settings, and the plan in as many parts as it takes, as blocks of text."""
    text = plan_to_json(plan)
    if len(text) > PLAN_BYTES_MAX:
        raise ConfigError(
            f"the plan has {len(text):,} bytes, a compose file can carry {PLAN_BYTES_MAX:,}: take one with fewer edges."
        )
    return "".join(_block(part) for part in (_settings(config), *_split(text)))


def _settings(config: RunConfig) -> str:
    """What was asked for, and what everybody wants to change."""
    lines = dump_toml(config).splitlines()
    end = lines.index("[options]")
    chosen = [line for line in lines[:end] if line.partition(" = ")[0] in config.model_fields_set | ALWAYS]
    return "\n".join(chosen + (["", *lines[end:]] if config.options else [])) + "\n"


def _split(text: str) -> list[str]:
    """Parts of whole lines; none begins with a blank, which in a block of YAML would be its indentation."""
    parts, size = [""], 0
    for line in text.splitlines(keepends=True):
        if size + len(line) > ARGUMENT_BYTES:
            parts.append("")
            line, size = line.lstrip(), 0
        parts[-1] += line
        size += len(line)
    return parts


def _block(text: str) -> str:
    """A text as an item of a list; what Compose would fill in is masked."""
    lines = text.replace("$", "$$").splitlines()
    return "      - |\n" + "".join(f"        {line}".rstrip() + "\n" for line in lines)
