"""On a device that does one thing after the other, one thread at a time has its images in the VAE."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL

from pea.models.vae import VaeEncoder


@pytest.mark.parametrize(("device", "together"), [("cpu", 2), ("meta", 1)])
def test_threads_take_turns_but_on_a_cpu(monkeypatch: pytest.MonkeyPatch, device: str, together: int) -> None:
    with torch.device(device):
        encoder = VaeEncoder(AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, layers_per_block=1))
    inside, most, met = 0, 0, threading.Barrier(2)

    def encode(pixels: torch.Tensor) -> Any:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        try:
            met.wait(5 if together == 2 else 0.2)
        except threading.BrokenBarrierError:
            assert together == 1, "the other thread is kept waiting"
        inside -= 1
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=pixels, std=pixels))

    monkeypatch.setattr(encoder.vae, "encode", encode)
    images = torch.zeros(1, 3, 8, 8, device=device)
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(encoder.encode, [images, images]))
    assert most == together and len(answers) == 2
