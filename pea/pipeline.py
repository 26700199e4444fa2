"""Native prompts for unmodified diffusers pipelines.

    pea = PEAPrompt.from_pretrained("runs/demo/adapter", "weights/zh")
    image = pipe(**pea("一只猫")).images[0]

`pipe` is any pipeline that takes `prompt_embeds`: StableDiffusionPipeline, StableDiffusionXLPipeline, their img2img,
inpaint and ControlNet relatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pea.errors import CheckpointError
from pea.evaluation.drawing import prompt_arguments
from pea.models.adapter import PEA
from pea.models.conditioning import Conditioning
from pea.models.encoders.pair import load_encoder
from pea.models.encoders.text_encoder import TextEncoder
from pea.models.encoders.traits import recorded_reading
from pea.models.native import check_encoder
from pea.storage.hub import local_folder


class PEAPrompt:
    """Turns prompts into the keyword arguments that replace `prompt` in a diffusers pipeline."""

    def __init__(self, adapter: PEA, encoder: TextEncoder, *, any_encoder: bool = False) -> None:
        """`any_encoder`: take one that is not the adapter's own, such as the same in another precision.

        Raises:
            CheckpointError: they do not belong together.
        """
        if adapter.config.input_dim != encoder.width:
            raise CheckpointError(
                "the adapter was trained for another text encoder",
                expected=f"hidden states of width {adapter.config.input_dim}",
                got=encoder.width,
            )
        if not any_encoder:
            check_encoder(adapter.config.encoder, encoder)
        self.adapter, self.encoder = adapter, encoder
        self.dtype = torch.float32

    @classmethod
    def from_pretrained(
        cls, adapter: str | Path, encoder: str | Path | Sequence[str | Path], *, any_encoder: bool = False
    ) -> PEAPrompt:
        """Load an adapter and its text encoder, or both of them: folders, or `org/name@revision` of the hub.

        An adapter that does not say which that was gives a warning. `any_encoder`: as in the constructor.

        Raises:
            CheckpointError: a folder is missing or unusable, or they do not belong together.
        """
        pea = PEA.load(local_folder(adapter))
        folders = [local_folder(each) for each in ([encoder] if isinstance(encoder, str | Path) else encoder)]
        own = load_encoder(folders, reading=recorded_reading(pea.config))
        return cls(pea, own, any_encoder=any_encoder)

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> PEAPrompt:
        """Move both models; embeddings come out in `dtype` (the pipeline's), the models stay in float32."""
        self.adapter.to(device)
        self.encoder.to(device)
        self.dtype = dtype
        return self

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """Prompts -> conditioning float `[B, L, D]` and, for SDXL, `[B, P]`."""
        conditioning: Conditioning = self.adapter(*self.encoder.encode(prompts))
        return conditioning

    def __call__(self, prompt: str | Sequence[str], negative_prompt: str | Sequence[str] = "") -> dict[str, Tensor]:
        """`prompt_embeds`, `negative_prompt_embeds` and, for SDXL, the pooled ones; one row per prompt.

        Use the pipeline's own `num_images_per_prompt` for several images of one prompt. One negative prompt serves all.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        negatives = [negative_prompt] if isinstance(negative_prompt, str) else list(negative_prompt)
        if len(negatives) not in (1, len(prompts)):
            raise ValueError(f"{len(negatives)} negative prompts for {len(prompts)} prompts")
        arguments = prompt_arguments(self.encode(prompts), self.encode(negatives))
        return {name: tensor.to(self.dtype) for name, tensor in arguments.items()}
