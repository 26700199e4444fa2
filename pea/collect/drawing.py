"""The teacher draws texts: latents for a text alone, by few steps of its own denoising.

DDIM without noise, on a grid of timesteps that begins at the last one and is spaced evenly ("trailing"), with
classifier-free guidance. Start noise and bucket follow from the key, and texts are drawn in groups of one size that
follow from their order in the table, so that a text's latents are the same whatever the batch size and the worker.

Source: DDIM, arXiv 2010.02502, equation 12 with sigma 0; trailing timesteps: arXiv 2305.08891, section 3.3;
guidance: arXiv 2207.12598, equation 6.

Shapes: S texts of a group, K draws, c,h,w latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pea.config import DrawingConfig
from pea.draws.recipe import DrawRecipe, start_noise_batch
from pea.errors import ConfigError
from pea.models.conditioning import Conditioning
from pea.models.unet import Teacher

DRAWN_TOGETHER = 8
"""Texts of a group; a part of ``pea.cache.identity.DRAWING_VERSION``, like all that decides the latents here."""


class DrawnLatents(NamedTuple):
    """What the teacher drew."""

    latents: npt.NDArray[np.float32]
    """Where the denoising ends, in the UNet's scale: float32 ``[S, c, h, w]``."""
    states: npt.NDArray[np.float32] | None
    """Where it passes the timesteps that were asked for: float32 ``[S, K, c, h, w]``."""


class TextDrawer:
    """Draws with a teacher."""

    def __init__(self, teacher: Teacher, empty: Conditioning, config: DrawingConfig, recipe: DrawRecipe) -> None:
        """``empty``: the English encoder's answer to the empty caption, one row.

        Raises:
            ConfigError: more steps than the teacher has timesteps.
        """
        self._teacher, self._empty, self._config, self._recipe = teacher, empty, config, recipe
        check_steps(config.steps, recipe.num_train_timesteps)

    @torch.inference_mode()
    def draw(
        self,
        sample_ids: Sequence[str],
        conditioning: Conditioning,
        time_ids: Tensor,
        latent_shape: Sequence[int],
        timesteps: npt.NDArray[np.int64] | None = None,
    ) -> DrawnLatents:
        """Draw S texts. ``timesteps``, int64 ``[S, K]``: where the states of the denoising are wanted."""
        device = conditioning.encoder_hidden_states.device
        wanted = None if timesteps is None else torch.from_numpy(timesteps).to(device)
        states = None if wanted is None else torch.zeros(*wanted.shape, *latent_shape, device=device)
        latents = torch.from_numpy(start_noise_batch(self._recipe, sample_ids, latent_shape)).to(device)
        grid = trailing_timesteps(self._config.steps, self._recipe.num_train_timesteps)
        for timestep, following in zip(grid, [*grid[1:], -1], strict=True):
            clean, noise = self._step(latents, timestep, conditioning, time_ids)
            if wanted is not None and states is not None:
                passed = ((wanted <= timestep) & (wanted > following))[..., None, None, None]
                states = torch.where(passed, self._mixed(clean[:, None], noise[:, None], wanted), states)
            latents = clean if following < 0 else self._mixed(clean, noise, torch.full((len(clean),), following))
        return DrawnLatents(_rows(latents), None if states is None else _rows(states))

    def _step(
        self, latents: Tensor, timestep: int, conditioning: Conditioning, time_ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The clean latents and the noise that the guided teacher sees in noisy ones, float32 ``[S, c, h, w]``."""
        answer = self._guided(latents, timestep, conditioning, time_ids)
        alpha = float(self._teacher.scheduler.alphas_cumprod[timestep])
        signal, spread = alpha**0.5, (1 - alpha) ** 0.5
        if self._teacher.prediction_type == "epsilon":
            return (latents - spread * answer) / signal, answer
        return signal * latents - spread * answer, signal * answer + spread * latents

    def _guided(self, latents: Tensor, timestep: int, conditioning: Conditioning, time_ids: Tensor) -> Tensor:
        guidance, count = self._config.guidance, len(latents)
        if guidance == 1:
            return self._teacher.predict(latents, torch.full((count,), timestep), conditioning, time_ids).float()
        hidden, pooled = conditioning
        no_hidden, no_pooled = self._empty
        both = Conditioning(
            torch.cat([no_hidden.expand_as(hidden), hidden]),
            None if pooled is None or no_pooled is None else torch.cat([no_pooled.expand_as(pooled), pooled]),
        )
        answer = self._teacher.predict(
            torch.cat([latents, latents]), torch.full((2 * count,), timestep), both, torch.cat([time_ids, time_ids])
        )
        without, with_text = answer.float().chunk(2)
        return without + guidance * (with_text - without)

    def _mixed(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents at timesteps ``[S]`` or ``[S, K]``."""
        alphas = self._teacher.scheduler.alphas_cumprod.to(clean.device)
        alpha = alphas[timesteps.to(clean.device)][..., None, None, None]
        mixed: Tensor = alpha.sqrt() * clean + (1 - alpha).sqrt() * noise
        return mixed


def check_steps(steps: int, num_train_timesteps: int) -> None:
    """Each step of a denoising has a timestep of its own.

    Raises:
        ConfigError: there are more steps than timesteps.
    """
    if steps > num_train_timesteps:
        raise ConfigError(
            "more steps than the teacher has timesteps",
            where="corpora.parallel.drawing.steps",
            expected=f"at most {num_train_timesteps}",
            got=steps,
        )


def trailing_timesteps(steps: int, num_train_timesteps: int) -> list[int]:
    """Timesteps of a denoising in so many steps, falling, the first of them the last that there is."""
    return [round(num_train_timesteps * (steps - number) / steps) - 1 for number in range(steps)]


def _rows(values: Tensor) -> npt.NDArray[np.float32]:
    found: npt.NDArray[np.float32] = values.float().cpu().numpy()
    return found
