"""Text states of the frozen encoders, computed at most once for all phases of a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from pea.batches.captions import Captions
from pea.batches.text_states import Store, TextStates
from pea.cache import Identity
from pea.cache.identity import sha256_folder
from pea.config import Config
from pea.corpus.corpus_names import DISTILLED
from pea.models.conditioning import Conditioning, on_device
from pea.models.encoders.pair import load_encoder
from pea.models.encoders.text_encoder import TextEncoder
from pea.models.english import EnglishEncoder
from pea.storage import Location
from pea.storage.work import folder_for
from stages.training.caches import open_cache

DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""`train.precision` -> type of the frozen models."""


class TextTables:
    """Encoders and tables of their answers; nothing is loaded before it is asked for."""

    def __init__(self, config: Config, device: torch.device) -> None:
        self.config, self.device = config, device

    @cached_property
    def encoder(self) -> TextEncoder:
        """The student's."""
        student = self.config.student
        return load_encoder(student.encoders, device=self.device, reading=student.reading)

    @cached_property
    def native(self) -> TextStates:
        """States and masks of native captions."""
        caches = [open_cache(self.config, corpus, checked=False) for corpus in self.config.corpora.names]
        known = Captions(caches, self.config.student.caption_languages)
        return TextStates(self.encoder.encode, known, store=self._store(self._encoder_digest()))

    def _encoder_digest(self) -> str:
        """Of the encoder's files, and of how it is read."""
        record = self.encoder.record
        reading = {name: record[name] for name in ("hidden_state", "attention_mask", "padding_side", "max_tokens")}
        return " ".join([*map(sha256_folder, self.config.student.encoders), json.dumps(reading, sort_keys=True)])

    @cached_property
    def english_means(self) -> TextStates:
        """Of English captions: hidden states averaged over the tokens, `[B, 1, D]`, and the pooled embedding.

        They are all that the distance between text states looks at.
        """
        dtype = DTYPES[self.config.train.precision]
        english = EnglishEncoder.from_checkpoint(self.config.teacher.folder, dtype, self.device)

        def encode(texts: Sequence[str]) -> tuple[Tensor | None, ...]:
            hidden, pooled = english.encode(texts)
            return hidden.float().mean(1, keepdim=True), None if pooled is None else pooled.float()

        identity = open_cache(self.config, "parallel", checked=False).identity
        return TextStates(
            encode, english_captions(self.config), store=self._store(f"{teacher_digest(identity)} means {dtype}")
        )

    def _store(self, encoder: str) -> Store | None:
        """Where states are kept, if they are."""
        return Store(text_states_folder(self.config), encoder) if self.config.train.keep_text_states else None


def empty_conditioning(config: Config, identity: Identity) -> Conditioning:
    """What the teacher is told where the caption is dropped, float32, one row, on the CPU; stored on first use."""

    def encode(texts: Sequence[str]) -> tuple[Tensor | None, ...]:
        dtype = getattr(torch, config.teacher.dtype)
        answer = EnglishEncoder.from_checkpoint(config.teacher.folder, dtype).encode(texts)
        return tuple(None if part is None else part.float() for part in answer)

    store = Store(text_states_folder(config), teacher_digest(identity))
    return on_device(TextStates(encode, [], store=store)([""]), "cpu")


def teacher_digest(identity: Identity) -> str:
    """Of everything about the teacher that a cache depends on."""
    models = {name: value for name, value in identity.fields.items() if name.startswith("teacher.")}
    return hashlib.sha256(json.dumps(models, sort_keys=True, default=str).encode()).hexdigest()


def english_captions(config: Config) -> Captions:
    """Every caption that the teacher read."""
    caches = [open_cache(config, corpus, checked=False) for corpus in config.corpora.names if corpus in DISTILLED]
    return Captions(caches, [config.corpora.parallel.source_language])


def text_states_folder(config: Config) -> Path:
    """Text states that later runs of any configuration with the same caches find again; on this machine's disk."""
    caches = Location.parse(config.cache_dir("parallel")).parent
    return (caches.local_path if caches.is_local else folder_for("caches", caches)) / "text_states"
