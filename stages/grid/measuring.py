"""Scores of a grid's images: one row an image and scorer in a Parquet file, which a later call goes on with."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from pea.config import Config
from pea.evaluation.drawing import Images
from pea.evaluation.judge import Judge, load_judge
from pea.evaluation.metrics import score
from pea.evaluation.prompts import Prompt
from pea.evaluation.record import weights_digest
from pea.evaluation.scorers.choice import load_scorers
from pea.evaluation.scorers.clip_score import ClipScorer
from pea.evaluation.scorers.scorer import Scorer
from pea.storage import Location
from pea.storage.digests import canonical_json
from stages.command.console import Console
from stages.command.progress import StageProgress
from stages.grid.images import Drawing, GridImage, read_images
from stages.score_settings import JUDGE
from stages.scoring import texts_for

_AT_ONCE = 128
"""Images in memory at a time."""
Line = dict[str, Any]


class Measure(Protocol):
    """What gives an image a number."""

    name: str
    digest: str

    def texts(self, prompts: Sequence[Prompt]) -> list[str | None]:
        """What the image of each prompt is compared with; None where the prompt has no such thing."""

    def score(self, images: Images, texts: Sequence[str]) -> NDArray[np.float32]:
        """A number for each image."""


class _ByScorer:
    def __init__(self, scorer: Scorer, native: str, english: str) -> None:
        self.name, self.digest, self._scorer, self._languages = scorer.name, scorer.digest, scorer, (native, english)

    def texts(self, prompts: Sequence[Prompt]) -> list[str | None]:
        return texts_for(self._scorer, list(prompts), *self._languages)

    def score(self, images: Images, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._scorer.score(images, texts)


class _ByJudge:
    """The share of a prompt's attributes that its image shows."""

    name = JUDGE

    def __init__(self, judge: Judge, folder: Path) -> None:
        self._judge, self.digest = judge, weights_digest(folder, "*")

    def texts(self, prompts: Sequence[Prompt]) -> list[str | None]:
        return [canonical_json(prompt.attributes) if prompt.attributes else None for prompt in prompts]

    def score(self, images: Images, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array(score([json.loads(text) for text in texts], self._judge.read(images)).prompts, np.float32)


def load_measures(config: Config, device: torch.device) -> list[Measure]:
    """Judge, CLIP and scorers that the configuration gives.

    Raises:
        CheckpointError: one is missing, incomplete or of another kind.
    """
    evaluate = config.evaluate
    scorers: list[Scorer] = [ClipScorer.from_pretrained(evaluate.clip, device)] if evaluate.clip else []
    scorers += load_scorers(evaluate.scorers, device)
    languages = config.student.languages[0], config.corpora.parallel.source_language
    found: list[Measure] = [_ByScorer(scorer, *languages) for scorer in scorers]
    return ([_ByJudge(load_judge(evaluate.judge), evaluate.judge)] if evaluate.judge else []) + found


def measure_all(path: Path, console: Console, drawings: Sequence[Drawing], measures: Sequence[Measure]) -> list[Line]:
    """Score every image by every measure, and keep the rows in `path`; rows that are there and hold are taken over."""
    kept = {_key(line): line for line in read_lines(path)}
    former = {key: line["score"] for key, line in kept.items()}
    wanted = len(measures) * sum(len(drawing.images) for drawing in drawings)
    lines: list[Line] = []
    with StageProgress(console, "scoring", "scores") as progress:
        for measure in measures:
            for drawing in drawings:
                new = _measured(drawing, measure, former)
                if any(_key(line) not in kept for line in new):  # a call that ends here loses no score
                    kept |= {_key(line): line for line in new}
                    write_lines(path, list(kept.values()))
                lines += new
                progress.update(len(lines), wanted, len(lines), f"{measure.name}, {drawing.variant.name}")
    if lines:
        write_lines(path, lines)
    return lines


def _measured(drawing: Drawing, measure: Measure, former: dict[tuple[str, ...], float]) -> list[Line]:
    texts = measure.texts([image.prompt for image in drawing.images])
    lines = [
        _line(drawing, image, measure, text)
        for image, text in zip(drawing.images, texts, strict=True)
        if text is not None
    ]
    images = {image.digest: image for image in drawing.images}
    missing = [line for line in lines if _key(line) not in former]
    for start in range(0, len(missing), _AT_ONCE):
        part = missing[start : start + _AT_ONCE]
        pixels = read_images([images[line["image_digest"]] for line in part])
        for line, value in zip(part, measure.score(pixels, [line["text"] for line in part]), strict=True):
            former[_key(line)] = float(value)
    return [line | {"score": former[_key(line)]} for line in lines]


def _key(line: Line) -> tuple[str, ...]:
    return line["image_digest"], line["scorer"], line["scorer_digest"], line["text"]


def _line(drawing: Drawing, image: GridImage, measure: Measure, text: str) -> Line:
    settings, variant = drawing.settings, drawing.variant
    return {
        "variant": variant.name,
        "row": variant.row,
        "checkpoint": variant.checkpoint,
        "sampler": variant.sampler,
        "scheduler": variant.scheduler,
        "num_inference_steps": variant.num_inference_steps,
        "guidance_scale": variant.guidance_scale,
        "prompt_set": drawing.prompt_set,
        "prompt_id": image.prompt.id,
        "group": image.prompt.group,
        "language": image.language,
        "caption": image.caption,
        "seed": settings["seed"],
        "image_seed": image.seed,
        "image": f"{variant.name}/{drawing.prompt_set}/{image.path.name}",
        "image_digest": image.digest,
        "prompts_digest": settings["prompts"],
        "checkpoint_digest": settings["teacher"],
        "adapter_digest": settings.get("adapter"),
        "lora_digest": settings.get("lora"),
        "scorer": measure.name,
        "scorer_digest": measure.digest,
        "text": text,
    }


def read_lines(path: Path) -> list[Line]:
    """The rows of a file of scores; none where it is missing or unreadable."""
    try:
        rows: list[Line] = pq.read_table(path, partitioning=None).to_pylist()
        for row in rows:
            _key(row), float(row["score"])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError):
        return []
    return rows


def write_lines(path: Path, lines: Sequence[Line]) -> None:
    """Replace the file as a whole."""
    data = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(lines)), data)
    Location.parse(path).write_bytes(data.getvalue())
