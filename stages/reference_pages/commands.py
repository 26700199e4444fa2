"""Every command with its arguments, from the parsers and the docstrings of the stages."""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
from collections.abc import Mapping

from stages.cli import COMMANDS, build_parser
from stages.reference_pages.markdown import prose, table

_COMMANDS = """# Commands

Every command with its arguments. `pea COMMAND --help` prints the same. Each is also a module
(`python -m stages.cache_teacher` is `pea cache`), for launchers that need one.
"""


def commands() -> str:
    """Every command, and its arguments, from the parsers."""
    parts = [_COMMANDS]
    for name, command in COMMANDS.items():
        parser = build_parser([name])
        about = inspect.getdoc(importlib.import_module(command.module)) or ""
        parts.append(f"## pea {name}\n\n{_markdown(about)}\n")
        parts += _arguments(f"pea {name}", _subparsers(parser)[name])
    parts.append(f"## Exit codes\n\n{str(build_parser([]).epilog).partition(': ')[2]}\n")
    return "\n".join(parts)


def _arguments(name: str, parser: argparse.ArgumentParser) -> list[str]:
    """The table of a parser, and a heading and a table for each of its subcommands."""
    below = _subparsers(parser)
    rows = [row(action) for action in _actions(parser) if action.help != argparse.SUPPRESS]
    parts = [] if below or not rows else [table(("argument", "what it is"), rows)]
    for each, sub in below.items():
        parts.append(f"### {name} {each}\n\n{prose(sub.description or '')}\n")
        parts += _arguments(f"{name} {each}", sub)
    return parts


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Arguments in the order of the help, without ``--help``; argparse has no public list of them."""
    return [action for action in parser._actions if action.dest != "help"]  # noqa: SLF001


def _subparsers(parser: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    for action in _actions(parser):
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return dict(action.choices)
    return {}


def row(action: argparse.Action) -> tuple[str, str]:
    """An argument, and what it is."""
    value = str(action.metavar or (action.dest.upper() if action.nargs != 0 else ""))
    if action.choices:
        value = "|".join(map(str, action.choices))
    if action.nargs in ("+", "*"):
        value += " ..."
    name = " ".join([", ".join(action.option_strings), value]).strip()
    optional = action.nargs in ("?", "*") if not action.option_strings else not action.required
    about = prose(action.help or "")
    if isinstance(action, argparse._AppendAction):  # noqa: SLF001
        about += "; can be given several times"
    elif action.default and "default" not in about:
        about += f" (default: {action.default})"
    return f"`{name}`".replace("|", r"\|"), about + ("" if optional else " (required)")


def _markdown(docstring: str) -> str:
    """A docstring's indented examples in fences; ``code`` as markdown has it."""
    blocks = []
    for block in docstring.split("\n\n"):
        lines = block.splitlines()
        if all(line.startswith(("    ", "pea ")) for line in lines):
            blocks.append("\n".join(["```sh", *(_uncommented(line.strip()) for line in lines), "```"]))
        else:
            blocks.append(prose(block, keep_lines=True))
    return "\n\n".join(blocks)


def _uncommented(line: str) -> str:
    """``command          (remark)`` -> ``command  # remark``."""
    return re.sub(r" {2,}\((.*)\)$", r"  # \1", line)
