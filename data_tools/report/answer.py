"""What the report says first: how much of the teacher's score the adapter reaches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from data_tools.report.rows import MEASURES, split_score
from pea.plurals import count_of

Ids = Mapping[tuple[str, str], Sequence[str]]
"""Row and prompt set -> ids of the prompts that were scored, where they are known."""


def answers(
    details: Mapping[str, Mapping[str, Any]], sets: Sequence[str], languages: Sequence[str], ids: Ids
) -> list[dict[str, str]]:
    """One card a prompt set, language and measure that the adapter was scored by: `value`, `label` and `note`."""
    found = {split_score(name): detail for name, detail in details.items()}
    cards = []
    for prompt_set in sets:
        for row, language in rows_of(languages).items():
            scored = [measure for measure in MEASURES if (row, prompt_set, measure) in found]
            of = f"{prompt_set} prompts" if len(languages) == 1 else f"{prompt_set} prompts in {language}"
            for measure in [measure for measure in scored if measure in ("", "clip")] or scored[:1]:
                adapter = found[row, prompt_set, measure]["mean"]
                teacher = found.get(("teacher", prompt_set, measure), {}).get("mean")
                same = teacher is not None and compares(teacher, adapter, ids, prompt_set, row)
                if math.isfinite(adapter["accuracy"]):
                    cards.append(_card(of, measure, adapter, teacher if same else None))
    return cards


def rows_of(languages: Sequence[str]) -> dict[str, str]:
    """The adapter's rows -> the language of their prompts."""
    return {("adapter" if not number else f"adapter_{each}"): each for number, each in enumerate(languages)}


def compares(teacher: Mapping[str, Any], own: Mapping[str, Any], ids: Ids, prompt_set: str, row: str) -> bool:
    """Whether two means are of the same prompts: as many, and the same ones where that is known."""
    asked = [ids.get((each, prompt_set)) for each in ("teacher", row)]
    same = None in asked or asked[0] == asked[1]
    return bool(teacher["n"] == own["n"]) and same and math.isfinite(teacher["accuracy"])


def _card(of_set: str, measure: str, adapter: Mapping[str, Any], teacher: Mapping[str, Any] | None) -> dict[str, str]:
    score = adapter["accuracy"]
    if measure:  # these have no zero from which shares could be taken
        note = "" if teacher is None else f"the teacher's is {teacher['accuracy']:.3f}"
        name = {"clip": "CLIP score"}.get(measure, measure)
        return _named(name, of_set, f"{score:.3f}", note, f"{name} {score:.3f}")
    if teacher is None or teacher["accuracy"] <= 0:
        of = "of the attributes shown"
        return _named(of, of_set, f"{score:.1%}", "", f"{score:.1%} {of}")
    note, share = f"{score:.3f} of {teacher['accuracy']:.3f}", f"{score / teacher['accuracy']:.0%}"
    return _named("of the teacher's score", of_set, share, note, f"{share} of the teacher's score")


def _named(of: str, of_set: str, value: str, note: str, said: str) -> dict[str, str]:
    return {"value": value, "label": f"{of}, {of_set}", "note": note, "said": f"{said} ({of_set})"}


def headline(
    cards: Sequence[Mapping[str, str]], languages: Sequence[str], teacher: str, *, num_images: int, scored: bool
) -> str:
    """The page's first sentence; `scored`: whether anything was, the adapter or not."""
    start = f"An adapter from {listed(languages)} to {teacher}: "
    if cards:
        return f"{start}{', '.join(card['said'] for card in cards)}."
    if scored:
        return f"{start}its own images have no scores."
    if num_images:
        return f"{start}{count_of(num_images, 'image')} drawn, and nothing has scored them."
    return f"{start}no evaluation of it is finished."


def listed(names: Sequence[str]) -> str:
    """``zh``, ``zh and ja``, ``zh, ja and ko``."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
