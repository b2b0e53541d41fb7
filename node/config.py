"""Every knob of a run in one frozen object: flag > ``GRADVINE_*`` > TOML file > default.

A field of :class:`RunConfig` is at once a command-line flag, an environment variable and a key of the TOML file;
its description, unit and bounds stand here and nowhere else.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from node.errors import ConfigError, unknown
from topology.quantities import duration_s, size_bytes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DURATION_MAX_S = 10 * 365 * 86400.0
UNIT_MIN_S, UNIT_MAX_S = 1e-3, 3600.0
"""Shortest and longest unit of time: timers and messages need time of their own, and a run is to get somewhere."""


def time_unit_s(value: Any) -> Any:
    """``"auto"``, or a length of time as :func:`duration_s` reads it."""
    if value == "auto":
        return value
    with suppress(ValueError):
        seconds = duration_s(value)
        if isinstance(seconds, int | float) and UNIT_MIN_S <= seconds <= UNIT_MAX_S:
            return seconds
    raise ValueError("write auto, or a duration from 1ms to 1h, such as 50ms")


Duration = Annotated[float, BeforeValidator(duration_s), Field(gt=0, le=DURATION_MAX_S)]
TimeUnit = Annotated[float | Literal["auto"], BeforeValidator(time_unit_s)]
Size = Annotated[int, BeforeValidator(size_bytes), Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class RunConfig(BaseModel):
    """What ``gradvine run``, ``testbed`` and ``simulate`` are told, checked once, at the door."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    algorithm: str = Field("gossip", description="learning rule")
    task: str = Field("digits", description="what is learnt: a task's name, or file:MODULE.py for your own")
    seed: int = Field(0, ge=0, lt=2**63, description="every random draw follows from it")
    duration: Duration = Field(60.0, description="length of the run, in seconds (virtual ones in simulate)")
    steps: int | None = Field(
        None, gt=0, description="end after this many local steps, or gradients, of a peer instead; in simulate, units"
    )
    rounds: int | None = Field(None, gt=0, description="end after this many rounds, of an algorithm that has them")
    lr: float = Field(0.1, gt=0, description="learning rate of the local optimiser")
    optimiser: Literal["sgd", "adamw"] = Field("sgd", description="local optimiser")
    momentum: Fraction | None = Field(None, description="momentum of SGD; default: the algorithm's, else 0")
    weight_decay: float | None = Field(
        None, ge=0, description="weight decay of the local optimiser; default: 5e-4, and a convex task's option l2"
    )
    batch_size: int = Field(16, gt=0, le=2**20, description="samples a local step, drawn with replacement")
    local_steps: int | None = Field(
        None, gt=0, le=10**6, description="local steps before an algorithm sees them; default: the algorithm's, else 1"
    )
    partition: Literal["iid", "dirichlet", "shards", "natural"] = Field(
        "dirichlet", description="how data is split over peers; natural: each gets a problem of its own"
    )
    alpha: float = Field(0.1, gt=0, description="concentration of the Dirichlet split; small is heterogeneous")
    merging: str = Field("mean", description="rule by which models are merged")
    codec: str = Field("none", description="compression of vectors on the wire")
    final_merge: bool | None = Field(
        None, description="end with one exact merge of all models; default: on, where membership is not open"
    )
    init: Literal["common", "own"] = Field("common", description="one initial model for all peers, or one each")
    options: dict[str, str] = Field(default_factory=dict, description="options of algorithm and task, key=value")
    time_unit: TimeUnit | None = Field(
        None, description="seconds of one plan unit; auto: measured, the mean over all peers; default: the task's"
    )
    exchanges_per_step: Positive | None = Field(None, description="mean exchanges a peer and unit; rescales all rates")
    dtype: Literal["auto", "float32", "float64"] = Field("auto", description="of the vectors; auto: the task's")
    durability: Literal["exact", "periodic"] = Field(
        "periodic", description="exact: a snapshot is on disk before anything is said that depends on it"
    )
    snapshot_every: Duration = Field(10.0, description="seconds between periodic snapshots")
    keep: int = Field(2, ge=1, le=100, description="snapshots kept on disk")
    ledger: bool = Field(True, description="keep the vector that proves that no exchange was lost; costs one model")
    report_every: Duration = Field(2.0, description="seconds between two lines of the run record")
    device: Literal["cpu", "cuda", "auto"] = Field("cpu", description="where local steps are computed")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severity that is logged")
    log_format: Literal["text", "json"] = Field("text", description="form of the log lines on stderr")
    run: str | None = Field(None, pattern=r"^[a-z0-9-]{1,63}$", description="run id; by default a hash of what is run")
    drop: Fraction = Field(0.0, description="fraction of messages lost on purpose, to see what a run does about it")
    inbox: Size = Field(2**30, description="bytes of model vectors that may wait in a peer's inbox")
    norm_max: Positive | None = Field(None, description="largest norm of a vector that is taken in; default: any")

    def units(self, seconds: float, unit_s: float) -> float:
        """How many plan units ``seconds`` are, when one lasts ``unit_s`` seconds."""
        return math.inf if math.isinf(seconds) else seconds / unit_s


def load_config(
    flags: Mapping[str, Any], file: Path | None = None, environ: Mapping[str, str] | None = None
) -> RunConfig:
    """Merge the four sources and check them.

    Parameters
    ----------
    flags : mapping
        Values given on the command line; None means not given.
    file : Path, optional
        A TOML file.
    environ : mapping, optional
        The environment; by default the process's own.

    Raises
    ------
    ConfigError
        One sentence: which key, what was wrong, what to write instead.
    """
    variables = (os.environ if environ is None else environ).items()
    named = {name.removeprefix("GRADVINE_").lower(): text for name, text in variables if name.startswith("GRADVINE_")}
    given = {key: value for key, value in flags.items() if value is not None}
    values: dict[str, Any] = {}
    for source in (_read_toml(file) if file else {}, named, given):
        options: Any = source.get("options", {})
        if isinstance(options, str):
            options = parse_options(options.split())
        if isinstance(options, dict):  # each option has a precedence of its own
            options = values.get("options", {}) | options
        values |= source | ({"options": options} if options else {})
    for key in values:
        if key not in RunConfig.model_fields:
            raise ConfigError(unknown("configuration key", key, RunConfig.model_fields))
    try:
        return RunConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key, reason = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{key} = {first['input']!r} can't be used: {reason}.") from None


def dump_toml(config: RunConfig) -> str:
    """The configuration as a TOML file that gives the same one again; what is not set is left out."""
    values = config.model_dump(exclude_none=True)
    options = values.pop("options")
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    lines += ["", "[options]", *(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in options.items())]
    return "\n".join(lines) + "\n"


def parse_options(pairs: list[str]) -> dict[str, str]:
    """``["hidden=64,64", "rho=.2"]`` as a mapping.

    Raises
    ------
    ConfigError
        When one has no ``=``.
    """
    for pair in pairs:
        if "=" not in pair:
            raise ConfigError(f"--set {pair} can't be used: write --set key=value.")
    return dict(pair.split("=", 1) for pair in pairs)


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {file} can't be read: {error}.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"the configuration file {file} is not TOML: {error}.") from None
