"""What every stage's command line shares: the configuration, ``--dry-run``, and errors of one line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from pea.config import Config, load_config, resolved_yaml
from pea.errors import PeaError, is_disk_full
from pea.files import write_text

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130

# Both libraries warn at import about packages that are not used here; a user who wants to hear them sets these.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """``--config FILE [--config FILE ...] [section.key=value ...] [--dry-run]``."""
    parser.add_argument(
        "--config",
        type=Path,
        action="append",
        required=True,
        metavar="FILE",
        help="the setup's YAML file; settings of a second one replace those of the first",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and stop")
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="settings that replace those of the file"
    )


def config_from(arguments: argparse.Namespace) -> Config:
    """The configuration with the overrides applied."""
    return load_config(arguments.config, getattr(arguments, "overrides", ()))


def save_resolved(config: Config) -> None:
    """Write the resolved configuration beside what the stages make."""
    config.run_dir.mkdir(parents=True, exist_ok=True)
    write_text(config.run_dir / "config.yaml", resolved_yaml(config))


def run_stage(run: Callable[[Config, Console], Any], arguments: argparse.Namespace) -> int:
    """Run one stage of a configuration, or print the configuration when that is all that was asked for."""
    config = config_from(arguments)
    if arguments.dry_run:
        print(resolved_yaml(config), end="")
        return 0
    save_resolved(config)
    run(config, Console())
    return 0


def guarded(action: Callable[[], int]) -> int:
    """The exit code of ``action``; an error that a user can meet becomes one line on stderr."""
    try:
        code = action()
        sys.stdout.flush()
        return code
    except PeaError as error:
        return _fail(str(error), getattr(error, "exit_code", EXIT_ERROR))
    except BrokenPipeError:  # the reader of our output has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_ERROR
    except OSError as error:
        if not is_disk_full(error):
            raise
        return _fail(f"no space left on the disk: {error}. Make room and run the same command again.", EXIT_ERROR)
    except KeyboardInterrupt:
        print("pea: interrupted; to go on, run the same command", file=sys.stderr)
        return EXIT_INTERRUPTED


def _fail(message: str, code: int) -> int:
    print(f"pea: error: {message}", file=sys.stderr)
    return code


def stage_main(
    run: Callable[[Config, Console], Any], description: str | None, argv: Sequence[str] | None = None
) -> int:
    """``main`` of a stage that takes nothing but a configuration."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    arguments = parser.parse_args(argv)
    return guarded(lambda: run_stage(run, arguments))
