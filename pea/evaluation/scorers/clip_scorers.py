"""Scorers that are CLIPs: an English one, PickScore, HPSv2. They differ in how images are shown, and in a factor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from pea.evaluation.drawing import Images
from pea.evaluation.scorers.clip_models import image_embeddings, load_clip, load_clip_tokenizer, text_embeddings
from pea.evaluation.scorers.pixels import cropped_pixels, letterboxed_pixels
from pea.evaluation.scorers.scorer import Scorer, scorer_digest

_VIT_H_14 = {"vision_cfg": {"width": 1280, "head_width": 80}, "text_cfg": {"width": 1024, "heads": 16}}
"""Source: open_clip, model_configs/ViT-H-14.json."""


class EnglishClip(Scorer):
    """CLIPScore: the cosine between image and English caption, by any CLIP (bigG, ViT-L/14...).

    Source: Hessel et al., CLIPScore (EMNLP 2021), without its factor and its clipping at 0.
    """

    name = "english_clip"
    model_cfg: ClassVar[Mapping[str, Any] | None] = None
    """What open_clip's form does not say of itself."""

    def __init__(self, model: Any, tokenizer: Any, device: torch.device | str) -> None:
        settings = {"name": self.name, "config": _read_of(model.config)}
        super().__init__(model, device, scorer_digest(model, tokenizer, settings))
        self.tokenizer, self.image_size = tokenizer, int(model.config.vision_config.image_size)

    @classmethod
    def load(cls, place: Path, device: torch.device | str = "cpu") -> EnglishClip:
        """From a folder of transformers, or a file in open_clip's form; the tokenizer lies beside the weights.

        Raises:
            CheckpointError: something is missing or of another kind.
        """
        model = load_clip(place, cls.model_cfg)
        return cls(model, load_clip_tokenizer(place, model), device)

    def score_batch(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """Cosine times `factor`."""
        shown = image_embeddings(self.model, self.shown(images))
        cosine = (shown * text_embeddings(self.model, self.tokenizer, prompts)).sum(-1)
        return cosine * self.factor()

    def shown(self, images: Images) -> Tensor:
        """Images uint8 `[B, H, W, 3]` as the model was shown them, `[B, 3, S, S]`."""
        return cropped_pixels(images, self.image_size)

    def factor(self) -> Tensor | float:
        """What the cosine is multiplied by."""
        return 1.0


class PickScore(EnglishClip):
    """PickScore: the cosine times the learnt temperature.

    Source: Kirstain et al., Pick-a-Pic (arXiv 2305.01569); yuvalkirstain/PickScore, README.md.
    """

    name = "pick_score"

    def factor(self) -> Tensor | float:
        """The learnt temperature."""
        scale: Tensor = self.model.logit_scale.exp()  # type: ignore[operator]
        return scale


class HumanPreferenceScore(EnglishClip):
    """HPSv2 and HPSv2.1: the cosine; some tables show it a hundredfold.

    Source: Wu et al., Human Preference Score v2 (arXiv 2306.09341); tgxs002/HPSv2, hpsv2/img_score.py, in float32.
    """

    name = "hps_v2"
    model_cfg = _VIT_H_14

    def shown(self, images: Images) -> Tensor:
        """The whole image, between black bars where it is not square."""
        return letterboxed_pixels(images, self.image_size)


def _read_of(config: Any) -> dict[str, Any]:
    """The fields of a configuration that no tensor tells and scores depend on."""
    fields = ("num_attention_heads", "hidden_act", "layer_norm_eps", "eos_token_id", "image_size", "patch_size")
    towers = {"text": config.text_config.to_dict(), "vision": config.vision_config.to_dict()}
    return {tower: {name: said.get(name) for name in fields} for tower, said in towers.items()}
