"""Tiny random checkpoints in the standard layouts, built in code: no network, no files in the repository."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    BertConfig,
    BertModel,
    BertTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    VisionTextDualEncoderModel,
    XLMRobertaTokenizer,
)

Shape = Literal["sd15", "sdxl"]
LATENT_HW = (8, 8)
IMAGE_HW = (16, 16)
ENCODER_RECORD = {"name": "zh", "tensors": "1" * 64, "tokenizer": "2" * 64}
"""What an adapter says of its text encoder, where a test never loads that."""
_TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 12,
}
_VISION = {**_TEXT, "image_size": 16, "patch_size": 8}


def make_checkpoint(folder: Path, shape: Shape, prediction_type: str = "epsilon", seed: int = 0) -> Path:
    """A diffusers pipeline folder; latents are 4×8×8 for images of 16 px."""
    torch.manual_seed(seed)
    parts: dict[str, Any] = {
        "vae": _vae(),
        "unet": _unet(shape),
        "scheduler": DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction_type,
        ),
        "tokenizer": clip_tokenizer(),
        "text_encoder": CLIPTextModel(_clip_text()),
    }
    if shape == "sdxl":
        parts |= {"tokenizer_2": clip_tokenizer(), "text_encoder_2": CLIPTextModelWithProjection(_clip_text())}
        StableDiffusionXLPipeline(**parts, add_watermarker=False).save_pretrained(folder)
    else:
        StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        ).save_pretrained(folder)
    return folder


def make_native_encoder(folder: Path, kind: str = "chinese_clip", seed: int = 1) -> Path:
    """A transformers folder with a text encoder of width 16 and its tokenizer."""
    torch.manual_seed(seed)
    tokenizer, model = _native(kind)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def clip_tokenizer() -> CLIPTokenizer:
    """Letters only, 12 tokens."""
    letters = [*string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    vocabulary = {token: index for index, token in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=12)


def _bert_tokenizer() -> BertTokenizer:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"一只猫狗红球大小在上下雪草", *string.ascii_lowercase]
    return BertTokenizer(vocab={token: index for index, token in enumerate(tokens)}, model_max_length=10)


def _clip_text() -> CLIPTextConfig:
    tokenizer = clip_tokenizer()
    return CLIPTextConfig(
        **_TEXT,
        vocab_size=len(tokenizer),
        max_position_embeddings=12,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def _native(kind: str) -> tuple[Any, Any]:
    bert = {**_TEXT, "max_position_embeddings": 10, "pad_token_id": 0, "vocab_size": len(_bert_tokenizer())}
    if kind == "chinese_clip":
        return _bert_tokenizer(), ChineseCLIPModel(
            ChineseCLIPConfig(text_config=bert, vision_config=_VISION, projection_dim=12)
        )
    if kind == "clip":
        return clip_tokenizer(), CLIPModel(
            CLIPConfig(text_config=_clip_text().to_dict(), vision_config=_VISION, projection_dim=12)
        )
    if kind == "dual":
        return _bert_tokenizer(), VisionTextDualEncoderModel(
            vision_model=CLIPVisionModel(CLIPVisionConfig(**_VISION)), text_model=BertModel(BertConfig(**bert))
        )
    if kind == "bert":
        return _bert_tokenizer(), BertModel(BertConfig(**bert))
    assert kind == "alt_clip"
    pieces = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    pieces += [(letter, -5.0) for letter in ("▁", *string.ascii_lowercase, *"一只猫")]
    tokenizer = XLMRobertaTokenizer(vocab=[*pieces, ("<mask>", 0.0)], model_max_length=10)
    text = {**_TEXT, "vocab_size": len(tokenizer), "max_position_embeddings": 12, "project_dim": 16, "pad_token_id": 1}
    return tokenizer, AltCLIPModel(AltCLIPConfig(text_config=text, vision_config=_VISION, projection_dim=12))


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=16,
        scaling_factor=0.5,
    )


def _unet(shape: Shape) -> UNet2DConditionModel:
    common: dict[str, Any] = {"sample_size": 8, "layers_per_block": 1, "norm_num_groups": 4, "attention_head_dim": 2}
    if shape == "sd15":
        return UNet2DConditionModel(
            **common,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            block_out_channels=(8, 16),
            cross_attention_dim=16,
        )
    return UNet2DConditionModel(
        **common,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(8, 16),
        cross_attention_dim=32,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=12 + 6 * 4,
        use_linear_projection=True,
    )
