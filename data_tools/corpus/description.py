"""English descriptions of images by a local captioning model: BLIP and Florence-2, as transformers has them.

The same images in the same order give the same descriptions on one machine: nothing is sampled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from transformers import (
    AutoProcessor,
    BlipForConditionalGeneration,
    Florence2ForConditionalGeneration,
)

from pea.errors import CheckpointError
from pea.file_names import MODEL_CONFIG
from pea.models.loading import load_model, load_part
from pea.models.teacher_parts import read_config
from pea.models.tensor_files import digest_of
from pea.models.tokenizer_digest import tokenizer_digest
from pea.models.unfilled import quiet_loading
from pea.storage.digests import canonical_json, sha256_text
from pea.storage.hub import local_folder, model_name


class CaptionerKind(NamedTuple):
    """A family of captioning models."""

    model: Any
    prompt: str
    """That asks for a description, where nothing else is asked for."""


KINDS = {
    "blip": CaptionerKind(BlipForConditionalGeneration, ""),
    "florence2": CaptionerKind(Florence2ForConditionalGeneration, "<DETAILED_CAPTION>"),
}
"""``model_type`` of a configuration -> what it is."""


@dataclass(frozen=True)
class DescriptionSettings:
    """What decides a description beside model and image."""

    prompt: str | None = None
    """None: the usual one of its kind."""
    num_beams: int = 3
    max_new_tokens: int = 64
    batch_size: int = 8
    dtype: str = "float32"


class Describer:
    """A captioning model."""

    def __init__(self, place: str, settings: DescriptionSettings, device: torch.device | str = "cpu") -> None:
        """``place``: folder of the model, or ``org/name@revision``.

        Raises:
            CheckpointError: it is missing, incomplete, or of another class.
        """
        folder = local_folder(place)
        model_type = str(read_config(folder, "captioning model").get("model_type"))
        if model_type.startswith("qwen") and "_vl" in model_type:
            raise CheckpointError(
                "Qwen-VL models are not run here: their processors need torchvision, which is not installed",
                where=folder / MODEL_CONFIG,
                expected=f"model_type {', '.join(KINDS)}",
                got=model_type,
                remedy="Install torchvision beside torch, describe the images with a program of your own, and bring "
                "what it says beside the tars: `pea data captions TABLE --corpus TARS --map described_en=COLUMN "
                "--out FOLDER`.",
            )
        if model_type not in KINDS:
            raise CheckpointError(
                "not a captioning model that is known here",
                where=folder / MODEL_CONFIG,
                expected=f"model_type {', '.join(KINDS)}",
                got=model_type,
            )
        self._kind, self.settings, self._device = KINDS[model_type], settings, torch.device(device)
        self._prompt = self._kind.prompt if settings.prompt is None else settings.prompt
        self._processor = load_part(AutoProcessor, folder, None)
        dtype = getattr(torch, settings.dtype)
        self._model = load_model(self._kind.model, folder, dtype).model.to(self._device).eval()
        self.record: dict[str, Any] = {
            "model": model_name(Path(place) if "@" in place else folder),
            "class": self._kind.model.__name__,
            "weights": digest_of(folder),
            "tokenizer": tokenizer_digest(self._processor.tokenizer),
            "images": sha256_text(canonical_json(self._processor.image_processor.to_dict())),
            **vars(settings),
            "prompt": self._prompt,
            "device": self._device.type,
        }
        """All that decides a description, for the settings beside the table."""

    @property
    def provenance(self) -> str:
        """What stands beside every description that it makes."""
        return f"description: {self.record['model']} {self.record['weights'][:12]}"

    def describe(self, images: Iterator[Image.Image]) -> Iterator[str]:
        """A description of each RGB image, empty where the model says nothing; in memory is a batch of them."""
        while batch := list(islice(images, self.settings.batch_size)):
            yield from self._describe(batch)

    @torch.inference_mode()
    def _describe(self, images: Sequence[Image.Image]) -> list[str]:
        given: dict[str, Any] = {"images": list(images), "return_tensors": "pt"}
        if self._prompt:
            given |= {"text": [self._prompt] * len(images), "padding": True}
        inputs = self._processor(**given).to(self._device)
        if "pixel_values" in inputs:
            inputs["pixel_values"] = inputs["pixel_values"].to(self._model.dtype)
        with quiet_loading():
            answer = self._model.generate(
                **inputs,
                num_beams=self.settings.num_beams,
                max_new_tokens=self.settings.max_new_tokens,
                do_sample=False,
            )
        said = self._processor.tokenizer.batch_decode(answer, skip_special_tokens=True)
        return [" ".join(each.split()) for each in said]
