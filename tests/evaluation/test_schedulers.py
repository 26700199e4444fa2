"""Each scheduler draws as diffusers does, and what adds noise draws an image of its own seed alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, LCMScheduler, StableDiffusionXLPipeline

from pea.config import Config
from pea.config.evaluate import Scheduler
from pea.errors import ConfigError
from pea.evaluation.drawing import Drawer
from pea.evaluation.schedulers import SCHEDULERS, make_scheduler
from pea.models.english import EnglishEncoder
from pea.models.noise_schedule import schedule_fields


@pytest.mark.slow
def test_every_scheduler_draws_and_they_differ(tiny_sdxl: Config) -> None:
    encode = EnglishEncoder.from_checkpoint(tiny_sdxl.teacher.checkpoint).encode
    drawer = Drawer(tiny_sdxl.teacher.checkpoint, "cpu", num_inference_steps=3, guidance_scale=3.0)
    drawn = {}
    for name in SCHEDULERS:
        drawer.scheduler = name
        together = drawer.draw(encode(["a cat", "a dog"]), encode([""]), [1, 2])
        alone = drawer.draw(encode(["a dog"]), encode([""]), [2])
        assert np.abs(together[1].astype(int) - alone[0]).max() <= 1, name  # rounding
        drawn[name] = together[0].tobytes()
    assert len(set(drawn.values())) == len(SCHEDULERS)
    assert set(SCHEDULERS) == set(Scheduler.__args__)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("dpm", DPMSolverMultistepScheduler), ("lcm", LCMScheduler)])
def test_the_pipeline_is_the_unmodified_one(tiny_sdxl: Config, name: str, kind: type) -> None:
    encode = EnglishEncoder.from_checkpoint(tiny_sdxl.teacher.checkpoint).encode
    options = {"num_inference_steps": 3, "guidance_scale": 2.0}
    drawer = Drawer(tiny_sdxl.teacher.checkpoint, "cpu", scheduler=name, **options)
    ours = drawer.draw(encode(["a cat"]), encode([""]), [7])
    pipe = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl.teacher.checkpoint)
    pipe.scheduler = kind.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    noise = torch.Generator().manual_seed(7)
    latents = torch.randn(1, 4, 8, 8, generator=noise)
    sizes = {"height": 16, "width": 16, "output_type": "np"}
    theirs = pipe("a cat", negative_prompt="", latents=latents, generator=[noise], **sizes, **options).images
    assert np.abs(ours[0] / 255 - theirs[0]).max() < 0.01


def test_steps_that_a_scheduler_cannot_take_are_refused(tiny_sdxl: Config) -> None:
    fields = schedule_fields(tiny_sdxl.teacher.checkpoint / "scheduler")
    with pytest.raises(ConfigError, match=r"the scheduler lcm cannot take these steps; got 60:"):
        make_scheduler("lcm", fields, 60)
    assert make_scheduler("dpm", fields, 60).num_inference_steps == 60
