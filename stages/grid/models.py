"""The models of a grid: adapters with their encoders, checkpoints, LoRAs; all looked at before the first image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import torch

from pea.config import Config, TeacherConfig
from pea.errors import CheckpointError
from pea.evaluation.base_model import check_base_model
from pea.evaluation.drawing import Drawer
from pea.evaluation.record import adapter_digest
from pea.evaluation.schedulers import make_scheduler
from pea.file_names import LORA_FILE
from pea.models.conditioning import Conditioning
from pea.models.english import EnglishEncoder
from pea.models.lora_files import check_lora
from pea.models.noise_schedule import schedule_fields
from pea.models.tensor_files import digest_of
from pea.pipeline import PEAPrompt
from pea.storage.digests import sha256_file, sha256_text
from stages.command.preflight import check_checkpoint
from stages.grid.variants import Variant, adapters_of, checkpoints_of

Encode = Callable[[Sequence[str]], Conditioning]


@dataclass
class GridModels:
    """Adapters and encoders, on the CPU until they are used, and the folders and digests of everything."""

    device: torch.device
    adapters: dict[str, PEAPrompt] = field(default_factory=dict)
    checkpoints: dict[str, Path] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    """`adapter NAME`, `checkpoint NAME`, `lora FILE` -> sha256 of its weights."""

    def open_checkpoint(self, name: str, variants: Sequence[Variant]) -> Drawer:
        """A checkpoint's pipeline on the device, with every LoRA that its variants need.

        Raises:
            CheckpointError: a LoRA is of another UNet.
        """
        drawer = Drawer(self.checkpoints[name], self.device, num_inference_steps=1, guidance_scale=1.0)
        for lora in dict.fromkeys(variant.lora for variant in variants if variant.lora is not None):
            drawer.load_lora(_lora_name(lora), lora)
        for row in dict.fromkeys(variant.row for variant in variants if variant.has_adapter):
            folder = self.adapters[row].folder
            if folder is not None and (folder / LORA_FILE).is_file():
                drawer.load_lora(_changes_of(row), folder / LORA_FILE)
        return drawer

    def set_up(self, drawer: Drawer, variant: Variant) -> None:
        """Make a drawer draw as a variant does."""
        drawer.scheduler, drawer.num_inference_steps = variant.scheduler, variant.num_inference_steps
        drawer.guidance_scale = variant.guidance_scale
        drawer.use_loras(_changes_of(variant.row), *([_lora_name(variant.lora)] if variant.lora else []))

    def encoder_of(self, variant: Variant, english: EnglishEncoder | None) -> Encode:
        """What makes a variant's text states."""
        if variant.has_adapter:
            return self.adapters[variant.row].to(self.device).encode
        assert english is not None
        return english.encode

    def rest(self) -> None:
        """Leave the device to others."""
        for pea in self.adapters.values():
            pea.to("cpu")

    def languages_of(self, row: str) -> tuple[str, ...]:
        """Languages that an adapter was trained for; empty where it does not say."""
        return tuple(self.adapters[row].adapter.config.languages or ())


def _changes_of(row: str) -> str:
    return "changes_" + row.replace(".", "_")  # peft makes module names of them


def _lora_name(file: Path) -> str:
    return "sampler_" + sha256_text(str(file))[:12]


def look_at_models(config: Config, variants: Sequence[Variant], device: torch.device) -> GridModels:
    """Load every adapter with its encoder, and look at each checkpoint, LoRA and schedule.

    Raises:
        CheckpointError: one is missing, incomplete, or does not fit the others.
        ConfigError: a scheduler cannot take so many steps.
    """
    models = GridModels(device)
    for name, place in checkpoints_of(config).items():
        is_teacher = place == config.teacher.checkpoint
        folder = config.teacher.folder if is_teacher else TeacherConfig(checkpoint=place).folder
        check_checkpoint(folder)
        models.checkpoints[name], models.digests[f"checkpoint {name}"] = folder, digest_of(folder / "unet")
        for variant in variants:
            make_scheduler(variant.scheduler, schedule_fields(folder / "scheduler"), variant.num_inference_steps)
    for lora in dict.fromkeys(variant.lora for variant in variants if variant.lora is not None):
        _check_lora(lora)
        models.digests[f"lora {lora}"] = sha256_file(lora)
    for name, place in adapters_of(config).items():
        own = place == config.adapter_dir
        pea = PEAPrompt.from_pretrained(place, config.student.encoders if own else None)
        models.adapters[name] = pea
        assert pea.folder is not None
        models.digests[f"adapter {name}"] = adapter_digest(pea.folder)
        if (pea.folder / LORA_FILE).is_file():
            _check_lora(pea.folder / LORA_FILE)
        for folder in models.checkpoints.values():
            check_base_model(pea.adapter, folder)
    return models


def _check_lora(file: Path) -> None:
    if not file.is_file():
        raise CheckpointError("no such LoRA file", where=file, expected="a .safetensors file")
    check_lora(file)
    if find_spec("peft") is None:
        raise CheckpointError(
            "a LoRA cannot be used here", where=file, remedy="Install what it needs: pip install 'pea-cache[lora]'."
        )
