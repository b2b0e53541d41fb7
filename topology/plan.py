"""A plan: who takes part, who talks to whom, how often, and with which weight.

Theory of operation
-------------------
A plan is made once, written as JSON, and handed to every peer. Reading one needs nothing but the standard
library, so that a daemon does it cheaply; making one (``topology.planning``) needs the planner's packages.

Every edge has an owner, its ``a``, who runs the edge's clock and starts its exchanges.

Invariant
---------
A :class:`Plan` that exists is sound: names are unique, its graph is simple and connected, its mixing matrix is
symmetric with rows that sum to 1 and entries from −1 to 1, its rates sum to what it promises. Whatever is wrong with
a plan is a :class:`PlanError`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from reprlib import repr as shown
from typing import Any

from topology.records import PlanError, check_keys, read_json, read_record, read_records, read_text, read_whole, unknown
from topology.soundness import RATE_TOLERANCE, check_edges, check_nodes, check_rates

VERSION = 1
KEYS = {"version": True, "family": True, "seed": True, "digest": False, "nodes": True, "edges": True, "rates": True}
NAME = re.compile(r"[a-z0-9-]{1,63}")
ADDRESS = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})")
SIZE_MAX = 256 << 20
DELAY_MAX_S = 3600
BANDWIDTH_MAX = 2.0**60


def is_address(text: str) -> bool:
    """Whether this is ``HOST:PORT``."""
    match = ADDRESS.fullmatch(text)
    return match is not None and 1 <= int(match[1]) <= 65535


@dataclass(frozen=True)
class Node:
    """A peer.

    Parameters
    ----------
    name : str
        1 to 63 characters out of ``a-z``, ``0-9`` and ``-``: it is also a host name and a certificate's subject.
    address : str
        ``host:port`` where its neighbours reach it.
    http : str
        ``host:port`` of its metrics and health pages.
    """

    name: str
    address: str
    http: str

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise PlanError(f"the node name {shown(self.name)} can't be used: write 1 to 63 of a-z, 0-9 and '-'.")
        for key, value in (("address", self.address), ("http", self.http)):
            if not is_address(value):
                raise PlanError(f"node {self.name} has {key} {shown(value)}: write host:port, such as 10.0.0.7:7700.")


@dataclass(frozen=True)
class PlanEdge:
    """An edge: ``a`` owns its clock, ``b`` is the other end.

    Parameters
    ----------
    a, b : str
        The names of its two ends.
    rate : float
        Exchanges per unit of time; a unit is the time of one local gradient.
    weight : float
        Entry of the symmetric mixing matrix, -1 to 1; the fastest averaging may need negative ones.
    cost : float
        What one exchange costs, in whatever the user counts.
    delay : float, optional
        Seconds one way over the link between the two, where it is simulated or shaped.
    bandwidth : float, optional
        Bytes a second that the link carries each way; likewise.
    """

    a: str
    b: str
    rate: float
    weight: float
    cost: float = 1.0
    delay: float | None = None
    bandwidth: float | None = None

    def __post_init__(self) -> None:
        if self.a == self.b:
            raise PlanError(f"an edge joins {shown(self.a)} to itself: join two different nodes.")
        _require_positive(self.rate, f"the rate of edge {shown(self.a)} – {shown(self.b)}")
        _require_positive(self.cost, f"the cost of edge {shown(self.a)} – {shown(self.b)}")
        # A symmetric matrix that averages has spectral norm 1, and no entry exceeds that norm: |uᵀWv| ≤ ‖W‖.
        if not -1 <= self.weight <= 1:
            raise PlanError(
                f"the weight of edge {shown(self.a)} – {shown(self.b)} is {self.weight}: write one from -1 to 1."
            )
        if self.delay is not None and not 0 <= self.delay <= DELAY_MAX_S:
            raise PlanError(
                f"the delay of edge {shown(self.a)} – {shown(self.b)} is {self.delay} s: write 0 to {DELAY_MAX_S}."
            )
        if self.bandwidth is not None and not 1 <= self.bandwidth <= BANDWIDTH_MAX:
            raise PlanError(
                f"the bandwidth of edge {shown(self.a)} – {shown(self.b)} is {self.bandwidth}: write 1 byte a second "
                "or more, or leave it out."
            )

    @property
    def agreed(self) -> list[Any]:
        """What both ends must agree on: not the nature of the link between them."""
        return [self.a, self.b, self.rate, self.weight, self.cost]


@dataclass(frozen=True)
class Rates:
    """What the edge rates achieve.

    Parameters
    ----------
    policy : str
        How they were chosen.
    chi1, chi2 : float
        Of the normalised rates, which sum to 1: inverse algebraic connectivity, and half the largest effective
        resistance of an edge.
    total_rate : float
        Edge events per unit of time over the whole network, √(2·chi1·chi2); the edges' rates sum to it.
    lower_bound : float
        No stable rates on this graph have a smaller total cost Σ cost·rate, which is the total rate where every
        exchange costs 1.
    certified_gap : float
        Total cost / lower_bound − 1.
    solver : str
        What computed them.
    seconds : float
        How long that took.
    policy_gap : float
        How far, as a part of it, the policy's own aim may be from its best; 0 where it is met exactly.
    """

    policy: str
    chi1: float
    chi2: float
    total_rate: float
    lower_bound: float
    certified_gap: float
    solver: str
    seconds: float
    policy_gap: float = 0.0

    def __post_init__(self) -> None:
        for key in ("chi1", "chi2", "total_rate", "lower_bound"):
            _require_positive(getattr(self, key), f"{key} under rates")
        for key in ("certified_gap", "seconds", "policy_gap"):
            if not 0 <= getattr(self, key) < math.inf:
                raise PlanError(f"{key} under rates is {getattr(self, key)}: write a number that is not negative.")
        needed = math.sqrt(2) * math.sqrt(self.chi1) * math.sqrt(self.chi2)
        if not math.isclose(self.total_rate, needed, rel_tol=RATE_TOLERANCE):
            raise PlanError(
                f"total_rate is {self.total_rate:.9g}, but √(2·chi1·chi2) is {needed:.9g}: make the plan anew."
            )


@dataclass(frozen=True)
class Plan:
    """Nodes, edges and what their rates promise; checked as it is made.

    Raises
    ------
    PlanError
        When its parts do not fit together.
    """

    version: int
    family: str
    seed: int
    nodes: tuple[Node, ...]
    edges: tuple[PlanEdge, ...]
    rates: Rates

    def __post_init__(self) -> None:
        _check_version(self.version)
        if self.seed < 0:
            raise PlanError(f"the plan's seed is {self.seed}: write 0 or more.")
        check_nodes(self)
        check_edges(self)
        check_rates(self)

    @cached_property
    def digest(self) -> str:
        """``sha256:…`` of what peers must agree on to work together.

        Not in it: addresses, since a peer may move, or be seen under another address from inside a container,
        and still be who its certificate says; delays and bandwidths of links, with which no peer computes; and how the
        rates were found (solver, seconds, bounds), likewise. All else is, the order of nodes and edges included.
        """
        agreed = {
            "version": self.version,
            "family": self.family,
            "seed": self.seed,
            "nodes": [node.name for node in self.nodes],
            "edges": [edge.agreed for edge in self.edges],
            "rates": [self.rates.policy, self.rates.chi1, self.rates.chi2, self.rates.total_rate],
        }
        text = json.dumps(agreed, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return "sha256:" + hashlib.sha256(text.encode("ascii")).hexdigest()

    def node(self, name: str) -> Node:
        """The node of this name; a :class:`PlanError` with the nearest name when there is none."""
        if name not in self._by_name:
            raise PlanError(unknown("node", name, self._by_name))
        return self._by_name[name]

    def edges_of(self, name: str) -> dict[str, PlanEdge]:
        """The edges of one node by its neighbours' names, in the plan's order."""
        return dict(self._adjacency[self.node(name).name])

    @cached_property
    def _by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @cached_property
    def _adjacency(self) -> dict[str, dict[str, PlanEdge]]:
        adjacency: dict[str, dict[str, PlanEdge]] = {node.name: {} for node in self.nodes}
        for edge in self.edges:
            adjacency[edge.a][edge.b] = adjacency[edge.b][edge.a] = edge
        return adjacency


# ------------------------------------------------------------------------------------------ checks


def _check_version(version: object) -> None:
    if type(version) is not int or version != VERSION:
        raise PlanError(f"this plan has version {shown(version)}, but version {VERSION} is read here: make it anew.")


def _require_positive(value: float, what: str) -> None:
    if not 0 < value < math.inf:
        raise PlanError(f"{what} is {value}: write a finite number above zero.")


# -------------------------------------------------------------------------------------------- JSON


def load_plan(path: Path | str) -> Plan:
    """Read a plan from a file.

    Raises
    ------
    PlanError
        When the file can't be read or its plan can't be used.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(SIZE_MAX + 1)
        text = data.decode("utf-8-sig")  # some editors mark their files
    except OSError as error:
        raise PlanError(f"the plan {path} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise PlanError(f"the plan {path} can't be read: it is no text in UTF-8.") from None
    if len(data) > SIZE_MAX:
        raise PlanError(f"the plan {path} can't be read: it has more than {SIZE_MAX >> 20} MiB.")
    try:
        return plan_from_json(text)
    except PlanError as error:
        raise PlanError(f"the plan {path} can't be used: {error}") from None


def save_plan(plan: Plan, path: Path | str) -> None:
    """Write a plan to a file; a :class:`PlanError` when that can't be done."""
    try:
        Path(path).write_text(plan_to_json(plan), encoding="utf-8")
    except OSError as error:
        raise PlanError(f"the plan can't be written to {path}: {error.strerror}.") from None


def plan_to_json(plan: Plan) -> str:
    """A plan as JSON text, one node or edge a line."""
    head = {"version": plan.version, "family": plan.family, "seed": plan.seed, "digest": plan.digest}
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    for key, records in (("nodes", plan.nodes), ("edges", plan.edges)):
        rows = ",\n".join("    " + json.dumps(_given(record)) for record in records)
        lines.append(f'  "{key}": [\n{rows}\n  ],')
    return "\n".join(["{", *lines, f'  "rates": {json.dumps(vars(plan.rates))}', "}", ""])


def _given(record: Node | PlanEdge) -> dict[str, Any]:
    return {key: value for key, value in vars(record).items() if value is not None}


def plan_from_json(text: str) -> Plan:
    """A plan from JSON text.

    Raises
    ------
    PlanError
        Whatever is wrong with the text or with the plan.
    """
    value = read_json(text)
    # A later version may well have other keys: then its number is what is wrong, not they.
    if isinstance(value, dict) and "version" in value:
        _check_version(value["version"])
    check_keys(value, "the plan", KEYS)
    plan = Plan(
        version=VERSION,
        family=read_text(value["family"], "the plan", "family"),
        seed=read_whole(value["seed"], "the plan", "seed"),
        nodes=read_records(Node, value["nodes"], "nodes"),
        edges=read_records(PlanEdge, value["edges"], "edges"),
        rates=read_record(Rates, value["rates"], "rates"),
    )
    if value.get("digest", plan.digest) != plan.digest:
        raise PlanError("its digest does not fit its content: if you edited it on purpose, take the digest out.")
    return plan
