"""Prompt sets written for this project: general prompts in six languages, culture prompts of each (see README.md)."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pea.errors import EvaluationError
from pea.storage.durable import atomic_write, make_folder

FOLDER = Path(__file__).parent
PROMPT_SETS = tuple(sorted(path.stem for path in FOLDER.glob("*.jsonl")))
"""The names of the sets."""


def prompt_set(name: str) -> Path:
    """The file of one set, as `pea.evaluation.prompts.read_prompts` reads it.

    Raises:
        EvaluationError: there is no such set.
    """
    if name not in PROMPT_SETS:
        raise EvaluationError("no such prompt set", expected=f"one of {', '.join(PROMPT_SETS)}", got=name)
    return FOLDER / f"{name}.jsonl"


def sets_for(languages: Collection[str]) -> list[str]:
    """The sets that have prompts in one of these languages: the general one, and the culture prompts of each."""
    culture = [f"culture-{each}" for each in languages if f"culture-{each}" in PROMPT_SETS]
    return ["general", *culture] if culture else []


def copy_sets(names: Collection[str], folder: Path) -> None:
    """Copy sets and their data card into a folder.

    Raises:
        EvaluationError: a file of that name with other contents is there.
        OSError: the folder cannot be written.
    """
    copies = {folder / path.name: path for path in (*map(prompt_set, names), FOLDER / "README.md")}
    for target, path in copies.items():
        if target.exists() and not (target.is_file() and target.read_bytes() == path.read_bytes()):
            remedy = "Choose another folder, or move that file away."
            raise EvaluationError("another file has the name of a prompt set's", where=target, remedy=remedy)
    make_folder(folder)
    for target, path in copies.items():
        atomic_write(target, path.read_bytes())
