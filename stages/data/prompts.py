"""``pea data prompts``: the prompt sets that come with the package, as files."""

from __future__ import annotations

import argparse

from stages.command.arguments import local_path

DESCRIPTION = (
    "Copy the prompt sets that come with PEA-Cache, and their data card, into a folder: 200 general prompts in "
    "English, zh, ja, ko, ru and it, and 100 culture prompts for each of these but English. `evaluate.prompts` names "
    "the files. A file of the folder that differs from the set's is an error, not overwritten."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``pea data prompts``."""
    parser.add_argument("--out", type=local_path, required=True, metavar="FOLDER", help="where the files go")


def run_arguments(arguments: argparse.Namespace) -> int:
    """Copy every set and the data card; returns the exit code.

    Raises:
        EvaluationError: a file of that name with other contents is there.
        OSError: the folder cannot be written.
    """
    from data_tools.prompt_sets import PROMPT_SETS, copy_sets
    from data_tools.tables import say

    copy_sets(PROMPT_SETS, arguments.out)
    say(f"{', '.join(PROMPT_SETS)} in {arguments.out}")
    return 0
