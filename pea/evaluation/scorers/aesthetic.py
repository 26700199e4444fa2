"""LAION's aesthetic score: how well people like an image, whatever was asked for, from 1 to 10."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPModel

from pea.errors import CheckpointError
from pea.evaluation.drawing import Images
from pea.evaluation.scorers.clip_models import image_embeddings, load_clip
from pea.evaluation.scorers.heads import LinearLayers
from pea.evaluation.scorers.pixels import cropped_pixels
from pea.evaluation.scorers.scorer import Scorer, scorer_digest
from pea.evaluation.scorers.weights import filled
from pea.models.imports.published import read_published

_ENDINGS = (".pth", ".safetensors")


class _Aesthetic(nn.Module):
    def __init__(self, clip: CLIPModel, head: LinearLayers) -> None:
        super().__init__()
        self.clip, self.head = clip, head


class AestheticScore(Scorer):
    """CLIP ViT-L/14's embedding of the image, of length 1, then linear layers.

    Source: Schuhmann et al., LAION-5B (arXiv 2210.08402); christophschuhmann/improved-aesthetic-predictor,
    simple_inference.py, sac+logos+ava1-l14-linearMSE.pth.
    """

    name = "aesthetic"
    reads = "nothing"

    def __init__(self, clip: CLIPModel, head: LinearLayers, device: torch.device | str) -> None:
        model = _Aesthetic(clip, head)
        vision = clip.config.vision_config
        said = {name: getattr(vision, name) for name in ("num_attention_heads", "hidden_act", "layer_norm_eps")}
        super().__init__(model, device, scorer_digest(model, None, {"name": self.name, "config": said}))
        self.image_size = int(vision.image_size)

    @classmethod
    def load(cls, place: Path, device: torch.device | str = "cpu") -> AestheticScore:
        """From a folder of CLIP ViT-L/14 in which the head's file lies too.

        Raises:
            CheckpointError: something is missing or of another kind.
        """
        clip = load_clip(place)
        heads = [p for p in sorted(place.iterdir()) if p.suffix in _ENDINGS and not p.name.startswith("model")]
        if len(heads) != 1:
            raise CheckpointError(
                "the head of the aesthetic score is missing" if not heads else "several heads of the aesthetic score",
                where=place,
                expected="one file *.pth beside the CLIP, such as sac+logos+ava1-l14-linearMSE.pth",
                got=", ".join(path.name for path in heads) or "none",
            )
        width = clip.config.projection_dim
        head = filled(lambda: LinearLayers(width), read_published(heads[0]).state, heads[0])
        return cls(clip, head, device)

    def score_batch(self, images: Images, prompts: Sequence[str]) -> Tensor:  # noqa: ARG002 - it reads no prompt
        """The head's answer."""
        model = self.model
        assert isinstance(model, _Aesthetic)
        answer: Tensor = model.head(image_embeddings(model.clip, cropped_pixels(images, self.image_size)))
        return answer
