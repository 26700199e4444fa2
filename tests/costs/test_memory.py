"""Memory is foretold from shapes alone, and is what the same passes hold on real tensors."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn

from pea.collect.layout import layouts_of
from pea.config import AttentionConfig, Config
from pea.costs import memory
from pea.costs.caching import read_models
from pea.models.conditioning import Conditioning
from pea.models.unet import Teacher


def needs(config: Config, num_samples: int = 1000, **train: Any) -> dict[str, float]:
    models = read_models(config.teacher.checkpoint)
    first = config.cache.model_copy(update={"buckets": config.cache.buckets[:1]})
    [layout] = layouts_of(models.vae, models.unet, first, models.num_tokens).values()
    config = config.model_copy(update={"train": config.train.model_copy(update=train)})
    return memory.memory_needs(config, models, layout, num_samples)


def test_what_lives_at_a_time_is_counted_once() -> None:
    model = nn.Linear(10, 10)

    def act() -> torch.Tensor:
        first = torch.zeros(1000)
        view = first.view(10, 100)[2:]
        second = view.sum(0)  # 100 values beside 1000
        del first, view
        return torch.zeros(900) + second.sum() + model.weight.t().sum()  # the model's own do not count

    assert memory.peak_bytes(act, model) == pytest.approx(4 * (900 * 2 + 100), abs=64)


@pytest.mark.slow
def test_passes_without_content_hold_what_real_ones_hold(tiny_sdxl: Config) -> None:
    checkpoint = tiny_sdxl.teacher.checkpoint
    models, latent, tokens = read_models(checkpoint), (4, 8, 8), 12
    unet, vae = json.dumps(dict(models.unet)), json.dumps(dict(models.vae))
    teacher = Teacher.from_checkpoint(checkpoint)
    text = Conditioning(torch.randn(1, tokens, 32), torch.randn(1, 12))
    arguments = (torch.randn(1, *latent), torch.tensor([5]), text, torch.zeros(1, 6, dtype=torch.int64))
    with torch.no_grad():
        real = memory.peak_bytes(lambda: teacher.forward(*arguments), teacher.unet)
    assert memory._forward_bytes(unet, latent, tokens, "float32") == pytest.approx(real, rel=0.01)
    assert memory._unet_weights(unet, "float16") * 2 == sum(4 * p.numel() for p in teacher.unet.parameters())
    encoder = AutoencoderKL.from_pretrained(checkpoint / "vae")
    pixels = torch.zeros(1, 3, 16, 16)
    with torch.no_grad():
        real = memory.peak_bytes(lambda: encoder.encode(pixels), encoder)
    assert memory._encode_bytes(vae, (16, 16), "float32") == pytest.approx(real, rel=0.01)


@pytest.mark.slow
def test_needs_follow_the_settings(tiny_sdxl: Config) -> None:
    plain = needs(tiny_sdxl)
    assert set(plain) == {"caching", "training", "drawing"}
    assert needs(tiny_sdxl, batch_size=16)["training"] > plain["training"]
    assert needs(tiny_sdxl, gradient_checkpointing=True)["training"] < plain["training"]
    assert needs(tiny_sdxl, num_samples=2)["caching"] < plain["caching"]
    half = tiny_sdxl.model_copy(update={"teacher": tiny_sdxl.teacher.model_copy(update={"dtype": "bfloat16"})})
    assert needs(half)["caching"] < plain["caching"] and needs(half)["training"] == plain["training"]
    queries = tiny_sdxl.cache.model_copy(update={"attention": AttentionConfig(num_queries=4)})
    with_queries = needs(tiny_sdxl.model_copy(update={"cache": queries}))
    assert 0 < with_queries["attention"] < with_queries["training"]
