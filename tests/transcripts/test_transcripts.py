"""The exchange, told as transcripts: one verb a line and what happens beneath it.

``pytest tests/transcripts --rewrite`` writes what happens into the files. Commit a transcript that has changed only
if you understand what has changed it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

TRANSCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


def play(text: str, perform) -> str:
    """The transcript with what really happens beneath each verb; comments and empty lines stay."""
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(">"):
            continue
        lines.append(line)
        verb = line.partition("#")[0].strip()
        if verb:
            lines += [f"> {answer}" for answer in perform(verb)]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path, perform, request):
    told = path.read_text()
    happened = play(told, perform)
    if request.config.getoption("--rewrite", default=False):
        path.write_text(happened)
    else:
        assert happened.splitlines() == told.splitlines()


def test_there_are_transcripts():
    assert len(TRANSCRIPTS) >= 12


def test_a_wrong_answer_is_noticed(perform):
    told = "peer a 4\npeer b 0\nedge a b\ntick a b\n> m1 from a to b: offer 2, m 4, life 0\n"
    assert play(told, perform) == told.replace("offer 2", "offer 1")
