"""The world's two teachers: complete diffusers checkpoints, one SDXL-shaped and one SD1.5-shaped."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from torch.nn import functional

from data_tools.world.captions import caption
from data_tools.world.teacher_text import English, condition_on, load_english
from data_tools.world.train_images import paint_all, to_tensor, training_scenes
from data_tools.world.training import Report, cosine_schedule, minibatches, update
from data_tools.world.worlds import SMALL_WORLD, World
from pea.models.loading import load_part
from pea.storage.durable import share_files

_CAPTION_DROP_RATE = 0.1
_MAX_NOISE_WEIGHT = 12.0

SD15_UNET = {
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (48, 64, 96, 96),
}
SDXL_UNET = {
    "down_block_types": ("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 2,
    "up_block_types": ("CrossAttnUpBlock2D",) * 2 + ("UpBlock2D",),
    "block_out_channels": (64, 96, 128),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 16,
    "use_linear_projection": True,
}


@dataclass(frozen=True)
class TeacherRecipe:
    """What a teacher learns from, how, and what it predicts.

    v (arXiv 2202.00512) weighs the noisiest timesteps, where background and colour are decided, far more than the
    noise's loss does, and a small UNet learns them in a tenth of the steps. Real SD1.5 and SDXL predict the noise;
    one of ours that does draws its timesteps as often as v's loss would weigh them.
    """

    world: World = SMALL_WORLD
    num_general: int = 15_000
    num_per_concept: int = 250
    prediction_type: str = "v_prediction"
    unet: Mapping[str, Any] | None = None
    """Shape of the UNet; None: `SD15_UNET` with one English encoder, `SDXL_UNET` with two."""
    train_text: bool = False
    """Whether an SD1.5-shaped teacher's encoder learns along, as latent diffusion's first did (arXiv 2112.10752)."""
    batch_size: int = 64
    learning_rate: float = 1.5e-3
    save_every_steps: int | None = None


SMALL_TEACHER = TeacherRecipe()


def train_teacher(
    folder: Path,
    vae_folder: Path,
    english_folders: tuple[Path, ...],
    steps: int,
    seed: int,
    report: Report,
    recipe: TeacherRecipe = SMALL_TEACHER,
) -> None:
    """Train and save a whole pipeline: SDXL-shaped with two English encoders, SD1.5-shaped with one.

    Every `save_every_steps` the averaged pipeline is saved in `step-<n>/` as well.
    """
    torch.manual_seed(seed)
    vae = load_part(AutoencoderKL, vae_folder, torch.float32)
    (means, stds), phrasings = images_and_captions(vae, recipe.world, recipe.num_general, recipe.num_per_concept, seed)
    encoders = [load_english(path, projected=row == 1) for row, path in enumerate(english_folders)]
    texts = sorted({"", *phrasings})  # the empty caption is row 0
    encode = condition_on(encoders, texts, recipe.world.image_size_px, train_text=recipe.train_text)
    numbers = {text: row for row, text in enumerate(texts)}
    rows = torch.tensor([numbers[text] for text in phrasings])
    unet = _new_unet(encode(rows[:1]), means.shape[1:], recipe)
    learned = nn.ModuleList([unet, encoders[0][1]] if recipe.train_text else [unet])
    scheduler = _new_scheduler(recipe.prediction_type)
    frequencies = _timestep_frequencies(scheduler)
    ema = EMAModel(learned.parameters(), decay=0.998, foreach=True)
    optimizer = torch.optim.AdamW(learned.parameters(), lr=recipe.learning_rate, weight_decay=1e-2, fused=True)
    schedule = cosine_schedule(optimizer, steps)
    batches = minibatches((means, stds, rows), recipe.batch_size, seed)
    for step, (mean, std, text) in zip(range(steps), batches, strict=False):
        latents = (mean + std * torch.randn_like(std)) * vae.config.scaling_factor
        noise = torch.randn_like(latents)
        timesteps = torch.multinomial(frequencies, len(latents), replacement=True)
        text = torch.where(torch.rand(len(text)) < _CAPTION_DROP_RATE, 0, text)
        noisy = scheduler.add_noise(latents, noise, timesteps).to(memory_format=torch.channels_last)
        prediction = unet(noisy, timesteps, **encode(text)).sample
        loss = functional.mse_loss(prediction, _target(latents, noise, timesteps, scheduler))
        update(learned, optimizer, schedule, loss)
        ema.step(learned.parameters())
        report(step, steps, loss)
        if recipe.save_every_steps and (step + 1) % recipe.save_every_steps == 0:
            ema.store(learned.parameters())
            ema.copy_to(learned.parameters())
            averages = copy.deepcopy((vae, unet, scheduler, encoders))  # saving turns them to float16
            ema.restore(learned.parameters())
            _save_pipeline(folder / f"step-{step + 1}", *averages)
    ema.copy_to(learned.parameters())
    _save_pipeline(folder, vae, unet, scheduler, encoders)


def images_and_captions(
    vae: AutoencoderKL, world: World, num_general: int, num_per_concept: int, seed: int
) -> tuple[tuple[Tensor, Tensor], list[str]]:
    """The latents' mean and standard deviation, unscaled, `[N, C, H, W]` each, and an English caption for each."""
    scenes = training_scenes(num_general, num_per_concept, seed, world.vocabulary)
    moments = _encode_images(vae, to_tensor(paint_all(scenes, world)))
    return moments, [caption(scene, "en", world.languages) for scene in scenes]


