"""Files by which others run and watch the peers of a plan: container engines, Kubernetes, Prometheus.

What their containers have in common is here: ports, the user, and how the programs in them tell a mistake.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from node.errors import ConfigError, UserError
from node.links.doors import PEER_PORT
from topology.records import PlanError

PORT, HTTP_PORT = PEER_PORT, 9700
"""Where a peer listens in its container, and where it serves status and metrics."""

USER = 10001
"""Of the image: whom peers run as, and its group."""


@contextmanager
def telling_mistakes() -> Iterator[None]:
    """Tell a user's mistake in one sentence on stderr, and end with its exit code."""
    try:
        yield
    except PlanError as error:
        _end(f"the plan can't be used: {error}", ConfigError.exit_code)
    except UserError as error:
        _end(str(error), error.exit_code)


def _end(sentence: str, code: int) -> None:
    print(f"gradvine: {sentence}", file=sys.stderr)  # noqa: T201
    sys.exit(code)
