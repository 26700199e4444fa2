"""Teachers and text encoders of published sizes with random weights, in the folders that people have of them."""

from __future__ import annotations

import io
import json
import string
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import (
    BertTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

from pea.config import Config
from stages.plan import PRESETS
from tests.tiny_models import make_checkpoint, make_native_encoder

SIZES_PX = {"sd15": 512, "sdxl": 1024, "ssd1b": 1024, "tiny-sd15": 16, "tiny-sdxl": 16}
"""Teacher -> height and width of its images."""
_SSD_1B = {
    "transformer_layers_per_block": [1, [2, 2], [4, 4]],
    "reverse_transformer_layers_per_block": [[4, 4, 10], [2, 1, 1], 1],
    "mid_block_type": "UNetMidBlock2D",
}
"""Where its UNet is another than SDXL's. Source: segmind/SSD-1B, unet/config.json; 1.33e9 parameters."""
_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
_CLIP_G |= {"projection_dim": 1280, "hidden_act": "gelu"}
_CHINESE_CLIP: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "H": (
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
        {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16},
        1024,
    ),
    "L": (
        {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
        {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
        768,
    ),
}
"""Text, vision, width of both together. Source: OFA-Sys/chinese-clip-vit-{huge,large}-patch14, config.json."""
_VOCABULARY, _CHINESE_VOCABULARY = 49408, 21128
_CAPTION = "一只猫和红球"


def make_teacher(folder: Path, name: str, device: torch.device | str = "cpu") -> Path:
    """A pipeline of ``SIZES_PX``, bfloat16 (the tiny ones float32)."""
    torch.manual_seed(0)
    if name.startswith("tiny-"):
        return make_checkpoint(folder, "sdxl" if name == "tiny-sdxl" else "sd15")
    sizes = json.loads(PRESETS.read_text("utf-8"))["sd15" if name == "sd15" else "sdxl"]
    is_xl = name != "sd15"
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="leading", steps_offset=1
    )
    with _bfloat16(device):
        unet = UNet2DConditionModel(**sizes["unet"] | (_SSD_1B if name == "ssd1b" else {}))
        vae = AutoencoderKL(**sizes["vae"], sample_size=SIZES_PX[name], scaling_factor=0.13025 if is_xl else 0.18215)
        parts: dict[str, Any] = {"text_encoder": CLIPTextModel(CLIPTextConfig(**_CLIP_L, vocab_size=_VOCABULARY))}
        if is_xl:
            second = CLIPTextConfig(**_CLIP_G, vocab_size=_VOCABULARY)
            parts |= {"text_encoder_2": CLIPTextModelWithProjection(second), "tokenizer_2": _clip_tokenizer()}
    parts |= {"unet": unet, "vae": vae, "scheduler": scheduler, "tokenizer": _clip_tokenizer()}
    if is_xl:
        StableDiffusionXLPipeline(**parts, add_watermarker=False).save_pretrained(folder)
    else:
        alone = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        StableDiffusionPipeline(**parts, **alone).save_pretrained(folder)
    return folder


def make_student(folder: Path, name: str, device: torch.device | str = "cpu") -> Path:
    """The encoder of captions in Chinese: Chinese-CLIP ``H`` or ``L`` with its vision tower, or ``tiny``."""
    if name == "tiny":
        return make_native_encoder(folder)
    torch.manual_seed(1)
    text, vision, width = _CHINESE_CLIP[name]
    config = ChineseCLIPConfig(
        text_config={**text, "vocab_size": _CHINESE_VOCABULARY, "max_position_embeddings": 512, "pad_token_id": 0},
        vision_config={**vision, "patch_size": 14, "image_size": 224},
        projection_dim=width,
    )
    with _bfloat16(device):
        ChineseCLIPModel(config).save_pretrained(folder)
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_CAPTION]
    tokens += [f"[unused{number}]" for number in range(_CHINESE_VOCABULARY - len(tokens))]
    tokenizer = BertTokenizer(vocab={token: index for index, token in enumerate(tokens)}, model_max_length=512)
    tokenizer.save_pretrained(folder)
    return folder


def make_corpus(folder: Path, num_samples: int, size_px: int) -> Path:
    """A tar of random images with an English and a Chinese caption."""
    path = folder / "corpus.tar"
    with tarfile.open(path, "w") as tar:
        for number in range(num_samples):
            pixels = np.random.default_rng(number).integers(0, 255, (size_px, size_px, 3), dtype=np.uint8)
            english = f"a {string.ascii_lowercase[number % 26]} cat and a ball"
            image, captions = io.BytesIO(), {"en": english, "zh": _CAPTION[number % 3 :]}
            Image.fromarray(pixels).save(image, "PNG", compress_level=1)
            for name, data in (
                (f"{number:04d}.png", image.getvalue()),
                (f"{number:04d}.json", json.dumps({"captions": captions}).encode()),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def make_config(folder: Path, teacher: str, dtype: str, *, batch_size: int, num_draws: int = 2, **train: Any) -> Config:
    """A setup over ``folder/teacher``, ``folder/student`` and ``folder/corpus.tar``, with sketches and queries."""
    size = SIZES_PX[teacher]
    raw = {
        "run_dir": str(folder / "run"),
        "teacher": {"checkpoint": str(folder / "teacher"), "dtype": dtype},
        "corpora": {"parallel": {"tars": [str(folder / "corpus.tar")]}},
        "cache": {
            "draws_per_sample": num_draws,
            "buckets": [[size, size]],
            "attention": {"num_queries": 8, "layers_per_record": 8 if teacher in ("sdxl", "ssd1b") else None},
            "run": {"batch_size": batch_size},
        },
        "student": {"encoder": str(folder / "student")},
        "train": {"batch_size": batch_size, "culture_fraction": 0.0, "num_workers": 1, **train},
    }
    return Config.model_validate_json(json.dumps(raw))


def _clip_tokenizer() -> CLIPTokenizer:
    """As many tokens as CLIP's, of which it uses the letters; its real vocabulary is no part of this project."""
    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    words = [*letters, *(f"unused{number}</w>" for number in range(_VOCABULARY - len(letters) - 2))]
    vocabulary = {token: index for index, token in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


@contextmanager
def _bfloat16(device: torch.device | str) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)
