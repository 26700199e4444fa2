"""Whether an adapter is used with the diffusion model that it was trained for."""

from __future__ import annotations

from pathlib import Path

from pea.cache.model_digest import sha256_folder
from pea.errors import warn
from pea.models.adapter import PEA
from pea.models.noise_schedule import schedule_fields
from pea.models.teacher_parts import check_level
from pea.models.tensor_files import digest_of
from pea.models.unet import unet_config
from pea.models.unet_values import other_weights
from pea.storage.hub import model_name


def check_base_model(adapter: PEA, checkpoint: Path) -> None:
    """Refuse a checkpoint of another shape or prediction type than the adapter's; warn of one with other weights.

    A fine-tune of the model that the adapter was trained for is an ordinary thing to draw with.

    Raises:
        CheckpointError: it is of another kind.
    """
    check_level(checkpoint)
    schedule = schedule_fields(checkpoint / "scheduler")
    adapter.check_base(unet_config(checkpoint), checkpoint, schedule["prediction_type"])
    base = adapter.config.base_model or {}
    recorded, folder = base.get("unet"), checkpoint / "unet"
    if recorded is None or recorded in (digest_of(folder), sha256_folder(folder)):  # the latter of older caches
        return
    warn(f"{model_name(checkpoint)}: {other_weights(base.get('name'))}")
