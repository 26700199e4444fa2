"""The models of a teacher as fields of an identity: by the tensors and settings that are read, not by files.

Another sharding, a variant or README beside, or another program that saved the same model changes nothing here. Caches
from before hold digests of whole folders, or do not hold a field at all; `Fields` tells which of those mean the same.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pea.cache.model_digest import sha256_folder
from pea.errors import CheckpointError
from pea.models.noise_schedule import schedule_fields, used_fields
from pea.models.teacher_parts import read_config, vae_dtype
from pea.models.tensor_files import LEFT_OUT, PROJECTED, digest_of

_NO_MATTER = {"sample_size", "force_upcast", "dropout"}
"""Constructor arguments that change no answer: sizes to draw at; the VAE's type, which is a field of its own; and what
only training does."""
_CLIP_TEXT = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
"""What a CLIP text encoder reads of its configuration, and what it takes where that says nothing.

Source: transformers `CLIPTextConfig`.
"""
MISSING = "(nothing)"
"""Stands for a field that one side does not have."""
MeansSame = Callable[[Any], bool]


class Fields(NamedTuple):
    """Fields of an identity."""

    values: dict[str, Any]
    means_same: dict[str, MeansSame]
    """Field -> whether what an older version recorded there, `MISSING` included, means the same as the value."""

    def __or__(self, other: Fields) -> Fields:
        return Fields(self.values | other.values, self.means_same | other.means_same)


def model_fields(checkpoint: Path, parts: Iterable[str]) -> Fields:
    """`teacher.<part>` of `unet`, `vae`, `text_encoder`, `tokenizer_2`...

    Raises:
        CheckpointError: a folder is missing or incomplete.
    """
    return Fields(
        {f"teacher.{part}": _part(checkpoint, part) for part in parts},
        {f"teacher.{part}": partial(_is_folders_digest, checkpoint / part) for part in parts},
    )


def scheduler_fields(checkpoint: Path) -> Fields:
    """The noise schedule, by what is read of it.

    Raises:
        CheckpointError: there is none, or it is of a kind that is not supported.
    """
    fields = schedule_fields(checkpoint / "scheduler")
    values = {"teacher.scheduler": fields, "teacher.prediction_type": fields["prediction_type"]}
    return Fields(values, {"teacher.scheduler": partial(_is_schedule, fields)})


def vae_dtype_field(checkpoint: Path, dtype: str, teacher_dtype: str) -> Fields:
    """The type that the VAE runs in; in caches from before this field, that followed from the teacher's.

    Raises:
        CheckpointError: there is no VAE configuration.
    """
    config = read_config(checkpoint / "vae", "VAE")
    value, before = vae_dtype(config, dtype), vae_dtype(config, teacher_dtype)
    name = "teacher.vae_dtype"
    return Fields({name: value}, {name: lambda held: held == MISSING and value == before})


def _part(checkpoint: Path, part: str) -> Any:
    folder = checkpoint / part
    if not folder.is_dir():
        raise CheckpointError(
            "no such model folder", where=folder, remedy="Point teacher.checkpoint at a diffusers pipeline folder."
        )
    if part.startswith("tokenizer"):
        return {"behaviour": _tokenizer(folder)}
    config = read_config(folder, part)
    if part.startswith("text_encoder"):
        left_out = PROJECTED if part == "text_encoder_2" else LEFT_OUT
        settings = {name: config[name] for name, usual in _CLIP_TEXT.items() if config.get(name, usual) != usual}
        return {"tensors": digest_of(folder, left_out=left_out), "config": settings}
    return {"tensors": digest_of(folder), "config": _read_settings(part, config)}


def _tokenizer(folder: Path) -> str:
    from transformers import CLIPTokenizer

    from pea.models.loading import load_tokenizer
    from pea.models.tokenizer_digest import tokenizer_digest

    return tokenizer_digest(load_tokenizer(CLIPTokenizer, folder))


def _read_settings(part: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's arguments that are not as usual."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    kind = UNet2DConditionModel if part == "unet" else AutoencoderKL
    usual = {name: each.default for name, each in inspect.signature(kind.__init__).parameters.items()}
    given = {name: config[name] for name in sorted(config) if name in usual and name not in _NO_MATTER}
    return {name: value for name, value in given.items() if value != _as_json(usual[name])}


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _is_folders_digest(folder: Path, held: Any) -> bool:
    """Whether a value is the digest that versions before tensors were looked at gave to a folder."""
    return isinstance(held, str) and held == sha256_folder(folder)


def _is_schedule(fields: Mapping[str, Any], held: Any) -> bool:
    """Whether a scheduler's configuration as older versions recorded it, with all its keys, has these fields."""
    try:
        return (
            isinstance(held, dict) and "_class_name" not in held and used_fields({**_ANY_CLASS, **held}, "") == fields
        )
    except CheckpointError:
        return False


_ANY_CLASS = {"_class_name": "DDPMScheduler"}  # older versions read every scheduler as this one
