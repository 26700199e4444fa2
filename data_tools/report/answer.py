"""What the report says first: how much of the teacher's score the adapter reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_tools.report.rows import MEASURES, split_score
from pea.plurals import count_of


def answers(details: Mapping[str, Mapping[str, Any]], sets: Sequence[str]) -> list[dict[str, str]]:
    """One card a prompt set and measure that the adapter was scored by: `value`, `label` and `note`."""
    found = {split_score(name): detail for name, detail in details.items()}
    cards = []
    for prompt_set in sets:
        scored = [measure for measure in MEASURES if ("adapter", prompt_set, measure) in found]
        shown = [measure for measure in scored if measure in ("", "clip")] or scored[:1]
        for measure in shown:
            adapter = found["adapter", prompt_set, measure]["mean"]
            cards.append(_card(prompt_set, measure, adapter, _comparable(found, prompt_set, measure)))
    return cards


def _comparable(
    found: Mapping[tuple[str, str, str], Mapping[str, Any]], prompt_set: str, measure: str
) -> Mapping[str, Any] | None:
    """The teacher's score of the same prompts; None where there is none of as many."""
    teacher, adapter = found.get(("teacher", prompt_set, measure)), found["adapter", prompt_set, measure]
    return teacher["mean"] if teacher is not None and teacher["mean"]["n"] == adapter["mean"]["n"] else None


def _card(
    prompt_set: str, measure: str, adapter: Mapping[str, Any], teacher: Mapping[str, Any] | None
) -> dict[str, str]:
    score = adapter["accuracy"]
    if measure:  # these have no zero from which shares could be taken
        note = "" if teacher is None else f"the teacher's is {teacher['accuracy']:.3f}"
        return _named("CLIP score" if measure == "clip" else measure, prompt_set, f"{score:.3f}", note)
    if teacher is None or teacher["accuracy"] <= 0:
        return _named("of the attributes shown", prompt_set, f"{score:.1%}", "")
    note = f"{score:.3f} of {teacher['accuracy']:.3f}"
    return _named("of the teacher's score", prompt_set, f"{score / teacher['accuracy']:.0%}", note)


def _named(of: str, prompt_set: str, value: str, note: str) -> dict[str, str]:
    return {"value": value, "label": f"{of}, {prompt_set} prompts", "note": note, "of": of, "set": prompt_set}


def headline(cards: Sequence[Mapping[str, str]], languages: Sequence[str], teacher: str, num_images: int) -> str:
    """The page's first sentence."""
    named = " and ".join(languages)
    if not cards:
        scored = (
            f"{count_of(num_images, 'image')} drawn, and nothing has scored them"
            if num_images
            else "nothing was drawn yet"
        )
        return f"An adapter from {named} to {teacher}: {scored}."
    shares = ", ".join(f"{card['value']} {card['of']} ({card['set']} prompts)" for card in cards)
    return f"With {named} prompts, {teacher} reaches {shares}."
