"""Pictures of fixed prompts while the adapter is trained: `training/samples/step-00000400.png`."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator

from pea.config import Config
from pea.evaluation.drawing import Drawer, Images, image_seed, save_grid
from pea.models.conditioning import Conditioning
from stages.training.setup import Setup


class Pictures:
    """Draws `train.sample_prompts` with the student's UNet and the adapter as they are."""

    def __init__(self, config: Config, setup: Setup, accelerator: Accelerator) -> None:
        self.prompts, self.setup, self.accelerator = list(config.train.sample_prompts), setup, accelerator
        self.folder = config.training_dir / "samples"
        self.seeds = [image_seed(config.evaluate.seed, str(number)) for number in range(len(self.prompts))]
        self.drawer = Drawer(
            config.teacher.folder,
            accelerator.device,
            num_inference_steps=config.evaluate.num_inference_steps,
            guidance_scale=config.evaluate.guidance_scale,
            unet=setup.teacher.unet,
        )

    def draw(self, step: int) -> Path:
        """One picture with an image of each prompt; returns its path."""
        with torch.no_grad(), self.accelerator.autocast():
            images: Images = self.drawer.draw(self._conditioning(self.prompts), self._conditioning([""]), self.seeds)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{step:08d}.png"
        save_grid(path, images)
        return path

    def _conditioning(self, prompts: list[str]) -> Conditioning:
        hidden, mask = self.setup.native_states(prompts)
        assert hidden is not None
        device, dtype = self.accelerator.device, self.setup.teacher.unet.dtype
        states, pooled = self.setup.adapter(hidden.to(device), None if mask is None else mask.to(device))
        return Conditioning(states.to(dtype), None if pooled is None else pooled.to(dtype))
