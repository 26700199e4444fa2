"""The frozen encoders of native captions.

Shapes: B batch, L tokens, D width of the hidden states.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer

from pea.errors import CheckpointError
from pea.models.config_fields import COMPUTED_WITH
from pea.models.config_limits import check_limits
from pea.models.encoders.computed_with import computed_with, differing_fields
from pea.models.encoders.text_encoder import TextEncoder
from pea.models.encoders.towers import loading_class, text_tower, token_embedding
from pea.models.encoders.traits import Reading, reading_of, text_config
from pea.models.loading import check_folder, check_vocabulary, check_weights, load_model, load_part, load_tokenizer
from pea.models.teacher_parts import read_config
from pea.models.tensor_files import LEFT_OUT, digest_of
from pea.models.tokenizer_digest import tokenizer_digest
from pea.storage.digests import canonical_json, sha256_text
from pea.storage.hub import model_name


class Source(NamedTuple):
    """Where an encoder was loaded from."""

    folder: Path
    tensors: tuple[str, ...]
    """Names of the tensors that are used, as the files have them."""


class NativeEncoder:
    """The frozen text encoder of another language: the text tower of a dual encoder, or a plain text model."""

    def __init__(self, model: nn.Module, tokenizer: Any, reading: Reading, source: Source | None = None) -> None:
        self.model = model.requires_grad_(False).eval()
        self.tokenizer = tokenizer
        self.reading = reading
        self.source = source

    @classmethod
    def from_pretrained(
        cls,
        folder: Path,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        reading: Mapping[str, Any] | None = None,
    ) -> NativeEncoder:
        """Load a transformers folder: the text side of a dual encoder, or a text model with or without a decoder.

        `reading`: what is to be read otherwise than its traits say (`pea.models.encoders.traits.reading_of`).

        Raises:
            CheckpointError: the folder is missing, holds no text model, or can't be read so.
        """
        with _naming_import(folder):
            config = _configuration(folder)
            model, stored_names = load_model(
                loading_class(config), folder, dtype, lambda whole: text_tower(whole, folder)
            )
            tokenizer = load_tokenizer(AutoTokenizer, folder)
        _prepare(tokenizer, model, folder)
        source = Source(folder, tuple(stored_names.values()))
        encoder = cls(model, tokenizer, reading_of(config, tokenizer, reading), source)
        encoder._check_answer(folder)
        return encoder.to(device)

    @property
    def max_tokens(self) -> int:
        """Tokens L that every caption is padded to."""
        return self.reading.max_tokens

    @property
    def parts(self) -> tuple[NativeEncoder, ...]:
        """The encoders that read a caption: this one."""
        return (self,)

    @property
    def folder(self) -> Path | None:
        """Where it was loaded from, for messages."""
        return self.source.folder if self.source else None

    def to(self, device: torch.device | str) -> NativeEncoder:
        """Move the model."""
        self.model.to(device)
        return self

    @property
    def width(self) -> int:
        """Width D of the hidden states."""
        config: Any = self.model.config
        # AltCLIP projects its hidden states to the width that the English CLIP had.
        return int(getattr(config, "project_dim", None) or getattr(config, "hidden_size", None) or config.d_model)

    @cached_property
    def record(self) -> dict[str, Any]:
        """Which encoder this is and how it is read: what an adapter keeps of it, and what `check_encoder` compares.

        Raises:
            CheckpointError: it was not loaded from a folder, or that is gone.
        """
        if self.source is None:
            raise CheckpointError("this text encoder was not loaded from a folder", got=type(self.model).__name__)
        return {
            "name": model_name(self.source.folder),
            "class": type(self.model).__name__,
            "tensors": digest_of(self.source.folder, self.source.tensors),
            "tokenizer": tokenizer_digest(self.tokenizer),
            COMPUTED_WITH: computed_with(text_config(self.model.config)),
            **self.reading.record(),
        }

    def _check_answer(self, folder: Path) -> None:
        """Read two tokens: what a model cannot do, no configuration tells.

        Raises:
            CheckpointError: its answer is no states of the width that it says, or there is none.
        """
        tokens, expected = torch.zeros(1, 2, dtype=torch.int64), [1, 2, self.width]
        try:
            found = list(self._states(tokens, torch.ones_like(tokens)).shape)
            if found != expected:
                raise ValueError(f"{found}")
        except (NotImplementedError, torch.OutOfMemoryError):
            return  # of this type on this processor, which may not be where it is going to be used
        except Exception as error:  # of many kinds: classes differ in what they take and give
            raise CheckpointError(
                f"{type(self.model).__name__} cannot be read as a text encoder",
                where=folder,
                expected=f"states {expected} of two tokens",
                got=" ".join(str(error).split())[:200] or type(error).__name__,
            ) from error

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Captions -> hidden states float `[B, L, D]` and attention mask int64 `[B, L]`, padded to `max_tokens`."""
        reading = self.reading
        tokens = self.tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=reading.max_tokens,
            padding_side=reading.padding_side,
            return_attention_mask=True,
            return_tensors="pt",
        )
        mask: Tensor = tokens["attention_mask"]
        first = 0 if reading.padding_side == "right" else -1
        mask[:, first] = 1  # an empty caption without special tokens is one token of padding, not nothing
        device = next(self.model.parameters()).device
        mask = mask.to(device)
        return self._states(tokens["input_ids"].to(device), mask), mask

    @torch.no_grad()
    def _states(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        """Tokens and their mask, int64 `[B, L]` on the model's device -> states float `[B, L, D]`."""
        reading, inputs = self.reading, {"input_ids": input_ids}
        if reading.attention_mask:
            inputs["attention_mask"] = mask
        if reading.padding_side == "left":  # the first token of a caption stands at position 0 wherever it is
            inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        if reading.hidden_state == "last":
            last: Tensor = self.model(**inputs).last_hidden_state
            return last
        chosen: Tensor = self.model(**inputs, output_hidden_states=True).hidden_states[reading.hidden_state]
        return chosen


def check_native(folder: Path, reading: Mapping[str, Any] | None = None, *, numbers: bool = True) -> None:
    """Refuse a folder that `NativeEncoder.from_pretrained` would refuse, without loading the weights where possible.

    `numbers`: as for `check_weights`.

    Raises:
        CheckpointError: as `NativeEncoder.from_pretrained`.
    """
    towers: list[nn.Module] = []

    def tower(whole: nn.Module) -> nn.Module:
        towers.append(text_tower(whole, folder))
        return towers[-1]

    with _naming_import(folder):
        config = _configuration(folder)
        check_weights(loading_class(config), folder, tower, numbers=numbers)
        tokenizer = load_tokenizer(AutoTokenizer, folder)
    _prepare(tokenizer, towers[-1], folder)
    reading_of(config, tokenizer, reading)


@contextmanager
def _naming_import(folder: Path) -> Iterator[None]:
    """Where something is there that cannot be loaded, say what reads the other forms that encoders come in."""
    try:
        yield
    except CheckpointError as error:
        if not folder.exists():
            raise
        advice = f"Published in another form than transformers'? pea import {folder} --out FOLDER."
        raise CheckpointError(f"{error.message.rstrip('.')}. {advice}") from error


def native_digest(folder: Path) -> str:
    """sha256 of what decides an encoder's answers, without loading it: tensors, configuration, tokenizer.

    Raises:
        CheckpointError: the folder is missing or incomplete.
    """
    config = read_config(folder, "text encoder")
    settings = {name: value for name, value in config.items() if name not in _WHO_SAVED and not name.startswith("_")}
    tokenizer = tokenizer_digest(load_tokenizer(AutoTokenizer, folder))
    parts = [digest_of(folder, left_out=LEFT_OUT), tokenizer, json.dumps(settings, sort_keys=True)]
    return sha256_text(canonical_json(parts))


_WHO_SAVED = ("transformers_version", "dtype", "torch_dtype", "architectures")


def _configuration(folder: Path) -> Any:
    """What transformers makes of `config.json`, after a look at what that says itself."""
    if folder.is_dir():
        check_folder(folder)
        said = read_config(folder, "text encoder")
        check_limits(said, folder)
        if not isinstance(said.get("model_type"), str):
            other = said.get("_class_name")
            raise CheckpointError(
                "not a folder of transformers",
                where=folder,
                expected="config.json with a model_type",
                got=f"one of diffusers' {other}" if isinstance(other, str) else "none",
            )
    return load_part(AutoConfig, folder, None)


def _prepare(tokenizer: Any, model: Any, folder: Path) -> None:
    """Give a tokenizer something to pad with, and refuse one that is not this model's."""
    if tokenizer.pad_token is None:  # as most language models are published
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise CheckpointError(
            "the tokenizer has nothing to pad with",
            where=folder,
            expected="a pad_token or an eos_token",
            remedy="Add one to tokenizer_config.json.",
        )
    check_vocabulary(tokenizer, len(token_embedding(model, folder).weight), folder)


_CONTENT = ("tensors", "tokenizer")
_COMPARED = (*_CONTENT, "hidden_state", "attention_mask", "padding_side", "max_tokens")


def check_encoder(recorded: Mapping[str, Any] | None, encoder: TextEncoder) -> None:
    """Refuse an encoder that is not the one in an adapter's record, by content; names and folders do not count.

    Raises:
        CheckpointError: it is another, or is read otherwise.
    """
    if recorded is None:
        return
    found = encoder.record
    known = [name for name in _COMPARED if name in recorded or name in _CONTENT]
    differing = [name for name in known if recorded.get(name) != found[name]]
    fields = differing_fields(recorded.get(COMPUTED_WITH) or {}, found.get(COMPUTED_WITH) or {})
    if differing or fields:
        expected, got = (
            ", ".join(filter(None, [_described(each, differing), _fields(each, fields)])) for each in (recorded, found)
        )
        raise CheckpointError(
            "the adapter was trained for another text encoder",
            where=encoder.folder,
            expected=f"{recorded.get('name')} with {expected}",
            got=f"{found['name']} with {got}",
            remedy=f"Give the adapter's own text encoder, {recorded.get('name')}, or train an adapter for this one.",
        )


def _described(record: Mapping[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {str(record.get(name))[:12]}" for name in names)


def _fields(record: Mapping[str, Any], names: Sequence[str]) -> str:
    each = record.get(COMPUTED_WITH) or {}
    both = each if isinstance(each, list | tuple) else [each]
    said = (" + ".join(str(one.get(name))[:40] for one in both) for name in names)
    return ", ".join(f"{name} {value}" for name, value in zip(names, said, strict=True))
