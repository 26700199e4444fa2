"""The tensors of a checkpoint in one file, by diffusers' names, checked before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pea.errors import CheckpointError
from pea.file_names import MODEL_CONFIG
from pea.foreign_json import json_object

if TYPE_CHECKING:
    from torch import Tensor

    Conversion = Callable[[Mapping[str, Tensor], Mapping[str, Any]], Mapping[str, Tensor]]

UNET, VAES = "model.diffusion_model.", ("first_stage_model.", "vae.")
CLIP, OPEN_CLIP = "cond_stage_model.transformer.", "cond_stage_model.model."
CLIP_XL, OPEN_CLIP_XL = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
"""Part -> its file's name, where that is not `model`."""


def converted(
    file: Path, names: Collection[str], texts: Mapping[str, str], pipeline: Path
) -> dict[str, Mapping[str, Tensor]]:
    """Part -> its tensors by diffusers' names.

    ``names``: of the file's tensors; ``texts``: text encoder -> what the names of its tensors begin with;
    ``pipeline``: the folder of the configurations.

    Raises:
        CheckpointError: a tensor is unknown, missing, of another shape than the configuration says, or not finite.
    """
    from diffusers.loaders import single_file_utils as original
    from safetensors.torch import load_file

    tensors = load_file(file)
    vae = next(prefix for prefix in VAES if any(name.startswith(prefix) for name in names))
    convert: dict[str, tuple[str, Conversion]] = {
        "unet": (UNET, original.convert_ldm_unet_checkpoint),
        "vae": (vae, original.convert_ldm_vae_checkpoint),
    }
    for part, prefix in texts.items():
        convert[part] = (prefix, (_clip if prefix in (CLIP, CLIP_XL) else _open_clip)(prefix))
    parts: dict[str, Mapping[str, Tensor]] = {}
    for part, (prefix, function) in convert.items():
        given = {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        config = read_lent(pipeline / part / MODEL_CONFIG)
        try:
            made, shapes = function(given, config), _shapes(part, config)
        except (KeyError, IndexError, ValueError, RuntimeError, AttributeError, TypeError) as error:
            raise _other_tensors(file, part, f"{type(error).__name__}: {error}") from error
        if part in WEIGHTS and len(made) != len(given):
            raise _other_tensors(file, part, f"{len(given)} tensors, of which {len(made)} are known")
        _check_tensors(file, part, made, shapes)
        parts[part] = made
    return parts


def _shapes(part: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name of each tensor of a model of this configuration -> its shape; nothing is allocated.

    Of text encoders, none: libraries name their tensors in several ways.
    """
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel

    if part not in WEIGHTS:
        return {}
    settings = dict(config)
    with torch.device("meta"):
        unet = part == "unet"
        model = UNet2DConditionModel.from_config(settings) if unet else AutoencoderKL.from_config(settings)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _check_tensors(file: Path, part: str, made: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse tensors that are missing, of other shapes, or no finite numbers."""
    import torch

    if missing := sorted(shapes.keys() - made.keys()):
        raise _other_tensors(file, part, f"no {missing[0]}")
    for name, tensor in made.items():
        if name in shapes and tuple(tensor.shape) != shapes[name]:
            raise _other_tensors(file, part, f"{name} {tuple(tensor.shape)}, not {shapes[name]}")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            got, remedy = f"{name} of the {part}", "Get the model again."
            raise CheckpointError("weights that are no finite numbers", where=file, got=got, remedy=remedy)


def _clip(prefix: str) -> Conversion:
    return lambda tensors, _: {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def _open_clip(prefix: str) -> Conversion:
    def convert(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Mapping[str, Tensor]:
        from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

        model = SimpleNamespace(config=SimpleNamespace(**config))
        made: Mapping[str, Tensor] = convert_open_clip_checkpoint(model, tensors, prefix=prefix)
        return made

    return convert


def _other_tensors(file: Path, part: str, got: str) -> CheckpointError:
    return CheckpointError(
        f"the {part} in this file is not as the configuration says",
        where=file,
        got=got,
        remedy="Set teacher.config to a pipeline of exactly this kind.",
    )


def read_lent(path: Path) -> dict[str, Any]:
    """A configuration of the pipeline that lends them.

    Raises:
        CheckpointError: it is none.
    """
    try:
        return json_object(path.read_bytes())
    except ValueError as error:
        what = f"the configuration {path.parent.name}/{path.name} that was lent to this file is none"
        raise CheckpointError(what, where=path.parent.parent, got=error, remedy="Correct teacher.config.") from None
