"""A run as its folder tells it.

A run whose peers wrote down their final states without a driver to sum them up, as containers do, is summed up here,
from the states and the test data that the folder holds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from node.errors import ConfigError, StorageError
from node.testbed.curves import Figures, guaranteed_rate
from node.testbed.milestones import newest_model
from node.testbed.rates import EdgeRate, asked_rates, edge_rates, remarks, say_unstable

if TYPE_CHECKING:
    from node.config import RunConfig
    from topology.plan import Plan

SUMMARY = "summary.json"
SHOWN = {"algorithm", "task", "nodes", "seed", "transport", "seconds", "virtual_seconds", "lost_peers"} | {
    *("gradients", "exchanges", "bytes_sent", "local_accuracy", "merged_accuracy"),
    *("consensus_distance", "ledger_error"),
}
"""What a report shows of a summary; one without it is damaged."""


@dataclass(frozen=True)
class Run:
    """One run as its folder tells it.

    Parameters
    ----------
    folder : Path
        The folder.
    summary : mapping
        ``summary.json``.
    lines : mapping
        The reports of every peer, by name.
    config : RunConfig or None
        How it was configured.
    plan : Plan or None
        Who exchanged with whom.
    """

    folder: Path
    summary: Mapping[str, Any]
    lines: Mapping[str, list[dict[str, Any]]]
    config: RunConfig | None
    plan: Plan | None

    @property
    def title(self) -> str:
        """The run in a few words."""
        summary = self.summary
        return f"{summary['algorithm']} on {summary['task']}, {summary['nodes']} peers"

    def figures(self, label: str | None = None) -> Figures:
        """What is drawn of it."""
        from node.testbed.mergeability import read_looks

        asked = sum(edge.asked for edge in self.edges) or None
        virtual = self.summary["transport"] == "virtual"
        merged = self.summary["merged_accuracy"]
        told = Figures(label or self.title, self.lines, merged, virtual, asked, self.unit_s, self._guaranteed_rate())
        told = replace(told, looks=read_looks(self.folder))
        if merged is None:
            told = replace(told, merged_accuracy=self.summary.get("averaged_accuracy"), averaged=True)
        if not self.summary.get("newest"):
            return told
        return replace(told, lines={"newest": newest_model(self.lines)}, peers=len(self.lines))

    @property
    def edges(self) -> list[EdgeRate]:
        """How often each edge exchanged, the worst first; none of a run whose peers have not counted it."""
        return edge_rates(self.asked, self.lines)

    @property
    def remarks(self) -> list[str]:
        """What an operator should know about it, in sentences."""
        return [*_say_unlike(self.summary), *remarks(self.summary, self.edges, self._away)]

    @property
    def _away(self) -> set[str]:
        """Who crashed or was lost."""
        from node.testbed.record import read_events

        crashed = {event["peer"] for event in read_events(self.folder) if event.get("event") == "crashed"}
        return crashed | set(self.summary["lost_peers"])

    @property
    def asked(self) -> dict[tuple[str, str], float]:
        """Exchanges a unit that each edge was to make, by its owner and its other end; none where that is not known."""
        return asked_rates(self.plan, self.config) if self.plan and self.config else {}

    @property
    def unit_s(self) -> float | None:
        """Seconds of one plan unit: the peers may have agreed on them only when they began."""
        last = (peer[-1] for peer in self.lines.values() if peer)
        return next((line["seconds"] / line["units"] for line in last if line.get("units")), None)

    def _guaranteed_rate(self) -> float | None:
        """At which theory has the distance to the optimum fall at least; None where it says nothing."""
        from node.shards import load_task_json

        if self.summary["algorithm"] != "dadao" or not (self.folder / "data" / "task.json").exists():
            return None
        if say_unstable(self.summary, self.edges):
            return None
        constants = load_task_json(self.folder / "data").constants
        return guaranteed_rate(constants["L"], constants["mu"]) if constants else None


def _say_unlike(summary: Mapping[str, Any]) -> list[str]:
    merged = summary.get("merged")
    if not merged or merged["identical"]:
        return []
    return [
        f"Not all peers have the same merged model: merged.safetensors is that of {merged['members']} models, which "
        f"{merged['peers']} peers have."
    ]


# ------------------------------------------------------------------------------------------------- reading


def load_run(folder: Path) -> Run:
    """Read a run's folder; what has no summary yet is summed up first.

    Raises
    ------
    StorageError
        When the folder holds no run, or one that can't be read.
    """
    from node.testbed.record import read_lines

    if not (folder / "peers").is_dir() and not (folder / SUMMARY).exists():
        raise StorageError(f"{folder} is not the folder of a run: it holds neither {SUMMARY} nor peers/.")
    config, plan = _read_config(folder), _read_plan(folder)
    path = folder / SUMMARY
    if path.exists():
        try:
            summary = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise StorageError(f"{path} can't be read: {error}.") from None
        _check_version(path, summary)
    else:
        summary = sum_up(folder, config, plan)
    return Run(folder, summary, read_lines(folder), config, plan)


def _check_version(path: Path, summary: Any) -> None:
    from node.testbed.record import VERSION

    version = summary.get("version") if isinstance(summary, dict) else None
    if version != VERSION:
        raise StorageError(f"{path} has format version {version}: this gradvine reads {VERSION}.")
    missing = sorted(SHOWN - summary.keys())
    if missing:
        raise StorageError(f"{path} lacks {', '.join(missing)}: delete it, and it is worked out again.")


def _read_config(folder: Path) -> RunConfig | None:
    from node.config import load_config

    path = folder / "config.toml"
    return load_config({}, path, {}) if path.exists() else None


def _read_plan(folder: Path) -> Plan | None:
    from topology.plan import PlanError, load_plan

    try:
        return load_plan(folder / "plan.json") if (folder / "plan.json").exists() else None
    except PlanError as error:
        raise ConfigError(str(error)) from None


def sum_up(
    folder: Path, config: RunConfig | None = None, plan: Plan | None = None, facts: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Work out the summary of a run of daemons from its states and its test data, and write it.

    Parameters
    ----------
    facts : mapping, optional
        What the driver knows better than the folder.

    Raises
    ------
    StorageError
        When there is not enough in the folder.
    """
    from node.draws import Draws
    from node.recipe import Recipe
    from node.shards import load_optimum, load_task_json, load_test
    from node.tasks import load_task
    from node.testbed.record import read_lines, summarise
    from node.trainer import Trainer

    if not any((folder / "states").glob("*.safetensors")):
        raise StorageError(f"{folder} holds no final state of any peer yet: report it when its peers have ended.")
    about = load_task_json(folder / "data")
    task = load_task(about.task, about.options, about.dtype)
    test = load_test(folder / "data")
    examiner = Trainer(task, test, Recipe(), Draws(0, "report")("unused"))
    lines = [peer[-1] for peer in read_lines(folder).values() if peer]
    # Data of the user's own may be there for more peers than the plan has.
    names = sorted(node.name for node in plan.nodes) if plan else sorted(about.samples)
    known = {
        "algorithm": config.algorithm if config else None,
        "task": about.task,
        "nodes": len(names),
        "seed": config.seed if config else about.seed,
        "transport": next((line["transport"] for line in lines if "transport" in line), None),
        "seconds": max((line["seconds"] for line in lines), default=None),
        "virtual_seconds": None,
        "lost_peers": lost_peers(folder, names),
        **(facts or {}),
    }
    return summarise(
        folder,
        lambda vector: examiner.evaluate(vector, test),
        examiner.layout,
        known,
        optimum=load_optimum(folder / "data"),
        asked=asked_rates(plan, config) if plan and config else None,
    )


def lost_peers(folder: Path, names: Sequence[str]) -> list[str]:
    """Who has left no final state."""
    return [name for name in names if not (folder / "states" / f"{name}.safetensors").exists()]
