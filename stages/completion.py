"""Print a script that lets a shell complete `pea`, its commands, their options, and paths.

    pea completion bash          (> ~/.local/share/bash-completion/completions/pea)
    pea completion zsh          (> ~/.zfunc/_pea)
    pea completion fish          (> ~/.config/fish/completions/pea.fish)

Write it into that file and open a new shell. For zsh its folder must be in `fpath`.
"""

from __future__ import annotations

import argparse

from stages.command.arguments import local_path
from stages.command.parser import subparsers_of

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `pea completion`."""
    parser.add_argument("shell", choices=SHELLS, help="the shell that is to complete")


def run_arguments(arguments: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from stages.cli import build_whole_parser

    parser = build_whole_parser()
    _complete_paths(parser, shtab.FILE)
    print(shtab.complete(parser, arguments.shell))
    return 0


def _complete_paths(parser: argparse.ArgumentParser, with_paths: object) -> None:
    for action in parser._actions:  # noqa: SLF001
        if action.type is local_path:
            action.complete = with_paths  # type: ignore[attr-defined]  # where shtab looks
    for below in subparsers_of(parser).values():
        _complete_paths(below, with_paths)
