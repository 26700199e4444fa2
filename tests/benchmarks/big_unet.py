"""A teacher of real size where no real weights are at hand: SD1.5's UNet, and its VAE, with random weights."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from pea.config import Config
from stages.plan import PRESETS

SIZE_PX = 512


def big_config(config: Config, folder: Path, size_px: int = SIZE_PX, *, whole_vae: bool = False) -> Config:
    """The same setup for larger images, with SD1.5's UNet in place of the checkpoint's; the text encoders stay small.

    `whole_vae`: with a VAE of SD1.5's size too; else it stays small.
    """
    checkpoint = config.teacher.checkpoint.parent / "sd15"
    big = folder / "big"
    shutil.copytree(checkpoint, big, ignore=shutil.ignore_patterns("diffusion_pytorch_model*.safetensors.index.json"))
    small = json.loads((checkpoint / "unet" / "config.json").read_text(encoding="utf-8"))
    shutil.rmtree(big / "unet")
    unet = UNet2DConditionModel(
        sample_size=size_px // 8,
        in_channels=small["in_channels"],
        out_channels=small["out_channels"],
        cross_attention_dim=small["cross_attention_dim"],
        block_out_channels=(320, 640, 1280, 1280),
        attention_head_dim=8,
    )
    unet.to(torch.float16).save_pretrained(big / "unet")
    if whole_vae:
        shutil.rmtree(big / "vae")
        sizes = json.loads(PRESETS.read_text("utf-8"))["sd15"]["vae"]
        vae = AutoencoderKL(**(sizes | {"latent_channels": small["in_channels"]}))
        vae.to(torch.float16).save_pretrained(big / "vae")
    teacher = config.teacher.model_copy(update={"checkpoint": big})
    cache = config.cache.model_copy(update={"buckets": ((size_px, size_px),)})
    return config.model_copy(update={"teacher": teacher, "cache": cache})


def first_samples(tar: Path, num_samples: int, folder: Path) -> Path:
    """A tar with the first samples of another, under its name."""
    short = folder / "tars" / tar.name
    short.parent.mkdir(parents=True)
    with tarfile.open(tar) as source, tarfile.open(short, "w") as target:
        keys: set[str] = set()
        for member in source:
            keys.add(member.name.partition(".")[0])
            if len(keys) > num_samples:
                break
            target.addfile(member, source.extractfile(member))
    return short
