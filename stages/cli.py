"""The command `pea`: a thin layer that finds the stage and hands over; heavy imports wait until needed."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from stages.common import add_config_arguments, guarded, run_stage


@dataclass(frozen=True)
class Command:
    """One subcommand. A module with `add_arguments` and `run_arguments` brings its own; others take a configuration."""

    module: str
    help: str
    takes_config: bool = True


COMMANDS = {
    "run": Command("stages.run", "run a pipeline's stages in order, skipping what is unchanged", takes_config=False),
    "cache": Command("stages.cache_teacher", "run the frozen teacher over the corpora, once, on Ray"),
    "train": Command("stages.train_adapter", "train an adapter from the cache"),
    "eval": Command("stages.evaluate", "generate images for held-out prompts and score them"),
    "generate": Command("stages.generate", "draw images for prompts in the adapter's language", takes_config=False),
    "report": Command("data_tools.report", "write report.html from what the other stages left"),
    "inspect": Command("data_tools.inspect_cache", "look into a cache and check it", takes_config=False),
}


def build_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """The parser; only the module of the command that `argv` names is imported."""
    parser = argparse.ArgumentParser(prog="pea", description="Teach an English image generator another language.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    wanted = next((word for word in argv if not word.startswith("-")), None)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.help, description=command.help)
        if command.takes_config:
            add_config_arguments(sub)
        elif name == wanted:
            importlib.import_module(command.module).add_arguments(sub)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 1 (damage found), 2 (error), 130 (interrupted)."""
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = build_parser(words).parse_args(words)
    command = COMMANDS[arguments.command]

    def act() -> int:
        module = importlib.import_module(command.module)
        if command.takes_config:
            return run_stage(module.run, arguments)
        return int(module.run_arguments(arguments))

    return guarded(act)


if __name__ == "__main__":
    sys.exit(main())
