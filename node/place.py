"""What a peer's algorithm is told at birth, worked out in one place for the daemon and for virtual time.

Both drivers build the same :class:`~algorithms.protocol.Place` from a plan and a :class:`~node.config.RunConfig`; they
differ only in how long a plan unit lasts.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from functools import cache, partial
from typing import Any, TypeVar, cast

import numpy as np

from algorithms import ALGORITHMS
from algorithms.compression import CODECS
from algorithms.final_merge import FinalMerge
from algorithms.layout import Layout
from algorithms.merging import MERGINGS
from algorithms.protocol import Algorithm, Edge, Limits, Place, Unsuitable, Vector
from node.config import RunConfig
from node.draws import Draws
from node.errors import TaskError, unknown
from topology.plan import Plan

Named = TypeVar("Named")

RETRY_FIRST_S = 0.01
RETRY_MAX_S = 2.0
REPLY_FIRST_S = 2.0
LINGER_S = 4.0
"""Longest time a peer stays after the end to let its neighbours settle; a drained exit takes less than 8 s in all."""


def find_algorithm(name: str) -> type[Algorithm]:
    """The algorithm's class.

    Raises
    ------
    TaskError
        When there is none of this name.
    """
    return _find("algorithm", name, ALGORITHMS)


def is_open(algorithm: type[Algorithm]) -> bool:
    """Whether peers that are not in the plan may join, as :class:`~algorithms.protocol.Open` says of an algorithm."""
    return hasattr(algorithm, "plausible")


def ends_in_merge(config: RunConfig) -> bool:
    """Whether the run ends with a merge of all models: ``--final-merge``, by default where membership is not open.

    Raises
    ------
    TaskError
        When it is asked for where peers come and go, and nobody knows all of them.
    """
    if not is_open(find_algorithm(config.algorithm)):
        return config.final_merge is not False
    if config.final_merge:
        name = config.algorithm
        raise TaskError(f"--final-merge can't be used with {name}, whose newest model is the result: leave it out.")
    return False


def split_options(options: Mapping[str, str], algorithm: type[Algorithm]) -> tuple[dict[str, Any], dict[str, str]]:
    """Divide ``--set key=value`` into the algorithm's own, converted to their type and completed, and the task's.

    Raises
    ------
    TaskError
        When a value is not of its option's type.
    """
    own = dict(algorithm.options)
    for key in sorted(own.keys() & options.keys()):
        kind = type(own[key])
        try:
            own[key] = kind(options[key])
        except ValueError:
            raise TaskError(f"--set {key}={options[key]} can't be used: write {kind.__name__} instead.") from None
    return own, {key: value for key, value in options.items() if key not in own}


def local_steps_of(config: RunConfig, algorithm: type[Algorithm]) -> int:
    """Local steps in one ``Train``: ``--local-steps``, else what the algorithm wants, else 1."""
    return int(algorithm.defaults.get("local_steps", 1)) if config.local_steps is None else config.local_steps


def momentum_of(config: RunConfig, algorithm: type[Algorithm]) -> float:
    """The momentum of SGD: ``--momentum``, else what the algorithm wants, else 0."""
    return algorithm.defaults.get("momentum", 0.0) if config.momentum is None else config.momentum


def rate_scale(plan: Plan, config: RunConfig) -> float:
    """The factor on the plan's rates: ``--exchanges-per-step``, else what the algorithm asks for, else 1.

    X exchanges a peer and unit are n·X/2 edge events a unit over the whole network.
    """
    wanted = config.exchanges_per_step or find_algorithm(config.algorithm).tempo.exchanges_per_step
    return 1.0 if wanted is None else wanted * len(plan.nodes) / (2 * plan.rates.total_rate)


def run_id(plan: Plan, layout: Layout, config: RunConfig, constants: Mapping[str, float]) -> str:
    """``--run``, or a hash of what two peers must agree on to be in the same run.

    The constants of a convex task are part of it: an exchange moves both ends by multiples that follow from them.
    """
    if config.run:
        return config.run
    rule = [config.algorithm, config.merging, config.codec, dict(config.options)]
    agreed = [plan.digest, layout.digest, *rule, rate_scale(plan, config), dict(constants), ends_in_merge(config)]
    return "run-" + hashlib.sha256(json.dumps(agreed, sort_keys=True).encode()).hexdigest()[:16]


def limits_of(unit_s: float) -> Limits:
    """Bounds and waits where a unit lasts so many seconds; a first retry takes 10 ms, or a fiftieth of one."""
    return Limits(
        retry_first=max(0.02, RETRY_FIRST_S / unit_s),
        retry_max=max(1.0, RETRY_MAX_S / unit_s),
        reply_first=max(1.0, REPLY_FIRST_S / unit_s),
        linger=max(1.0, LINGER_S / unit_s),
    )


def wire_share(config: RunConfig, layout: Layout) -> float:
    """How much of a vector's bytes travels with the run's codec."""
    dtype = layout.torch_dtype
    return _find("codec", config.codec, CODECS).wire_dtype(dtype).itemsize / dtype.itemsize


def make_place(
    plan: Plan,
    name: str,
    config: RunConfig,
    *,
    start: Vector,
    layout: Layout,
    draws: Draws,
    unit_s: float,
    constants: Mapping[str, float],
    address: str = "",
    contact: str = "",
) -> Place:
    """What the algorithm of the peer ``name`` is told.

    Parameters
    ----------
    start : Vector
        The initial model, shape ``(d,)``.
    unit_s : float
        Seconds of one plan unit.
    constants : mapping of str to float
        ``L`` and ``mu`` of a convex task; empty otherwise.
    address : str
        Where others reach it; by default where the plan says.
    contact : str
        The member through which it joins; empty for a peer of the plan.

    Raises
    ------
    TaskError
        When the configuration names something that does not exist.
    """
    scale = rate_scale(plan, config)
    total_rate = plan.rates.total_rate * scale
    edges = {} if contact else plan.edges_of(name)
    neighbours = {other: Edge(edge.rate * scale, edge.weight, edge.a == name) for other, edge in edges.items()}
    algorithm = find_algorithm(config.algorithm)
    if config.rounds and not algorithm.tempo.rounds:
        raise TaskError(f"--rounds can't be used with {config.algorithm}, which has none: write --duration or --steps.")
    options, _ = split_options(config.options, algorithm)
    return Place(
        name=name,
        start=start,
        neighbours=neighbours,
        nodes=tuple(node.name for node in plan.nodes),
        edges=tuple((edge.a, edge.b, edge.rate * scale) for edge in plan.edges),
        chi1=plan.rates.chi1 / total_rate,
        chi2=plan.rates.chi2 / total_rate,
        layout=layout,
        merging=_find("merging rule", config.merging, MERGINGS),
        codec=_find("codec", config.codec, CODECS),
        draw=draws,
        options=options,
        local_steps=local_steps_of(config, algorithm),
        limits=limits_of(unit_s),
        constants=constants,
        keep_ledger=config.ledger,
        rounds=math.inf if config.rounds is None else config.rounds,
        contraction=partial(_contraction, plan),
        address=address or plan.node(name).address,
        contact=contact,
    )


@cache
def _contraction(plan: Plan) -> float:
    """The second largest absolute eigenvalue of the plan's mixing matrix."""
    from topology.measures import edge_ends, mixing_gap

    return 1 - mixing_gap(len(plan.nodes), edge_ends(plan), np.array([edge.weight for edge in plan.edges]))


def make_algorithm(name: str, place: Place, final_merge: bool = False) -> Algorithm:
    """The algorithm of this name in its place, and a merge of all models at its end.

    Raises
    ------
    TaskError
        When there is none, or it can't run there.
    """
    try:
        algorithm = find_algorithm(name)(place)
    except Unsuitable as error:
        raise TaskError(str(error)) from None
    # What a class says of itself, each FinalMerge says of what it ends: to the type checker these are two things.
    return cast(Algorithm, FinalMerge(algorithm, place)) if final_merge else algorithm


def _find(what: str, name: str, registry: Mapping[str, Named]) -> Named:
    if name not in registry:
        raise TaskError(unknown(what, name, registry) + ".")
    return registry[name]
