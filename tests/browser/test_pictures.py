"""What the network looks like, to the pixel; with a folder in the variable SCREENSHOTS, the pictures of docs/watch.md.

SCREENSHOTS=docs/pictures pytest tests/browser/test_pictures.py
"""

from __future__ import annotations

import io
import math
import os
from pathlib import Path

import pytest
from matplotlib import colormaps
from PIL import Image

from tests.browser.conftest import GRAPH
from tests.browser.stories import Run

FEW_BYTES = 250_000


def viridis(share: float) -> tuple[int, ...]:
    """The colour as matplotlib has it."""
    return tuple(round(255 * part) for part in colormaps["viridis"](share)[:3])


def distance(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    """How different two colours are, 0 to about 440."""
    return math.dist(a[:3], b[:3])


def keep(picture: bytes, name: str) -> None:
    """Store a picture, with few colours, where it has been asked for."""
    if folder := os.environ.get("SCREENSHOTS"):
        path = Path(folder) / f"{name}.png"
        few = {"method": Image.Quantize.MAXCOVERAGE, "kmeans": 3, "dither": Image.Dither.NONE}
        Image.open(io.BytesIO(picture)).convert("RGB").quantize(256, **few).save(path, optimize=True)
        assert path.stat().st_size < FEW_BYTES


@pytest.mark.parametrize(
    ("name", "n", "scheme", "width", "height", "frame"),
    [
        ("watch_gone", 8, "light", 1280, 860, 24),
        ("watch_many", 100, "dark", 1280, 860, 24),
        ("watch_phone", 8, "light", 390, 844, 40),
    ],
)
def test_peers_have_the_colour_of_their_accuracy(open_report, name, n, scheme, width, height, frame):
    story = Run(n, gone=(20, 31)).story(60, 60, live=False)
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
        above_label = y - 0.36 * size if n == 8 else y
        pixel = image.getpixel((round(box["x"] + x), round(box["y"] + above_label)))
        value = shown["accuracy"][k]
        if value is None:
            assert k == 3
            assert min(distance(pixel, viridis(share / 20)) for share in range(21)) > 100  # hollow and crossed
        else:
            assert distance(pixel, viridis((math.log(1 - value) - worst) / (best - worst))) < 25


def test_promises_and_events_lie_side_by_side(open_report):
    window = open_report(Run(8, gone=(20, 31)).story(60, 60, live=False))
    pair = window.page.locator(".pair")
    window.ask("document.getElementById('player').hidden = true")
    keep(pair.screenshot(), "watch_promises")
    left, right = (pair.locator(part).bounding_box() for part in ("> .stack", "> .card"))
    assert left["x"] + left["width"] < right["x"]
    assert (left["y"], left["height"]) == (right["y"], right["height"])
    wide = window.page.locator(".wide:has(#promises)")
    assert wide.evaluate("box => box.scrollWidth - box.clientWidth") == 0
