"""Painted training images, and the two models trained on images alone: the VAE and the judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from diffusers.training_utils import EMAModel
from torch import Tensor

from data_tools.world.scenes import SMALL, Scene, Vocabulary, culture_scenes, general_scenes
from data_tools.world.training import Report, cosine_schedule, minibatches, save_model, update
from data_tools.world.worlds import SMALL_WORLD, World


def paint_all(scenes: list[Scene], world: World = SMALL_WORLD) -> np.ndarray:
    """uint8 `[N, H, W, 3]`."""
    return np.stack([np.asarray(world.paint(scene)) for scene in scenes])


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 `[N, H, W, 3]` -> float32 `[N, 3, H, W]` in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def training_scenes(num_general: int, num_per_concept: int, seed: int, vocabulary: Vocabulary = SMALL) -> list[Scene]:
    """General and culture scenes without the held-out combinations."""
    concepts = vocabulary.all_concepts
    culture = culture_scenes(concepts, num_per_concept * len(concepts), seed + 1, vocabulary=vocabulary)
    return general_scenes(num_general, seed, vocabulary=vocabulary) + culture


def every_scene(num_general: int, num_per_concept: int, seed: int, vocabulary: Vocabulary = SMALL) -> list[Scene]:
    """As `training_scenes`, with held-out combinations among them: for the judge and the VAE, which see no captions."""
    concepts = vocabulary.all_concepts
    num_culture = num_per_concept * len(concepts) // 5
    held_out = general_scenes(num_general // 9, seed + 2, held_out=True, vocabulary=vocabulary)
    held_out += culture_scenes(concepts, num_culture, seed + 3, held_out=True, vocabulary=vocabulary)
    return training_scenes(num_general, num_per_concept, seed, vocabulary) + held_out


@dataclass(frozen=True)
class Phase:
    """One phase of the VAE's training: crops of the object first cost a quarter and show four times as much of it."""

    crop_px: int
    batch_size: int
    steps: int
    learning_rate: float
    kl_weight: float


VAE_PHASES = (
    Phase(64, 8, 2600, 2e-3, 1e-5),
    Phase(32, 16, 2500, 2e-3, 1e-6),
    Phase(64, 8, 300, 5e-4, 1e-6),
)
DECODER_STEPS = 2500


@dataclass(frozen=True)
class VaeShape:
    """Channels of a VAE; each level but the last halves the resolution."""

    block_out_channels: tuple[int, ...] = (16, 32, 48, 64)
    latent_channels: int = 8


SMALL_VAE = VaeShape()


def train_vae(
    folder: Path,
    phases: Sequence[Phase],
    decoder_steps: int,
    seed: int,
    report: Report,
    world: World = SMALL_WORLD,
    shape: VaeShape = SMALL_VAE,
) -> None:
    """Train and save an `AutoencoderKL` on every kind of scene.

    After `phases` its latents are standardised and the encoder is done; `decoder_steps` more then teach the decoder to
    forgive latents that are a little wrong, as a diffusion model's are.
    """
    torch.manual_seed(seed)
    num_per_concept = 120 if world is SMALL_WORLD else 40
    images = to_tensor(paint_all(every_scene(8_000, num_per_concept, seed, world.vocabulary), world))
    vae = _new_vae(shape, world.image_size_px).to(memory_format=torch.channels_last)
    for number, phase in enumerate(phases):
        _train_phase(vae, images, phase, seed + number, report)
    standardise_latents(vae, images[:4096])
    train_decoder(vae, images, decoder_steps, seed + len(phases), report)
    save_model(vae, folder)


def _new_vae(shape: VaeShape, size_px: int) -> AutoencoderKL:
    levels = len(shape.block_out_channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=shape.block_out_channels,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=shape.latent_channels,
        sample_size=size_px,
        scaling_factor=1.0,
    )


