"""What the teacher was shown at one draw, and the image that it saw in the noise, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL, DDPMScheduler
from torch import Tensor

from data_tools.inspect.show import Found, Pixels
from pea.cache import Cache
from pea.cache.checks import recipe_of
from pea.corpus.tars import sample_id
from pea.draws.recipe import latent_noise, noise
from pea.models.loading import load_part
from pea.models.vae import sample_latents
from pea.sketch.sketch import from_numpy


class TeacherView:
    """Decodes what a cache holds with the VAE of the checkpoint that filled it."""

    def __init__(self, cache: Cache, checkpoint: Path) -> None:
        """Raises ``CheckpointError`` if the folder is missing or incomplete."""
        self._vae = load_part(AutoencoderKL, checkpoint / "vae", torch.float32)
        self._scheduler = load_part(DDPMScheduler, checkpoint / "scheduler", None)
        self._scaling = float(self._vae.config.scaling_factor)
        self._recipe = recipe_of(cache.identity)

    def image(self, latents: npt.NDArray[Any]) -> Pixels:
        """Unscaled latents [1, c, h, w] as an image, uint8 [H, W, 3]."""
        return self._decode(torch.from_numpy(latents).float() * self._scaling)

    def of_draw(self, found: Found, draw: int) -> tuple[Pixels, Pixels]:
        """The noised image that the teacher was asked about, and the clean one that follows from its answer."""
        assert self._recipe is not None
        name, mean = sample_id(found.tar, found.key), torch.from_numpy(found.read("latents_mean")).float()
        std = torch.from_numpy(found.read("latents_std")).float()
        shape = mean.shape[1:]
        drawn = [torch.from_numpy(make(self._recipe, name, draw, shape))[None] for make in (latent_noise, noise)]
        timestep = torch.from_numpy(found.read("timestep")[draw : draw + 1])
        noised = self._scheduler.add_noise(sample_latents(mean, std, drawn[0], self._scaling), drawn[1], timestep)
        bits = found.bucket.arrays["noise_pred"].attributes.get("bits")
        answer = from_numpy(found.read("noise_pred")[draw : draw + 1], bits).float()
        signal = self._scheduler.alphas_cumprod[timestep].reshape(-1, 1, 1, 1)
        if self._scheduler.config.prediction_type == "v_prediction":
            clean = signal.sqrt() * noised - (1 - signal).sqrt() * answer
        else:
            clean = (noised - (1 - signal).sqrt() * answer) / signal.sqrt()
        return self._decode(noised), self._decode(clean)

    def _decode(self, scaled: Tensor) -> Pixels:
        with torch.inference_mode():
            image = self._vae.decode(scaled / self._scaling).sample[0]
        return ((image.permute(1, 2, 0).numpy() + 1) * 127.5).clip(0, 255).astype(np.uint8)
