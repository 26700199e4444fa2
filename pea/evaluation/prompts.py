"""Held-out prompts: JSON lines of `{"id", "captions": {language: text}, "attributes": {name: value}, "concept"}`.

Only a judge needs the attributes. Prompts of one concept count as one in intervals.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pea.errors import EvaluationError
from pea.evaluation.metrics import CONCEPT


@dataclass(frozen=True)
class Prompt:
    """One prompt, in several languages, and what its image must show."""

    id: str
    captions: dict[str, str]
    attributes: dict[str, str]
    concept: str | None = None
    """What several prompts ask for in turn: a dish, a festival."""

    @property
    def group(self) -> str:
        """What its score is not independent of: its concept, or else nothing but itself."""
        return self.concept or self.attributes.get(CONCEPT) or f"prompt {self.id}"


def read_prompts(path: Path, limit: int | None = None) -> list[Prompt]:
    """The prompts of a file, or its first `limit`.

    Raises:
        EvaluationError: the file is missing, empty, or a line is not a prompt.
    """
    try:
        lines = [line for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluationError("cannot read the prompts", where=path, got=error) from None
    prompts = []
    for number, line in enumerate(lines[:limit], 1):
        try:
            raw = json.loads(line)
            prompt = Prompt(str(raw["id"]), dict(raw["captions"]), dict(raw.get("attributes", {})), _concept(raw))
        except (ValueError, KeyError, TypeError) as error:
            raise EvaluationError(
                "not a prompt", where=f"{path}, line {number}", expected="id, captions", got=repr(error)
            ) from None
        prompts.append(prompt)
    if not prompts:
        raise EvaluationError("no prompts in this file", where=path)
    if len({prompt.id for prompt in prompts}) < len(prompts):
        raise EvaluationError("two prompts have the same id", where=path)
    return prompts


def _concept(raw: dict[str, object]) -> str | None:
    return None if raw.get("concept") is None else str(raw["concept"])


def texts_in(prompts: list[Prompt], language: str, where: object) -> list[str]:
    """The captions in one language.

    Raises:
        EvaluationError: a prompt has none.
    """
    missing = [prompt.id for prompt in prompts if not prompt.captions.get(language)]
    if missing:
        there = ", ".join(sorted(set().union(*(prompt.captions for prompt in prompts)))) or "none"
        raise EvaluationError(
            f"no caption named {language!r}",
            where=where,
            got=f"prompt {missing[0]}",
            remedy=f"There are captions in {there}; leave the file out of evaluate.prompts, or name one with "
            f"{language!r} for every prompt (`pea data prompts` writes some).",
        )
    return [prompt.captions[language] for prompt in prompts]
