"""Draw the held-out prompts four ways and let the judge read the images.

    pea eval --config configs/demo.yaml

Rows: `teacher` (English captions: the upper bound), `translation` (word-for-word English of the native caption),
`no_adapter` (native states through an untrained adapter: the lower bound), `adapter`. All start from the same noise;
`evaluate.rows` leaves some out, and by default so does a prompt set without translations; an adapter of several
languages has a row `adapter_<language>` for each after the first. Every image is kept in
`run_dir/evaluate/<row>/<set>/<prompt id>.png`, beside them what each prompt scored (`scores.jsonl`); scores go to
`run_dir/metrics.json`, each with what it was measured with. A later call with other settings, prompts or weights
drops the scores that it does not measure anew and that no longer compare.

With `evaluate.grid`, several adapters, checkpoints, samplers and numbers of steps are drawn and scored in one call:
`grid.html`, `table.md`, `table.json`, and `scores.parquet` with a row an image and scorer, in `run_dir/evaluate/grid`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pea.collect.overlap import map_in_threads
from pea.config import Config, EvaluateConfig
from pea.cpu import shared_threads
from pea.errors import EvaluationError
from pea.evaluation.base_model import check_base_model
from pea.evaluation.drawing import Drawer, Images, image_seed, save_grid, save_picture
from pea.evaluation.prompts import Prompt, read_prompts, texts_in
from pea.evaluation.record import ScoreRecord, Settings, differences
from pea.file_names import CACHE_SUMMARY, METRICS, TRAIN_SUMMARY
from pea.foreign_text import file_name
from pea.models.adapter import PEA
from pea.models.conditioning import Conditioning
from pea.models.encoders.pair import load_encoder
from pea.models.encoders.traits import recorded_reading
from pea.models.english import EnglishEncoder
from pea.models.unet import unet_config
from pea.pipeline import PEAPrompt
from pea.storage import Location
from pea.storage.temporaries import clear_old_temporaries
from stages.command.common import stage_main
from stages.command.console import Console
from stages.command.device import pick_device
from stages.command.progress import StageProgress
from stages.grid.run import run_grid
from stages.score_settings import ScoreSettings
from stages.scoring import Scoring
from stages.training.start import initial_adapter

Encode = Callable[[Sequence[str]], Conditioning]
_NO_PROMPTS = "`pea data prompts` copies some in zh, ja, ko, ru and it; write others in the same form."
ROWS = ("teacher", "translation", "no_adapter", "adapter")


@dataclass(frozen=True)
class Row:
    """One way to draw a prompt."""

    name: str
    language: str
    """Name of the caption that is read."""
    encode: Encode


def run(config: Config, console: Console) -> dict[str, Any]:
    """Draw every row on every prompt set; returns the metrics that were added to `metrics.json`.

    With neither a judge nor a scorer, images are drawn and nothing is scored.

    Raises:
        EvaluationError: there are no prompts, or none has the captions that a row reads.
        CheckpointError: a model folder is missing, or there is no trained adapter yet.
    """
    evaluate = config.evaluate
    if not evaluate.prompts:
        raise EvaluationError(
            "nothing to evaluate", where="evaluate.prompts", expected="general: FILE.jsonl, ...", remedy=_NO_PROMPTS
        )
    clear_old_temporaries(Location.parse(config.run_dir))
    clear_old_temporaries(Location.parse(config.run_dir / "evaluate"), recursive=True)
    if evaluate.grid is not None:
        return run_grid(config, console)
    device = pick_device(evaluate.device, "evaluate.device")
    sets = {name: read_prompts(path, evaluate.max_prompts) for name, path in evaluate.prompts.items()}
    check_translations(config, console, sets)
    rows = make_rows(config, device)
    drawer = Drawer(
        config.teacher.folder,
        device,
        num_inference_steps=evaluate.num_inference_steps,
        guidance_scale=evaluate.guidance_scale,
        scheduler=evaluate.scheduler,
    )
    drawer.load_changes(config.adapter_dir)
    scoring = Scoring(config, device, ScoreSettings(config, sets))
    started = time.perf_counter()
    record = ScoreRecord(config.run_dir / METRICS)
    forget_other_settings(record, scoring.settings, console)
    drawings = _draw_and_score(config, console, drawer, scoring, rows, sets)
    metrics = scoring.metrics() | _costs(config) | {"seconds.evaluate": round(time.perf_counter() - started, 2)}
    record.add(metrics | {"drawings": drawings})
    record.write()
    scoring.show(console)
    return metrics


def forget_other_settings(record: ScoreRecord, settings: ScoreSettings, console: Console) -> None:
    """Drop, and say, the scores that may not stand beside those of the present settings."""
    known = record.details | record.drawings
    gone = record.forget_others(settings.hold)
    if known.keys() != (record.details | record.drawings).keys():
        record.write()  # before their images are overwritten: an evaluation may end half-way
    for name, former in gone.items():
        changes = "; ".join(differences(former, settings.present(former))) if former else "its settings are not known"
        console.print(f"{record.path.name}: the former score {name} is dropped ({changes})")


def _draw_and_score(
    config: Config,
    console: Console,
    drawer: Drawer,
    scoring: Scoring,
    rows: list[Row],
    sets: dict[str, list[Prompt]],
) -> dict[str, Settings]:
    """Draw, keep and score every image; returns what was drawn, `row/prompt set`, and with which settings."""
    drawings = drawings_of(config, console, rows, sets)
    total, done, drawn_with = sum(len(prompts) for _, _, prompts in drawings), 0, {}
    with StageProgress(console, "drawing", "images") as progress:
        for row, name, prompts in drawings:
            drawer.use_changes(wanted=row.name.startswith("adapter"))
            parts = []
            for images in _draw(config, drawer, row, name, prompts):
                done += len(images)
                progress.update(done, total, done, f"{row.name}, {name}")
                parts.append(images)
            drawn = np.concatenate(parts)
            save_images(config.run_dir / "evaluate" / row.name / name, prompts, drawn)
            language = row.language if row.name.startswith("adapter") else config.student.languages[0]
            scoring.add(row.name, name, language, prompts, drawn)
            drawn_with[f"{row.name}/{name}"] = scoring.settings.of_drawing(row.name, name)
    return drawn_with


def check_translations(config: Config, console: Console, sets: dict[str, list[Prompt]]) -> None:
    """Say which prompt sets the row `translation` leaves out, because prompts have no translation.

    `evaluate.rows` as it is by default asks for what can be drawn; any other value names its rows on purpose.

    Raises:
        EvaluationError: `evaluate.rows` names `translation` on purpose.
    """
    evaluate, caption = config.evaluate, f"translation_{config.student.languages[0]}"
    if "translation" not in evaluate.rows:
        return
    for name, prompts in sets.items():
        missing = [prompt.id for prompt in prompts if caption not in prompt.captions]
        if missing and evaluate.rows != EvaluateConfig.model_fields["rows"].default:
            raise EvaluationError(
                "the row `translation` of evaluate.rows cannot be drawn",
                where=evaluate.prompts[name],
                expected=f"a caption {caption} in every prompt",
                got=f"none in {len(missing)} of {len(prompts)}, first {missing[0]}",
                remedy="Add these captions, or leave translation out of evaluate.rows.",
            )
        if missing:
            said = f"{len(missing)} of {len(prompts)} prompts have no caption {caption}"
            console.print(f"row translation, prompts {name}: left out, {said}")


def drawings_of(
    config: Config, console: Console, rows: list[Row], sets: dict[str, list[Prompt]]
) -> list[tuple[Row, str, list[Prompt]]]:
    """What each row draws of each set: the prompts that have the captions it needs. What is left out is said.

    Raises:
        EvaluationError: no prompt of a set has the captions that a row needs, unless it is of a further language.
    """
    main, drawings = config.student.languages[0], []
    for row in rows:
        compared = row.language if row.name.startswith("adapter") else main  # what a CLIP reads
        needed = dict.fromkeys((row.language, compared))
        for name, prompts in sets.items():
            asked = [prompt for prompt in prompts if all(prompt.captions.get(each) for each in needed)]
            if row.name == "translation" and len(asked) < len(prompts):
                continue  # said by check_translations
            if not asked and not row.name.startswith("adapter_"):
                for language in needed:
                    texts_in(prompts, language, config.evaluate.prompts[name])
            if len(asked) < len(prompts):
                missing = f"{len(prompts) - len(asked)} of {len(prompts)} have no caption {' and '.join(needed)}"
                console.print(f"row {row.name}, prompts {name}: {missing}, and are left out")
            if asked:
                drawings.append((row, name, asked))
    return drawings


def make_rows(config: Config, device: torch.device) -> list[Row]:
    """The ways to draw that ``evaluate.rows`` names.

    Raises:
        CheckpointError: a model folder is missing, or there is no trained adapter yet.
    """
    language, wanted = config.student.languages[0], config.evaluate.rows
    rows = {}
    if {"teacher", "translation"}.intersection(wanted):
        english = EnglishEncoder.from_checkpoint(config.teacher.folder, device=device)
        rows["teacher"] = Row("teacher", config.corpora.parallel.source_language, english.encode)
        rows["translation"] = Row("translation", f"translation_{language}", english.encode)
    if {"no_adapter", "adapter"}.intersection(wanted):
        adapter, unet = PEA.load(config.adapter_dir), unet_config(config.teacher.folder)
        check_base_model(adapter, config.teacher.folder)
        reading = recorded_reading(adapter.config)
        encoder = load_encoder(config.student.encoders, device=device, reading=reading)
        untrained = initial_adapter(config, unet, encoder)
        rows["no_adapter"] = Row("no_adapter", language, PEAPrompt(untrained.eval().to(device), encoder).encode)
        rows["adapter"] = Row("adapter", language, PEAPrompt(adapter.to(device), encoder).encode)
    chosen = [rows[name] for name in ROWS if name in wanted]
    if "adapter" in wanted:
        others = config.student.languages[1:]
        chosen += [Row(f"adapter_{language}", language, rows["adapter"].encode) for language in others]
    return chosen


def _draw(config: Config, drawer: Drawer, row: Row, name: str, prompts: list[Prompt]) -> Iterator[Images]:
    """The row's images of one prompt set, in batches of uint8 `[B, H, W, 3]`."""
    texts = texts_in(prompts, row.language, config.evaluate.prompts[name])
    seeds = [image_seed(config.evaluate.seed, prompt.id) for prompt in prompts]
    size, empty = config.evaluate.batch_size, row.encode([""])

    def draw(start: int) -> Images:
        return drawer.draw(row.encode(texts[start : start + size]), empty, seeds[start : start + size])

    starts = range(0, len(texts), size)
    at_once = min(len(starts), torch.get_num_threads()) if drawer.pipe.device.type == "cpu" else 1
    with shared_threads(at_once):  # a core draws a batch by itself faster than it shares one
        yield from map_in_threads(draw, starts, at_once)


