"""How well an image fits a caption, by a CLIP of the caption's language: the score where no judge can read images.

Source: Hessel et al., CLIPScore: a reference-free evaluation metric for image captioning (EMNLP 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from pea.errors import CheckpointError
from pea.evaluation.drawing import Images
from pea.evaluation.scorers.scorer import Scorer, scorer_digest
from pea.models.encoders.traits import reading_of
from pea.models.loading import load_part, load_tokenizer


class ClipScorer(Scorer):
    """A dual encoder: Chinese-CLIP, AltCLIP, CLIP..."""

    name = "clip"
    reads = "native"

    def __init__(self, model: nn.Module, tokenizer: Any, processor: Any, device: torch.device | str = "cpu") -> None:
        self.tokenizer, self.processor = tokenizer, processor
        self.max_tokens = reading_of(model.config, tokenizer).max_tokens
        settings = {"name": self.name, "max_tokens": self.max_tokens, "images": processor.to_dict()}
        super().__init__(model, device, scorer_digest(model, tokenizer, settings))

    @classmethod
    def from_pretrained(cls, folder: Path, device: torch.device | str = "cpu") -> ClipScorer:
        """Load a transformers folder with both towers and a `preprocessor_config.json`.

        Raises:
            CheckpointError: the folder is missing, incomplete, or holds no dual encoder.
        """
        model = load_part(AutoModel, folder, torch.float32)
        if not hasattr(model, "vision_model") or not hasattr(model, "text_model"):
            raise CheckpointError("no dual encoder in this model", where=folder, got=type(model).__name__)
        tokenizer = load_tokenizer(AutoTokenizer, folder)
        return cls(model, tokenizer, load_part(AutoImageProcessor, folder, None), device)

    def score_batch(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """Cosine between the embeddings of each image and its text."""
        pixels = self.processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")
        tokens = self.tokenizer(
            list(prompts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        output = self.model(
            input_ids=tokens["input_ids"].to(self.device),
            attention_mask=tokens["attention_mask"].to(self.device),
            pixel_values=pixels["pixel_values"].to(self.device),
        )
        return functional.cosine_similarity(output.image_embeds, output.text_embeds)
