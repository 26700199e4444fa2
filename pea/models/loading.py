"""The one place that loads models and tokenizers: from local folders, whole, without remote code, or not at all."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import AutoConfig

from pea.errors import CheckpointError, PeaError
from pea.file_names import MODEL_CONFIG
from pea.foreign_json import POINTER, json_object, pointers_in
from pea.models.config_limits import check_limits
from pea.models.loaded_tensors import fitting, other_shapes, put_back
from pea.models.tensor_files import LEFT_OUT, check_finite, stored_tensors, weight_files
from pea.models.unfilled import check_size, is_of_diffusers, quiet_loading, unfilled, unknown_names

_POOLS = re.compile(r"(^|\.)(pooler|head)\.")
"""Parts of a text tower that make one vector of its states; nobody here reads that."""
_SHOWN = 3
_PEFT_CONFIG = "adapter_config.json"
_REMEDY = "Give a complete folder in the standard layout with safetensors weights."


class Loaded(NamedTuple):
    """A model whose tensors are those of its file."""

    model: Any
    stored_names: dict[str, str]
    """Name of a tensor that is used -> its name in the file."""


def load_part(kind: Any, folder: Path, dtype: torch.dtype | None, **parts: Any) -> Any:
    """`kind.from_pretrained(folder)`, local; the `fp16` variant where there is no other. `dtype` None: no weights.

    `parts`: of a pipeline, where they are loaded already, or not wanted (None).

    Raises:
        CheckpointError: the folder is missing, incomplete, or of another kind.
    """
    if dtype is not None:
        return load_model(kind, folder, dtype).model
    check_folder(folder)
    return _from_pretrained(kind, folder, parts)


def load_model(
    kind: Any,
    folder: Path,
    dtype: torch.dtype,
    tower: Callable[[Any], nn.Module] | None = None,
    computed: re.Pattern[str] | None = None,
) -> Loaded:
    """A model, or the part of it that `tower` picks, as its safetensors say it; layers for images are not read then.

    Nothing that is used is missing, of another shape, or changed by the library; beside it, the file holds only what is
    known by name to be of no use here. `computed`: tensors that the class makes itself and no file has, by name.

    Raises:
        CheckpointError: that is not so; or the folder is missing, or of another kind.
    """
    check_folder(folder)
    _check_class(kind, folder)
    is_diffusers = is_of_diffusers(kind)
    variant = weight_files(folder)[1]
    stored_tensors(folder)  # whole files, or one line that names the one that is not
    options: dict[str, Any] = {"torch_dtype" if is_diffusers else "dtype": dtype, "use_safetensors": True}
    if not is_diffusers:
        options["ignore_mismatched_sizes"] = False
    if variant:
        options["variant"] = variant
    if tower is not None and (config := _without_image_layers(folder)) is not None:
        options["config"] = config
    check_size(kind, folder, options.get("config"))
    model, info = _from_pretrained(kind, folder, options | {"output_loading_info": True})
    part = model if tower is None else tower(model)
    used = list(model.state_dict()) if tower is None else _read_names(model, part)
    used = [name for name in used if computed is None or not computed.search(name)]
    if not is_diffusers:
        info["unexpected_keys"] = unknown_names(kind, folder, info["unexpected_keys"])
    check_loading_info(type(model), folder, info, used, None if is_diffusers else LEFT_OUT)
    return Loaded(part, put_back(model, used, folder, may_be_converted=is_diffusers))


def check_weights(
    kind: Any, folder: Path, tower: Callable[[Any], nn.Module] | None = None, *, numbers: bool = True
) -> None:
    """Refuse what `load_model` would refuse, without making the model where the files themselves tell.

    `numbers`: look at every number that is used, and not at the files' headers alone.

    Raises:
        CheckpointError: as `load_model`.
    """
    check_folder(folder)
    _check_class(kind, folder)
    unknown = partial(unknown_names, kind, folder)
    try:
        model = unfilled(kind, folder)
        part = model if tower is None else tower(model)
        used = list(model.state_dict()) if tower is None else _read_names(model, part)
        stored = fitting(model, used, folder, (lambda names: names) if is_of_diffusers(kind) else unknown)
    except Exception:  # noqa: BLE001 - the loader says what is wrong, and in whose words
        stored = None
    if stored is None:
        load_model(kind, folder, torch.float32, tower)
    elif numbers:
        check_finite(folder, stored)


def _without_image_layers(folder: Path) -> Any | None:
    """Configuration of a dual encoder without the layers of its image tower; None: it has none.

    They are up to three quarters of a dual encoder, and would be read to be thrown away.
    """
    config = load_part(AutoConfig, folder, None)
    images: Any = getattr(config, "vision_config", None)
    if not getattr(images, "num_hidden_layers", 0):
        return None
    images.num_hidden_layers = 0
    return config


def _from_pretrained(kind: Any, folder: Path, options: Mapping[str, Any]) -> Any:
    try:
        with quiet_loading():
            return kind.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False, **options)
    except PeaError:
        raise
    except Exception as error:  # of many kinds: what the file holds is put to constructors unchecked
        lines = str(error).strip().splitlines() or [type(error).__name__]
        got = " ".join(lines[: 2 if lines[0].rstrip().endswith(":") else 1]).rstrip(".")
        if "trust_remote_code" in str(error) or "custom code" in got:
            got = "it needs code of its own (auto_map), and no code from a model's folder is run"
        elif "ignore_mismatched_sizes" in got:
            got = _other_shapes(kind, folder)
        raise CheckpointError(
            f"cannot load this folder as {kind.__name__}", where=folder, got=got, remedy=_REMEDY
        ) from error


def _other_shapes(kind: Any, folder: Path) -> str:
    """Which tensors have another shape in the file than the configuration gives; the library says it in a log only."""
    found = _some(other_shapes(unfilled(kind, folder), folder))
    return "tensors of another shape than config.json says" + (f": {found}" if found else "")


def check_folder(folder: Path) -> None:
    """Refuse what is no folder with a model's own files.

    Raises:
        CheckpointError: it is missing, files are git-LFS pointers, or it is a change of another model.
    """
    if not folder.is_dir():
        raise CheckpointError("no such model folder", where=folder, remedy="Check the path in the configuration.")
    if pointers := pointers_in(folder):
        raise CheckpointError("a file is not here yet", where=pointers[0], got=POINTER)
    if (folder / _PEFT_CONFIG).exists():  # transformers would put it into the model without a word
        raise CheckpointError(
            "a LoRA or another change of a model, and no model",
            where=folder,
            got=_PEFT_CONFIG,
            remedy="Merge it into its model with peft (merge_and_unload), and give the folder of that.",
        )


def _check_class(kind: Any, folder: Path) -> None:
    """Refuse a configuration that names another class; where it names none, the tensors tell."""
    try:
        config = json_object((folder / MODEL_CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"cannot load this folder as {kind.__name__}",
            where=folder,
            got=f"no config.json that can be read: {why}",
            remedy=_REMEDY,
        ) from None
    check_limits(config, folder)
    if is_of_diffusers(kind):
        expected: str | None = kind.__name__
        got = config.get("_class_name")
    else:
        expected, got = getattr(getattr(kind, "config_class", None), "model_type", None), config.get("model_type")
        nested = config.get("text_config")
        if got and expected and isinstance(nested, dict) and f"{got}_text_model" == expected:
            return  # the text tower of a whole CLIP
    if expected and got and expected != got:
        raise CheckpointError(
            f"cannot load this folder as {kind.__name__}", where=folder / MODEL_CONFIG, expected=expected, got=got
        )


def _read_names(model: nn.Module, tower: nn.Module) -> list[str]:
    """Names, in the model, of the tensors that make a text tower's states."""
    inside = {id(tensor) for name, tensor in tower.state_dict(keep_vars=True).items() if not _POOLS.search(name)}
    return [name for name, tensor in model.state_dict(keep_vars=True).items() if id(tensor) in inside]


