"""A folder's model without its weights, on the meta device: its tensors' names and shapes, and how many there are."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
import transformers
from diffusers import ModelMixin
from diffusers.utils import logging as diffusers_logging
from torch import nn
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from pea.errors import CheckpointError
from pea.file_names import MODEL_CONFIG
from pea.foreign_json import json_object
from pea.models.tensor_files import LEFT_OUT, stored_tensors

_NUMBERS_BESIDE = 20_000_000
"""Numbers that a model may have without a file for them: a pooler, a head, tables that are computed."""


def is_of_diffusers(kind: Any) -> bool:
    """Whether a class is one of diffusers' models."""
    return isinstance(kind, type) and issubclass(kind, ModelMixin)


def unfilled(kind: Any, folder: Path, config: Any = None) -> Any:
    """A model of this class; nothing is allocated. `config`: of transformers, in place of the folder's own.

    Raises:
        Exception: of many kinds, where the configuration describes none.
    """
    with quiet_loading(), torch.device("meta"):
        if is_of_diffusers(kind):
            return _quietly(kind, json_object((folder / MODEL_CONFIG).read_bytes()))
        if config is None:
            config_kind = getattr(kind, "config_class", None) or AutoConfig
            config = config_kind.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        if hasattr(kind, "from_config"):
            return kind.from_config(config, trust_remote_code=False)
        return kind(config)


def unknown_names(kind: Any, folder: Path, names: Collection[str]) -> list[str]:
    """Those names of a file's tensors that neither the whole model has, nor the class that `config.json` names.

    That class is what was published: a language model or classifier around the text encoder, with heads of its own.
    """
    rest = [name for name in names if not LEFT_OUT.search(name)]
    if not rest:
        return []
    whole = unfilled(kind, folder)
    known = set(whole.state_dict())
    with suppress(Exception):  # of many kinds: what cannot be made knows no names
        known |= set(unfilled(_published_class(folder), folder).state_dict())
    prefix = f"{whole.base_model_prefix}."
    return [name for name in rest if name not in known and name.removeprefix(prefix) not in known]


def _published_class(folder: Path) -> Any:
    """The class of transformers that the weights were saved from."""
    (name,) = json_object((folder / MODEL_CONFIG).read_bytes())["architectures"]
    found = getattr(transformers, name)
    if not issubclass(found, PreTrainedModel):
        raise TypeError(name)
    return found


def check_size(kind: Any, folder: Path, config: Any = None) -> None:
    """Refuse, before anything is allocated, a model that is far larger than the files that are to fill it.

    What cannot be made at all is left to the loader, which says why.

    Raises:
        CheckpointError: it is; or a file is missing or is no safetensors file.
    """
    try:
        model: nn.Module = unfilled(kind, folder, config)
    except Exception:  # noqa: BLE001 - of many kinds: what the file says is put to constructors unchecked
        return
    stored = sum(math.prod(each.shape) for each in stored_tensors(folder).values())
    needed = sum(each.numel() for each in (*model.parameters(), *model.buffers()))
    if needed > 2 * stored + _NUMBERS_BESIDE:
        raise CheckpointError(
            "config.json describes a far larger model than the weights are",
            where=folder,
            expected=f"about {stored:,} numbers, as in the files",
            got=f"{needed:,}",
            remedy="Give config.json and weights of one model.",
        )


def _quietly(kind: Any, config: dict[str, Any]) -> Any:
    """Without a word on fields that the class does not know: that is told on loading, once."""
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        return kind.from_config(config)
    finally:
        diffusers_logging.set_verbosity(verbosity)


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep transformers and diffusers from drawing bars, and from hinting at packages that are not needed here."""
    shown, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shown:
            transformers_logging.enable_progress_bar()
            diffusers_logging.enable_progress_bar()
