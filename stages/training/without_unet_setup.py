"""What a phase without the UNet needs and nothing more.

That is no UNet and no VAE, and the English encoders only where the cache does not keep their answers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pea.attention.layers import AttentionLayers
from pea.batches.attention_batches import AttentionData, EnglishTexts
from pea.batches.attention_rows import text_arrays
from pea.batches.selection import Selection
from pea.batches.text_states import TextStates
from pea.cache import Cache
from pea.config import Config
from pea.models.adapter import PEA
from pea.models.conditioning import on_device
from stages.training.caches import min_gain
from stages.training.start import Start
from stages.training.text_tables import DTYPES, TextTables, empty_conditioning


@dataclass
class WithoutUnetSetup:
    """Everything the phase works with."""

    data: AttentionData
    layers: AttentionLayers | None
    """The frozen cross-attention layers; None in a phase of kind text."""
    adapter: PEA
    """As the run starts with it, on the device."""
    native_states: TextStates


def prepare_without_unet(
    config: Config, cache: Cache, start: Start, device: torch.device, *, with_queries: bool
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
    return WithoutUnetSetup(
        data=_data(config, cache, start.tables, with_queries=with_queries),
        layers=layers,
        adapter=start.adapter().to(device),
        native_states=start.tables.native,
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
            min_description_gain=min_gain(config),
        ).unless_all(),
    )
