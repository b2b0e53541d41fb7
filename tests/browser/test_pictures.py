"""What the network looks like, to the pixel; with a folder in the variable SCREENSHOTS, the pictures of docs/watch.md.

SCREENSHOTS=docs/pictures pytest tests/browser/test_pictures.py

The runs are real ones in virtual time. That of a hundred peers, which takes a minute, is made for the picture only.
"""

from __future__ import annotations

import io
import json
import math
import os
from pathlib import Path

import pytest
from matplotlib import colormaps
from PIL import Image
from typer.testing import CliRunner

from node.cli import app
from node.testbed.runs import load_run
from node.watch.recorded import recorded_story
from tests.browser.conftest import GRAPH
from tests.browser.stories import Run, Story

FEW_BYTES = 250_000
PICTURES = os.environ.get("SCREENSHOTS")


@pytest.fixture(scope="session")
def simulated(tmp_path_factory):
    """The story of a run of so many peers some of which crash and come back, each made once."""
    made: dict[int, Story] = {}

    def story(n: int) -> Story:
        if n not in made:
            folder = tmp_path_factory.mktemp("runs") / str(n)
            network = ["--topology", "exponential", "--nodes", n, "--alpha", "0.1", "--delay", "20ms", "--duration"]
            length = (
                ["60s", "--crash-down", "12s"] if PICTURES else ["10s", "--crash-down", "4s", "--report-every", "1s"]
            )
            faults = ["--crash", 1 if n < 50 else 6, "--out", folder, "--json"]
            done = CliRunner().invoke(app, ["simulate", *map(str, [*network, *length, *faults])])
            assert done.exit_code == 0, done.output
            made[n] = json.loads(recorded_story(load_run(folder)).text())
        return made[n]

    return story


def viridis(share: float) -> tuple[int, ...]:
    """The colour as matplotlib has it."""
    return tuple(round(255 * part) for part in colormaps["viridis"](share)[:3])


def distance(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """How different two colours are, 0 to about 440."""
    return math.dist(a[:3], b[:3])


def keep(picture: bytes, name: str) -> None:
    """Store a picture, with few colours, where it has been asked for."""
    if PICTURES:
        path = Path(PICTURES) / f"{name}.png"
        few = {"method": Image.Quantize.MAXCOVERAGE, "kmeans": 3, "dither": Image.Dither.NONE}
        Image.open(io.BytesIO(picture)).convert("RGB").quantize(256, **few).save(path, optimize=True)
        assert path.stat().st_size < FEW_BYTES


@pytest.mark.parametrize(
    ("name", "n", "scheme", "width", "height"),
    [
        ("watch_gone", 8, "light", 1280, 860),
        ("watch_many", 100, "dark", 1280, 860),
        ("watch_phone", 8, "light", 390, 844),
    ],
)
def test_peers_have_the_colour_of_their_accuracy(open_report, simulated, name, n, scheme, width, height):
    story = simulated(n) if PICTURES or n == 8 else Run(n, gone=(20, 31)).story(60, 60, live=False)
    gone = [k for k, frame in enumerate(story["frames"]) if "g" in frame["state"]]
    frame = gone[len(gone) // 2] if name != "watch_phone" else len(story["frames"]) - 2
    window = open_report(story, width=width, height=height, color_scheme=scheme)
    window.page.fill("#time", str(frame))
    window.page.evaluate("document.activeElement.blur()")
    if name == "watch_gone":
        window.page.click("#peers tbody button >> text=n1")
        window.page.evaluate("scrollTo(0, 0)")
    spots = window.ask(f"{GRAPH}.nodes().map(n => [n.renderedPosition().x, n.renderedPosition().y, n.width()])")
    box = window.page.locator("#graph").bounding_box()
    window.page.wait_for_timeout(150)  # the network is drawn a frame after it has been told
    picture = window.page.screenshot()
    keep(picture, name)
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    shown = story["frames"][frame]
    known = [value for f in story["frames"] for value in f["accuracy"] if value is not None]
    worst, best = (math.log(1 - end) for end in (min(known), max(known)))
    for k, (x, y, size) in enumerate(spots):
        if box["y"] + y + size > height - 80:
            continue  # behind the bar at the foot
        if any(shown["state"][j] == "g" and 0 < spots[j][1] - y < 30 and abs(spots[j][0] - x) < 30 for j in range(n)):
            continue  # beneath the name of one that is gone
        above_label = y - 0.36 * size if n == 8 else y
        pixel = image.getpixel((round(box["x"] + x), round(box["y"] + above_label)))
        value = shown["accuracy"][k]
        if shown["state"][k] == "g":
            assert min(distance(pixel, viridis(share / 20)) for share in range(21)) > 100  # hollow and crossed
        else:
            assert distance(pixel, viridis((math.log(1 - value) - worst) / (best - worst))) < 25


def test_promises_and_events_lie_side_by_side(open_report, simulated):
    window = open_report(simulated(8))
    pair = window.page.locator(".pair")
    window.ask("document.getElementById('player').hidden = true")
    keep(pair.screenshot(), "watch_promises")
    left, right = (pair.locator(part).bounding_box() for part in ("> .stack", "> .card"))
    assert left["x"] + left["width"] < right["x"]
    assert (left["y"], left["height"]) == (right["y"], right["height"])
    wide = window.page.locator(".wide:has(#promises)")
    assert wide.evaluate("box => box.scrollWidth - box.clientWidth") == 0
