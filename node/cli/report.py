"""``gradvine report``: tables and pictures of one run, or of several side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Folder for pictures and page.",
            show_default="the run's own, or the working folder for several",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summaries, one JSON object a line, and draw nothing.")
    ] = False,
) -> None:
    """Show what came out of one run, or of several side by side.

    One run: curves.png and report.html. Several: comparison.png and comparison.html, on equal terms.
    """
    from node.testbed.report import present, present_several
    from node.testbed.runs import load_run

    if as_json:
        for folder in runs:
            typer.echo(json.dumps({"folder": str(folder), **load_run(folder).summary}))
    elif len(runs) == 1:
        present(runs[0], output)
    else:
        present_several(runs, output or Path())
