"""The diffusion model that an adapter was trained for, as it records it."""

from __future__ import annotations

from typing import Any

from pea.errors import CheckpointError
from pea.storage.hub import is_hub_id


def recorded_base(adapter_config: Any, where: object) -> str:
    """`org/name@revision` of the base model.

    Raises:
        CheckpointError: the adapter does not say, or it was a folder of one machine.
    """
    name = str((adapter_config.base_model or {}).get("name") or "")
    if not is_hub_id(name):
        raise CheckpointError(
            "the adapter does not say where its diffusion model is",
            where=where,
            got=name or "nothing",
            remedy="Give it with --base.",
        )
    return name
