"""How fast are the cheapest stable rates found, and how exactly? Beside plain cvxpy on the same graphs, in one run.

    python -m benchmarks.planner [--quick] [--large] [--draw docs/pictures] [--json]

*Clarabel* and *SCS* solve the problem as one stands it before cvxpy: λ2 ≥ u, and R_e ≤ u through one matrix of
2n × 2n; *each edge* is Clarabel with a matrix of (n+1) × (n+1) for every edge's resistance instead. Settings are the
solvers' own. A cell says how many seconds a way took, with building its model but without imports, and how far above
the planner's lower bound its rates are once they are made stable. Seconds are medians of up to five turns while these
take less than two seconds, in a process of its own. A way that takes longer than the cap is left out on larger graphs.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import multiprocessing
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from scipy.sparse import coo_array, csc_array
from scipy.sparse.linalg import eigsh, splu

from topology.families import make_graph
from topology.measures import chi1, chi2, laplacian, total_rate
from topology.problem import Ends, Problem, Reals, Step, Stop
from topology.rates_large import solve_large

Sizes: TypeAlias = "dict[str, tuple[int, ...]]"

SIZES: Sizes = dict.fromkeys(("grid", "small-world", "geometric"), (16, 25, 36, 64, 100, 256))
QUICK: Sizes = dict.fromkeys(SIZES, (16, 25))
LARGE: Sizes = {"grid": (1024, 2500, 10_000), "small-world": (1000, 2000), "geometric": (1000, 3000, 10_000)}

PLANNER = "gradvine"
TURNS, SHORT_S = 5, 2.0
GRACE_S = 4.0
OVERRUN = 3
WIDTH = 140
MEMORY_BYTES = 8 * 2**30
DENSE_MAX = 2500
BLOCK = 256


class Answer(NamedTuple):
    """What a way has found: its rates, which need not be quite stable, and what it has proved."""

    rates: Reals
    bound: float = math.nan
    steps: tuple[Step, ...] = ()


class Timed(NamedTuple):
    """An answer, and the median of the seconds it took."""

    answer: Answer
    seconds: float


# ------------------------------------------------------------------------------------------------ ways


def plan(problem: Problem, stop: Stop) -> Answer:
    found = solve_large(problem, resistances=True, stop=stop)
    return Answer(found.rates, found.bound, found.steps)


def model(problem: Problem, stop: Stop, *, solver: str, each_edge: bool) -> Answer:
    """The semidefinite program, written down in cvxpy and solved with the solver's own settings."""
    import cvxpy as cp

    n, m = problem.n, len(problem.ends)
    incidence = np.zeros((n, m))
    incidence[problem.ends[:, 0], np.arange(m)] = 1
    incidence[problem.ends[:, 1], np.arange(m)] = -1
    rates, level, mean, unit = cp.Variable(m, nonneg=True), cp.Variable(), np.full((n, n), 1 / n), np.eye(n)
    matrix = incidence @ cp.diag(rates) @ incidence.T
    constraints = [matrix + 2 * level * mean >> level * unit]
    if each_edge:
        corner = cp.reshape(level, (1, 1), "C")
        for b in incidence.T:
            constraints.append(cp.bmat([[matrix + mean, b[:, None]], [b[None, :], corner]]) >> 0)
    else:
        inverse = cp.Variable((n, n), symmetric=True)
        constraints.append(cp.bmat([[matrix + mean, unit], [unit, inverse]]) >> 0)
        constraints.append(cp.diag(incidence.T @ inverse @ incidence) <= level)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # what is inaccurate shows in the table
        cp.Problem(cp.Minimize(problem.costs @ rates), constraints).solve(solver=solver)
    return Answer(np.asarray(rates.value))


WAYS: dict[str, Callable[[Problem, Stop], Answer]] = {
    PLANNER: plan,
    "Clarabel": functools.partial(model, solver="CLARABEL", each_edge=False),
    "SCS": functools.partial(model, solver="SCS", each_edge=False),
    "each edge": functools.partial(model, solver="CLARABEL", each_edge=True),
}


# ------------------------------------------------------------------------------------------- measuring


