"""How well an image fits a caption, by a CLIP of the caption's language: the score where no judge can read images.

Source: Hessel et al., CLIPScore: a reference-free evaluation metric for image captioning (EMNLP 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.nn import functional
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from pea.errors import CheckpointError
from pea.evaluation.drawing import Images
from pea.models.encoders.traits import reading_of
from pea.models.loading import load_part, load_tokenizer


class ClipScorer:
    """A dual encoder: Chinese-CLIP, AltCLIP, CLIP..."""

    def __init__(self, model: nn.Module, tokenizer: Any, processor: Any) -> None:
        self.model, self.tokenizer, self.processor = model.requires_grad_(False).eval(), tokenizer, processor
        self.max_tokens = reading_of(model.config, tokenizer).max_tokens

    @classmethod
    def from_pretrained(cls, folder: Path, device: torch.device | str = "cpu") -> ClipScorer:
        """Load a transformers folder with both towers and a `preprocessor_config.json`.

        Raises:
            CheckpointError: the folder is missing, incomplete, or holds no dual encoder.
        """
        model = load_part(AutoModel, folder, torch.float32)
        if not hasattr(model, "vision_model") or not hasattr(model, "text_model"):
            raise CheckpointError("no dual encoder in this model", where=folder, got=type(model).__name__)
        return cls(model.to(device), load_tokenizer(AutoTokenizer, folder), load_part(AutoImageProcessor, folder, None))

    @torch.no_grad()
    def score(self, images: Images, texts: Sequence[str]) -> NDArray[np.float32]:
        """Cosine between the embeddings of each image (uint8 `[B, H, W, 3]`) and its text, float32 `[B]`."""
        device = next(self.model.parameters()).device
        pixels = self.processor(images=[Image.fromarray(image) for image in images], return_tensors="pt")
        tokens = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        output = self.model(
            input_ids=tokens["input_ids"].to(device),
            attention_mask=tokens["attention_mask"].to(device),
            pixel_values=pixels["pixel_values"].to(device),
        )
        cosine: torch.Tensor = functional.cosine_similarity(output.image_embeds, output.text_embeds)
        return cosine.float().cpu().numpy()
