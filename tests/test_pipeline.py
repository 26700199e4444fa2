"""Unmodified diffusers pipelines draw from native prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

from pea.errors import CheckpointError
from pea.models.adapter import new_adapter
from pea.models.unet import unet_config
from pea.pipeline import PEAPrompt
from tests.tiny_models import make_checkpoint, make_native_encoder


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def setup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, PEAPrompt, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = make_checkpoint(folder / "teacher", request.param)
    encoder = make_native_encoder(folder / "zh")
    adapter = new_adapter(unet_config(checkpoint), 16, hidden_size=8, num_layers=2, max_tokens=10, seed=0)
    adapter.save_pretrained(folder / "adapter")
    kind = StableDiffusionXLPipeline if request.param == "sdxl" else StableDiffusionPipeline
    pipe = kind.from_pretrained(checkpoint)
    pipe.set_progress_bar_config(disable=True)
    return pipe, PEAPrompt.from_pretrained(folder / "adapter", encoder), folder


def _draw(pipe: Any, **options: Any) -> np.ndarray:
    images: np.ndarray = pipe(**options, num_inference_steps=2, output_type="np", height=16, width=16).images
    return images


def test_one_prompt_a_batch_and_several_images(setup: tuple[Any, PEAPrompt, Path]) -> None:
    pipe, pea, _ = setup
    assert _draw(pipe, **pea("一只猫")).shape == (1, 16, 16, 3)
    assert _draw(pipe, **pea(["一只猫", "红球"])).shape == (2, 16, 16, 3)
    assert _draw(pipe, **pea(["一只猫", "红球"], negative_prompt="小")).shape == (2, 16, 16, 3)
    assert _draw(pipe, **pea("一只猫"), num_images_per_prompt=3).shape == (3, 16, 16, 3)


def test_the_negative_prompt_is_the_empty_one_by_default(setup: tuple[Any, PEAPrompt, Path]) -> None:
    _, pea, _ = setup
    embeds = pea(["一只猫", "红球"])
    empty = pea.encode([""]).encoder_hidden_states
    assert np.allclose(embeds["negative_prompt_embeds"][1], empty[0])
    with pytest.raises(ValueError, match="3 negative prompts for 2 prompts"):
        pea(["一只猫", "红球"], negative_prompt=["", "", ""])


def test_an_encoder_of_another_width_is_refused(setup: tuple[Any, PEAPrompt, Path]) -> None:
    _, pea, folder = setup
    config = unet_config(folder / "teacher")
    other = new_adapter(config, 24, hidden_size=8, num_layers=2, max_tokens=10, seed=0)
    with pytest.raises(CheckpointError, match=r"another text encoder.*width 24.*got 16"):
        PEAPrompt(other, pea.encoder)