def measure(way: str, problem: Problem, stop: Stop) -> Timed | None:
    """What a way finds in a process of its own; None if it fails, or takes longer than the time limit allows."""
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(way, problem, stop, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        # The planner ends by itself, but only after a whole step.
        patience_s = stop.time_limit_s * (OVERRUN if way == PLANNER else 1) + GRACE_S
        return ours.recv() if ours.poll(patience_s) else None
    except EOFError:  # it failed, and has said why
        return None
    finally:
        process.kill()
        process.join()


def work(way: str, problem: Problem, stop: Stop, answer_to: Connection) -> None:
    """The other process."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    warm = Problem.of(4, np.array([(0, 1), (1, 2), (2, 3), (3, 0)]))
    WAYS[way](warm, stop)
    seconds: list[float] = []
    while len(seconds) < TURNS and sum(seconds) < SHORT_S:
        began_s = time.perf_counter()
        answer = WAYS[way](problem, stop)
        seconds.append(time.perf_counter() - began_s)
    answer_to.send(Timed(answer, statistics.median(seconds)))


def table(sizes: Sizes, ways: list[str], stop: Stop) -> Iterator[dict[str, Any]]:
    """One row after the other."""
    for family, numbers in sizes.items():
        able = list(ways)
        for n in numbers:
            problem = Problem.of(n, edges_of(family, n))
            row: dict[str, Any] = {"family": family, "n": n, "m": len(problem.ends), "seconds": {}, "gap": {}}
            row["uniform"] = total_of(problem, np.ones(len(problem.ends)))
            for way in tuple(able):
                timed = measure(way, problem, stop)
                if timed is None:
                    able.remove(way)
                else:
                    note(row, way, problem, timed, stop.max_gap)
            yield row


def note(row: dict[str, Any], way: str, problem: Problem, timed: Timed, aim: float) -> None:
    """Write an answer into its row; the planner's comes first, and the others are compared with its bound."""
    row["seconds"][way] = timed.seconds
    if way == PLANNER:
        row["optimal"], row["bound"] = float(timed.answer.rates.sum()), timed.answer.bound
        row["steps"] = [(step.seconds, step.gap) for step in timed.answer.steps]
        row["gap"][way] = row["optimal"] / row["bound"] - 1
        row["done"] = row["gap"][way] <= aim
    elif "bound" in row:
        row["gap"][way] = total_of(problem, np.maximum(timed.answer.rates, 1e-12)) / row["bound"] - 1


def edges_of(family: str, n: int) -> Ends:
    """The edges of a family's graph with seed 0."""
    return np.array([(int(a[1:]), int(b[1:])) for a, b in make_graph(family, n).edges])


def total_of(problem: Problem, rates: Reals) -> float:
    """√(2·χ1·χ2) of rates divided by their sum."""
    if problem.n <= DENSE_MAX:
        matrix = laplacian(problem.n, problem.ends, rates / rates.sum())
        return total_rate(chi1(matrix), chi2(matrix, problem.ends))
    return sparse_total_of(problem, rates / rates.sum())


def sparse_total_of(problem: Problem, rates: Reals) -> float:
    """The same from sparse factors, one solve for each edge: slow, but it owes nothing to the planner."""
    n, m, (i, j) = problem.n, len(problem.ends), problem.ends.T
    incidence = csc_array(coo_array((np.repeat([1.0, -1.0], m), (np.r_[i, j], np.tile(np.arange(m), 2))), (n, m)))
    matrix = csc_array(incidence * rates @ incidence.T)
    grounded = splu(csc_array(matrix[1:, 1:]), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    felt = 0.0
    for first in range(0, m, BLOCK):
        across = incidence[1:, first : first + BLOCK].toarray()
        felt = max(felt, float((across * grounded.solve(across)).sum(axis=0).max()))
    shift = -1e-9 * float(matrix.diagonal().mean())
    values = eigsh(matrix, k=3, sigma=shift, return_eigenvectors=False)
    return math.sqrt(felt / float(np.sort(values)[1]))


# -------------------------------------------------------------------------------------------- showing


def show(rows: Iterator[dict[str, Any]], ways: list[str]) -> list[dict[str, Any]]:
    """Print the rows as they come."""
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    shown, console = Table(), Console()
    for name in ("graph", "n", "edges", "T uniform", "T optimal", "bound", *ways):
        shown.add_column(name, justify="left" if name == "graph" else "right", no_wrap=True)
    if not console.is_terminal:
        console.width = WIDTH
    seen = []
    with Live(shown, console=console, refresh_per_second=1):
        for row in rows:
            seen.append(row)
            found = [f"{row[key]:,.6g}" if key in row else "–" for key in ("uniform", "optimal", "bound")]
            shown.add_row(row["family"], f"{row['n']:,}", f"{row['m']:,}", *found, *(cell(row, way) for way in ways))
    return seen


def cell(row: dict[str, Any], way: str) -> str:
    """Seconds, and the gap that they led to."""
    if way not in row["seconds"]:
        return "–"
    gap = f"  {row['gap'][way]:.0e}" if way in row["gap"] else ""
    seconds = row["seconds"][way]
    return f"{seconds:.2g} s{gap}" if seconds < 10 else f"{seconds:.0f} s{gap}"


def draw(rows: list[dict[str, Any]], ways: list[str], folder: Path) -> None:
    """Time against size, and how the gap closes on large graphs."""
    from matplotlib.figure import Figure

    def picture(name: str, x: str, y: str, lines: list[tuple[str, list[Any], str]]) -> None:
        figure = Figure(figsize=(7.6, 4.2), dpi=150, layout="constrained")
        axes = figure.add_subplot(xscale="log", yscale="log", xlabel=x, ylabel=y)
        for label, points, style in lines:
            axes.plot(*zip(*points, strict=True), style, label=label, linewidth=1.5, markersize=4)
        axes.grid(alpha=0.3)
        figure.legend(loc="outside right upper", frameon=False, fontsize=8)
        figure.savefig(folder / name)

    marks = dict(zip(dict.fromkeys(row["family"] for row in rows), ("o-", "s--", "^:"), strict=False))
    lines = []
    for k, way in enumerate(ways):
        for family, mark in marks.items():
            its = [row for row in rows if row["family"] == family and way in row["seconds"]]
            points = [(row["n"], row["seconds"][way]) for row in its if way != PLANNER or row["done"]]
            if points:
                lines.append((f"{way}, {family}", points, f"C{k}{mark}"))
    picture("planner_time.png", "nodes", "seconds", lines)
    large = [row for row in rows if row["n"] in LARGE[row["family"]] and row.get("steps")]
    closing = [
        (f"{row['family']}, {row['n']:,} nodes", [(s, gap) for s, gap in row["steps"] if math.isfinite(gap)], f"C{k}.-")
        for k, row in enumerate(large)
    ]
    if closing := [line for line in closing if line[1]]:
        picture("planner_gap.png", "seconds", "total rate above its lower bound", closing)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small graphs only, less than a minute")
    parser.add_argument("--large", action="store_true", help="up to 10,000 nodes, too, by the planner alone")
    parser.add_argument("--only", help="one family")
    parser.add_argument("--cap", type=float, help="seconds that one solve may take; 20, and 120 for large graphs")
    parser.add_argument(
        "--gap", type=float, default=1e-4, help="at which the planner stops, on large graphs ten times it"
    )
    parser.add_argument(
        "--draw", type=Path, metavar="FOLDER", help="where to draw planner_time.png and planner_gap.png"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["cvxpy", "topology.families", "topology.rates_large"]
    )
    ways = list(WAYS)

    def rows() -> Iterator[dict[str, Any]]:
        small = Stop(given.gap, given.cap or (4.0 if given.quick else 20.0))
        yield from table(chosen(QUICK if given.quick else SIZES, given.only), ways, small)
        if given.large:
            yield from table(chosen(LARGE, given.only), [PLANNER], Stop(10 * given.gap, given.cap or 120.0))

    seen = list(rows()) if given.json else show(rows(), ways)
    if given.json:
        print(json.dumps(seen))
    if given.draw:
        draw(seen, ways, given.draw)


def chosen(sizes: Sizes, only: str | None) -> Sizes:
    """All families, or one."""
    return {family: numbers for family, numbers in sizes.items() if only in (None, family)}


if __name__ == "__main__":
    main()
