"""Blind side-by-side rating by people: a self-contained page, and win rates from the files that it saves."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from data_tools.pages import render_page
from data_tools.report.pictures import shown_picture
from data_tools.report.rows import label
from pea.config import Config, Section
from pea.errors import EvaluationError
from pea.evaluation.metrics import Accuracy, grouped_mean
from pea.evaluation.prompts import Prompt, read_prompts
from pea.evaluation.record import ScoreRecord
from pea.file_names import METRICS
from pea.foreign_text import file_name
from pea.plurals import count_of
from pea.storage.digests import canonical_json, sha256_text

_MOST_BYTES = 16 << 20
Choice = Literal["left", "right", "tie"]


class RatingFile(Section):
    """What the page saves: one person's choices."""

    page: str = Field(min_length=64, max_length=64)
    """Which page: a digest of its pairs."""
    rows: tuple[str, str]
    prompt_set: str
    seed: int
    rater: str = Field(default="", max_length=200)
    choices: dict[str, Choice] = Field(max_length=100_000)
    """Prompt id -> the better picture."""
    concepts: dict[str, str] = Field(default_factory=dict, max_length=100_000)
    """Prompt id -> what several prompts ask for."""


@dataclass(frozen=True)
class WinRate:
    """How often one row was preferred over another; a tie counts half."""

    rows: tuple[str, str]
    prompt_set: str
    wins: int
    ties: int
    losses: int
    rate: Accuracy
    """Of the first row; prompts (or concepts) are the independent draws, however many people rated each."""


def first_is_left(seed: int, prompt_id: str) -> bool:
    """On which side the first row's picture stands; each side as often, and nothing on the page tells."""
    return hashlib.sha256(f"{seed}/{prompt_id}".encode()).digest()[0] % 2 == 0


def rating_page(config: Config, rows: tuple[str, str], prompt_set: str, *, seed: int, limit: int | None = None) -> str:
    """The page's HTML for two rows of a prompt set that `pea eval` has drawn with the same settings.

    Raises:
        EvaluationError: there is no such prompt set or row, the pictures are of different settings, or none is there.
    """
    if prompt_set not in config.evaluate.prompts:
        known = ", ".join(config.evaluate.prompts)
        remedy = "Name one with --set." if known else "Name a file of prompts there: evaluate.prompts={general: FILE}."
        raise EvaluationError(
            "no such prompt set", where="evaluate.prompts", expected=known or None, got=prompt_set, remedy=remedy
        )
    _check_drawn(config, rows, prompt_set)
    prompts = read_prompts(config.evaluate.prompts[prompt_set], config.evaluate.max_prompts)
    pairs = [(prompt, _pictures(config, rows, prompt_set, prompt)) for prompt in prompts]
    drawn = [(prompt, paths) for prompt, paths in pairs if all(path.is_file() for path in paths)]
    drawn.sort(key=lambda pair: hashlib.sha256(f"{seed}/order/{pair[0].id}".encode()).digest())
    if not drawn:
        raise EvaluationError("nothing to rate", where=config.run_dir / "evaluate", remedy="Run `pea eval` first.")
    items = [_item(config, seed, prompt, paths) for prompt, paths in drawn[:limit]]
    facts = {"rows": rows, "prompt_set": prompt_set, "seed": seed}
    page = sha256_text(canonical_json(facts | {"pairs": [[item["id"], item["left"], item["right"]] for item in items]}))
    concepts = {prompt.id: prompt.group for prompt, _ in drawn[:limit]}
    return render_page(
        "report/page_rating.html",
        title=f"Which picture fits better? {count_of(len(items), 'pair')}, {prompt_set} prompts",
        lead="Left and right are in random order. Keys: ← left, → right, ↓ no difference, backspace goes back.",
        cards=[],
        language=config.student.languages[0],
        items=items,
        facts=facts | {"page": page, "concepts": concepts},
        compared=" and ".join(label(row) for row in rows),
    )