def check_loading_info(
    kind: Any, folder: Path, info: Mapping[str, Any], used: Collection[str], left_out: re.Pattern[str] | None
) -> None:
    """Refuse a file that lacks what is used, or that holds what nobody knows."""
    missing = sorted(set(info["missing_keys"]) & set(used))
    shapes = sorted(str(each[0]) for each in info["mismatched_keys"])
    foreign = sorted(name for name in info["unexpected_keys"] if left_out is None or not left_out.search(name))
    found = [
        f"{len(names)} {what} ({_some(names)})"
        for what, names in (("missing", missing), ("of another shape", shapes), ("unknown", foreign))
        if names
    ]
    if found or info["error_msgs"]:
        raise CheckpointError(
            f"the weights are not those of {kind.__name__} as config.json describes it",
            where=folder,
            expected="every tensor by its name",
            got=", ".join(found) or info["error_msgs"][0],
            remedy="Give the model's own weights in the layout of transformers or diffusers.",
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def check_vocabulary(tokenizer: Any, rows: int, folder: Path) -> None:
    """Refuse a tokenizer that knows tokens beyond the embedding's rows: one would end the first pass that meets it.

    Special ones may be beyond, as Gemma 3's token for images in its models of text, but for those that stand around a
    text or pad it.

    Raises:
        CheckpointError: it does.
    """
    special = set(tokenizer.all_special_tokens)
    around = [*tokenizer("")["input_ids"], tokenizer.pad_token_id or 0]
    beyond = any(index >= rows and token not in special for token, index in tokenizer.get_vocab().items())
    if beyond or max(around) >= rows:
        raise CheckpointError(
            "the tokenizer knows more tokens than the text encoder", where=folder, expected=rows, got=len(tokenizer)
        )


def load_tokenizer(kind: Any, folder: Path) -> Any:
    """A tokenizer from a local folder.

    Raises:
        CheckpointError: the folder is missing or holds no tokenizer of this kind.
    """
    tokenizer = load_part(kind, folder, None)
    limit = tokenizer.model_max_length
    if not isinstance(limit, int | float) or not 1 <= limit < math.inf:  # as a file says it, unchecked
        raise CheckpointError(
            "the tokenizer's model_max_length is no number of tokens",
            where=folder,
            expected="1 or more",
            got=f"{limit!r}"[:60],
        )
    special = set(tokenizer.all_special_tokens)  # of no file at all, some classes make these and a mark of a space
    if not any(token.strip("▁") and token not in special for token in tokenizer.get_vocab()):
        raise CheckpointError(
            "the tokenizer's vocabulary is empty or missing",
            where=folder,
            expected="tokenizer.json, or the files of its kind",
            remedy="Copy them from where the model was published.",
        )
    return tokenizer
