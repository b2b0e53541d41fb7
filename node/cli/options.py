"""Command-line flags out of :class:`~node.config.RunConfig`: a field is a flag, and its description is the help."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from node.config import RunConfig, dump_toml, load_config, parse_options

PANEL = "The run"


def with_run_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command one flag for each field of RunConfig, ``--config`` and ``--print-config``.

    It receives the configuration that all sources together make as ``settings``.

    Examples
    --------
    >>> @app.command()
    ... @with_run_flags
    ... def simulate(settings: RunConfig, nodes: int): ...
    """
    own = [p for name, p in inspect.signature(command, eval_str=True).parameters.items() if name != "settings"]
    fields = [_flag(name) for name in RunConfig.model_fields if name != "options"]
    fields += [
        _parameter("set_", list[str] | None, ["--set"], "option of the algorithm or task, key=value", None),
        _parameter("config", Path | None, ["--config"], "TOML file with these settings", None),
        _parameter("print_config", bool | None, ["--print-config"], "print the settings as TOML and end", None),
    ]

    def run(**given: Any) -> Any:
        flags = {name: given.pop(name) for name in RunConfig.model_fields if name != "options"}
        pairs = given.pop("set_")
        settings = load_config(flags | {"options": parse_options(pairs) if pairs else None}, given.pop("config"))
        if given.pop("print_config"):
            typer.echo(dump_toml(settings), nl=False)
            return None
        return command(**given, settings=settings)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    signature = inspect.Signature(sorted(own + fields, key=lambda p: p.default is not inspect.Parameter.empty))
    run.__signature__ = signature.replace()  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return run


def _flag(name: str) -> inspect.Parameter:
    field = RunConfig.model_fields[name]
    flags = [f"--{name.replace('_', '-')}"]
    if field.annotation in (bool, bool | None):
        return _parameter(name, bool | None, [f"{flags[0]}/--no-{flags[0][2:]}"], field.description, field.default)
    return _parameter(name, str | None, flags, field.description, field.default)


def _parameter(name: str, kind: Any, flags: list[str], text: str | None, default: Any) -> inspect.Parameter:
    shown = f" (default: {default})" if default is not None else ""
    option = typer.Option(*flags, help=f"{text}{shown}", show_default=False, rich_help_panel=PANEL)
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=None, annotation=Annotated[kind, option])
