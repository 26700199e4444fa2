"""All that is trained: the adapter and, in some methods, parts of the UNet that student and teacher otherwise share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor, nn

from pea.errors import ConfigError
from pea.models.adapter import PEA
from pea.models.teacher_parts import pooled_dim_of
from pea.models.weight_files import WeightFiles

Method = Literal["adapter", "lora", "kv"]
_LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
_KV = (".attn2.to_k", ".attn2.to_v")


class Trained:
    """The trained parameters by name: the adapter's own names, and `unet.<path>`."""

    def __init__(self, adapter: PEA, unet_parameters: Mapping[str, nn.Parameter]) -> None:
        self.adapter = adapter
        self.unet_parameters = dict(unet_parameters)
        self.parameters: dict[str, nn.Parameter] = dict(adapter.named_parameters())
        self.parameters |= {f"unet.{name}": parameter for name, parameter in unet_parameters.items()}

    @property
    def num_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    def copy(self) -> dict[str, Tensor]:
        """The values now, on the CPU."""
        return {name: parameter.detach().cpu().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Put values in place."""
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    @contextmanager
    def holding(self, values: Mapping[str, Tensor] | None) -> Iterator[None]:
        """Other values for a while; None changes nothing."""
        if values is None:
            yield
            return
        own = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.load(values)
        try:
            yield
        finally:
            self.load(own)


def open_unet(unet: UNet2DConditionModel, method: Method, rank: int, seed: int) -> dict[str, nn.Parameter]:
    """Make what a method trains of a frozen UNet trainable, in float32; returns the parameters by their paths.

    `lora`: low-rank matrices beside the query, key, value and output matrices of every attention layer (arXiv
    2106.09685), through peft. `kv`: the key and value matrices of the cross-attention layers (arXiv 2212.04488).

    Raises:
        ConfigError: the method needs peft, which is not installed.
    """
    if method != "adapter" and find_spec("peft") is None:
        raise ConfigError(
            "a package is missing",
            where="train.method",
            got=method,
            remedy="Install it: pip install peft.",
        )
    if method == "lora":
        from peft import LoraConfig

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(_LORA_TARGETS)))
    elif method == "kv":
        for name, module in unet.named_modules():
            if name.endswith(_KV):
                module.requires_grad_(True)
    opened = {name: parameter for name, parameter in unet.named_parameters() if parameter.requires_grad}
    for parameter in opened.values():
        parameter.data = parameter.data.float()
    return opened


def save_unet(unet: UNet2DConditionModel, method: Method, checkpoint: Path, folder: Path) -> None:
    """Write what a method changed in the UNet as `LORA_FILE`, which `pipe.load_lora_weights(folder)` reads.

    Changed matrices become LoRA matrices of full rank, one of the two being the identity: nothing is approximated.
    """
    if method == "adapter":
        return
    state, settings = _low_rank(unet) if method == "lora" else _full_rank(unet, checkpoint)
    kind = StableDiffusionPipeline if pooled_dim_of(unet.config) is None else StableDiffusionXLPipeline
    kind.save_lora_weights(str(folder), unet_lora_layers=state, unet_lora_adapter_metadata=settings)


def _low_rank(unet: UNet2DConditionModel) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from peft import get_peft_model_state_dict

    return dict(get_peft_model_state_dict(unet)), unet.peft_config["default"].to_dict()


def _full_rank(unet: UNet2DConditionModel, checkpoint: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from peft import LoraConfig

    former = WeightFiles(checkpoint / "unet", torch.float32, "cpu")
    state: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for name, parameter in unet.named_parameters():
        if not name.removesuffix(".weight").endswith(_KV):
            continue
        module = name.removesuffix(".weight")
        change = parameter.detach().cpu().float() - former.take(module, ["weight"])["weight"]
        rows, columns = change.shape
        ranks[module] = min(rows, columns)
        one = torch.eye(ranks[module])
        down, up = (change, one) if rows <= columns else (one, change)
        state |= {f"{module}.lora_A.weight": down.contiguous(), f"{module}.lora_B.weight": up.contiguous()}
    first = next(iter(ranks.values()))
    config = LoraConfig(
        r=first, lora_alpha=first, target_modules=list(ranks), rank_pattern=ranks, alpha_pattern=dict(ranks)
    )
    settings: dict[str, Any] = config.to_dict()  # type: ignore[no-untyped-call]
    return state, settings
