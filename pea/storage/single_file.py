"""A pipeline folder made of a checkpoint that is a single ``.safetensors`` file, in the layout of the original code.

The file has the weights alone. Configurations and tokenizers are those of a pipeline of the same kind: a folder that is
given, or one that the hub's cache on this machine holds. Source of the names: CompVis' latent-diffusion and Stability's
generative-models, as diffusers reads them (``diffusers.loaders.single_file_utils``).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pea.errors import CheckpointError
from pea.storage.digests import canonical_json, sha256_text
from pea.storage.durable import new_folder
from pea.storage.single_file_tensors import (
    CLIP,
    CLIP_XL,
    OPEN_CLIP,
    OPEN_CLIP_XL,
    UNET,
    VAES,
    WEIGHTS,
    converted,
    read_lent,
)

if TYPE_CHECKING:
    from torch import Tensor

_REFINER = "conditioner.embedders.0.model."
_OWN_PREDICTION, _ZERO_SNR = "v_pred", "ztsnr"
"""Tensors by which files of SDXL say that they predict v, and with zero terminal SNR. Source: ComfyUI, NoobAI-XL."""
_OTHER_NOISE = ("edm_mean", "edm_std", "edm_vpred.")
"""What names of tensors begin with that say so. Source: diffusers, single_file_utils.py; ComfyUI."""
_FLOATS = ("F64", "F32", "F16", "BF16")


class Kind(NamedTuple):
    """What a file holds."""

    name: str
    texts: dict[str, str]
    """Part -> what the names of its tensors begin with."""
    pipelines: tuple[str, ...]
    """Names on the hub of pipelines with the same configurations and tokenizers."""

    @property
    def needed(self) -> list[str]:
        """Files that a folder of configurations must have, beside those of a tokenizer."""
        parts = ["unet", "vae", *self.texts]
        return [f"{part}/config.json" for part in parts] + ["scheduler/scheduler_config.json"]


_KINDS = (
    Kind(
        "SDXL",
        {"text_encoder": CLIP_XL, "text_encoder_2": OPEN_CLIP_XL},
        ("stabilityai/stable-diffusion-xl-base-1.0",),
    ),
    Kind(
        "Stable Diffusion 1",
        {"text_encoder": CLIP},
        (
            "stable-diffusion-v1-5/stable-diffusion-v1-5",
            "runwayml/stable-diffusion-v1-5",
            "CompVis/stable-diffusion-v1-4",
        ),
    ),
    Kind(
        "Stable Diffusion 2",
        {"text_encoder": OPEN_CLIP},
        ("stabilityai/stable-diffusion-2-1", "stabilityai/stable-diffusion-2-1-base", "stabilityai/stable-diffusion-2"),
    ),
)


def folder_of_single_file(file: Path, config: Path | None = None) -> Path:
    """The folder, made once for each content of both, in the user's cache (``$XDG_CACHE_HOME/pea``).

    It takes as much room as the file. ``config``: a pipeline's folder; its weights are not read.

    Raises:
        CheckpointError: the file is of no supported kind, holds tensors of unknown names, or no configuration is there.
    """
    names = _names(file)
    kind = _kind(file, names)
    pipeline = _configurations(file, kind, config)
    status = file.stat()
    texts = {path.relative_to(pipeline).as_posix(): path for path in _files(pipeline, kind)}
    said = [str(file.resolve()), status.st_size, status.st_mtime_ns, status.st_ino]
    said += [{name: sha256_text(path.read_bytes().hex()) for name, path in sorted(texts.items())}]
    place = _cache() / f"{file.stem[:60]}-{sha256_text(canonical_json(said))[:24]}"
    if not place.is_dir():
        parts = converted(file, names, kind.texts, pipeline)
        with new_folder(place, replace=False) as temporary:
            for name, path in texts.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, temporary / name)
            _follow_file(temporary, names)
            _write(parts, temporary)
    return place


def _names(file: Path) -> frozenset[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as opened:
            names = frozenset(opened.keys())
            read = [name for name in names if name.startswith((UNET, *VAES, *_PREFIXES)) and not name.endswith("_ids")]
            types = {name: opened.get_slice(name).get_dtype() for name in read}
    except (OSError, SafetensorError) as error:
        remedy = "Give a single .safetensors file, or a folder in diffusers' layout."
        raise CheckpointError("not a whole safetensors file", where=file, got=error, remedy=remedy) from None
    if packed := sorted(name for name, each in types.items() if each not in _FLOATS):
        raise CheckpointError(
            "quantized weights are not supported",
            where=file,
            expected="weights in 16 or 32 bits",
            got=f"{packed[0]} in {types[packed[0]]}",
            remedy="Give the model that they were made from.",
        )
    return names


def _kind(file: Path, names: Collection[str]) -> Kind:
    found = {prefix for prefix in (UNET, *VAES, _REFINER, *_PREFIXES) if any(n.startswith(prefix) for n in names)}
    if _REFINER in found:
        raise CheckpointError("the SDXL refiner is not supported", where=file, remedy="Use the SDXL base model.")
    if other := sorted(name for name in names if name.startswith(_OTHER_NOISE)):
        raise CheckpointError(
            "a model of other noise (EDM: Playground 2.5, CosXL) is not supported",
            where=file,
            expected="noise by the betas",
            got=other[0],
        )
    kind = next((kind for kind in _KINDS if found.issuperset(kind.texts.values())), None)
    if kind is None or UNET not in found or not found.intersection(VAES):
        raise CheckpointError(
            "not a whole checkpoint of Stable Diffusion 1, 2 or XL",
            where=file,
            expected=f"tensors of {UNET}*, {VAES[0]}* and the text encoders",
            got=", ".join(sorted(found)) or f"{min(names, default='no tensor')}, ...",
            remedy="Of another model, or of a part alone, give a folder in diffusers' layout.",
        )
    return kind


_PREFIXES = tuple(prefix for kind in _KINDS for prefix in kind.texts.values())


def _configurations(file: Path, kind: Kind, config: Path | None) -> Path:
    """A pipeline's folder of the same kind."""
    if config is not None:
        missing = [name for name in kind.needed if not (config / name).is_file()]
        if missing:
            expected = ", ".join(kind.needed)
            what = f"not the configuration of {kind.name}"
            raise CheckpointError(what, where=config, expected=expected, got=f"no {missing[0]}")
        return config
    for name in kind.pipelines:
        cached = _cached(name)
        if cached is not None and all((cached / needed).is_file() for needed in kind.needed):
            return cached
    raise CheckpointError(
        f"no configuration and tokenizer of {kind.name} on this machine",
        where=file,
        expected=f"teacher.config, or {kind.pipelines[0]} in the hub's cache",
        remedy="Set teacher.config to the folder, or org/name@revision, of a pipeline of the same kind: its "
        "configurations and tokenizer are enough.",
    )


def _cached(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, OSError):
        return None


def _files(pipeline: Path, kind: Kind) -> list[Path]:
    tokenizers = [part.replace("text_encoder", "tokenizer") for part in kind.texts]
    found = [path for each in tokenizers for path in (pipeline / each).glob("*") if path.suffix in (".json", ".txt")]
    wanted = [pipeline / name for name in (*kind.needed, "model_index.json")]
    return [*(path for path in wanted if path.is_file()), *found]


def _follow_file(folder: Path, names: Collection[str]) -> None:
    """Where the file itself says how it predicts, that counts, and not the pipeline that lent its configurations."""
    if _OWN_PREDICTION not in names:
        return
    place = folder / "scheduler" / "scheduler_config.json"
    settings = read_lent(place)
    settings |= {"prediction_type": "v_prediction", "rescale_betas_zero_snr": _ZERO_SNR in names}
    place.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def _write(parts: Mapping[str, Mapping[str, Tensor]], folder: Path) -> None:
    from safetensors.torch import save_file

    for part, made in parts.items():
        plain = {name: tensor.contiguous() for name, tensor in made.items()}
        save_file(plain, folder / part / f"{WEIGHTS.get(part, 'model')}.safetensors", metadata={"format": "pt"})


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pea" / "teachers"
