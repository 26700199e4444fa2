"""What a pass holds is counted from shapes alone, and is what the same pass holds on real tensors."""

from __future__ import annotations

import json

import pytest
import torch
from diffusers import AutoencoderKL
from torch import nn

from pea.config import Config
from pea.costs import passes
from pea.costs.caching import read_models
from pea.models.conditioning import Conditioning
from pea.models.unet import Teacher


def test_what_lives_at_a_time_is_counted_once() -> None:
    model = nn.Linear(10, 10)

    def act() -> torch.Tensor:
        first = torch.zeros(1000)
        view = first.view(10, 100)[2:]
        second = view.sum(0)  # 100 values beside 1000
        del first, view
        return torch.zeros(900) + second.sum() + model.weight.t().sum()  # the model's own do not count

    assert passes.peak_bytes(act, model) == pytest.approx(4 * (900 * 2 + 100), abs=64)


@pytest.mark.slow
def test_passes_without_content_hold_what_real_ones_hold(tiny_sdxl: Config) -> None:
    checkpoint = tiny_sdxl.teacher.checkpoint
    models, latent, tokens = read_models(checkpoint), (4, 8, 8), 12
    unet, vae = json.dumps(dict(models.unet)), json.dumps(dict(models.vae))
    teacher = Teacher.from_checkpoint(checkpoint)
    text = Conditioning(torch.randn(1, tokens, 32), torch.randn(1, 12))
    arguments = (torch.randn(1, *latent), torch.tensor([5]), text, torch.zeros(1, 6, dtype=torch.int64))
    with torch.no_grad():
        real = passes.peak_bytes(lambda: teacher.forward(*arguments), teacher.unet)
    assert passes.forward_bytes(unet, latent, tokens, "float32") == pytest.approx(real, rel=0.01)
    assert passes.unet_weights(unet, "float16") * 2 == sum(4 * p.numel() for p in teacher.unet.parameters())
    encoder = AutoencoderKL.from_pretrained(checkpoint / "vae")
    pixels = torch.zeros(1, 3, 16, 16)
    with torch.no_grad():
        real = passes.peak_bytes(lambda: encoder.encode(pixels), encoder)
    assert passes.encode_bytes(vae, (16, 16), "float32") == pytest.approx(real, rel=0.01)


@pytest.mark.slow
def test_a_step_on_a_gpu_holds_its_norms_in_float32(tiny_sdxl: Config) -> None:
    unet = json.dumps(dict(read_models(tiny_sdxl.teacher.checkpoint).unet))

    def held(dtype: str, *, on_cpu: bool) -> float:
        return passes.step_bytes(unet, (4, 8, 8), 12, dtype, False, on_cpu)

    assert held("bfloat16", on_cpu=False) > 1.1 * held("bfloat16", on_cpu=True)
    assert held("float32", on_cpu=False) == held("float32", on_cpu=True)


def test_norms_alone_answer_in_float32() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.GroupNorm(2, 4), nn.SiLU(), nn.Conv2d(4, 4, 1)).to(torch.bfloat16)
    passes.normalise_in_float32(model)
    found = []
    for layer in model:
        layer.register_forward_hook(lambda _layer, _inputs, output: found.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.zeros(1, 4, 2, 2, dtype=torch.bfloat16))
    assert found == [torch.bfloat16, torch.float32, torch.float32, torch.bfloat16]
