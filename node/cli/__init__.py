"""The ``gradvine`` command: one file a subcommand.

These files import nothing dear at their top: a command's libraries are loaded when it runs, and no other's.
"""

from __future__ import annotations

import sys

import typer

from node.cli.certs import certs
from node.cli.compare import compare
from node.cli.compose import compose
from node.cli.data import data
from node.cli.finish import finish
from node.cli.link import link
from node.cli.links import links
from node.cli.plan import plan
from node.cli.report import report
from node.cli.run import run
from node.cli.show import show
from node.cli.simulate import simulate
from node.cli.status import status
from node.cli.testbed import testbed
from node.cli.version import version
from node.cli.watch import watch
from node.errors import UserError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
for command in (
    plan,
    show,
    compare,
    compose,
    data,
    certs,
    run,
    testbed,
    simulate,
    links,
    link,
    status,
    watch,
    finish,
    report,
    version,
):
    app.command()(command)


@app.callback()
def gradvine() -> None:
    """Decentralised learning on many machines with no server."""


def main() -> None:
    """Run the command; a user's mistake is one sentence on stderr and an exit code."""
    try:
        app()
    except UserError as error:
        print(f"gradvine: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
