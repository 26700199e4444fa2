"""What the tests of the trainer share: variants of one setup, and what a run leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from pea.config import Config


def variant(config: Config, folder: Path, **train: Any) -> Config:
    """The same caches, in a run folder of its own, with other training settings."""
    cache_root = config.cache_root or config.run_dir / "cache"
    changed = config.train.model_copy(update=train)
    return config.model_copy(update={"run_dir": folder / "run", "cache_root": cache_root, "train": changed})


def weights(config: Config) -> dict[str, torch.Tensor]:
    """The published adapter."""
    return load_file(config.adapter_dir / "diffusion_pytorch_model.safetensors")


def log_rows(config: Config, name: str = "train_log") -> list[dict[str, float]]:
    """The rows of a log."""
    return [json.loads(line) for line in (config.training_dir / f"{name}.jsonl").read_text("utf-8").splitlines()]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of tensors are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
