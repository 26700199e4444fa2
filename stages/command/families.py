"""The families of models that are shipped with settings of their own: which one a base model belongs to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pea.config.yaml_text import read_yaml
from pea.errors import CheckpointError, ConfigError
from pea.models.teacher_parts import check_unet, pooled_dim_of, read_config
from pea.storage.hub import is_hub_id, local_folder

SETTINGS = Path(__file__).parents[1] / "family_settings"
"""In a checkout these are links to the files of ``configs/``; an installation has the files themselves."""
FAMILIES = ("sd15", "sdxl")
"""Names of files in ``configs/``, which are shipped with the package, and of presets of ``pea plan``."""
_PROMPTS_WITHOUT_GPU = 16
"""Of each set, each drawn several times."""


class Base(NamedTuple):
    """What is known of the base model; the configurations are None where its folder is not there yet."""

    family: str
    unet: dict[str, Any] | None
    vae: dict[str, Any] | None


def family_of(unet: Mapping[str, Any]) -> str:
    """The family whose recipe a UNet's configuration calls for: SDXL takes a pooled embedding, SD does not."""
    return "sd15" if pooled_dim_of(unet) is None else "sdxl"


def family_settings(family: str) -> dict[str, Any]:
    """What the file of a family says.

    Raises:
        ConfigError: the file cannot be read.
    """
    return read_yaml(SETTINGS / f"{family}.yaml")


def buckets_for(unet: Mapping[str, Any], vae: Mapping[str, Any], family: list[list[int]]) -> list[list[int]]:
    """The family's image sizes, where its first one is what the model was made for; else that size alone, in px."""
    size = unet.get("sample_size") or 0
    latent = list(size) if isinstance(size, list | tuple) else [size, size]
    factor = 2 ** (len(vae.get("block_out_channels", "4444")) - 1)
    native = [int(side) * factor for side in latent]
    return family if 0 in native or native == family[0] else [native]


def gpus_here() -> int | None:
    """GPUs of this machine; None where a cluster is named that has others."""
    import torch

    return None if os.environ.get("RAY_ADDRESS") else torch.cuda.device_count()


def fit_to_machine(raw: dict[str, Any], num_gpus: int | None) -> str:
    """Have the settings run with so many GPUs (None: as the family's file says); returns a comment about it.

    Without one, everything computes in float32, and the comment keeps what a node with GPUs wants.
    """
    run, cores = raw["cache"]["run"], os.cpu_count() or 1
    if num_gpus is None:
        return ""
    if num_gpus:
        run["num_actors"] = num_gpus
        run["num_cpus_per_actor"] = max(1, min(run["num_cpus_per_actor"], cores // num_gpus))
        return ""
    on_gpus = {
        "teacher": {"dtype": raw["teacher"]["dtype"]},
        "cache": {"run": dict(run)},
        "train": {"precision": raw["train"]["precision"]},
        "evaluate": {"max_prompts": raw["evaluate"].get("max_prompts")},
    }
    raw["evaluate"]["max_prompts"] = _PROMPTS_WITHOUT_GPU
    raw["teacher"]["dtype"], raw["train"]["precision"] = "float32", "no"
    raw["cache"]["run"] = {"batch_size": run["batch_size"], "num_cpus_per_actor": min(run["num_cpus_per_actor"], cores)}
    wanted = yaml.safe_dump(on_gpus, sort_keys=False, default_flow_style=None, width=110)
    head = "# For a machine without a GPU (--gpus 0). Nodes with GPUs want instead:\n"
    return head + "".join(f"#   {line}\n" for line in wanted.splitlines())


def sees_images(encoder: str) -> bool:
    """Whether an encoder's folder is that of a whole CLIP, which can also score images."""
    if is_hub_id(encoder) or "://" in encoder or not Path(encoder).is_dir():
        return False
    return "vision_config" in read_config(Path(encoder), "text encoder")


def look_at_base(place: str, family: str | None) -> Base:
    """Family and configurations of the base model.

    Raises:
        CheckpointError: it cannot be used.
        ConfigError: it is not there, and no family is named.
    """
    folder = local_folder(place)
    if not folder.exists():
        if family is None:
            raise ConfigError(
                "no such model folder",
                where=place,
                remedy=f"Correct --base, or name its kind with --family ({' or '.join(FAMILIES)}) to go on without it.",
            )
        return Base(family, None, None)
    if folder.is_file():
        raise CheckpointError("a single file says nothing of its parts", where=folder, expected="diffusers' layout")
    unet, vae = read_config(folder / "unet", "UNet"), read_config(folder / "vae", "VAE")
    check_unet(unet, folder / "unet")
    return Base(family or family_of(unet), unet, vae)
