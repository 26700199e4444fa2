"""The images of a grid: what each is drawn from, and where it is kept; what is there already is not drawn again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pea.config import Config
from pea.errors import EvaluationError
from pea.evaluation.drawing import Images, image_seed, save_image
from pea.evaluation.prompts import Prompt
from pea.evaluation.record import Settings, prompts_digest
from pea.foreign_text import file_name
from pea.models.english import EnglishEncoder
from pea.storage.digests import canonical_json, sha256_text
from stages.command.console import Console
from stages.command.progress import StageProgress
from stages.grid.models import GridModels
from stages.grid.variants import Variant


@dataclass(frozen=True)
class GridImage:
    """One image, drawn or to be drawn."""

    variant: Variant
    prompt_set: str
    prompt: Prompt
    language: str
    """Of the caption that it is drawn from."""
    seed: int
    digest: str
    """sha256 of all that it is drawn with."""
    path: Path

    @property
    def caption(self) -> str:
        """What it is drawn from."""
        return self.prompt.captions[self.language]


@dataclass(frozen=True)
class Drawing:
    """One variant on one prompt set."""

    variant: Variant
    prompt_set: str
    settings: Settings
    images: list[GridImage]


def drawings_of(
    config: Config,
    console: Console,
    variants: Sequence[Variant],
    sets: Mapping[str, list[Prompt]],
    models: GridModels,
) -> list[Drawing]:
    """What each variant draws of each set; prompts without the caption that it reads are left out, which is said.

    Raises:
        EvaluationError: a variant has nothing to draw.
    """
    found: list[Drawing] = []
    said: set[tuple[str, str]] = set()
    for variant in variants:
        own = [_drawing(config, variant, name, prompts, models) for name, prompts in sets.items()]
        for drawing in own:
            left_out = len(sets[drawing.prompt_set]) - len(drawing.images)
            if left_out and (variant.row, drawing.prompt_set) not in said:
                said.add((variant.row, drawing.prompt_set))
                console.print(
                    f"row {variant.row}, prompts {drawing.prompt_set}: {left_out} of {len(sets[drawing.prompt_set])} "
                    "have no caption that it reads, and are left out"
                )
        drawn = [drawing for drawing in own if drawing.images]
        if not drawn and _is_wanted(config, variant):
            got = ", ".join(sorted({name for prompts in sets.values() for each in prompts for name in each.captions}))
            raise EvaluationError(
                f"no prompt has a caption that {variant.row} reads", where="evaluate.prompts", got=f"captions {got}"
            )
        found += drawn
    return found


def _is_wanted(config: Config, variant: Variant) -> bool:
    """The row `translation` is left out unsaid where `evaluate.rows` is as it is by default."""
    return variant.row != "translation" or config.evaluate.rows != type(config.evaluate).model_fields["rows"].default


def _drawing(
    config: Config, variant: Variant, prompt_set: str, prompts: Sequence[Prompt], models: GridModels
) -> Drawing:
    language = _language(config, variant, prompts, models)
    drawn_with = {
        "row": variant.row,
        "num_inference_steps": variant.num_inference_steps,
        "guidance_scale": variant.guidance_scale,
        "scheduler": variant.scheduler,
        "seed": config.evaluate.seed,
        "teacher": models.digests[f"checkpoint {variant.checkpoint}"],
    }
    if variant.has_adapter:
        drawn_with["adapter"] = models.digests[f"adapter {variant.row}"]
    if variant.lora is not None:
        drawn_with["lora"] = models.digests[f"lora {variant.lora}"]
    asked = [prompt for prompt in prompts if prompt.captions.get(language)]
    folder = config.run_dir / "evaluate" / "grid" / variant.name / prompt_set
    images = []
    for prompt in asked:
        seed = image_seed(config.evaluate.seed, prompt.id)
        digest = sha256_text(canonical_json([drawn_with, prompt.id, language, prompt.captions[language]]))
        path = folder / f"{file_name(prompt.id)}-{digest[:12]}.png"
        images.append(GridImage(variant, prompt_set, prompt, language, seed, digest, path))
    settings = drawn_with | {
        "checkpoint": variant.checkpoint,
        "sampler": variant.sampler,
        "prompt_set": prompt_set,
        "prompts": prompts_digest(prompts),
        "num_prompts": len(prompts),
        "language": language,
    }
    return Drawing(variant, prompt_set, settings, images)


def _language(config: Config, variant: Variant, prompts: Sequence[Prompt], models: GridModels) -> str:
    main = config.student.languages[0]
    if not variant.has_adapter:
        english = config.corpora.parallel.source_language
        return english if variant.row == "teacher" else f"translation_{main}"
    languages = models.languages_of(variant.row) or config.student.languages
    there = [name for name in languages if any(prompt.captions.get(name) for prompt in prompts)]
    return there[0] if there else languages[0]


def draw_missing(config: Config, console: Console, drawings: Sequence[Drawing], models: GridModels) -> int:
    """Draw what is not there yet, checkpoint by checkpoint; returns how many images that were."""
    missing = [image for drawing in drawings for image in drawing.images if not image.path.is_file()]
    total, done = len(missing), 0
    with StageProgress(console, "drawing", "images") as progress:
        for checkpoint in dict.fromkeys(image.variant.checkpoint for image in missing):
            own = [image for image in missing if image.variant.checkpoint == checkpoint]
            for label, count in _draw_with(config, checkpoint, own, models):
                done += count
                progress.update(done, total, done, label)
    return total


def _draw_with(
    config: Config, checkpoint: str, images: Sequence[GridImage], models: GridModels
) -> Iterator[tuple[str, int]]:
    """Draw images of one checkpoint; yields what was drawn, and how many of that."""
    variants = list(dict.fromkeys(image.variant for image in images))
    drawer = models.open_checkpoint(checkpoint, variants)
    is_asked = any(not variant.has_adapter for variant in variants)
    english = EnglishEncoder.from_checkpoint(models.checkpoints[checkpoint], device=models.device) if is_asked else None
    for variant in variants:
        models.set_up(drawer, variant)
        encode = models.encoder_of(variant, english)
        own, size = [image for image in images if image.variant == variant], config.evaluate.batch_size
        for start in range(0, len(own), size):
            part = own[start : start + size]
            seeds = [image.seed for image in part]
            drawn = drawer.draw(encode([image.caption for image in part]), encode([""]), seeds)
            for image, pixels in zip(part, drawn, strict=True):
                save_image(image.path, pixels, _description(image))
            yield variant.name, len(part)
    models.rest()


def _description(image: GridImage) -> dict[str, str]:
    return {
        "prompt": image.caption,
        "variant": image.variant.name,
        "seed": str(image.seed),
        "steps": str(image.variant.num_inference_steps),
        "guidance": str(image.variant.guidance_scale),
        "scheduler": image.variant.scheduler,
        "digest": image.digest,
        "Software": "PEA-Cache",
    }


def read_images(images: Sequence[GridImage]) -> Images:
    """The pixels of images of one size, uint8 `[B, H, W, 3]`."""
    pixels = []
    for image in images:
        with Image.open(image.path) as file:
            pixels.append(np.asarray(file.convert("RGB")))
    return np.stack(pixels)
