"""Tiny pipelines of each kind around one tiny checkpoint, and an adapter for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    ControlNetModel,
    LCMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image

from pea.models.adapter import new_adapter
from pea.models.encoders.places import record_with_places
from pea.models.native import NativeEncoder
from pea.models.unet import unet_config
from tests.tiny_models import Shape, make_checkpoint, make_native_encoder

KINDS = {
    "sd15": {
        "text": StableDiffusionPipeline,
        "img2img": StableDiffusionImg2ImgPipeline,
        "inpaint": StableDiffusionInpaintPipeline,
        "controlnet": StableDiffusionControlNetPipeline,
    },
    "sdxl": {
        "text": StableDiffusionXLPipeline,
        "img2img": StableDiffusionXLImg2ImgPipeline,
        "inpaint": StableDiffusionXLInpaintPipeline,
        "controlnet": StableDiffusionXLControlNetPipeline,
    },
}
_PICTURE = Image.fromarray(np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3))
_MASK = Image.fromarray(np.tri(16, dtype=np.uint8) * 255)
INPUTS: dict[str, dict[str, Any]] = {
    "text": {"height": 16, "width": 16},
    "img2img": {"image": _PICTURE, "strength": 0.9},
    "inpaint": {"image": _PICTURE, "mask_image": _MASK, "strength": 0.9, "height": 16, "width": 16},
    "controlnet": {"image": _PICTURE, "height": 16, "width": 16},
}


def make_parts(folder: Path, shape: Shape) -> Path:
    """`teacher`, `zh` and `adapter` below the folder."""
    checkpoint, encoder = make_checkpoint(folder / "teacher", shape), make_native_encoder(folder / "zh")
    adapter = new_adapter(unet_config(checkpoint), 16, hidden_size=8, num_layers=2, max_tokens=10, seed=0)
    record = record_with_places(NativeEncoder.from_pretrained(encoder).record, [encoder])
    base = {"name": "teacher", "unet": None}
    adapter.register_to_config(encoder=record, base_model=base, languages=["zh"], prediction_type="epsilon")
    adapter.save_pretrained(folder / "adapter")
    return folder


def make_pipe(text_pipe: Any, shape: Shape, kind: str) -> Any:
    """A pipeline of another kind from the same models."""
    parts = dict(text_pipe.components)
    if kind == "controlnet":
        torch.manual_seed(3)
        parts["controlnet"] = ControlNetModel.from_unet(text_pipe.unet, conditioning_embedding_out_channels=(8, 16))
        for parameter in parts["controlnet"].parameters():  # new ones say nothing: their last layers are zeros
            parameter.data += 0.01 * torch.randn_like(parameter)
        parts["controlnet"].eval()
    options: dict[str, Any] = {"add_watermarker": False} if shape == "sdxl" else {"requires_safety_checker": False}
    pipe = KINDS[shape][kind](**parts, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def use_lcm(pipe: Any) -> None:
    """The schedule of latent consistency models."""
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)


def draw(pipe: Any, *prompt: Any, **options: Any) -> np.ndarray:
    """Images float `[B, H, W, 3]` in two steps, from one seed."""
    generator = torch.Generator().manual_seed(5)
    settings = {"num_inference_steps": 2, "generator": generator, "output_type": "np"} | options
    images: np.ndarray = pipe(*prompt, **settings).images
    return images
