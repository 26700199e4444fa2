"""The world's two teachers: complete diffusers checkpoints, one SDXL-shaped and one SD1.5-shaped."""

from __future__ import annotations

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.training_utils import EMAModel
from torch import Tensor
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from data_tools.world.captions import caption
from data_tools.world.train_images import paint_all, to_tensor, training_scenes
from data_tools.world.training import Report, cosine_schedule, minibatches, save_model, update
from data_tools.world.worlds import SMALL_WORLD, World
from pea.models.loading import load_part, load_tokenizer
from pea.storage.durable import share_files

_BATCH_SIZE = 64
_CAPTION_DROP_RATE = 0.1
_MAX_NOISE_WEIGHT = 20.0
_TIME_IDS = (64, 64, 0, 0, 64, 64)
"""Original height and width, crop top and left, target height and width: every image of the world is 64 px."""

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
    """What a teacher learns from and what it predicts.

    v (arXiv 2202.00512) weighs the noisiest timesteps, where background and colour are decided, far more than the
    noise's loss does, and a small UNet learns them in a tenth of the steps; real SD1.5 and SDXL predict the noise.
    """

    world: World = SMALL_WORLD
    num_general: int = 15_000
    num_per_concept: int = 250
    prediction_type: str = "v_prediction"
    start: Path | None = None
    """A teacher of the same shapes whose UNet is the start; None starts from nothing."""
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

    Every `save_every_steps` the averaged UNet is saved in `step-<n>/` as well.
    """
    torch.manual_seed(seed)
    vae = load_part(AutoencoderKL, vae_folder, torch.float32)
    images, phrasings = _images_and_captions(vae, recipe, seed)
    encoders = [_load_english(path, projected=row == 1) for row, path in enumerate(english_folders)]
    texts = sorted({"", *phrasings})  # the empty caption is row 0
    hidden, pooled = _encode_texts(encoders, texts)
    numbers = {text: row for row, text in enumerate(texts)}
    rows = torch.tensor([numbers[text] for text in phrasings])
    unet = _new_unet(hidden, pooled, vae.config.latent_channels)
    if recipe.start:
        unet.load_state_dict(load_part(UNet2DConditionModel, recipe.start / "unet", torch.float32).state_dict())
    scheduler = _new_scheduler(recipe.prediction_type)
    ema = EMAModel(unet.parameters(), decay=0.998)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=1.5e-3, weight_decay=1e-2)
    schedule = cosine_schedule(optimizer, steps)
    for step, (mean, std, text) in zip(range(steps), minibatches((*images, rows), _BATCH_SIZE, seed), strict=False):
        latents = (mean + std * torch.randn_like(std)) * vae.config.scaling_factor
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (len(latents),))
        text = torch.where(torch.rand(len(text)) < _CAPTION_DROP_RATE, 0, text)
        prediction = unet(
            scheduler.add_noise(latents, noise, timesteps).to(memory_format=torch.channels_last),
            timesteps,
            encoder_hidden_states=hidden[text],
            added_cond_kwargs=_added_conditions(pooled, text),
        ).sample
        loss = _loss(prediction, latents, noise, timesteps, scheduler)
        update(unet, optimizer, schedule, loss)
        ema.step(unet.parameters())
        report(step, steps, loss)
        if recipe.save_every_steps and (step + 1) % recipe.save_every_steps == 0:
            _save_average(folder / f"step-{step + 1}", unet, ema)
    ema.copy_to(unet.parameters())
    _save_pipeline(folder, vae, unet, scheduler, encoders)


def _images_and_captions(
    vae: AutoencoderKL, recipe: TeacherRecipe, seed: int
) -> tuple[tuple[Tensor, Tensor], list[str]]:
    """The latents' mean and standard deviation, and an English caption for each."""
    scenes = training_scenes(recipe.num_general, recipe.num_per_concept, seed, recipe.world.vocabulary)
    moments = _encode_images(vae, to_tensor(paint_all(scenes, recipe.world)))
    return moments, [caption(scene, "en", recipe.world.languages) for scene in scenes]


def _save_average(folder: Path, unet: UNet2DConditionModel, ema: EMAModel) -> None:
    average = copy.deepcopy(unet)
    ema.copy_to(average.parameters())
    save_model(average, folder)


def _loss(prediction: Tensor, latents: Tensor, noise: Tensor, timesteps: Tensor, scheduler: DDIMScheduler) -> Tensor:
    """The mean square error of v; of the noise weighted by 1 / alpha, which makes it that of v, up to a limit."""
    if scheduler.config.prediction_type == "v_prediction":
        return functional.mse_loss(prediction, scheduler.get_velocity(latents, noise, timesteps))
    weights = (1 / scheduler.alphas_cumprod).clamp(max=_MAX_NOISE_WEIGHT)
    errors = (prediction - noise).square().mean((1, 2, 3))
    weighted: Tensor = (errors * weights[timesteps]).mean() / weights.mean()
    return weighted


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


English = tuple[CLIPTokenizer, CLIPTextModel | CLIPTextModelWithProjection]


def _load_english(folder: Path, *, projected: bool) -> English:
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    name = "text_model_with_projection" if projected else "text_model"
    model = load_part(kind, folder / name, torch.float32).eval()
    return load_tokenizer(CLIPTokenizer, folder / "tokenizer"), model


@torch.inference_mode()
def _encode_texts(encoders: list[English], texts: list[str]) -> tuple[Tensor, Tensor | None]:
    """As the pipelines do: SD1.5 last hidden state; SDXL penultimate ones of both, and a pooled embedding."""
    sequences, pooled = [], None
    for tokenizer, model in encoders:
        tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
        outputs = [model(ids, output_hidden_states=True) for ids in tokens.input_ids.split(256)]
        if len(encoders) == 1:
            sequences.append(torch.cat([output.last_hidden_state for output in outputs]))
        else:
            sequences.append(torch.cat([output.hidden_states[-2] for output in outputs]))
            pooled = torch.cat([output[0] for output in outputs])
    return torch.cat(sequences, dim=-1).clone(), None if pooled is None else pooled.clone()


@torch.inference_mode()
def _encode_images(vae: AutoencoderKL, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the latents, unscaled, `[N, 8, 8, 8]` each."""
    posteriors = [vae.encode(batch).latent_dist for batch in images.split(64)]
    return torch.cat([p.mean for p in posteriors]).clone(), torch.cat([p.std for p in posteriors]).clone()


def _new_unet(hidden: Tensor, pooled: Tensor | None, latent_channels: int) -> UNet2DConditionModel:
    shape: dict[str, object] = dict(SD15_UNET if pooled is None else SDXL_UNET)
    if pooled is not None:
        shape["projection_class_embeddings_input_dim"] = pooled.shape[-1] + 6 * 16
    unet = UNet2DConditionModel(
        in_channels=latent_channels,
        out_channels=latent_channels,
        sample_size=8,
        layers_per_block=1,
        norm_num_groups=16,
        attention_head_dim=4,
        cross_attention_dim=hidden.shape[-1],
        **shape,
    )
    return unet.to(memory_format=torch.channels_last)


def _added_conditions(pooled: Tensor | None, text: Tensor) -> dict[str, Tensor] | None:
    if pooled is None:
        return None
    return {"text_embeds": pooled[text], "time_ids": torch.tensor([_TIME_IDS]).expand(len(text), -1)}


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