def save_images(folder: Path, prompts: list[Prompt], images: Images) -> None:
    """Every image as `<prompt id>.png` (see `file_name`), and all of them in `grid.png`."""
    for prompt, image in zip(prompts, images, strict=True):
        save_picture(folder / f"{file_name(prompt.id)}.png", Image.fromarray(image))
    save_grid(folder / "grid.png", images)


def _costs(config: Config) -> dict[str, Any]:
    """What the stages before this one noted of sizes and times."""
    metrics: dict[str, Any] = {}
    cache, train = (
        _noted(config.cache_dir("parallel") / CACHE_SUMMARY),
        _noted(config.training_dir / TRAIN_SUMMARY),
    )
    if cache:
        metrics["cache.records"] = cache["records"]
        metrics["cache.bytes_per_record"] = round(cache["bytes"] / max(1, cache["records"]), 1)
        culture = _noted(config.cache_dir("culture") / CACHE_SUMMARY)
        metrics["seconds.cache"] = round(cache["seconds"] + culture.get("seconds", 0.0), 2)
    if train:
        metrics["seconds.train"] = train["seconds"]
    return metrics


def _noted(path: Path | Location) -> dict[str, Any]:
    place = Location.parse(path)
    content: dict[str, Any] = json.loads(place.read_text()) if place.exists() else {}
    return content


def main(argv: Sequence[str] | None = None) -> int:
    """Command line."""
    return stage_main(run, __doc__, argv)


if __name__ == "__main__":
    sys.exit(main())
