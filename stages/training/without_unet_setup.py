"""What a phase without the UNet needs and nothing more.

That is no UNet and no VAE, and the English encoders only where the cache does not keep their answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from pea.attention.layers import AttentionLayers
from pea.batches.attention_batches import AttentionData, EnglishTexts
from pea.batches.attention_rows import text_arrays
from pea.batches.selection import Selection
from pea.batches.text_states import TextStates
from pea.cache import Cache, Identity
from pea.config import Config
from pea.models.adapter import PEA, new_adapter
from pea.models.conditioning import on_device
from pea.models.encoders.places import record_with_places
from pea.models.encoders.text_encoder import TextEncoder
from pea.models.unet import unet_config
from stages.training.text_tables import DTYPES, TextTables, empty_conditioning
from stages.training.warm_start import warm_start


@dataclass
class WithoutUnetSetup:
    """Everything the phase works with."""

    data: AttentionData
    layers: AttentionLayers | None
    """The frozen cross-attention layers; None in a phase of kind text."""
    adapter: PEA
    """Untrained, on the device."""
    native_states: TextStates


def prepare_without_unet(
    config: Config, cache: Cache, tables: TextTables, device: torch.device, *, with_queries: bool
) -> WithoutUnetSetup:
    """Open everything; `config`: with the phase's settings.

    Raises:
        CacheError: the cache holds no queries, or no captions in the student's language.
        CheckpointError: a model folder is missing or unusable.
    """
    layers, checkpoint = None, config.teacher.folder
    if with_queries:
        attention, dtype = config.cache.attention, DTYPES[config.train.precision]
        if dtype == torch.float16:
            dtype = torch.float32
        names = attention.layers if attention else "all"
        layers = AttentionLayers.from_checkpoint(checkpoint, names, dtype, device)
        layers.check_weights(config.train.attention_layer_weights)
    adapter = untrained_adapter(config, unet_config(checkpoint), tables.encoder, cache.identity)
    return WithoutUnetSetup(
        data=_data(config, cache, tables, with_queries=with_queries),
        layers=layers,
        adapter=adapter.to(device),
        native_states=tables.native,
    )


def _data(config: Config, cache: Cache, tables: TextTables, *, with_queries: bool) -> AttentionData:
    train, english = config.train, None
    if with_queries or text_arrays(cache):
        empty = empty_conditioning(config, cache.identity)
    else:
        english = EnglishTexts(tables.english_means, config.corpora.parallel.source_language)
        empty = on_device(tables.english_means([""]), "cpu")
    return AttentionData(
        cache,
        config.student.caption_languages,
        train.batch_size,
        train.seed,
        empty,
        with_queries=with_queries,
        english=english,
        keep_pooled=config.cache.caption_drop == "hidden_states",
        selection=Selection(
            train.validation_fraction,
            timesteps=train.timesteps if with_queries else None,
            min_description_gain=train.min_description_gain,
        ).unless_all(),
    )


def untrained_adapter(config: Config, unet: Any, encoder: TextEncoder, identity: Identity) -> PEA:
    """The adapter as a run's first phase finds it; `unet`: the UNet's configuration."""
    adapter = new_adapter(
        unet,
        encoder.width,
        hidden_size=config.student.adapter.hidden_size,
        num_layers=config.student.adapter.num_layers,
        max_tokens=encoder.max_tokens,
        seed=config.train.seed,
    )
    if config.train.init_from is not None:
        adapter.load_state_dict(warm_start(config, encoder).state_dict())
    unet_digest = identity.fields.get("teacher.unet")
    adapter.register_to_config(
        cache_identity=identity.digest,
        encoder=record_with_places(encoder.record, config.student.places),
        base_model={
            "name": config.teacher.name,
            "unet": unet_digest["tensors"] if isinstance(unet_digest, dict) else unet_digest,
        },
        prediction_type=identity.fields.get("teacher.prediction_type"),
        languages=list(config.student.languages),
    )
    return adapter
