"""Pictures side by side: prompts of every kind first, then those at which the adapter fell furthest behind."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_tools.report.pictures import shown_picture
from data_tools.report.rows import COLUMNS, MEASURES, label, style
from pea.config import Config
from pea.evaluation.metrics import CONCEPT
from pea.evaluation.prompts import Prompt
from pea.evaluation.record import PROMPT_SCORES, Settings
from pea.foreign_text import file_name

PROMPTS_SHOWN = 8
FAILURES_SHOWN = 4


def example_groups(
    config: Config, sets: Mapping[str, Sequence[Prompt]], drawings: Mapping[str, Settings]
) -> list[dict[str, Any]]:
    """The examples of each prompt set that was drawn; `drawings`: what `metrics.json` says of `row/prompt set`.

    Images that a former evaluation left are not shown: they were drawn with other settings.
    """
    groups = [_group(config, name, prompts, drawings) for name, prompts in sets.items()]
    return [group for group in groups if group["rows"]]


def num_images(config: Config, name: str, prompts: Sequence[Prompt], drawings: Mapping[str, Settings]) -> int:
    """Images of a prompt set, also of rows that the page does not show side by side."""
    rows = [each.removesuffix(f"/{name}") for each in drawings if each.endswith(f"/{name}")]
    return sum(len(_pictures(config.run_dir / "evaluate" / row / name, prompts)) for row in rows)


def _group(config: Config, name: str, prompts: Sequence[Prompt], drawings: Mapping[str, Settings]) -> dict[str, Any]:
    folder = config.run_dir / "evaluate"
    rows = [row for row in COLUMNS if f"{row}/{name}" in drawings]
    drawn = {row: _pictures(folder / row / name, prompts) for row in rows}
    rows = [row for row in rows if drawn[row]]
    there = [prompt for prompt in prompts if any(prompt.id in drawn[row] for row in rows)]
    scores = {row: _prompt_scores(config, row, name) for row in ("teacher", "adapter") if row in rows}
    chosen = varied(there)[:PROMPTS_SHOWN]
    behind = [prompt for prompt in furthest_behind(there, scores) if prompt not in chosen][:FAILURES_SHOWN]
    return {
        "title": f"{name} prompts",
        "shown": _shown(len(chosen), there),
        "columns": [{"label": label(row), "style": style(row)} for row in rows],
        "rows": [_example(config, prompt, rows, drawn) for prompt in chosen],
        "failures": [_example(config, prompt, rows, drawn) for prompt in behind],
        "beside": "least beside the teacher's" if scores.get("teacher") else "least",
    }


def _shown(count: int, there: Sequence[Prompt]) -> str:
    """Which prompts these are."""
    kinds = ", one of each kind first" if len({_kind(prompt) for prompt in there}) < len(there) else ""
    if count == len(there):
        return "The only prompt that was drawn." if count == 1 else f"All {count} that were drawn{kinds}."
    return f"{count} of {len(there):,}{kinds or ', the first ones'}."


def _example(
    config: Config, prompt: Prompt, rows: Sequence[str], drawn: Mapping[str, Mapping[str, Path]]
) -> dict[str, Any]:
    """A prompt with its texts, and a picture a row; null: this row was not drawn for this prompt."""
    language, source = config.student.languages[0], config.corpora.parallel.source_language
    text = prompt.captions.get(language, "")
    pictures = [
        {
            "row": label(row),
            "style": style(row),
            "alt": f"{label(row)}: {text}",
            "file": drawn[row][prompt.id].relative_to(config.run_dir).as_posix(),
            **shown_picture(drawn[row][prompt.id]),
        }
        if prompt.id in drawn[row]
        else None
        for row in rows
    ]
    return {
        "prompt": text,
        "translation": prompt.captions.get(f"translation_{language}", "") if "translation" in rows else "",
        "english": prompt.captions.get(source, "") if source != language else "",
        "pictures": pictures,
    }


def _pictures(folder: Path, prompts: Sequence[Prompt]) -> dict[str, Path]:
    """Id of each prompt that was drawn -> its picture."""
    paths = {prompt.id: folder / f"{file_name(prompt.id)}.png" for prompt in prompts}
    return {name: path for name, path in paths.items() if path.is_file()}


def scored_ids(config: Config, row: str, name: str) -> list[str]:
    """Of the prompts that a row was scored on, in order; empty where that is not known."""
    return [line["id"] for line in _score_lines(config, row, name)]


def _score_lines(config: Config, row: str, name: str) -> list[dict[str, Any]]:
    path = config.run_dir / "evaluate" / row / name / PROMPT_SCORES
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def _prompt_scores(config: Config, row: str, name: str) -> dict[str, float]:
    """Id of each prompt -> what its image scored; the judge's accuracy where there is one, else the first scorer's."""
    lines = _score_lines(config, row, name)
    measure = next((each for each in ("accuracy", *MEASURES) if any(each in line for line in lines)), "")
    return {line["id"]: line[measure] for line in lines if math.isfinite(line.get(measure, math.nan))}


def varied(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The first prompt of each concept (or first attribute), in order, then the others."""
    first: dict[str, Prompt] = {}
    for prompt in prompts:
        first.setdefault(_kind(prompt), prompt)
    chosen = list(first.values())
    return chosen + [prompt for prompt in prompts if prompt not in chosen]


def _kind(prompt: Prompt) -> str:
    attributes = prompt.attributes
    return prompt.concept or attributes.get(CONCEPT) or next(iter(attributes.values()), prompt.id)


def furthest_behind(prompts: Sequence[Prompt], scores: Mapping[str, Mapping[str, float]]) -> list[Prompt]:
    """Prompts whose image by the adapter scored less than the teacher's (without it: than its best), worst first."""
    own, teacher = scores.get("adapter", {}), scores.get("teacher", {})
    best = max(own.values(), default=0.0)
    gaps = {name: (teacher.get(name, value) if teacher else best) - value for name, value in own.items()}
    behind = [prompt for prompt in prompts if gaps.get(prompt.id, 0.0) > 0]
    return sorted(behind, key=lambda prompt: -gaps[prompt.id])
