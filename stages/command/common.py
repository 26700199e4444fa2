"""What every stage's command line shares: the configuration, ``--dry-run``, and errors of one line."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pea.config import Config, load_config, resolved_yaml
from pea.file_names import RUN_CONFIG
from pea.storage.durable import write_text
from stages.command.arguments import add_config_option
from stages.command.console import Console
from stages.command.guard import EXIT_ERROR, EXIT_INTERRUPTED, guarded
from stages.command.parser import CommandParser
from stages.command.run_folder import working


def add_config_arguments(
    parser: argparse.ArgumentParser, meaning: str = "the setup's YAML file", *, required: bool = True
) -> None:
    """``--config FILE [--config FILE ...] [section.key=value ...] [--dry-run]``."""
    add_config_option(parser, meaning, required=required)
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="settings that replace those of the file"
    )


def config_from(arguments: argparse.Namespace) -> Config:
    """The configuration with the overrides applied."""
    return load_config(arguments.config, getattr(arguments, "overrides", ()))


def save_resolved(config: Config, folder: Path) -> None:
    """Write the resolved configuration beside what the stages make, into the run folder as it is worked on."""
    write_text(folder / RUN_CONFIG, resolved_yaml(config))


def run_stage(run: Callable[[Config, Console], Any], arguments: argparse.Namespace) -> int:
    """Run one stage of a configuration, or print the configuration when that is all that was asked for."""
    config = config_from(arguments)
    if arguments.dry_run:
        print(resolved_yaml(config), end="")
        return 0
    with working(config, f"pea {getattr(arguments, 'command', '') or run.__module__}") as here:
        save_resolved(config, here.run_dir)
        run(here, Console())
    return 0


def command_main(
    add: Callable[[argparse.ArgumentParser], None],
    run: Callable[[argparse.Namespace], int],
    description: str | None,
    argv: Sequence[str] | None = None,
) -> int:
    """``main`` of a stage with arguments of its own: those that `add` adds, carried out by `run`."""
    parser = CommandParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add(parser)
    arguments = parser.parse_args(argv)
    return guarded(lambda: run(arguments))


def stage_main(
    run: Callable[[Config, Console], Any], description: str | None, argv: Sequence[str] | None = None
) -> int:
    """``main`` of a stage that takes nothing but a configuration."""
    return command_main(add_config_arguments, lambda arguments: run_stage(run, arguments), description, argv)


__all__ = [
    "EXIT_ERROR",
    "EXIT_INTERRUPTED",
    "add_config_arguments",
    "command_main",
    "config_from",
    "guarded",
    "run_stage",
    "save_resolved",
    "stage_main",
]
