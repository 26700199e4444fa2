"""Write the reference pages: settings from the models, commands from the parsers, reasons from the table of the reader.

    python -m stages.reference

Run it (or `make reference`) after a change of a setting, an option or a reason; a test holds the pages current.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pea.corpus.samples import REASONS
from pea.storage.durable import write_text
from stages.command.arguments import local_path
from stages.command.common import command_main
from stages.reference_pages.commands import commands
from stages.reference_pages.markdown import table
from stages.reference_pages.settings import settings
from stages.schema import schema_text

FOLDER = Path("docs/reference")
_NOTE = "<!-- Written by `make reference`; edit the source and run it again. -->\n"
_REASONS = """# Why a sample was left out

A sample that cannot be used is left out of the cache and listed with one of these reasons in the completion record of
its shard; `pea inspect ls CACHE TAR` shows them, and the run's summary counts them. A run that drops a larger share
than `cache.max_dropped_fraction` fails at its end.
"""


def pages() -> dict[str, str]:
    """File name -> text of every generated page."""
    texts = {"settings.md": _NOTE + settings(), "commands.md": _NOTE + commands(), "drop_reasons.md": _NOTE + reasons()}
    return texts | {"config.schema.json": schema_text()}


def reasons() -> str:
    """The reasons for which a sample is left out."""
    return f"{_REASONS}\n{table(('reason', 'meaning'), [(f'`{name}`', text) for name, text in REASONS.items()])}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of this command."""
    parser.add_argument(
        "--out", type=local_path, default=FOLDER, metavar="FOLDER", help=f"where to (default: {FOLDER})"
    )


def run_arguments(arguments: argparse.Namespace) -> int:
    """Write the pages."""
    for name, text in pages().items():
        write_text(arguments.out / name, text)
        print(arguments.out / name)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return command_main(add_arguments, run_arguments, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
