"""Loading models and tokenizers from local folders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from pea.errors import CheckpointError


def load_part(kind: Any, folder: Path, dtype: torch.dtype | None) -> Any:
    """`kind.from_pretrained(folder)` from local safetensors only; the `fp16` variant where there is no other.

    Raises:
        CheckpointError: the folder is missing, incomplete, or of another kind.
    """
    if not folder.is_dir():
        raise CheckpointError("no such model folder", where=folder, remedy="Check the path in the configuration.")
    options: dict[str, Any] = {"local_files_only": True}
    if dtype is not None:
        name = "torch_dtype" if kind.__module__.startswith("diffusers") else "dtype"
        options |= {name: dtype, "use_safetensors": True}
        if only_fp16(folder):
            options["variant"] = "fp16"
    try:
        with quiet_loading():
            return kind.from_pretrained(str(folder), **options)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise CheckpointError(
            f"cannot load this folder as {kind.__name__}",
            where=folder,
            got=str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__,
            remedy="Give a complete folder in the standard layout with safetensors weights.",
        ) from error


def only_fp16(folder: Path) -> bool:
    """Whether a model's folder holds weights in the `fp16` variant alone, as a download with `variant="fp16"` does."""
    return not list(folder.glob("*model.safetensors*")) and bool(list(folder.glob("*.fp16.safetensors")))


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


def load_tokenizer(kind: Any, folder: Path) -> Any:
    """A tokenizer from a local folder.

    Raises:
        CheckpointError: the folder is missing or holds no tokenizer of this kind.
    """
    tokenizer = load_part(kind, folder, None)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise CheckpointError("the tokenizer's vocabulary is empty or missing", where=folder)
    return tokenizer
