"""What an operator says of one peer, and what follows from it before anything else: who it is, and what its plan is."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from node.config import RunConfig
from node.contact import be_introduced, check_joiner
from node.errors import ConfigError, NetworkError
from node.place import find_algorithm, is_open
from node.wire.introduction import Introduction
from node.wire.tls import Identity
from topology.plan import Plan, PlanError, load_plan

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Orders:
    """What an operator says of one peer; ``gradvine run --help`` explains each."""

    name: str
    data: Path
    plan: Path | None = None
    join: str | None = None
    address: str | None = None
    certs: Path | None = None
    insecure: bool = False
    denied: Path | None = None
    state: Path | None = None
    resume: bool = False
    out: Path | None = None
    http: str | None = None
    bind: str | None = None
    wait_s: float = 30.0


def find_plan(orders: Orders, config: RunConfig) -> tuple[Identity | None, Plan, Introduction | None]:
    """By what a peer proves its name, its run's plan, and who told it that, if it joins.

    Raises
    ------
    UserError
        When the orders contradict each other, or something that they name can't be used.
    """
    if orders.join is None:
        plan = _read_plan(orders)
        return _read_identity(orders), plan, None
    if orders.plan is not None:
        raise ConfigError(
            "--plan and --join contradict each other: a peer of the plan needs no --join, any other no --plan."
        )
    if not is_open(find_algorithm(config.algorithm)):
        raise ConfigError(
            f"--join can't be used with {config.algorithm}, whose peers are those of the plan: write --plan, or an "
            "--algorithm that lets peers come and go."
        )
    check_joiner(orders.name, orders.join, orders.address)
    identity = _read_identity(orders)
    kept = orders.state if orders.resume else None
    introduction = be_introduced(orders.name, orders.join, identity, orders.wait_s, kept)
    return identity, introduction.plan, introduction


def _read_plan(orders: Orders) -> Plan:
    if orders.plan is None:
        raise ConfigError("which run is this? write --plan plan.json, or --join HOST:PORT of one of its members.")
    if orders.address is not None:
        raise ConfigError("--address goes with --join: the plan says where its own peers are reached.")
    try:
        plan = load_plan(orders.plan)
        plan.node(orders.name)
    except PlanError as error:
        raise ConfigError(str(error)) from None
    return plan


def _read_identity(orders: Orders) -> Identity | None:
    if orders.insecure and orders.certs:
        raise NetworkError("--certs and --insecure contradict each other: leave one of them out.")
    if orders.insecure and orders.denied:
        raise NetworkError("--denied needs --certs: with --insecure nobody's name is proven.")
    if orders.insecure:
        log.warning("--insecure: messages are neither encrypted nor is anybody's name proven")
        return None
    if orders.certs is None:
        raise NetworkError(
            "there are no certificates: write --certs DIR (gradvine certs makes them), or --insecure for plaintext."
        )
    identity = Identity.load(orders.certs, orders.denied)
    if identity.name != orders.name:
        raise NetworkError(f"the certificate in {orders.certs} is for {identity.name}, this peer is {orders.name}.")
    return identity