def _check_drawn(config: Config, rows: tuple[str, str], prompt_set: str) -> None:
    drawings = ScoreRecord(config.run_dir / METRICS).drawings
    missing = [row for row in rows if f"{row}/{prompt_set}" not in drawings]
    if missing:
        known = ", ".join(name.split("/")[0] for name in drawings if name.endswith(f"/{prompt_set}"))
        raise EvaluationError(
            f"not drawn: {', '.join(missing)}",
            where=config.run_dir / METRICS,
            expected=f"two of {known}" if known else None,
            remedy="Run `pea eval` with these rows first.",
        )
    own = ("row", "adapter", "encoders")
    settings = [{k: v for k, v in drawings[f"{row}/{prompt_set}"].items() if k not in own} for row in rows]
    if settings[0] != settings[1]:
        raise EvaluationError("the two rows were drawn with different settings", where=config.run_dir / METRICS)


def _pictures(config: Config, rows: tuple[str, str], prompt_set: str, prompt: Prompt) -> tuple[Path, Path]:
    first, second = (config.run_dir / "evaluate" / row / prompt_set / f"{file_name(prompt.id)}.png" for row in rows)
    return first, second


def _item(config: Config, seed: int, prompt: Prompt, paths: tuple[Path, Path]) -> dict[str, Any]:
    """What is asked of a pair; no English where it is what the prompt is in."""
    language, source = config.student.languages[0], config.corpora.parallel.source_language
    left, right = paths if first_is_left(seed, prompt.id) else reversed(paths)
    return {
        "id": prompt.id,
        "prompt": prompt.captions.get(language, ""),
        "english": prompt.captions.get(source, "") if source != language else "",
        "left": shown_picture(left)["image"],
        "right": shown_picture(right)["image"],
    }


def win_rates(paths: Sequence[Path]) -> list[WinRate]:
    """The win rates of all files, one for each page's rows and prompt set.

    Raises:
        EvaluationError: a file is no rating, or holds no choice.
    """
    files = [read_rating(path) for path in paths]
    kinds = dict.fromkeys((each.rows, each.prompt_set) for each in files)
    return [_win_rate([each for each in files if (each.rows, each.prompt_set) == kind]) for kind in kinds]


def read_rating(path: Path) -> RatingFile:
    """One person's choices.

    Raises:
        EvaluationError: it cannot be read, is none, or holds no choice.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"larger than {_MOST_BYTES >> 20} MB")
        found = RatingFile.model_validate_json(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, ValueError, ValidationError) as error:
        got = _first(error) if isinstance(error, ValidationError) else str(error).splitlines()[0]
        raise EvaluationError("not a file of ratings", where=path, expected="what the page saved", got=got) from None
    if not found.choices:
        raise EvaluationError("no choice in this file", where=path)
    return found


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, and where."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def _win_rate(files: Sequence[RatingFile]) -> WinRate:
    values: list[float] = []
    groups: list[str] = []
    for each in files:
        for name, choice in each.choices.items():
            values.append(_value(choice, first_is_left=first_is_left(each.seed, name)))
            groups.append(each.concepts.get(name, name))
    first = files[0]
    counts: Mapping[float, int] = {value: values.count(value) for value in (0.0, 0.5, 1.0)}
    return WinRate(first.rows, first.prompt_set, counts[1.0], counts[0.5], counts[0.0], grouped_mean(values, groups))


def _value(choice: Choice, *, first_is_left: bool) -> float:
    """1 where the first row was preferred."""
    return 0.5 if choice == "tie" else float((choice == "left") == first_is_left)


def as_json(rates: Sequence[WinRate]) -> str:
    """For programs."""
    found = [
        {
            "rows": each.rows,
            "prompt_set": each.prompt_set,
            "wins": each.wins,
            "ties": each.ties,
            "losses": each.losses,
            "rate": each.rate.as_dict(),
        }
        for each in rates
    ]
    return json.dumps(found, indent=2, ensure_ascii=False)
