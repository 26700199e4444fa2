"""Prompt sets written for this project: general prompts in six languages, culture prompts of each (see README.md)."""

from __future__ import annotations

from pathlib import Path

from pea.errors import EvaluationError

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
