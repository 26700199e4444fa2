"""The frozen encoder of images.

Shapes: B batch, c,h,w latent channels and size.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from pea.models.loading import load_part
from pea.models.teacher_parts import check_vae, read_config, vae_dtype
from pea.models.without_data import on_meta

_VAE_PIXELS_PER_PASS = 4 << 20
"""On a GPU: bounds the memory of a batch of large images."""
_VAE_PIXELS_PER_PASS_CPU = 1 << 16
"""On a CPU: a pass over few small images stays in the processor's cache; 1.5 times as fast as one over 64."""


class VaeEncoder:
    """The frozen image encoder of a diffusers checkpoint."""

    def __init__(self, vae: AutoencoderKL) -> None:
        self.vae = vae.requires_grad_(False).eval().to(memory_format=torch.channels_last)
        self.scaling_factor = float(vae.config.scaling_factor)
        self._turn = nullcontext() if vae.device.type == "cpu" else threading.Lock()
        """A device does one thread's work after the other's: held one at a time, passes take as long and half the room.
        On a CPU they are small, and quicker side by side."""

    @classmethod
    def from_checkpoint(
        cls, folder: Path, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
    ) -> VaeEncoder:
        """Load `<folder>/vae`. A VAE that overflows in half precision (`force_upcast`) runs in float32.

        Raises:
            CheckpointError: the folder is missing, or the VAE is of a kind that is not supported.
        """
        config = vae_config(folder)
        dtype = getattr(torch, vae_dtype(config, str(dtype).removeprefix("torch.")))
        return cls(load_part(AutoencoderKL, folder / "vae", dtype).to(device))

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Images float `[B, 3, H, W]` in [-1, 1] -> float32 mean and standard deviation `[B, c, h, w]`, unscaled."""
        at_once = images_per_pass(pixels.shape[2:], on_cpu=self.vae.device.type == "cpu")
        with self._turn:
            means, stds = zip(*map(self._encode, torch.split(pixels, at_once)), strict=True)
        return torch.cat(means), torch.cat(stds)

    def _encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        pixels = pixels.to(self.vae.device, self.vae.dtype, memory_format=torch.channels_last)
        moments = self.vae.encode(pixels).latent_dist
        return moments.mean.float(), moments.std.float()


def images_per_pass(size_px: Sequence[int], *, on_cpu: bool) -> int:
    """Images of this height and width that the VAE encodes at a time."""
    return max(1, (_VAE_PIXELS_PER_PASS_CPU if on_cpu else _VAE_PIXELS_PER_PASS) // (size_px[0] * size_px[1]))


def vae_config(folder: Path) -> dict[str, Any]:
    """The configuration in `<folder>/vae`, without loading weights; the class's defaults where it is silent.

    Raises:
        CheckpointError: there is none, or the VAE is of a kind that is not supported.
    """
    config = {"latent_channels": 4, "block_out_channels": [64]} | read_config(folder / "vae", "VAE")
    check_vae(config, folder / "vae")
    return config


def vae_on_meta(config: Mapping[str, Any]) -> AutoencoderKL:
    """A VAE without data.

    Raises:
        CheckpointError: its configuration describes none.
    """
    with on_meta("VAE"):
        vae: AutoencoderKL = AutoencoderKL.from_config(dict(config))
    return vae


def vae_scaling_factor(folder: Path) -> float:
    """The factor between the VAE's moments and the UNet's latents in `<folder>/vae`, without loading weights.

    Raises:
        CheckpointError: there is no VAE configuration, or the VAE is of a kind that is not supported.
    """
    return float(vae_config(folder).get("scaling_factor", 0.18215))


def sample_latents(mean: Tensor, std: Tensor, noise: Tensor, scaling_factor: float) -> Tensor:
    """One sample of the VAE's posterior, in the UNet's scale; all `[B, c, h, w]`."""
    return (mean + std * noise) * scaling_factor
