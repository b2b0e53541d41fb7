"""The report as one HTML page: the run's story, figures, pictures, every peer's last report; it loads nothing.

Whatever stands in the tables that a user, a peer or a file has named is escaped here and nowhere else.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from node.watch.page import compose_page, read_style
from node.watch.recorded import recorded_story

if TYPE_CHECKING:
    from node.testbed.runs import Run

PEER_COLUMNS: Mapping[str, str] = {
    "accuracy": "test accuracy",
    "test_loss": "test loss",
    "loss": "own loss",
    "distance": "distance to optimum",
    "rounds": "rounds",
    "gradients": "local steps",
    "samples": "samples",
    "exchanges": "exchanges started",
    "exchange_p99_units": "exchange time, p99 (units)",
    "lost_exchanges": "exchanges lost",
    "missed_models": "models missed",
    "partial_merges": "partial merges",
    "messages_sent": "messages sent",
    "bytes_sent": "bytes sent",
    "view_bytes_sent": "bytes of views sent",
    "refused": "messages refused",
}
RARE = ("view_bytes_sent", "refused")
"""Columns that are not there where all is 0."""
PEERS_MAX = 200
"""Peers whose last reports are shown one by one."""
EDGES_MAX = 50
"""Edges whose rates are."""


def compose_report(run: Run, figures: Sequence[Sequence[str]], light: bytes, dark: bytes) -> str:
    """The page of one run: its story, and under that its figures, its peers and its configuration.

    Parameters
    ----------
    figures : sequence of rows
        A header, then one figure a row.
    light, dark : bytes
        The picture, as PNG, for either background.
    """
    return compose_page(run.title, recorded_story(run).text(), compose_sections([run], figures, light, dark))


def compose_comparison(
    title: str, figures: Sequence[Sequence[str]], runs: Sequence[Run], light: bytes, dark: bytes
) -> str:
    """The page of several runs, as :func:`compose_report` that of one; it needs no script."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = f'<h1>{escape(title)}</h1>\n<div class="sections">{compose_sections(runs, figures, light, dark)}</div>'
    style = read_style()
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{style}</style></head><body>\n{body}\n</body></html>\n'


def compose_sections(runs: Sequence[Run], figures: Sequence[Sequence[str]], light: bytes, dark: bytes) -> str:
    """What is to be read of runs, as HTML with headings of the second rank."""
    parts = ["<h2>Figures</h2>", _lost(runs), _table(figures)]
    for run, label in zip(runs, figures[0][1:], strict=True):
        named = f"{label}: " if len(runs) > 1 else ""
        parts += [f"<p><strong>{escape(named + remark)}</strong></p>" for remark in run.remarks]
    picture = _picture(light, dark, "curves")
    if len(runs) == 1:  # what is above on the page already is folded away
        parts += [_folded("Curves, as in curves.png", picture), _folded("The peers, at the end", _peers(runs[0]))]
        parts += [_folded("The edges, from the slowest", _edges(runs[0]))]
        parts += [_folded("How it was run", _configuration(runs[0]))]
    else:
        parts += ["<h2>Curves</h2>", picture]
    parts += ["<h2>Where it is</h2>", *(f"<p><code>{escape(str(run.folder))}</code></p>" for run in runs)]
    return "\n".join(part for part in parts if part)


def _folded(title: str, body: str) -> str:
    return body and f"<details><summary>{escape(title)}</summary>{body}</details>"


def _picture(light: bytes, dark: bytes, title: str) -> str:
    source = f'<source media="(prefers-color-scheme: dark)" srcset="{_inline(dark)}">'
    return f'<picture>{source}<img alt="{escape(title)}" src="{_inline(light)}"></picture>'


def _inline(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def _lost(runs: Sequence[Run]) -> str:
    lost = sorted({name for run in runs for name in run.summary["lost_peers"]})
    return f"<p><strong>Lost on the way: {escape(', '.join(lost))}.</strong></p>" if lost else ""


def _table(rows: Iterable[Sequence[str]]) -> str:
    head, *rest = rows
    lines = [_row("th", head), *(_row("td", row) for row in rest)]
    return f'<div class="wide"><table>\n{"".join(lines)}</table></div>'


def _row(cell: str, values: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{cell}>{escape(value)}</{cell}>" for value in values) + "</tr>\n"


def _peers(run: Run) -> str:
    last = {name: lines[-1] for name, lines in sorted(run.lines.items(), key=_in_order) if lines}
    columns = [key for key in PEER_COLUMNS if any(_worth_showing(key, line) for line in last.values())]
    rows = [[name, *(_figure(line.get(key)) for key in columns)] for name, line in list(last.items())[:PEERS_MAX]]
    more = f'<p class="soft">and {len(last) - PEERS_MAX} more</p>' if len(last) > PEERS_MAX else ""
    return _table([["peer", *(PEER_COLUMNS[key] for key in columns)], *rows]) + more


def _worth_showing(key: str, line: Mapping[str, Any]) -> bool:
    return bool(line.get(key)) if key in RARE else line.get(key) is not None


def _edges(run: Run) -> str:
    edges = run.edges
    if not edges:
        return ""
    rows = [
        [f"{e.a} – {e.b}", f"{e.asked:.3g}", f"{e.achieved:.3g}", f"{e.share:.0%}", str(e.count)]
        for e in edges[:EDGES_MAX]
    ]
    more = (
        f'<p class="soft">and {len(edges) - EDGES_MAX} more, with higher shares</p>' if len(edges) > EDGES_MAX else ""
    )
    head = ["edge", "exchanges a unit, asked", "achieved", "share", "exchanges"]
    return _table([head, *rows]) + more


def _in_order(named: tuple[str, Any]) -> tuple[int, str]:
    """n2 before n10."""
    return len(named[0]), named[0]


def _figure(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) and not value.is_integer() else f"{value:.0f}"


def _configuration(run: Run) -> str:
    path = run.folder / "config.toml"
    return f"<pre>{escape(path.read_text())}</pre>" if path.exists() else '<p class="soft">not recorded</p>'
