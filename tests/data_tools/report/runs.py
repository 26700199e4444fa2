"""Run folders of every kind, and the pages that are made of them."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_tools.report import page as report
from data_tools.report.rows import COLUMNS
from pea.config import Config, EvaluateConfig

SETTINGS = {"num_prompts": 2, "num_inference_steps": 16, "guidance_scale": 2.0, "seed": 0}


def mean_of(value: float, n: int = 2) -> dict[str, Any]:
    return {"accuracy": value, "low": value - 0.25, "high": value + 0.25, "n": n}


def score_of(value: float, n: int = 2, **parts: Mapping[str, float]) -> dict[str, Any]:
    named = {kind: {name: mean_of(each) for name, each in values.items()} for kind, values in parts.items()}
    return {"mean": mean_of(value, n), **named, "settings": SETTINGS}


def page_of(
    config: Config,
    folder: Path,
    *,
    drawn: Mapping[str, Sequence[str]] | None = None,
    details: Mapping[str, Any] | None = None,
    prompt_set: str = "general",
    captions: Mapping[str, str] | None = None,
    size_px: int = 16,
    recorded: Sequence[str] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    scores: Mapping[str, Mapping[str, float]] | None = None,
    **changes: Any,
) -> str:
    """The page of a run folder with these images (row -> prompt ids) and scores, of two prompts in one set.

    Args:
        config: of the run.
        folder: the run's.
        drawn: row -> ids of the prompts that have an image.
        details: scores by name, as `metrics.json` has them.
        prompt_set: name of the only set.
        captions: of each prompt, its number is put behind them.
        size_px: of the images.
        recorded: the rows whose images `metrics.json` knows of; by default all that are drawn.
        settings: row -> what its images were drawn with, beside `SETTINGS`.
        scores: row -> id -> score of a CLIP; by default a judge's.
        changes: of the configuration.
    """
    captions = captions or {"zh": "一只猫", "en": "a cat <b>", "translation_zh": "one animal cat"}
    prompts = [{"id": f"p{n}", "captions": {k: f"{v}{n}" for k, v in captions.items()}} for n in range(2)]
    folder.mkdir(exist_ok=True)
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)), encoding="utf-8")
    drawn = {row: ["p0", "p1"] for row in COLUMNS} if drawn is None else drawn
    for row, ids in drawn.items():
        images = folder / "evaluate" / row / prompt_set
        images.mkdir(parents=True)
        for number, name in enumerate((*ids, "grid")):
            pixels = np.random.default_rng(number).integers(0, 255, (size_px, size_px, 3), np.uint8)
            Image.fromarray(pixels).save(images / f"{name}.png")
        if scores is None:
            lines = [{"id": name, "accuracy": 0.5 if row == "adapter" else 1.0} for name in ids]
        else:
            lines = [{"id": name, "clip": value} for name, value in scores.get(row, {}).items()]
        (images / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    drawings = {
        f"{row}/{prompt_set}": _settings(row, prompt_set, settings or {})
        for row in (drawn if recorded is None else recorded)
    }
    metrics = {"details": details or {}, "drawings": drawings}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    evaluate = EvaluateConfig(prompts={prompt_set: folder / "prompts.jsonl"})
    update = {"run_dir": folder, "cache_root": folder / "no-cache", "evaluate": evaluate, **changes}
    return report.write_report(config.model_copy(update=update)).read_text("utf-8")


def _settings(row: str, prompt_set: str, more: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return SETTINGS | {"row": row, "prompt_set": prompt_set} | more.get(row, {})


def said_by(page: str) -> str:
    """What a reader sees."""
    body = re.sub(r"<(style|script).*?</\1>", " ", page, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())