def _train_phase(vae: AutoencoderKL, images: Tensor, phase: Phase, seed: int, report: Report) -> None:
    grid_px = 2 ** (len(vae.config.block_out_channels) - 1)
    ema = EMAModel(vae.parameters(), decay=0.995)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=phase.learning_rate, weight_decay=1e-4)
    schedule = cosine_schedule(optimizer, phase.steps)
    generator = torch.Generator().manual_seed(seed)
    for step, (batch,) in zip(range(phase.steps), minibatches((images,), phase.batch_size, seed), strict=False):
        pixels = _crop(batch, phase.crop_px, grid_px, generator).to(memory_format=torch.channels_last)
        posterior = vae.encode(pixels).latent_dist
        rebuilt = vae.decode(posterior.sample()).sample
        loss = _reconstruction_loss(rebuilt, pixels) + phase.kl_weight * posterior.kl().mean()
        update(vae, optimizer, schedule, loss)
        ema.step(vae.parameters())
        report(step, phase.steps, loss)
    ema.copy_to(vae.parameters())


@torch.no_grad()
def standardise_latents(vae: AutoencoderKL, images: Tensor) -> None:
    """Give every latent channel mean 0 and standard deviation 1 over `images`, without changing what is decoded.

    The affine map goes into the 1x1 convolutions on both sides of the latents, so `scaling_factor` is 1.
    """
    means = torch.cat([vae.encode(batch).latent_dist.mean for batch in images.split(64)])
    centre, spread = means.mean((0, 2, 3)), means.std((0, 2, 3))
    encode, decode = vae.quant_conv, vae.post_quant_conv
    channels = len(centre)
    encode.weight[:channels] /= spread[:, None, None, None]
    encode.bias[:channels] = (encode.bias[:channels] - centre) / spread
    encode.bias[channels:] -= 2 * spread.log()
    decode.bias += decode.weight[:, :, 0, 0] @ centre
    decode.weight *= spread[:, None, None]
    vae.register_to_config(scaling_factor=1.0)


def train_decoder(vae: AutoencoderKL, images: Tensor, steps: int, seed: int, report: Report) -> None:
    """Train the decoder alone on latents with noise of standard deviation up to 0.3; the encoder stays as it is."""
    vae.encoder.requires_grad_(False)
    vae.quant_conv.requires_grad_(False)
    decoder = torch.nn.ModuleList([vae.post_quant_conv, vae.decoder])
    ema = EMAModel(decoder.parameters(), decay=0.995)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=1e-3, weight_decay=1e-4)
    schedule = cosine_schedule(optimizer, steps)
    torch.manual_seed(seed)
    for step, (pixels,) in zip(range(steps), minibatches((images,), 8, seed), strict=False):
        pixels = pixels.to(memory_format=torch.channels_last)
        with torch.no_grad():
            latents = vae.encode(pixels).latent_dist.sample()
        latents = latents + 0.3 * torch.rand(len(latents), 1, 1, 1) * torch.randn_like(latents)
        loss = _reconstruction_loss(vae.decode(latents).sample, pixels)
        update(decoder, optimizer, schedule, loss)
        ema.step(decoder.parameters())
        report(step, steps, loss)
    ema.copy_to(decoder.parameters())


def _crop(images: Tensor, size_px: int, grid_px: int, generator: torch.Generator) -> Tensor:
    """A square of each image around a random pixel of its object, on the grid of the latents."""
    if size_px == images.shape[-1]:
        return images
    away = (images - _median_colour(images)).abs().amax(1).flatten(1)
    chosen = torch.multinomial((away > 0.2).float() + 1e-4, 1, generator=generator)[:, 0]
    last = (images.shape[-1] - size_px) // grid_px
    tops = ((chosen // images.shape[-1] - size_px // 2) / grid_px).round().long().clamp(0, last) * grid_px
    lefts = ((chosen % images.shape[-1] - size_px // 2) / grid_px).round().long().clamp(0, last) * grid_px
    crops = [
        image[:, top : top + size_px, left : left + size_px]
        for image, top, left in zip(images, tops.tolist(), lefts.tolist(), strict=True)
    ]
    return torch.stack(crops)


def _median_colour(images: Tensor) -> Tensor:
    return images.flatten(2).median(dim=2).values[:, :, None, None]


def _reconstruction_loss(pixels: Tensor, truth: Tensor) -> Tensor:
    """L1 + L2, with more weight where a pixel differs from the background (the image's median colour)."""
    weight = 1 + 4 * (truth - _median_colour(truth)).abs().amax(1, keepdim=True)
    error = pixels - truth
    return (weight * (error.abs() + error.square())).sum() / (3 * weight.sum())
