"""The adapter (PEA): an MLP that turns a native encoder's hidden states into a diffusion model's text conditioning.

Source: arXiv 2311.17086, section 3; layer names as in the published checkpoints (`layernorm`, `projector.*`, `fc`),
so that those convert without renaming.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import FrozenDict, register_to_config
from torch import Tensor, nn
from torch.nn import functional

from pea.errors import CheckpointError, warn
from pea.file_names import MODEL_CONFIG
from pea.models.adapter_files import read_adapter_tensors
from pea.models.conditioning import Conditioning
from pea.models.config_fields import ADAPTER, BASE, ENCODER, NEEDED, check_fields
from pea.models.config_limits import check_limits
from pea.models.loading import check_loading_info, load_part
from pea.models.teacher_parts import pooled_dim_of, read_config
from pea.models.tensor_files import digest_of


class PEA(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Hidden states `[B, L, input_dim]` -> `[B, L, cross_attention_dim]` and, for SDXL, a pooled embedding.

    SDXL head (`pooled_dim` set): the projector ends at `pooled_dim`; its mean over the tokens is the pooled
    embedding, and GELU + `fc` make the sequence from it. SD1.5 head (`pooled_dim` None): the projector ends at
    `cross_attention_dim`.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        input_dim: int = 1024,
        cross_attention_dim: int = 2048,
        pooled_dim: int | None = 1280,
        hidden_size: int = 1024,
        num_layers: int = 2,
        pooling: Literal["all_tokens", "unmasked_tokens"] = "all_tokens",  # noqa: ARG002 - in self.config
        max_tokens: int | None = None,  # noqa: ARG002
        cache_identity: str | None = None,  # noqa: ARG002
        encoder: dict[str, Any] | None = None,  # noqa: ARG002
        base_model: dict[str, Any] | None = None,  # noqa: ARG002
        prediction_type: str | None = None,  # noqa: ARG002
        languages: list[str] | None = None,  # noqa: ARG002
        weights: str | None = None,  # noqa: ARG002
        start: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> None:
        """Sizes; from `max_tokens` on, records of what it was trained with.

        Args:
            input_dim: width of the native encoder's hidden states.
            cross_attention_dim: width that the UNet's cross-attention reads.
            pooled_dim: width of the pooled embedding; None for SD1.5-shaped UNets.
            hidden_size: width of the hidden layers.
            num_layers: number of hidden layers.
            pooling: whether padding counts in the mean (`all_tokens`, as published).
            max_tokens: length to which captions were padded in training.
            cache_identity: digest of the identity of the cache that it was trained on.
            encoder: the text encoder, as `NativeEncoder.record` has it; None in adapters from before it was recorded.
            base_model: `name` of the diffusion model, the digest of its `unet`, and a few of that one's `values`.
            prediction_type: of the diffusion model.
            languages: of the prompts.
            weights: digest of the tensors that were saved; ``save_pretrained`` puts it in.
            start: how the training started: `init`, and of a scaled start its factors and the statistics' digest.
        """
        super().__init__()
        widths = [input_dim] + [hidden_size] * num_layers
        layers: list[nn.Module] = []
        for narrow, wide in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(narrow, wide, bias=False), nn.GELU()]
        last = cross_attention_dim if pooled_dim is None else pooled_dim
        self.layernorm = nn.LayerNorm(input_dim)
        self.projector = nn.Sequential(*layers, nn.Linear(widths[-1], last, bias=False))
        self.fc = None if pooled_dim is None else nn.Linear(pooled_dim, cross_attention_dim)

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None) -> Conditioning:
        """Hidden states float `[B, L, input_dim]` -> conditioning; `unmasked_tokens` reads the mask, int `[B, L]`."""
        projected = self.projector(self.layernorm(hidden_states))
        if self.fc is None:
            return Conditioning(projected, None)
        if self.config.pooling == "unmasked_tokens" and attention_mask is not None:
            weights = attention_mask.to(projected.dtype).unsqueeze(-1)
            pooled = (projected * weights).sum(1) / weights.sum(1).clamp(min=1)
        else:
            pooled = projected.mean(1)
        return Conditioning(self.fc(functional.gelu(projected)), pooled)

    def save_pretrained(self, folder: str | Path, **options: Any) -> None:
        """As of any diffusers model, as safetensors; `config.json` comes last and holds the weights' digest.

        Raises:
            CheckpointError: something else than a folder is there.
        """
        if Path(folder).exists() and not Path(folder).is_dir():
            raise CheckpointError("not a folder", where=folder, remedy="Give the name of one.")
        own = {name: value for name, value in self.config.items() if name != "_name_or_path"}
        self._internal_dict = FrozenDict(own)  # without the folder that it was loaded from
        push, _ = options.pop("push_to_hub", False), options.pop("safe_serialization", True)
        super().save_pretrained(str(folder), safe_serialization=True, **options)
        self.register_to_config(weights=digest_of(Path(folder)))
        if push:
            super().save_pretrained(str(folder), safe_serialization=True, push_to_hub=True, **options)
        self.save_config(str(folder))

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> Any:
        """As of any diffusers model, from safetensors; a file that lacks a tensor, or has another, is refused.

        Raises:
            CheckpointError: the tensors are not those that `config.json` describes, or not those saved with it.
        """
        with_info = options.pop("output_loading_info", False)
        settings = {"use_safetensors": True} | options
        adapter, info = super().from_pretrained(str(folder), output_loading_info=True, **settings)
        check_loading_info(cls, Path(folder), info, list(adapter.state_dict()), None)
        if adapter.config.weights and Path(folder).is_dir() and not options.keys() & {"variant", "subfolder"}:
            _check_weights(Path(folder), adapter.config.weights)
        return (adapter, info) if with_info else adapter

    @classmethod
    def load(cls, folder: Path) -> PEA:
        """The adapter saved in `folder`, float32, frozen.

        Warns where it does not say which text encoder it is for: then any of the right width is taken.

        Raises:
            CheckpointError: the folder is missing or holds no adapter.
        """
        if not (folder / MODEL_CONFIG).is_file():
            within = folder / "adapter"  # as of a run folder
            is_run = (within / MODEL_CONFIG).is_file()
            raise CheckpointError(
                "no adapter here",
                where=folder,
                expected=f"a folder with {MODEL_CONFIG}, or org/name of the hub",
                got="a folder without it" if folder.is_dir() else "no such folder",
                remedy=f"Name {within}." if is_run else "Correct the name, or train one: pea train --config FILE.",
            )
        config = read_config(folder, "adapter")
        if config.get("_class_name", cls.__name__) != cls.__name__ or "model_type" in config:
            got = f"a {config.get('_class_name') or config['model_type']}"
            remedy = "Name the folder that `pea train` published, as runs/NAME/adapter."
            raise CheckpointError("not an adapter", where=folder / MODEL_CONFIG, got=got, remedy=remedy)
        check_fields(config, ADAPTER, folder)
        check_limits(config, folder)
        check_fields(config.get("base_model") or {}, BASE, f"{folder}, base_model")
        if config.get("encoder") is not None:  # and it must be enough to tell its encoder from others
            check_fields(dict.fromkeys(NEEDED) | dict(config["encoder"]), ENCODER, f"{folder}, encoder")
        adapter: PEA = load_part(cls, folder, torch.float32)
        if adapter.config.encoder is None:
            warn(
                f"{folder}: the adapter does not say which text encoder it was trained for; one of another kind but of "
                f"width {adapter.config.input_dim} goes unnoticed"
            )
        adapter.requires_grad_(False).eval()
        return adapter

    def check_base(self, unet: Mapping[str, Any], where: object, prediction_type: str | None = None) -> None:
        """Refuse a diffusion model that reads text of another shape, or predicts something else.

        `unet`: its configuration. `prediction_type`: of its scheduler; None: not known.

        Raises:
            CheckpointError: it does.
        """
        own = (self.config.cross_attention_dim, self.config.pooled_dim)
        asked = (unet.get("cross_attention_dim", 1280), pooled_dim_of(unet))
        base = (self.config.base_model or {}).get("name")
        as_base = f", as {base} has" if base else ""
        if own != asked:
            raise CheckpointError(
                "the adapter was trained for a diffusion model of another shape",
                where=where,
                expected=f"text states of width {own[0]}, pooled {own[1]}{as_base}",
                got=f"{asked[0]}, pooled {asked[1]}",
            )
        predicts = self.config.prediction_type
        if None not in (prediction_type, predicts) and prediction_type != predicts:
            raise CheckpointError(
                "the adapter was trained for a diffusion model of another prediction type",
                where=where,
                expected=f"{predicts}{as_base}",
                got=prediction_type,
            )


def _check_weights(folder: Path, recorded: str) -> None:
    found = digest_of(folder)
    if found != recorded:
        raise CheckpointError(
            "the weights are not those that were saved with this config.json",
            where=folder,
            expected=f"tensors {recorded[:12]}",
            got=f"tensors {found[:12]}",
            remedy="Copy the whole folder again, or train it anew.",
        )


def new_adapter(
    unet_config: Any, input_dim: int, *, hidden_size: int, num_layers: int, max_tokens: int, seed: int
) -> PEA:
    """An untrained adapter that fits a UNet; the weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        adapter: PEA = PEA(
            input_dim=input_dim,
            cross_attention_dim=int(unet_config["cross_attention_dim"]),
            pooled_dim=pooled_dim_of(unet_config),
            hidden_size=hidden_size,
            num_layers=num_layers,
            max_tokens=max_tokens,
        )
    return adapter


