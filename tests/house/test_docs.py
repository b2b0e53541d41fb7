"""What the docs tell people to type exists, and what they point to is there."""

from __future__ import annotations

import re
import shlex

import click
import pytest
import typer.main

from node.cli import app

COMMANDS = typer.main.get_command(app)
LINK = re.compile(r"\]\(([^)\s]+)\)")
INLINE = re.compile(r"`(gradvine [^`]+)`")
PLACEHOLDER = re.compile(r"^(…|\.\.\.|\\)$")


def pages(root):
    found = [root / "README.md", root / "SECURITY.md", root / "CHANGELOG.md", *sorted((root / "docs").glob("*.md"))]
    return [page for page in found if page.exists()]


def command_lines(text: str) -> list[str]:
    """``gradvine …`` lines of fenced and indented blocks, continued lines joined, and those within a sentence."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines, fenced = [], False
    for line in joined.splitlines():
        fenced ^= line.startswith("```")
        if fenced or line.startswith("    "):
            lines.append(line.strip().removeprefix("$ ").removeprefix(".venv/bin/"))
    return [line for line in lines if line.startswith("gradvine ")] + INLINE.findall(joined.replace("\n", " "))


def complaint(line: str) -> str | None:
    """What is wrong with a command line, by the command's own flags; None when nothing is."""
    words = [word for word in shlex.split(line, comments=True)[1:] if not PLACEHOLDER.match(word)]
    if words[:1] == ["--help"] or not words:
        return None
    if words[0].isupper():  # a placeholder: gradvine COMMAND --help
        return None
    command = COMMANDS.commands.get(words[0])
    if command is None:
        return f"there is no command {words[0]}"
    known = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)} | {"--help"}
    for word in words[1:]:
        flag = word.split("=")[0]
        if re.match(r"-{1,2}[a-z]", flag) and flag not in known:
            return f"{words[0]} has no flag {flag}"
    return None


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("gradvine plan ring --nodes 4 -o plan.json", False),
        ("gradvine plan ring --noodles 4", True),
        ("gradvine pln ring", True),
        ("gradvine simulate --no-batched --set=hidden=64 # a comment --x", False),
        ("gradvine COMMAND --help", False),
    ],
)
def test_wrong_commands_are_seen(line, wrong):
    assert (complaint(line) is not None) == wrong


def test_command_lines_are_found():
    text = "See `gradvine show\nplan.json`.\n\n    gradvine plan ring \\\n        --nodes 4\n\n"
    text += "gradvine is a word here.\n\n```\n$ gradvine version\n```\n"
    found = ["gradvine plan ring --nodes 4", "gradvine version", "gradvine show plan.json"]
    assert command_lines(text) == found


def test_every_command_in_the_docs_exists(root):
    wrong, count = [], 0
    for page in pages(root):
        for line in command_lines(page.read_text()):
            count += 1
            if what := complaint(line):
                wrong.append(f"{page.name}: {line!r}: {what}")
    assert wrong == []
    assert count > 20


def test_every_link_leads_somewhere(root):
    broken = []
    for page in pages(root):
        text = page.read_text()
        for target in LINK.findall(text):
            file, _, part = target.partition("#")
            if file.startswith(("http://", "https://", "mailto:")):
                continue
            goal = page if not file else page.parent / file
            if not goal.exists() or (part and goal.suffix == ".md" and part not in headings(goal.read_text())):
                broken.append(f"{page.name}: {target}")
    assert broken == []


def headings(text: str) -> set[str]:
    """The anchors that a page's headings make."""
    titles = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_every_command_is_in_the_table(root):
    text = (root / "docs" / "commands.md").read_text()
    assert [name for name in sorted(COMMANDS.commands) if f"`gradvine {name}" not in text] == []


def test_every_run_flag_is_in_the_table(root):
    from node.config import RunConfig

    text = (root / "docs" / "commands.md").read_text()
    flags = {f"--{name.replace('_', '-')}" for name in RunConfig.model_fields if name != "options"} | {"--set"}
    assert [flag for flag in sorted(flags) if f"`{flag}`" not in text] == []


def test_every_fault_is_in_the_table(root):
    text = (root / "docs" / "simulate.md").read_text()
    panel = [o for o in COMMANDS.commands["simulate"].params if getattr(o, "rich_help_panel", "") == "What goes wrong"]
    assert len(panel) >= 8
    assert [option.opts[0] for option in panel if f"`{option.opts[0]}`" not in text] == []


def test_exit_codes_are_in_the_docs(root):
    from node import errors

    text = (root / "docs" / "commands.md").read_text()
    for kind in (errors.UserError, errors.ConfigError, errors.TaskError, errors.NetworkError, errors.StorageError):
        assert re.search(rf"^\| {kind.exit_code} \|", text, flags=re.MULTILINE), kind


def test_every_flag_has_help():
    for name, command in COMMANDS.commands.items():
        assert command.help, name
        bare = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
        assert bare == [], name
