"""The page of a run as one text: skeleton, styles and scripts out of ``page/``, which load nothing from anywhere.

The live page and a report are the same text but for the story in it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from html import escape
from pathlib import Path

FOLDER = Path(__file__).with_name("page")
PLACE = re.compile(r"<!-- (style|vendor|script|sections) -->|<title>.*?</title>|(?<=id=\"story\">)null(?=</script>)")
SCRIPT = re.compile(r"<script(?: type=\"module\")?>(.*?)</script>", re.DOTALL)


def compose_page(title: str = "gradvine", story: str = "null", sections: str = "") -> str:
    """The page.

    Parameters
    ----------
    title : str
        Of the window; any text.
    story : str
        JSON that may stand inside a script element, as :func:`node.watch.story.told` writes it; ``null`` for a page
        that asks for its story.
    sections : str
        HTML of what else there is to be read, under the story.
    """
    parts = {**_parts(), "sections": sections}

    def put(found: re.Match[str]) -> str:
        if found[1]:
            return parts[found[1]]
        return story if found[0] == "null" else f"<title>{escape(title)}</title>"

    return PLACE.sub(put, (FOLDER / "index.html").read_text(encoding="utf-8"))


def read_style() -> str:
    """The styles of the page alone, for pages that look like it."""
    return _joined(sorted(FOLDER.glob("*.css")))


@cache
def _parts() -> dict[str, str]:
    """Vendors' files before the page's own, each in the order of their names."""
    vendor = FOLDER / "vendor"
    return {
        "style": _joined(sorted(vendor.glob("*.css"))) + "\n" + read_style(),
        "vendor": _joined(sorted(vendor.glob("*.js"))),
        "script": _joined(sorted(FOLDER.glob("*.js"))),
    }


def _joined(files: list[Path]) -> str:
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def content_security_policy(page: str) -> str:
    """The header that lets a browser run the scripts of this page and no others, and load nothing."""
    hashes = (hashlib.sha256(script.encode()).digest() for script in SCRIPT.findall(page))
    scripts = " ".join(f"'sha256-{base64.b64encode(digest).decode('ascii')}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