def convert_official(path: Path) -> PEA:
    """The adapter in an official checkpoint (`proj_0_*/pytorch_model.bin`), or in what a trainer made around it.

    Sizes are read off its tensors; `read_adapter_tensors` says which forms.

    Raises:
        CheckpointError: the file cannot be read as plain tensors, or has other keys than the published layout.
    """
    try:
        tensors = read_adapter_tensors(path)
        linears = sorted((n for n in tensors if n.startswith("projector.")), key=lambda name: int(name.split(".")[1]))
        adapter: PEA = PEA(
            input_dim=len(tensors["layernorm.weight"]),
            cross_attention_dim=len(tensors["fc.weight"] if "fc.weight" in tensors else tensors[linears[-1]]),
            pooled_dim=len(tensors[linears[-1]]) if "fc.weight" in tensors else None,
            hidden_size=len(tensors[linears[0]]),
            num_layers=len(linears) - 1,
        )
        adapter.load_state_dict(tensors)
    except CheckpointError:
        raise
    except Exception as error:  # torch.load raises anything from UnpicklingError to zipfile errors
        raise CheckpointError(
            "not an official PEA checkpoint",
            where=path,
            expected="tensors named layernorm.*, projector.*, fc.*",
            got=" ".join(str(error).split())[:200] or type(error).__name__,
        ) from error
    adapter.requires_grad_(False).eval()
    return adapter
