"""What the attention phase needs and nothing more: no UNet, no VAE; the English encoders only for the empty caption."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pea.adapter import PEA, new_adapter
from pea.attention import AttentionLayers
from pea.attention_data import AttentionData
from pea.cache import Cache, Identity
from pea.cache.identity import reading_identity, sha256_folder
from pea.config import Config
from pea.encoders import Conditioning, EnglishEncoder, NativeEncoder, on_device
from pea.selection import Selection
from pea.teacher import unet_config
from pea.text_states import Store, TextStates

_SETTINGS = (
    "attention_steps", "attention_batch_size", "attention_learning_rate", "attention_text_weight", "weight_decay",
    "max_grad_norm", "seed", "precision", "validation_fraction",
)  # fmt: skip
"""Settings of `train` that decide the phase's result."""


@dataclass
class AttentionSetup:
    """Everything the phase works with."""

    data: AttentionData
    layers: AttentionLayers
    adapter: PEA
    """Untrained, on the device."""
    native_states: TextStates
    fingerprint: dict[str, Any]
    """What decides the phase's result; a saved state of another one is not resumed."""


def attention_fingerprint(config: Config, cache: Cache, num_processes: int) -> dict[str, Any]:
    """Of the phase alone: what changes only the steps after it leaves its result as it is."""
    train = config.train.model_dump(mode="json", include=set(_SETTINGS))
    return {
        "cache": cache.identity.digest,
        "encoder": sha256_folder(config.student.encoder),
        "languages": list(config.student.caption_languages),
        "adapter": config.student.adapter.model_dump(mode="json"),
        "train": json.loads(json.dumps(train)),
        "num_processes": num_processes,
    }


def open_parallel(config: Config) -> Cache:
    """The checked cache.

    Raises:
        IdentityError: it is not the one that this configuration describes.
    """
    return Cache.open(config.cache_dir("parallel"), expect=reading_identity(config, "parallel"))


def prepare_attention(config: Config, cache: Cache, device: torch.device, num_processes: int = 1) -> AttentionSetup:
    """Open everything; what is large and needed for a moment only comes first, and is let go.

    Raises:
        CacheError: the cache holds no queries, or no captions in the student's language.
        CheckpointError: a model folder is missing or unusable.
    """
    train, checkpoint = config.train, config.teacher.checkpoint
    fraction = train.validation_fraction
    data = AttentionData(
        cache,
        config.student.caption_languages,
        train.attention_batch_size,
        train.seed,
        empty_conditioning(config, cache.identity),
        keep_pooled=config.cache.caption_drop == "hidden_states",
        selection=Selection(fraction) if fraction else None,
    )
    encoder = NativeEncoder.from_pretrained(config.student.encoder, device=device)
    states = TextStates(encoder.encode, known_captions(config), store=native_store(config))
    attention = config.cache.attention
    dtype = torch.bfloat16 if train.precision == "bf16" else torch.float32
    return AttentionSetup(
        data=data,
        layers=AttentionLayers.from_checkpoint(checkpoint, attention.layers if attention else "all", dtype, device),
        adapter=untrained_adapter(config, unet_config(checkpoint), encoder, cache.identity).to(device),
        native_states=states,
        fingerprint=attention_fingerprint(config, cache, num_processes),
    )


def untrained_adapter(config: Config, unet: Any, encoder: NativeEncoder, identity: Identity) -> PEA:
    """The adapter as every phase finds it; `unet`: the UNet's configuration."""
    adapter = new_adapter(
        unet,
        encoder.width,
        hidden_size=config.student.adapter.hidden_size,
        num_layers=config.student.adapter.num_layers,
        max_tokens=encoder.max_tokens,
        seed=config.train.seed,
    )
    adapter.register_to_config(cache_identity=identity.digest)
    return adapter


def empty_conditioning(config: Config, identity: Identity) -> Conditioning:
    """What the teacher is told where the caption is dropped, float32, one row, on the CPU; stored on first use."""
    models = {name: value for name, value in identity.fields.items() if name.startswith("teacher.")}
    digest = hashlib.sha256(json.dumps(models, sort_keys=True, default=str).encode()).hexdigest()

    def encode(texts: Sequence[str]) -> tuple[torch.Tensor | None, ...]:
        dtype = getattr(torch, config.teacher.dtype)
        answer = EnglishEncoder.from_checkpoint(config.teacher.checkpoint, dtype).encode(texts)
        return tuple(None if part is None else part.float() for part in answer)

    return on_device(TextStates(encode, [], store=Store(text_folder(config), digest))([""]), "cpu")


def native_store(config: Config) -> Store | None:
    """Where the states of the native captions are kept, if they are."""
    if not config.train.keep_text_states:
        return None
    return Store(text_folder(config), sha256_folder(config.student.encoder))


def text_folder(config: Config) -> Path:
    """Text states that later runs of any configuration with the same caches find again."""
    return config.cache_dir("parallel").parent / "text_states"


def known_captions(config: Config) -> set[str]:
    """Every caption of both caches in the languages of the student: one table serves all phases."""
    found: set[str] = set()
    for corpus in ("parallel", "culture") if config.corpora.culture else ("parallel",):
        for shard in Cache.open(config.cache_dir(corpus)).shards:
            for bucket in shard.buckets.values():
                for language in set(config.student.caption_languages).intersection(bucket.languages):
                    found.update(bucket.captions(language))
    return found
