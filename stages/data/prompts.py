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
    from data_tools.prompt_sets import FOLDER, PROMPT_SETS, prompt_set
    from data_tools.tables import say
    from pea.errors import EvaluationError
    from pea.storage.durable import atomic_write

    copies = {arguments.out / path.name: path for path in (*map(prompt_set, PROMPT_SETS), FOLDER / "README.md")}
    for target, path in copies.items():
        if target.exists() and not (target.is_file() and target.read_bytes() == path.read_bytes()):
            remedy = "Choose another --out, or move that file away."
            raise EvaluationError("another file has the name of a prompt set's", where=target, remedy=remedy)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for target, path in copies.items():
        atomic_write(target, path.read_bytes())
    say(f"{', '.join(PROMPT_SETS)} in {arguments.out}")
    return 0
