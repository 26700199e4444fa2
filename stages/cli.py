"""The command ``pea``: finds the stage and hands over; nothing heavy is imported before it is needed."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pea import __version__
from stages.command.guard import guarded
from stages.command.parser import CommandParser

if TYPE_CHECKING:
    from pea.config import Config
    from stages.command.console import Console

_EXIT_CODES = "exit codes: 0 success, 1 damage or a difference was found, 2 error, 130 interrupted"


@dataclass(frozen=True)
class Command:
    """One subcommand."""

    module: str
    """Holds ``run(config, console)``, or, with ``own_arguments``, ``add_arguments`` and ``run_arguments``."""
    help: str
    own_arguments: bool = False
    loads_models: bool = False
    """Whether seconds pass before its first line, in which libraries are imported."""


COMMANDS = {
    "init": Command(
        "stages.init",
        "write the configuration of a new setup, checked, with its costs",
        own_arguments=True,
        loads_models=True,
    ),
    "run": Command("stages.run", "run a pipeline's stages in order, skipping what is unchanged", own_arguments=True),
    "data": Command(
        "stages.data", "make a corpus ready: pack, filter, look at it, clean and translate captions", own_arguments=True
    ),
    "plan": Command(
        "stages.plan", "what a cache will cost and save, before any GPU is used", own_arguments=True, loads_models=True
    ),
    "rd": Command(
        "stages.rate_distortion",
        "what each sketch costs and does to the adapter's gradient",
        own_arguments=True,
        loads_models=True,
    ),
    "cache": Command(
        "stages.cache_teacher", "run the frozen teacher over the corpora, on Ray", own_arguments=True, loads_models=True
    ),
    "train": Command("stages.train_adapter", "train an adapter from the cache", loads_models=True),
    "sweep": Command(
        "stages.sweep",
        "train and score several methods and seeds from one cache",
        own_arguments=True,
        loads_models=True,
    ),
    "search": Command(
        "stages.search",
        "find the settings of each method by successive halving, fairly",
        own_arguments=True,
        loads_models=True,
    ),
    "eval": Command("stages.evaluate", "draw the held-out prompts and score the images", loads_models=True),
    "generate": Command(
        "stages.generate", "draw images for prompts in the adapter's language", own_arguments=True, loads_models=True
    ),
    "app": Command(
        "stages.app", "try adapters in a browser, beside their teacher", own_arguments=True, loads_models=True
    ),
    "push": Command("stages.push", "publish an adapter on the Hugging Face hub", own_arguments=True, loads_models=True),
    "convert": Command(
        "stages.convert",
        "turn an official PEA-Diffusion checkpoint into an adapter",
        own_arguments=True,
        loads_models=True,
    ),
    "import": Command(
        "stages.import_encoder",
        "bring a published text encoder into a folder that is read here",
        own_arguments=True,
        loads_models=True,
    ),
    "rate": Command("stages.rate", "let people rate pictures, blind, and count what they said", own_arguments=True),
    "status": Command("stages.status", "how far a run is, and who is at it", own_arguments=True),
    "report": Command("stages.report", "write report.html from what the other stages left", loads_models=True),
    "doctor": Command(
        "stages.doctor",
        "what this machine and cluster are good for, and what to mend",
        own_arguments=True,
        loads_models=True,
    ),
    "inspect": Command("stages.inspect_cache", "look into a cache, check it, repair it", own_arguments=True),
    "schema": Command("stages.schema", "print the JSON schema of a configuration, for editors", own_arguments=True),
    "completion": Command("stages.completion", "print a script for the completion of a shell", own_arguments=True),
}


def build_parser(words: Sequence[str]) -> CommandParser:
    """The parser of ``pea``; only the module of the command that ``words`` names is imported."""
    wanted = next((word for word in words if not word.startswith("-")), None)
    return _build_parser([name for name in COMMANDS if name == wanted])


def build_whole_parser() -> CommandParser:
    """The parser of ``pea`` with the arguments of every command."""
    return _build_parser(COMMANDS)


def _build_parser(wanted: Collection[str]) -> CommandParser:
    parser = CommandParser(
        prog="pea", description="Teach an English image generator another language.", epilog=_EXIT_CODES
    )
    parser.add_argument("--version", action="version", version=f"pea-cache {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        sub = commands.add_parser(name, help=command.help, description=_sentence(command.help))
        if name not in wanted:
            continue
        source = command.module if command.own_arguments else "stages.command.common"
        module = importlib.import_module(source)
        (module.add_arguments if command.own_arguments else module.add_config_arguments)(sub)
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The arguments; settings may also follow options, where argparse has given up collecting them."""
    parser = build_parser(words)
    arguments, rest = parser.parse_known_args(words)
    unknown = [word for word in rest if word.startswith("-") or "=" not in word or not hasattr(arguments, "overrides")]
    if unknown:
        parser.refuse(unknown, words)
    if rest:
        arguments.overrides = [*arguments.overrides, *rest]
    return arguments


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


def _say_at_a_terminal(line: str) -> None:
    """A first sign of life, for a person who waits; it is not part of any output."""
    if sys.stderr is not None and sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)

    def act() -> int:
        arguments = parse(words)  # its module may need a package that is not installed
        command = COMMANDS[arguments.command]
        if command.loads_models and not getattr(arguments, "dry_run", False):
            _say_at_a_terminal(f"pea {arguments.command}: loading libraries ...")
        if command.own_arguments:
            return int(importlib.import_module(command.module).run_arguments(arguments))

        def run(config: Config, console: Console) -> object:  # by now the configuration has been read
            return importlib.import_module(command.module).run(config, console)

        return int(importlib.import_module("stages.command.common").run_stage(run, arguments))

    return guarded(act)


if __name__ == "__main__":
    sys.exit(main())
