"""Log lines on stderr, as text for people or as JSON for machines."""

from __future__ import annotations

import datetime
import json
import logging
import sys


class _Json(logging.Formatter):
    def __init__(self, peer: str) -> None:
        super().__init__()
        self._peer = peer

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        line = {
            "time": moment.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "peer": self._peer,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


def start_logging(level: str, form: str, peer: str) -> None:
    """Log to stderr from ``level`` on, in the form ``"text"`` or ``"json"``."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter(f"%(asctime)s %(levelname)-7s {peer} %(message)s", "%Y-%m-%d %H:%M:%S")
    handler.setFormatter(_Json(peer) if form == "json" else text)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
