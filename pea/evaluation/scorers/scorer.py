"""What every scorer is: images and texts in, one number an image out, and a digest of what it computes with."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pea.evaluation.drawing import Images
from pea.models.tokenizer_digest import tokenizer_digest
from pea.storage.digests import canonical_json, sha256_text

Reads = Literal["english", "native", "nothing"]
"""Which caption of a prompt a scorer compares an image with."""
_BATCH = 32


class Scorer(ABC):
    """A frozen model; it is on its device only while it scores, so that several take turns on one GPU."""

    name: ClassVar[str]
    """As in `evaluate.scorers`."""
    reads: ClassVar[Reads] = "english"

    def __init__(self, model: nn.Module, device: torch.device | str, digest: str) -> None:
        """`digest`: sha256 of weights, tokenizer and settings."""
        self.model, self.device, self.digest = model.requires_grad_(False).eval(), torch.device(device), digest

    @torch.no_grad()
    def score(self, images: Images, prompts: Sequence[str]) -> NDArray[np.float32]:
        """The score of each image (uint8 `[B, H, W, 3]`) for its prompt, float32 `[B]`."""
        self.model.to(self.device)
        try:
            parts = [
                self.score_batch(images[at : at + _BATCH], prompts[at : at + _BATCH]).float().cpu().numpy()
                for at in range(0, len(images), _BATCH)
            ]
        finally:
            self.model.to("cpu")
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    @abstractmethod
    def score_batch(self, images: Images, prompts: Sequence[str]) -> Tensor:
        """The same for a few images, as a tensor, with the model on its device."""


def scorer_digest(model: nn.Module, tokenizer: Any | None, settings: Mapping[str, Any]) -> str:
    """sha256 of a model's tensors, its tokenizer, and what else decides its scores; the same in whatever files."""
    tensors = {name: _tensor_digest(tensor) for name, tensor in model.state_dict().items()}
    words = None if tokenizer is None else tokenizer_digest(tokenizer)
    return sha256_text(canonical_json({"tensors": tensors, "tokenizer": words, "settings": dict(settings)}))


def _tensor_digest(tensor: Tensor) -> str:
    data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return f"{tensor.dtype} {list(tensor.shape)} {hashlib.sha256(data.data).hexdigest()}"
