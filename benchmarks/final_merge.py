"""What does the final merge take, in time and in models sent, beside gossip to the same accuracy?

    python -m benchmarks.final_merge [--table cost] [--sizes 8,32,128,512] [--output PICTURE]
    python -m benchmarks.final_merge --table deaths --seeds 20
    python -m benchmarks.final_merge --table churn --seeds 5

Virtual time; messages take one delay on average one way, uniform within half of it either way; models are random.
Times are counted in delays. A sum counts as two models, a mean as one.

*cost*: the merge without faults. Beside it, what synchronous gossip (x ← W x with Metropolis weights, one model over
each edge both ways a round, a delay each) takes until the root mean square distance to the mean is a hundredth of what
it was, and until it is 6e-8 of it, as exact as float32 is. *deaths*: 64 peers, of which some die while they merge, at
random times within that of a merge without faults; a death is noticed after ten delays. *churn*: 16 peers that crash
again and again while they merge and come back after twenty delays on average; how often that may be.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import networkx as nx
import numpy as np

from benchmarks.merges import Merge
from node.testbed.charts import ON_LIGHT
from node.testbed.simulated import Physics
from node.wire.memory import Faults
from topology.families import make_graph

DELAY = 0.1
FAMILIES = ("ring", "grid", "tree", "exponential", "complete")
FAULTY = ("ring", "grid", "exponential")
MORTAL = Physics(Faults(delay=DELAY), crashes=True, exact=True, noticed_after=10 * DELAY)
EXACT = 6e-8
INTERVALS = (math.inf, 1000.0, 300.0, 100.0, 50.0)
"""Delays between two crashes of one peer, on average."""
HORIZON = 1000.0


def merge_cost(graph: nx.Graph) -> tuple[float, float, float]:
    """Of a merge without faults: delays, models sent by a peer, and messages without models sent by a peer."""
    merge = Merge(graph, physics=Physics(Faults(delay=DELAY)), size=2).run()
    sent, n = merge.world.sent, len(graph)
    assert merge.wrongs() == []
    return (merge.world.last_end - 1.0) / DELAY, (2 * sent["sum"] + sent["mean"]) / n, (sent["wave"] + sent["had"]) / n


def gossip_rounds(graph: nx.Graph, goal: float) -> int:
    """Rounds of x ← W x until the distance to the mean is ``goal`` of what it was."""
    n, degree = len(graph), dict(graph.degree)
    mixing = np.zeros((n, n))
    places = {name: i for i, name in enumerate(graph)}
    for one, other in graph.edges:
        i, j = places[one], places[other]
        mixing[i, j] = mixing[j, i] = 1 / (1 + max(degree[one], degree[other]))
    mixing += np.diag(1 - mixing.sum(1))
    eigenvalues = np.sort(np.abs(np.linalg.eigvalsh(mixing)))[:-1]
    rounds = 1  # independent starts: the mean square distance after t rounds is the mean of the squares' powers
    while np.sqrt(np.mean(eigenvalues ** (2 * rounds))) > goal:
        rounds = rounds + max(1, rounds // 100)
    return rounds


def show_cost(sizes: Sequence[int], output: Path | None) -> None:
    """The merge without faults, and gossip."""
    print(f"{'':16}{'':>6} {'merge':>34} {'gossip to 1 %':>22} {'gossip to 6e-8':>22}")
    heads = ("delays", "models a peer", "others a peer", "rounds", "models", "rounds", "models")
    print(f"{'':16}{'peers':>6}" + "".join(f" {head:>{width}}" for head, width in zip(heads, WIDTHS, strict=True)))
    rows: dict[str, list[tuple[float, ...]]] = {family: [] for family in FAMILIES}
    for family in FAMILIES:
        for n in sizes:
            graph = make_graph(family, n)
            degree = 2 * graph.number_of_edges() / n
            delays, models, others = merge_cost(graph)
            rounds = [gossip_rounds(graph, goal) for goal in (0.01, EXACT)]
            row = (delays, models, others, rounds[0], rounds[0] * degree, rounds[1], rounds[1] * degree)
            rows[family].append(row)
            cells = "".join(f" {value:{width},.{d}f}" for value, width, d in zip(row, WIDTHS, DIGITS, strict=True))
            print(f"{family:16}{n:6}{cells}", flush=True)
    if output:
        draw(sizes, rows, output)


WIDTHS = (8, 13, 13, 10, 11, 10, 11)
DIGITS = (0, 2, 1, 0, 0, 0, 0)


def draw(sizes: Sequence[int], rows: dict[str, list[tuple[float, ...]]], path: Path) -> None:
    """Models a peer sends, and time, over the number of peers."""
    from matplotlib import pyplot

    figure, (models, times) = pyplot.subplots(1, 2, figsize=(10.5, 4.2))
    for (family, found), color in zip(rows.items(), ON_LIGHT, strict=False):
        column = np.array(found).T
        models.loglog(sizes, column[6], "--", color=color, linewidth=1.2)
        models.loglog(sizes, column[4], ":", color=color, linewidth=1.4)
        times.loglog(sizes, column[0], color=color, marker="o", markersize=3.5, label=family)
        times.loglog(sizes, column[5], "--", color=color, linewidth=1.2)
        times.loglog(sizes, column[3], ":", color=color, linewidth=1.4)
    merged = np.array(rows[FAMILIES[0]]).T[1]
    models.loglog(sizes, merged, color="0.15", marker="o", markersize=3.5)
    models.annotate(
        "final merge, on any graph",
        (sizes[-1], merged[-1]),
        (0, 6),
        ha="right",
        va="bottom",
        textcoords="offset points",
        fontsize=9,
    )
    models.set_ylim(bottom=1)
    times.plot([], [], color="0.4", label="final merge")
    times.plot([], [], ":", color="0.4", label="gossip to 1 %")
    times.plot([], [], "--", color="0.4", label="gossip to 6e-8")
    for axes, title in ((models, "models sent by a peer"), (times, "time (message delays)")):
        axes.set_title(title, fontsize=10.5, loc="left")
        axes.set_xlabel("peers")
        axes.set_xticks(sizes, [str(n) for n in sizes])
        axes.minorticks_off()
        axes.grid(color="0.9")
    times.legend(fontsize=8, frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def show_deaths(seeds: int) -> None:
    """Peers that die for good."""
    print(f"64 peers, {seeds} seeds: delays to the end, waves of the peer that saw most, models sent by a peer")
    print(f"{'':16}" + "".join(f" {f'{deaths} die':>22}" for deaths in (0, 1, 6, 16)))
    for family in FAULTY:
        graph = make_graph(family, 64)
        lasting = merge_cost(graph)[0] * DELAY
        cells = []
        for deaths in (0, 1, 6, 16):
            found = np.array([with_deaths(graph, deaths, lasting, seed) for seed in range(seeds)])
            delays, waves, models = np.median(found, 0)
            cells.append(f" {delays:8.0f} {waves:5.0f} {models:7.1f}")
        print(f"{family:16}" + "".join(cells), flush=True)


def with_deaths(graph: nx.Graph, deaths: int, lasting: float, seed: int) -> tuple[float, float, float]:
    """Delays to the end, waves and models a peer, where so many die within the first ``lasting`` units."""
    random = np.random.default_rng(seed)
    merge = Merge(graph, seed, MORTAL, size=2)
    for name in random.choice(merge.names, deaths, replace=False):
        merge.world.at(1.0 + random.uniform(0, lasting), partial(merge.world.crash, str(name)))
    merge.run()
    assert merge.wrongs() == []
    sent = merge.world.sent
    waves = max(each.counters()["merge_waves"] for each in merge.ended().values())
    return (merge.world.last_end - 1.0) / DELAY, waves, (2 * sent["sum"] + sent["mean"]) / len(graph)


def show_churn(seeds: int) -> None:
    """Peers that crash and come back, again and again."""
    print(f"16 peers, {seeds} seeds, of the mean of most models, medians: delays until its last holder ended,")
    print("waves, models in it, peers that have it")
    print(f"{'a crash of each every':24}" + "".join(f" {f'{interval:,.0f} delays':>20}" for interval in INTERVALS))
    for family in FAULTY:
        graph = make_graph(family, 16)
        cells = []
        for interval in INTERVALS:
            found = np.array([with_churn(graph, interval * DELAY, seed) for seed in range(seeds)])
            delays, waves, members, holders = np.median(found, 0)
            cells.append(f" {delays:8.0f} {waves:3.0f} {members:3.0f} {holders:3.0f}")
        print(f"{family:24}" + "".join(cells), flush=True)


def with_churn(graph: nx.Graph, interval: float, seed: int) -> tuple[float, float, float, float]:
    """Delays until the last holder of the mean of most models has ended; waves, members, and holders."""
    random = np.random.default_rng(seed)
    merge = Merge(graph, seed, MORTAL, size=2)
    for name in merge.names if interval < math.inf else ():
        time = 1.0
        while (time := time + random.exponential(interval)) < HORIZON:
            merge.world.at(time, partial(merge.world.crash, name))
            time += random.exponential(20 * DELAY)
            merge.world.at(time, partial(merge.world.restart, name))
    merge.world.start()
    merge.world.run(HORIZON)
    ended = merge.ended()
    largest = max((each.members for each in ended.values()), key=len)
    holders = {name: each for name, each in ended.items() if each.members == largest}
    last = max(merge.world.ended_at[name] for name in holders)
    waves = max(each.counters()["merge_waves"] for each in holders.values())
    return (last - 1.0) / DELAY, waves, len(largest), len(holders)


def main() -> None:
    """Show one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", choices=["cost", "deaths", "churn"], default="cost")
    parser.add_argument("--sizes", default="8,32,128,512")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    if given.table == "cost":
        show_cost([int(n) for n in given.sizes.split(",")], given.output)
    elif given.table == "deaths":
        show_deaths(given.seeds)
    else:
        show_churn(given.seeds)


if __name__ == "__main__":
    main()
