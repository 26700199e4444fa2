"""Which class loads a text encoder, which part of a model it is, and where its tokens are looked up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn
from transformers import MODEL_FOR_TEXT_ENCODING_MAPPING, AutoModel, AutoModelForTextEncoding

from pea.errors import CheckpointError

_LOADED_WHOLE = ("t5gemma",)
"""Whose class of the encoder alone does not take the configuration that whole ones are published with."""


def loading_class(config: Any) -> Any:
    """The class that loads a text encoder, of its configuration: of T5 and its kin, the encoder alone."""
    encoder_class = MODEL_FOR_TEXT_ENCODING_MAPPING.get(type(config), None)
    has_decoder = encoder_class is not None and encoder_class.__name__.endswith("EncoderModel")
    return AutoModelForTextEncoding if has_decoder and config.model_type not in _LOADED_WHOLE else AutoModel


def text_tower(model: nn.Module, folder: Path) -> nn.Module:
    """The part of a model that reads texts: of a dual encoder, one that sees and writes, or one with a decoder.

    Raises:
        CheckpointError: it has none.
    """
    tower = getattr(model, "text_model", None) or getattr(model, "language_model", None)
    if tower is None and getattr(model.config, "is_encoder_decoder", False):
        tower = model.get_encoder()  # type: ignore[operator]
    if tower is None and hasattr(model, "get_input_embeddings"):
        tower = model
    if not isinstance(tower, nn.Module) or hasattr(tower.config, "patch_size"):
        raise CheckpointError("no text encoder in this model", where=folder, got=type(model).__name__)
    return tower


def token_embedding(model: Any, folder: Path) -> nn.Embedding:
    """Where a text tower looks up its tokens.

    Raises:
        CheckpointError: nowhere, as one that reads characters, images or sounds.
    """
    try:
        found = model.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        found = None
    if not isinstance(found, nn.Embedding):
        raise CheckpointError(
            "no text encoder in this model",
            where=folder,
            expected="one that looks up tokens in an embedding",
            got=type(model).__name__,
        )
    return found
