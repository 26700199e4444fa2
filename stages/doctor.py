"""Say what this machine, and a cluster where one is named, are good for: one line a finding, with its remedy.

    pea doctor
    pea doctor --config configs/demo.yaml
    pea doctor --config configs/demo.yaml --json

Folders are tried out by writing small files, which are removed again. Exit code 0: everything that is needed is
usable; 2: something is not. `--json` is for bug reports: of environment variables it holds names, never values.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence

from pea.plurals import count_of
from stages.command.arguments import add_config_option
from stages.command.guard import EXIT_ERROR
from stages.diagnosis.finding import Finding, is_usable, report, without_secrets

_MARKS = {"ok": "ok      ", "note": "note    ", "warning": "warning ", "problem": "PROBLEM "}


def findings(arguments: argparse.Namespace) -> Iterator[Finding]:
    """Everything that is looked at, in order; what the configuration names only where one is given.

    Raises:
        ConfigError: the configuration is wrong.
    """
    from pea.config import load_config
    from pea.errors import ConfigError
    from stages.diagnosis.clusters import look_at_ray
    from stages.diagnosis.libraries import look_at_libraries
    from stages.diagnosis.machine import look_at_machine
    from stages.diagnosis.places import look_at_hub, look_at_read_places, look_at_written_places, written_places

    if arguments.overrides and not arguments.config:
        raise ConfigError(
            "there is nothing that this could change or name",
            where="pea doctor",
            expected="--config FILE before it",
            got=" ".join(arguments.overrides),
        )
    config = load_config(arguments.config, arguments.overrides) if arguments.config else None
    yield from look_at_libraries(config)
    yield from look_at_machine(config)
    yield from look_at_written_places(config)
    if config is not None:
        yield from look_at_read_places(config)
    yield look_at_hub()
    yield from look_at_ray(config, arguments.ray_address, written_places(config))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea doctor``."""
    add_config_option(parser, "also look at what this setup needs", required=False)
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that replace the file's")
    parser.add_argument("--ray-address", metavar="ADDRESS", help="look at this Ray cluster as well")
    parser.add_argument("--json", action="store_true", help="everything as one JSON object, without secrets")


def run_arguments(arguments: argparse.Namespace) -> int:
    """Look and tell; returns the exit code."""
    found = []
    console = None
    if not arguments.json:
        from stages.command.console import Console

        console = Console()
    for finding in findings(arguments):
        found.append(finding)
        if console is not None:
            console.print(f"{_MARKS[finding.level]}{without_secrets(finding.line())}")
    if console is None:
        print(json.dumps(report(found), indent=1))
    else:
        problems = sum(each.level == "problem" for each in found)
        warnings = sum(each.level == "warning" for each in found)
        console.print(
            f"{'usable' if is_usable(found) else 'NOT usable'}: "
            f"{count_of(problems, 'problem')}, {count_of(warnings, 'warning')}"
        )
    return 0 if is_usable(found) else EXIT_ERROR


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    from stages.command.common import command_main

    return command_main(add_arguments, run_arguments, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
