"""Pictures side by side: prompts of every kind first, then those at which the adapter fell furthest behind."""

from __future__ import annotations

import json
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


def _group(config: Config, name: str, prompts: Sequence[Prompt], drawings: Mapping[str, Settings]) -> dict[str, Any]:
    folder = config.run_dir / "evaluate"
    rows = [row for row in COLUMNS if f"{row}/{name}" in drawings]
    drawn = {row: _pictures(folder / row / name, prompts) for row in rows}
    rows = [row for row in rows if drawn[row]]
    there = [prompt for prompt in prompts if any(prompt.id in drawn[row] for row in rows)]
    scores = {row: _prompt_scores(folder / row / name) for row in ("teacher", "adapter") if row in rows}
    chosen = varied(there)[:PROMPTS_SHOWN]
    behind = [prompt for prompt in furthest_behind(there, scores) if prompt not in chosen][:FAILURES_SHOWN]
    return {
        "title": f"{name} prompts",
        "count": len(there),
        "num_images": sum(len(_pictures(folder / row / name, prompts)) for row in _rows_of(name, drawings)),
        "columns": [{"label": label(row), "style": style(row)} for row in rows],
        "rows": [_example(config, prompt, rows, drawn) for prompt in chosen],
        "failures": [_example(config, prompt, rows, drawn) for prompt in behind],
    }


def _rows_of(name: str, drawings: Mapping[str, Settings]) -> list[str]:
    """Every row that was drawn on a prompt set, also those that the page does not show side by side."""
    return [each.removesuffix(f"/{name}") for each in drawings if each.endswith(f"/{name}")]


def _example(
    config: Config, prompt: Prompt, rows: Sequence[str], drawn: Mapping[str, Mapping[str, Path]]
) -> dict[str, Any]:
    """A prompt with its texts, and a picture a row; null: this row was not drawn for this prompt."""
    language = config.student.languages[0]
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
        "english": prompt.captions.get(config.corpora.parallel.source_language, ""),
        "pictures": pictures,
    }


def _pictures(folder: Path, prompts: Sequence[Prompt]) -> dict[str, Path]:
    """Id of each prompt that was drawn -> its picture."""
    paths = {prompt.id: folder / f"{file_name(prompt.id)}.png" for prompt in prompts}
    return {name: path for name, path in paths.items() if path.is_file()}


def _prompt_scores(folder: Path) -> dict[str, float]:
    """Id of each prompt -> what its image scored; the judge's accuracy where there is one, else the first scorer's."""
    path = folder / PROMPT_SCORES
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []
    names = ("accuracy", *MEASURES)
    return {line["id"]: next((line[name] for name in names if name in line), 0.0) for line in lines}


def varied(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The first prompt of each concept (or first attribute), in order, then the others."""
    first: dict[str, Prompt] = {}
    for prompt in prompts:
        attributes = prompt.attributes
        first.setdefault(attributes.get(CONCEPT) or next(iter(attributes.values()), prompt.id), prompt)
    chosen = list(first.values())
    return chosen + [prompt for prompt in prompts if prompt not in chosen]


def furthest_behind(prompts: Sequence[Prompt], scores: Mapping[str, Mapping[str, float]]) -> list[Prompt]:
    """The prompts whose image by the adapter scored less than the teacher's (than all, without it), the worst first."""
    own, best = scores.get("adapter", {}), scores.get("teacher", {})
    gaps = {prompt.id: best.get(prompt.id, 1.0) - own[prompt.id] for prompt in prompts if prompt.id in own}
    behind = [prompt for prompt in prompts if gaps.get(prompt.id, 0.0) > 0]
    return sorted(behind, key=lambda prompt: -gaps[prompt.id])
