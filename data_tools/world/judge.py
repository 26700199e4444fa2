"""The judge: a small CNN that reads every attribute of a world off an image.

It is trained on painted images only and shares nothing with the encoders that condition the teachers, so that a score
cannot be raised by pleasing it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from data_tools.world.scenes import ATTRIBUTES
from pea.models.loading import load_part

_LAST_SIZE_PX = 4


class Judge(ModelMixin, ConfigMixin):
    """Image uint8 `[N, H, W, 3]` -> one value for each attribute (`shape` covers nouns and culture concepts).

    H and W are `image_size_px`, a power of 2. It is halved down to 4.
    """

    @register_to_config
    def __init__(
        self, width: int = 32, attributes: dict[str, list[str]] | None = None, image_size_px: int = 64
    ) -> None:
        super().__init__()
        self.attributes = {name: list(values) for name, values in (attributes or ATTRIBUTES).items()}
        num_stages = (image_size_px // _LAST_SIZE_PX).bit_length() - 1
        channels = (3, *(width * stage for stage in range(1, num_stages + 1)))
        self.trunk = nn.Sequential(*[_stage(i, o) for i, o in zip(channels, channels[1:], strict=False)], nn.Flatten())
        self.heads = nn.ModuleDict(
            {n: nn.Linear(channels[-1] * _LAST_SIZE_PX**2, len(v)) for n, v in self.attributes.items()}
        )

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits for each attribute, from float images `[N, 3, H, W]` in [-1, 1]."""
        features = self.trunk(images)
        return {name: head(features) for name, head in self.heads.items()}

    @torch.inference_mode()
    def read(self, images: np.ndarray, batch_size: int = 128) -> dict[str, list[str]]:
        """The most likely value of each attribute for each of the uint8 images `[N, H, W, 3]`.

        `concept` is another name for `shape`: prompts ask for a concept where they name a culture concept.
        """
        readings: dict[str, list[str]] = {name: [] for name in self.attributes}
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(images[start : start + batch_size]).permute(0, 3, 1, 2).float() / 127.5 - 1
            for name, logits in self(batch).items():
                readings[name] += [self.attributes[name][index] for index in logits.argmax(1).tolist()]
        return readings | {"concept": readings["shape"]}

    @classmethod
    def load(cls, folder: Path) -> Judge:
        """The judge saved in `folder`, in float32 and evaluation mode."""
        judge: Judge = load_part(cls, folder, torch.float32)
        return judge.eval()


def _stage(in_channels: int, out_channels: int) -> nn.Module:
    """3×3 convolution, normalization, and a halving of the resolution."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1),
        nn.GroupNorm(8, out_channels),
        nn.SiLU(),
        nn.AvgPool2d(2),
    )