def _timestep_frequencies(scheduler: DDIMScheduler) -> Tensor:
    """How often each timestep is drawn, `[T]`: all alike for v; for the noise as 1 / alpha, v's weight, to a limit."""
    alphas = scheduler.alphas_cumprod
    if scheduler.config.prediction_type == "v_prediction":
        return torch.ones_like(alphas)
    return (1 / alphas).clamp(max=_MAX_NOISE_WEIGHT)


def _target(latents: Tensor, noise: Tensor, timesteps: Tensor, scheduler: DDIMScheduler) -> Tensor:
    if scheduler.config.prediction_type == "v_prediction":
        return scheduler.get_velocity(latents, noise, timesteps)
    return noise


def _new_scheduler(prediction_type: str) -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )


@torch.inference_mode()
def _encode_images(vae: AutoencoderKL, images: Tensor) -> tuple[Tensor, Tensor]:
    posteriors = [vae.encode(batch).latent_dist for batch in images.split(64)]
    return torch.cat([p.mean for p in posteriors]).clone(), torch.cat([p.std for p in posteriors]).clone()


def _new_unet(condition: dict[str, Any], latents: torch.Size, recipe: TeacherRecipe) -> UNet2DConditionModel:
    """A UNet for such conditions and latents, `[C, H, W]`."""
    added = condition.get("added_cond_kwargs")
    shape = dict(recipe.unet or (SDXL_UNET if added else SD15_UNET))
    if added:
        shape["projection_class_embeddings_input_dim"] = added["text_embeds"].shape[-1] + 6 * 16
    unet = UNet2DConditionModel(
        in_channels=latents[0],
        out_channels=latents[0],
        sample_size=latents[-1],
        layers_per_block=1,
        norm_num_groups=16,
        attention_head_dim=4,
        cross_attention_dim=condition["encoder_hidden_states"].shape[-1],
        **shape,
    )
    return unet.to(memory_format=torch.channels_last)


def _save_pipeline(
    folder: Path,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    scheduler: DDIMScheduler,
    encoders: list[English],
) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    vae.register_to_config(_name_or_path="vae")  # else the path on this machine would be published
    parts = {
        "vae": vae,
        "unet": unet,
        "scheduler": scheduler,
        "tokenizer": encoders[0][0],
        "text_encoder": encoders[0][1],
    }
    if len(encoders) == 2:
        pipeline = StableDiffusionXLPipeline(
            **parts, tokenizer_2=encoders[1][0], text_encoder_2=encoders[1][1], add_watermarker=False
        )
    else:
        pipeline = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    share_files(folder)
