"""``gradvine compose``: files that run a plan's peers in containers, and have Prometheus watch them."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.options import with_run_flags
from node.cli.planner import check_target, planning
from node.config import RunConfig
from node.errors import ConfigError

if TYPE_CHECKING:
    from topology.plan import Plan

FORM = "Another form"
COMPOSE, KUBERNETES = Path("docker-compose.yml"), Path("kubernetes.yaml")
IMAGE = "gradvine"

MADE, HEAD_LENGTH = "Made by: gradvine", 2000
"""By which a file that may be written anew is known, and within how many characters that stands."""


@with_run_flags
def compose(
    settings: RunConfig,
    plan: Annotated[
        Path | None, typer.Option(help="plan file", show_default="8 peers, exponential, optimal rates")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="file to write, or - for stdout", show_default=f"{COMPOSE}; {KUBERNETES}"),
    ] = None,
    links: Annotated[
        bool | None,
        typer.Option(
            "--links/--no-links", help="a proxy between peers, to delay, limit and cut links", show_default="links"
        ),
    ] = None,
    image: Annotated[str | None, typer.Option(help="image of all containers", show_default=IMAGE)] = None,
    kubernetes: Annotated[
        bool, typer.Option("--kubernetes", help="write manifests for Kubernetes", rich_help_panel=FORM)
    ] = False,
    prometheus: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="write Prometheus' configuration to this folder", rich_help_panel=FORM),
    ] = None,
) -> None:
    """Write a docker-compose file that runs the peers of a plan in containers, one each.

    The flags of a run become the file's settings; the environment of docker compose wins over them.
    """
    if kubernetes and prometheus:
        raise ConfigError("--kubernetes and --prometheus write different files: ask for one at a time.")
    if prometheus:
        _refuse_beside("--prometheus", {"--output": output, "--links": links, "--image": image})
        from node.deploy.observe import write_prometheus

        write_prometheus(_plan(plan), prometheus)
        typer.echo(f"{prometheus} is written", err=True)
        return
    output = output or (KUBERNETES if kubernetes else COMPOSE)
    _check_output(output)
    if kubernetes:
        _refuse_beside("--kubernetes", {"--links": links})
        from node.deploy.kubernetes import kubernetes_manifests

        text = kubernetes_manifests(_plan(plan), settings, image or IMAGE)
    else:
        from node.deploy.compose import compose_file

        command = shlex.join(["gradvine", *sys.argv[1:]])
        text = compose_file(_plan(plan), settings, links=links is not False, image=image or IMAGE, command=command)
    _write(text, output)


def _refuse_beside(form: str, given: Mapping[str, object]) -> None:
    """Refuse flags that this form has no use for."""
    if idle := [flag for flag, value in given.items() if value is not None]:
        raise ConfigError(f"{form} has no use for {' and '.join(idle)}: leave that out.")


def _plan(file: Path | None) -> Plan:
    with planning():
        if file is not None:
            from topology.plan import load_plan

            return load_plan(file)
        from topology.planning import build_plan

        return build_plan("exponential", 8, rates="optimal")


def _check_output(output: Path) -> None:
    """Refuse a file that can't be written, or that somebody else has written, before a plan is made."""
    if str(output) == "-":
        return
    check_target(output)
    if output.exists() and MADE not in output.read_text(errors="replace")[:HEAD_LENGTH]:
        raise ConfigError(f"{output} is not of gradvine's making: name another file with -o.")


def _write(text: str, output: Path) -> None:
    if str(output) == "-":
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise ConfigError(f"{output} can't be written: {error.strerror}.") from None
    typer.echo(f"{output} is written; its head says how to use it", err=True)
