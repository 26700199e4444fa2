"""Native prompts in the pipelines and with the parts that people use, all of them diffusers' own and unmodified."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    AutoPipelineForInpainting,
    ControlNetModel,
    EulerAncestralDiscreteScheduler,
    LCMScheduler,
    StableDiffusionControlNetPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLControlNetPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image

from pea.models.adapter import new_adapter
from pea.models.native import NativeEncoder
from pea.models.unet import unet_config
from pea.pipeline import PEAPrompt
from tests.tiny_models import make_checkpoint, make_native_encoder

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8))
MASK = Image.fromarray(np.pad(np.full((8, 16), 255, np.uint8), ((0, 8), (0, 0))))


class Setup(NamedTuple):
    checkpoint: Path
    pipe: Any
    pea: PEAPrompt
    is_xl: bool


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def setup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Setup:
    folder, is_xl = tmp_path_factory.mktemp(request.param), request.param == "sdxl"
    checkpoint = make_checkpoint(folder / "teacher", request.param)
    encoder = NativeEncoder.from_pretrained(make_native_encoder(folder / "zh"))
    adapter = new_adapter(unet_config(checkpoint), 16, hidden_size=8, num_layers=2, max_tokens=10, seed=0)
    for parameter in adapter.parameters():
        parameter.data *= 4  # so that prompts differ by more than rounding
    adapter.register_to_config(encoder=encoder.record)
    pipe = (StableDiffusionXLPipeline if is_xl else StableDiffusionPipeline).from_pretrained(checkpoint)
    return Setup(checkpoint, pipe, PEAPrompt(adapter, encoder), is_xl)


def draw(pipe: Any, pea: PEAPrompt, prompt: str, **options: Any) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    settings = {"num_inference_steps": 3, "output_type": "np", "generator": torch.Generator().manual_seed(0), **options}
    image: np.ndarray = pipe(**pea(prompt), **settings).images[0]
    assert image.shape == (16, 16, 3) and np.isfinite(image).all()
    return image


def check_follows_the_prompt(pipe: Any, pea: PEAPrompt, **options: Any) -> np.ndarray:
    """The same prompt gives the same image, another one another; returns the first."""
    cat = draw(pipe, pea, "一只猫", **options)
    assert np.array_equal(cat, draw(pipe, pea, "一只猫", **options))
    assert not np.array_equal(cat, draw(pipe, pea, "红球大小", **options))
    return cat


def test_img2img(setup: Setup) -> None:
    pipe = AutoPipelineForImage2Image.from_pipe(setup.pipe)
    weak = check_follows_the_prompt(pipe, setup.pea, image=IMAGE, strength=0.4)
    strong = check_follows_the_prompt(pipe, setup.pea, image=IMAGE, strength=1.0)
    assert not np.array_equal(weak, strong)


def test_inpainting(setup: Setup) -> None:
    pipe = AutoPipelineForInpainting.from_pipe(setup.pipe)
    size = {"height": 16, "width": 16}
    painted = check_follows_the_prompt(pipe, setup.pea, image=IMAGE, mask_image=MASK, strength=1.0, **size)
    whole = draw(pipe, setup.pea, "一只猫", image=IMAGE, mask_image=Image.new("L", (16, 16), 255), strength=1.0, **size)
    assert not np.array_equal(painted, whole)


def test_controlnet(setup: Setup) -> None:
    kind = StableDiffusionXLControlNetPipeline if setup.is_xl else StableDiffusionControlNetPipeline
    torch.manual_seed(1)
    net = ControlNetModel.from_unet(setup.pipe.unet, conditioning_embedding_out_channels=(4, 8))
    for parameter in net.parameters():  # it begins as a net without effect
        parameter.data += 0.3 * torch.randn_like(parameter)
    components = {name: part for name, part in setup.pipe.components.items() if name != "controlnet"}
    pipe = kind(**components, controlnet=net)
    controlled = check_follows_the_prompt(pipe, setup.pea, image=IMAGE, height=16, width=16)
    other = draw(pipe, setup.pea, "一只猫", image=Image.new("RGB", (16, 16)), height=16, width=16)
    assert not np.array_equal(controlled, other)


def test_a_foreign_lora(setup: Setup, tmp_path: Path) -> None:
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    kind = type(setup.pipe)
    trained = kind.from_pretrained(setup.checkpoint)
    torch.manual_seed(2)
    config = LoraConfig(r=2, init_lora_weights="gaussian", target_modules=["to_k", "to_q", "to_v", "to_out.0"])
    trained.unet.add_adapter(config)
    for name, parameter in trained.unet.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn_like(parameter)
    kind.save_lora_weights(tmp_path, unet_lora_layers=get_peft_model_state_dict(trained.unet))
    size = {"height": 16, "width": 16}
    pipe = kind.from_pretrained(setup.checkpoint)
    plain = draw(pipe, setup.pea, "一只猫", **size)
    pipe.load_lora_weights(tmp_path)
    changed = check_follows_the_prompt(pipe, setup.pea, **size)
    assert not np.array_equal(plain, changed)
    pipe.unload_lora_weights()
    assert np.array_equal(plain, draw(pipe, setup.pea, "一只猫", **size))


def test_lcm(setup: Setup) -> None:
    pipe = type(setup.pipe)(**setup.pipe.components)
    pipe.scheduler = LCMScheduler.from_config(setup.pipe.scheduler.config)
    check_follows_the_prompt(pipe, setup.pea, guidance_scale=1.0, num_inference_steps=4, height=16, width=16)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # in diffusers' own scheduler
def test_turbo_draws_in_one_step_without_guidance(setup: Setup) -> None:
    pipe = type(setup.pipe)(**setup.pipe.components)
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(
        setup.pipe.scheduler.config, timestep_spacing="trailing"
    )
    options = {"guidance_scale": 0.0, "num_inference_steps": 1, "height": 16, "width": 16}
    image = check_follows_the_prompt(pipe, setup.pea, **options)
    arguments = setup.pea("一只猫", negative_prompt="小狗")
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    other = pipe(**arguments, **options, output_type="np", generator=generator).images[0]
    assert np.array_equal(image, other), "without guidance, no negative prompt is looked at"
