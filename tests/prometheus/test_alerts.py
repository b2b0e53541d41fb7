"""Every alert fires when it should and keeps quiet when it should not, as Prometheus' own promtool judges.

A case is figures of peers, one value a minute from minute 0 on, in promtool's notation: ``1x5`` is 1 and five times
more 1, ``0+60x5`` grows by 60, ``_`` is no answer. ``up@n1`` is ``up`` of peer n1; without a peer it is n0's.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import yaml

import node.deploy.observe

RULES = Path(node.deploy.observe.__file__).parent / "prometheus" / "alerts.yml"

LEARNS = {'gradvine_phase{phase="learning"}': "1x600"}
RUNS = {'gradvine_phase{phase="learning"}': "1x600", "gradvine_unit_seconds": "0.5x600"}
EDGE = {'gradvine_alive{neighbour="n1"}': "1x600", 'gradvine_rate_asked_hz{neighbour="n1"}': "2x600", **LEARNS}
MADE = 'gradvine_exchanges_total{neighbour="n1"}'
SEEN = 'gradvine_alive{neighbour="n1"}'
MERGING, LEFT = 'gradvine_phase{phase="merging"}', "gradvine_seconds_left"
NO_END = {LEFT: "Inf Inf Inf Inf Inf Inf stale", MERGING: "0x5 stale"}
MOVED = {
    'up{instance="a"}': "1x5 0x2",
    'gradvine_seconds_left{instance="a"}': "300-60x5 stale",
    'gradvine_phase{phase="merging",instance="a"}': "0x5 stale",
    'up{instance="b"}': "_x9 1x5 0x30",
    'gradvine_seconds_left{instance="b"}': "_x9 3600-60x5 stale",
    'gradvine_phase{phase="merging",instance="b"}': "_x9 0x5 stale",
}
ALIVE, GONE = 'gradvine_peers{state="alive"}', 'gradvine_peers{state="gone"}'
GRADIENTS, LOSS, UNIT = "gradvine_gradients_total", "gradvine_loss", "gradvine_unit_seconds"
APART = 'gradvine_distance_to_neighbour{neighbour="n1"}'
INFO = 'gradvine_build_info{algorithm="%s"}'
ASKED, P99 = 'gradvine_rate_asked_hz{neighbour="n1"}', "gradvine_exchange_p99_units"
AGE = "gradvine_snapshot_age_seconds"
EXPIRY = "gradvine_certificate_expiry_timestamp_seconds"
DAY_S = 86400


def refused(reason: str) -> str:
    return f'gradvine_refused_total{{reason="{reason}"}}'


@dataclass
class Case:
    """What is seen, and for whom the alert fires at a time.

    That is ``n0``, ``n0@b`` at an address, ``n0-n1`` for an edge, or empty for the network.
    """

    alert: str
    what: str
    at: str
    series: Mapping[str, str]
    fires: tuple[str, ...] = ()


def repeated(values: str, times: int) -> str:
    return " ".join([values] * times)


CLEAR = [
    Case("PeerDown", "one dies", "8m", {"up": "1x5 0x20", "up@n1": "1x30"}, ("n0",)),
    Case("PeerDown", "one is started again", "7m", {"up": "1x5 0 1x20"}),
    Case("PeerDown", "its time is over", "25m", {"up": "1x5 0x30", LEFT: "240-60x4 0 stale", MERGING: "0x5 stale"}),
    Case("PeerDown", "one was seen merging", "25m", {"up": "1x5 0x30", **NO_END, f"{MERGING}@n1": "0x4 1x3"}),
    Case(
        "PeerDown",
        "the next run",
        "25m",
        {"up": "1x5 0x4 1x5 0x30", LEFT: "300-60x5 stale _x3 3600-60x5 stale", MERGING: "0x5 stale _x3 0x5 stale"},
        ("n0",),
    ),
    Case("PeerDown", "the next run, elsewhere", "25m", MOVED, ("n0@b",)),
    Case("PeerDown", "the next run, elsewhere, while it runs", "14m", MOVED),
    Case("NetworkDown", "the next run, elsewhere", "25m", MOVED, ("",)),
    Case("NetworkDown", "two of three", "9m", {"up": "0x20", "up@n1": "0x20", "up@n2": "1x20"}, ("",)),
    Case("NetworkDown", "one of three", "9m", {"up": "0x20", "up@n1": "1x20", "up@n2": "1x20"}),
    Case("NetworkDown", "the run is over", "9m", {"up": "1x3 0x20", LEFT: "60 0x2 stale", MERGING: "0x3 stale"}),
    Case("PeerAlone", "all gone", "8m", {ALIVE: "2x5 0x20", GONE: "0x5 2x20", **LEARNS}, ("n0",)),
    Case("PeerAlone", "one is left", "8m", {ALIVE: "2x5 1x20", GONE: "0x5 1x20", **LEARNS}),
    Case(
        "PeerAlone",
        "it waits for them",
        "8m",
        {ALIVE: "0x20", GONE: "2x20", 'gradvine_phase{phase="learning"}': "0x20"},
    ),
    Case("PeerAlone", "there are none", "8m", {ALIVE: "0x20", GONE: "0x20", **LEARNS}),
    Case("NeighbourGone", "a cut link", "8m", {SEEN: "1x5 0x20", "up@n1": "1x30", **LEARNS}, ("n0-n1",)),
    Case("NeighbourGone", "the neighbour is down", "8m", {SEEN: "1x5 0x20", "up@n1": "1x5 0x20", **LEARNS}),
    Case("NeighbourGone", "in doubt only", "8m", {SEEN: "1x5 0.5x20", "up@n1": "1x30", **LEARNS}),
    Case(
        "NeighbourGone", "at the end", "8m", {SEEN: "0x20", "up@n1": "1x30", 'gradvine_phase{phase="learning"}': "0x20"}
    ),
    Case("NetworkUnsteady", "to and fro", "35m", {SEEN: repeated("1 0.5", 30)}, ("n0-n1",)),
    Case("NetworkUnsteady", "once or twice", "35m", {SEEN: "1x5 0x3 1x10 0.5x2 1x30"}),
    Case("LoopStalled", "it stands still", "6m", {"gradvine_status_age_seconds": "0.5x3 30+60x9"}, ("n0",)),
    Case("LoopStalled", "for a moment", "5m", {"gradvine_status_age_seconds": "0.5x3 15 0.5x20"}),
    Case("NotReady", "the disk fails", "6m", {"gradvine_ready": "1x3 0x9"}, ("n0",)),
    Case("NotReady", "and is well", "6m", {"gradvine_ready": "1x3 0 1x9"}),
    Case("EdgeSlow", "half", "30m", {MADE: "0+60x60", **EDGE}, ("n0-n1",)),
    Case("EdgeSlow", "most", "30m", {MADE: "0+110x60", **EDGE}),
    Case("EdgeSlow", "chance", "30m", {MADE: "0x60", **EDGE, 'gradvine_rate_asked_hz{neighbour="n1"}': "0.005x600"}),
    Case(
        "EdgeSlow",
        "the neighbour was away",
        "30m",
        {MADE: "0+120x20 2400x5 2400+120x60", **EDGE, SEEN: "1x20 0x5 1x60"},
    ),
    Case("EdgeSlow", "a restart", "27m", {MADE: "0+120x20 2380+120x60", **EDGE}),
    Case("EdgeSlow", "it has just begun", "9m", {MADE: "0+60x9", **EDGE}),
    Case(
        "EdgeSlow",
        "the models are merged",
        "30m",
        {MADE: "0+120x15 1800x60", **EDGE, 'gradvine_phase{phase="learning"}': "1x15 0x60"},
    ),
    Case("StepsLate", "a quarter of each unit", "30m", {"gradvine_behind_units": "0+30x60", **RUNS}, ("n0",)),
    Case("StepsLate", "hardly", "30m", {"gradvine_behind_units": "0+6x60", **RUNS}),
    Case("StepsLate", "once, long ago", "40m", {"gradvine_behind_units": "0x10 500x60", **RUNS}),
    Case(
        "ExchangesLong",
        "dadao",
        "15m",
        {"gradvine_exchange_p99_units": "0.3x60", INFO % "dadao": "1x60", **LEARNS},
        ("n0",),
    ),
    Case(
        "ExchangesLong", "another", "15m", {"gradvine_exchange_p99_units": "0.3x60", INFO % "gossip": "1x60", **LEARNS}
    ),
    Case("ExchangesLong", "short", "15m", {"gradvine_exchange_p99_units": "0.1x60", INFO % "dadao": "1x60", **LEARNS}),
    Case("NoProgress", "nothing", "30m", {GRADIENTS: "0+100x10 1000x60", **RUNS}, ("n0",)),
    Case("NoProgress", "a little", "30m", {GRADIENTS: "0+1x60", **RUNS}),
    Case("NoProgress", "long units", "30m", {GRADIENTS: "7x60", **RUNS, "gradvine_unit_seconds": "5x60"}),
    Case("NoProgress", "not its turn", "30m", {GRADIENTS: "7x60", INFO % "modest": "1x60", **RUNS}),
    Case("NoProgress", "it waits", "30m", {GRADIENTS: "7x60", **RUNS, 'gradvine_phase{phase="learning"}': "0x60"}),
    Case("NetworkNoProgress", "nobody", "30m", {GRADIENTS: "7x60", f"{GRADIENTS}@n1": "9x60", **RUNS}, ("",)),
    Case("NetworkNoProgress", "one does", "30m", {GRADIENTS: "7x60", f"{GRADIENTS}@n1": "0+1x60", **RUNS}),
    Case("UnitsDiffer", "two", "5m", {UNIT: "0.5x9", f"{UNIT}@n1": "0.6x9"}, ("",)),
    Case("UnitsDiffer", "one waits", "5m", {UNIT: "0.5x9", f"{UNIT}@n1": repeated("NaN", 9)}),
    Case("Diverging", "it triples", "200m", {LOSS: "2-0.01x99 1x60 3x60", f"{LOSS}@n1": repeated("NaN", 220)}, ("",)),
    Case("Diverging", "beyond all bounds", "200m", {LOSS: "2-0.01x99 1x60 " + repeated("Inf", 60)}, ("",)),
    Case("Diverging", "it falls", "200m", {LOSS: "2-0.01x150 0.5x60"}),
    Case("Diverging", "it sways", "200m", {LOSS: repeated("1 1.8", 110)}),
    Case("DriftingApart", "threefold", "105m", {APART: "1x60 3x60"}, ("",)),
    Case("DriftingApart", "half as much again", "105m", {APART: "1x60 1.5x60"}),
    Case("DriftingApart", "at the start", "40m", {APART: "0+0.1x60"}),
    Case("ExchangesLost", "in a crash", "12m", {"gradvine_lost_exchanges_total": "0x5 _x2 3x20"}, ("n0",)),
    Case("ExchangesLost", "long ago", "12m", {"gradvine_lost_exchanges_total": "3x20"}),
    *(
        Case("OtherRun", reason, "12m", {refused(reason): "0x5 1+60x20"}, ("n0",))
        for reason in ("wrong_run", "wrong_version", "wrong_layout")
    ),
    Case("OtherRun", "one call", "8m", {refused("wrong_run"): "0x5 1x20"}),
    Case("Stranger", "again and again", "12m", {refused("not_my_neighbour"): "0x5 1+60x20"}, ("n0",)),
    Case("Stranger", "one call", "8m", {refused("not_my_neighbour"): "0x5 1x20"}),
    *(
        Case("Hostile", reason, "7m", {refused(reason): "0x5 1x20"}, ("n0",))
        for reason in ("malformed", "too_large", "implausible")
    ),
    Case("Hostile", "long ago", "20m", {refused("malformed"): "0x5 1x20"}),
    Case("Hostile", "a busy peer", "7m", {refused("busy"): "0x5 1x20", refused("timeout"): "0x5 1x20"}),
    Case("NotFinite", "one model", "7m", {refused("not_finite"): "0x5 1x20"}, ("n0",)),
    Case("NotFinite", "none", "7m", {refused("not_finite"): "0x20"}),
    Case("InboxFull", "senders come again", "20m", {refused("busy"): "0+60x60"}, ("n0",)),
    Case("InboxFull", "it stays full", "20m", {"gradvine_inbox_depth": "40x60"}, ("n0",)),
    Case(
        "InboxFull",
        "it fills and empties",
        "20m",
        {"gradvine_inbox_depth": repeated("40 2", 20), refused("busy"): "0+5x60"},
    ),
    Case("SnapshotOld", "none for long", "15m", {"gradvine_snapshot_age_seconds": "5x5 60+60x20", **LEARNS}, ("n0",)),
    Case("SnapshotOld", "as they should be", "15m", {"gradvine_snapshot_age_seconds": "9x20", **LEARNS}),
    Case("SnapshotOld", "none are kept", "15m", {"gradvine_snapshot_age_seconds": repeated("NaN", 20), **LEARNS}),
    Case("CertificateEnds", "in 20 days", "5m", {EXPIRY: f"{20 * DAY_S}x9"}, ("n0",)),
    Case("CertificateEnds", "in 2 days", "5m", {EXPIRY: f"{2 * DAY_S}x9"}),
    Case("CertificateEnds", "in 40 days", "5m", {EXPIRY: f"{40 * DAY_S}x9"}),
    Case("CertificateEnds", "there is none", "5m", {EXPIRY: repeated("NaN", 9)}),
    Case("CertificateEndsSoon", "in 2 days", "5m", {EXPIRY: f"{2 * DAY_S}x9"}, ("n0",)),
    Case("CertificateEndsSoon", "in 20 days", "5m", {EXPIRY: f"{20 * DAY_S}x9"}),
    Case("CertificateEndsSoon", "there is none", "5m", {EXPIRY: repeated("NaN", 9)}),
]

NOT_LEARNING = {'gradvine_phase{phase="learning"}': "0x600"}
LEFT_OFF = {'gradvine_phase{phase="learning"}': "1x15 0x6 1x60"}
WAIT_A_WHILE = [
    Case("PeerDown", "just now", "6m", {"up": "1x5 0x20"}),
    Case("NetworkDown", "just now", "6m", {"up": "1x5 0x20"}),
    Case("PeerAlone", "just now", "6m", {ALIVE: "2x5 0x20", GONE: "0x5 2x20", **LEARNS}),
    Case("NeighbourGone", "just now", "6m", {SEEN: "1x5 0x20", "up@n1": "1x30", **LEARNS}),
    Case("LoopStalled", "just now", "4m", {"gradvine_status_age_seconds": "0.5x3 30+60x9"}),
    Case("NotReady", "just now", "4m", {"gradvine_ready": "1x3 0x9"}),
    Case("EdgeSlow", "for some minutes", "12m", {MADE: "0+60x60", **EDGE}),
    Case("StepsLate", "for some minutes", "12m", {"gradvine_behind_units": "0+30x60", **RUNS}),
    Case("ExchangesLong", "just now", "12m", {P99: "0.1x5 0.3x60", INFO % "dadao": "1x60", **LEARNS}),
    Case("NoProgress", "for some minutes", "12m", {GRADIENTS: "7x60", **RUNS}),
    Case("NetworkNoProgress", "for some minutes", "12m", {GRADIENTS: "7x60", **RUNS}),
    Case("UnitsDiffer", "just now", "4m", {UNIT: "0.5x9", f"{UNIT}@n1": "0.5x3 0.6x9"}),
    Case("Diverging", "for some minutes", "170m", {LOSS: "2-0.01x99 1x60 3x60"}),
    Case("DriftingApart", "for some minutes", "72m", {APART: "1x60 3x60"}),
    Case("OtherRun", "just now", "7m", {refused("wrong_run"): "0x5 1+60x20"}),
    Case("Stranger", "just now", "7m", {refused("not_my_neighbour"): "0x5 1+60x20"}),
    Case("InboxFull", "just now", "5m", {refused("busy"): "0+60x60"}),
    Case("SnapshotOld", "just now", "6m", {AGE: "5x5 600x20", **LEARNS}),
    Case("CertificateEnds", "just now", "0m", {EXPIRY: f"{20 * DAY_S}x9"}),
    Case("CertificateEndsSoon", "just now", "0m", {EXPIRY: f"{2 * DAY_S}x9"}),
]

NEAR_THE_BOUNDS = [
    Case("NetworkUnsteady", "ten times", "30m", {SEEN: f"{repeated('1 0.5', 5)} 1x30"}),
    Case("LoopStalled", "for 20 s", "6m", {"gradvine_status_age_seconds": "0.5x3 20x9"}, ("n0",)),
    Case("LoopStalled", "for 5 s", "6m", {"gradvine_status_age_seconds": "0.5x3 5x9"}),
    Case("EdgeSlow", "90 % of many", "30m", {MADE: "0+1080x60", **EDGE, ASKED: "20x600"}),
    Case("EdgeSlow", "160 of 300", "30m", {MADE: "0+16x60", **EDGE, ASKED: "0.5x600"}, ("n0-n1",)),
    Case("EdgeSlow", "30 of 60", "30m", {MADE: "0+3x60", **EDGE, ASKED: "0.1x600"}),
    Case("EdgeSlow", "it left off", "25m", {MADE: "0+120x15 1800x5 1800+120x60", **EDGE, **LEFT_OFF}),
    Case("StepsLate", "it left off", "25m", {"gradvine_behind_units": "0+30x60", **RUNS, **LEFT_OFF}),
    Case("StepsLate", "it has just begun", "9m", {"gradvine_behind_units": "0+30x60", **RUNS}),
    Case("ExchangesLong", "not learning", "15m", {P99: "0.3x60", INFO % "dadao": "1x60", **NOT_LEARNING}),
    Case("NoProgress", "a unit of 3 s", "30m", {GRADIENTS: "7x60", **RUNS, UNIT: "3x60"}, ("n0",)),
    Case("NoProgress", "it left off", "25m", {GRADIENTS: "7x60", **RUNS, **LEFT_OFF}),
    Case("NoProgress", "it has just begun", "9m", {GRADIENTS: "7x60", **RUNS}),
    Case("NetworkNoProgress", "a unit of 3 s", "30m", {GRADIENTS: "7x60", **RUNS, UNIT: "3x60"}, ("",)),
    Case("NetworkNoProgress", "long units", "30m", {GRADIENTS: "7x60", **RUNS, UNIT: "5x60"}),
    Case("NetworkNoProgress", "they left off", "25m", {GRADIENTS: "7x60", **RUNS, **LEFT_OFF}),
    Case("NetworkNoProgress", "they have just begun", "9m", {GRADIENTS: "7x60", **RUNS}),
    Case("OtherRun", "two a minute", "12m", {refused("wrong_run"): "0+2x20"}, ("n0",)),
    Case("OtherRun", "three calls", "9m", {refused("wrong_run"): "0x5 3x20"}),
    Case("Stranger", "two a minute", "12m", {refused("not_my_neighbour"): "0+2x20"}, ("n0",)),
    Case("Stranger", "three calls", "9m", {refused("not_my_neighbour"): "0x5 3x20"}),
    Case("InboxFull", "20 a minute", "20m", {refused("busy"): "0+20x60"}, ("n0",)),
    Case("InboxFull", "20 wait", "20m", {"gradvine_inbox_depth": "20x60", refused("busy"): "0x60"}),
    Case("SnapshotOld", "200 s", "15m", {AGE: "200x20", **LEARNS}),
    Case("SnapshotOld", "not learning", "15m", {AGE: "600x20", **NOT_LEARNING}),
    Case("CertificateEnds", "in 5 days", "5m", {EXPIRY: f"{5 * DAY_S}x9"}, ("n0",)),
    Case("CertificateEndsSoon", "in 5 days", "5m", {EXPIRY: f"{5 * DAY_S}x9"}),
]

CASES = [*CLEAR, *WAIT_A_WHILE, *NEAR_THE_BOUNDS]


@cache
def alerts() -> dict[str, dict]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def full_name(name: str) -> str:
    """``up@n1`` and ``up{a="b"}`` with all labels that Prometheus gives them."""
    metric, more, peer = re.fullmatch(r"(\w+)(?:\{(.*)\})?(?:@(\w+))?", name).groups()
    return f'{metric}{{job="gradvine", peer="{peer or "n0"}"{f", {more}" if more else ""}}}'


def labels_of(case: Case, who: str) -> dict[str, str]:
    who, _, instance = who.partition("@")
    names = dict(zip(("peer", "neighbour"), filter(None, who.split("-")), strict=False))
    names |= {"instance": instance} if instance else {}
    return {"job": "gradvine", "severity": alerts()[f"Gradvine{case.alert}"]["labels"]["severity"], **names}


def as_promtool_has_it(case: Case) -> dict:
    return {
        "interval": "1m",
        "input_series": [{"series": full_name(name), "values": values} for name, values in case.series.items()],
        "alert_rule_test": [
            {
                "eval_time": case.at,
                "alertname": f"Gradvine{case.alert}",
                "exp_alerts": [{"exp_labels": labels_of(case, who)} for who in case.fires],
            }
        ],
    }


@pytest.fixture(scope="module")
def judge(promtool, tmp_path_factory):
    """Runs cases; what promtool says of them. Of annotations, which it would compare too, only their absence."""
    folder = tmp_path_factory.mktemp("rules")
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)
    (folder / "alerts.yml").write_text(yaml.safe_dump(rules))

    def run(case: Case) -> subprocess.CompletedProcess[str]:
        test = {
            "rule_files": ["alerts.yml"],
            "evaluation_interval": "30s" if len(case.at) < 4 else "1m",
            "tests": [as_promtool_has_it(case)],
        }
        (folder / "test.json").write_text(json.dumps(test))
        return subprocess.run([promtool, "test", "rules", "test.json"], cwd=folder, capture_output=True, text=True)

    return run


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.what}")
def test_alert(judge, case):
    done = judge(case)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_expectation_is_seen(judge):
    fires = next(case for case in CASES if case.fires)
    assert judge(Case(fires.alert, "", fires.at, fires.series)).returncode == 1


def test_every_alert_is_seen_firing_and_quiet():
    seen = {(f"Gradvine{case.alert}", bool(case.fires)) for case in CASES}
    assert seen == {(name, fires) for name in alerts() for fires in (True, False)}
