"""The frozen UNet, whose answers are the teacher's with English text and the student's with the adapter's.

Shapes: B batch, c,h,w latents, C,H,W the feature map of a block.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from pea.errors import ConfigError
from pea.models.conditioning import Conditioning
from pea.models.loading import load_part
from pea.models.noise_schedule import schedule_fields
from pea.models.teacher_parts import check_unet, pooled_dim_of, read_config, unet_blocks

Blocks = Literal["all"] | Sequence[str]
Positions = Literal["all"] | Mapping[str, Tensor]
"""Cross-attention layer -> int64 `[B, Q]`, where its queries are wanted; `all`: of every layer at every position."""


class UNetOutput(NamedTuple):
    """One pass of the UNet."""

    noise_pred: Tensor
    """float `[B, c, h, w]`: the noise, or the velocity for v-prediction."""
    features: dict[str, Tensor]
    """Block -> its output, float `[B, C, H, W]`."""
    queries: Mapping[str, Tensor] = MappingProxyType({})
    """Cross-attention layer -> its queries at the positions asked for, float `[B, Q, width]`."""


class _Pass(threading.local):
    """What the hooks of one pass are told and find; each thread has its own."""

    def __init__(self) -> None:
        self.captured: dict[str, Tensor] = {}
        self.positions: Positions = {}
        self.running = False


class Teacher:
    """A frozen UNet with its noise schedule; the only place that registers hooks. Threads may share it."""

    def __init__(
        self,
        unet: UNet2DConditionModel,
        scheduler: DDPMScheduler,
        blocks: Blocks = "all",
        *,
        channels_last: bool = False,
        query_layers: Blocks = (),
    ) -> None:
        if channels_last:
            unet = unet.to(memory_format=torch.channels_last)
        self.unet = unet.requires_grad_(False).eval()
        self.scheduler = scheduler
        self.blocks = block_names(unet, blocks)
        self.query_layers = layer_names(unet, query_layers)
        self._pass = _Pass()
        for name in self.query_layers:
            unet.get_submodule(f"{name}.to_q").register_forward_hook(self._capture_queries(name))
        for name in self.blocks:
            unet.get_submodule(name).register_forward_hook(self._capture(name))

    @classmethod
    def from_checkpoint(
        cls,
        folder: Path,
        blocks: Blocks = "all",
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        *,
        channels_last: bool = False,
        query_layers: Blocks = (),
    ) -> Teacher:
        """Load `<folder>/unet` and the noise schedule in `<folder>/scheduler`.

        Raises:
            CheckpointError: a folder is missing, or the UNet or its noise is of a kind that is not supported.
            ConfigError: a block or a layer does not exist.
        """
        check_unet(read_config(folder / "unet", "UNet"), folder / "unet")
        scheduler = load_schedule(folder / "scheduler")
        unet = load_part(UNet2DConditionModel, folder / "unet", dtype).to(device)
        return cls(unet, scheduler, blocks, channels_last=channels_last, query_layers=query_layers)

    def forward(
        self,
        noisy_latents: Tensor,
        timesteps: Tensor,
        conditioning: Conditioning,
        time_ids: Tensor | None = None,
        positions: Positions | None = None,
    ) -> UNetOutput:
        """One pass: latents float `[B, c, h, w]`, timesteps int64 `[B]`, `time_ids` int `[B, 6]` (SDXL only).

        `positions`: where queries of this UNet's `query_layers` are wanted; None keeps no query.
        Gradients flow to the conditioning only; what does not depend on text keeps no graph.
        """
        wanted = positions or {}
        self._pass.captured, self._pass.positions, self._pass.running = {}, wanted, True
        dtype = self.unet.dtype
        try:
            noise_pred = self.unet(
                noisy_latents.to(dtype),
                timesteps,
                encoder_hidden_states=conditioning.encoder_hidden_states.to(dtype),
                added_cond_kwargs=self._added(conditioning, time_ids),
                return_dict=False,
            )[0]
            captured = self._pass.captured
        finally:  # what others ask of the UNet, or compute again on the way back, is not for us
            self._pass.captured, self._pass.positions, self._pass.running = {}, {}, False
        layers = self.query_layers if wanted == "all" else wanted
        queries = {name: captured[f"{name}.to_q"] for name in layers}
        return UNetOutput(noise_pred, {name: captured[name] for name in self.blocks}, queries)

    def predict(
        self, noisy_latents: Tensor, timesteps: Tensor, conditioning: Conditioning, time_ids: Tensor | None = None
    ) -> Tensor:
        """The prediction of ``forward`` alone: nothing of the pass is kept."""
        dtype, device = self.unet.dtype, noisy_latents.device
        prediction: Tensor = self.unet(
            noisy_latents.to(dtype),
            timesteps.to(device),
            encoder_hidden_states=conditioning.encoder_hidden_states.to(dtype),
            added_cond_kwargs=self._added(conditioning, time_ids),
            return_dict=False,
        )[0]
        return prediction

    @contextmanager
    def changing(self, layer: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Within the block, the output of a layer (a module path) is what `change` makes of it."""
        handle = self.unet.get_submodule(layer).register_forward_hook(lambda _module, _inputs, output: change(output))
        try:
            yield
        finally:
            handle.remove()

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Noisy latents float `[B, c, h, w]` at timesteps int64 `[B]`."""
        return cast("Tensor", self.scheduler.add_noise(latents, noise, timesteps))

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the UNet was trained to predict, `[B, c, h, w]`: the noise, or the velocity for v-prediction."""
        if self.prediction_type == "epsilon":
            return noise
        return cast("Tensor", self.scheduler.get_velocity(latents, noise, timesteps))

    @property
    def prediction_type(self) -> str:
        """``epsilon`` or ``v_prediction``."""
        return str(self.scheduler.config.prediction_type)

    def snr(self, timesteps: Tensor) -> Tensor:
        """Signal-to-noise ratio float `[B]` at timesteps int64 `[B]`."""
        alpha: Tensor = self.scheduler.alphas_cumprod.to(timesteps.device)[timesteps]
        return alpha / (1 - alpha)

    def recompute_activations(self) -> None:
        """Save memory in the backward pass by computing activations again."""
        self.unet.train()  # diffusers checkpoints activations in training mode only; there is no dropout to wake
        self.unet.enable_gradient_checkpointing()

    def _added(self, conditioning: Conditioning, time_ids: Tensor | None) -> dict[str, Tensor] | None:
        if pooled_dim_of(self.unet.config) is None:
            return None
        assert conditioning.pooled_prompt_embeds is not None and time_ids is not None
        return {"text_embeds": conditioning.pooled_prompt_embeds.to(self.unet.dtype), "time_ids": time_ids}

    def _capture(self, name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor | tuple[Tensor, ...]) -> None:
            # A down block returns its output together with the skip connections inside it.
            if self._pass.running:
                self._pass.captured[name] = output[0] if isinstance(output, tuple) else output

        return hook

    def _capture_queries(self, name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            positions = self._pass.positions
            if positions == "all":
                self._pass.captured[f"{name}.to_q"] = output
            elif name in positions:  # only the few that are kept: all queries of SDXL are 200 MB a record
                rows = positions[name].unsqueeze(-1).expand(-1, -1, output.shape[-1])
                self._pass.captured[f"{name}.to_q"] = output.gather(1, rows)

        return hook


def layer_names(unet: UNet2DConditionModel, layers: Blocks = "all") -> tuple[str, ...]:
    """Module paths of the cross-attention layers, in the UNet's order.

    Raises:
        ConfigError: a path is not a cross-attention layer of this UNet.
    """
    every = [name for name, _ in unet.named_modules() if name.endswith(".attn2")]
    if layers == "all":
        return tuple(every)
    missing = [name for name in layers if name not in every]
    if missing:
        raise ConfigError(
            "no such cross-attention layer in the UNet",
            where="cache.attention.layers",
            expected="paths such as " + ", ".join(every[:2]),
            got=", ".join(missing),
        )
    return tuple(layers)


def block_names(unet: UNet2DConditionModel, blocks: Blocks = "all") -> tuple[str, ...]:
    """Module paths of the blocks to hook; `all`: every down block, the mid block, every up block.

    Raises:
        ConfigError: a path is not a module of this UNet.
    """
    every = unet_blocks(unet.config)
    if blocks == "all":
        return every
    known = {name for name, _ in unet.named_modules()}
    missing = [name for name in blocks if name not in known or not name]
    if missing:
        raise ConfigError(
            "no such block in the UNet", where="cache.blocks", expected=", ".join(every), got=", ".join(missing)
        )
    return tuple(blocks)


def unet_config(folder: Path) -> dict[str, Any]:
    """The configuration in `<folder>/unet`, without loading weights; the class's defaults where it is silent.

    Raises:
        CheckpointError: there is none, or the UNet is of a kind that is not supported.
    """
    config = {"in_channels": 4, "cross_attention_dim": 1280} | read_config(folder / "unet", "UNet")
    check_unet(config, folder / "unet")
    return config


def load_schedule(folder: Path) -> DDPMScheduler:
    """The noise schedule in a scheduler's folder, whichever of the schedulers over discrete steps it names.

    Raises:
        CheckpointError: there is none, or it is of another kind.
    """
    return DDPMScheduler(**schedule_fields(folder))
