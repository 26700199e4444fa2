"""Where a run starts: the one place that decides the adapter's values before its first step."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from pea.batches.teacher_texts import statistics_of
from pea.cache import Cache, Identity
from pea.cache.text_statistics import first_captions
from pea.config import Config
from pea.errors import CacheError
from pea.models.adapter import PEA, new_adapter
from pea.models.adapter_start import scale_outputs, whiten_inputs
from pea.models.encoders.places import record_with_places
from pea.models.encoders.text_encoder import TextEncoder
from pea.models.english import EnglishEncoder
from pea.models.text_statistics import TextStatistics, encoded_statistics
from pea.models.unet import unet_config
from pea.models.unet_values import unet_values
from pea.storage.durable import write_text
from stages.training.text_tables import TextTables, teacher_digest, text_states_folder
from stages.training.warm_start import warm_start

_NUM_CAPTIONS = 1024
"""Native captions that the start looks at: a covariance takes more of them than a spread."""


@dataclass
class Start:
    """The start of a run; nothing is computed before it is asked for, and nothing twice."""

    config: Config
    cache: Cache
    """Of the parallel corpus."""
    tables: TextTables

    @property
    def fingerprint(self) -> dict[str, Any]:
        """What decides the start beside settings and encoders; nothing with torch's weights, as in old states."""
        if not self._is_scaled:
            return {}
        whitened = "whitened, " if self.config.train.init == "whitened" else ""
        return {"start": whitened + self.statistics.digest}

    def adapter(self) -> PEA:
        """The adapter before the first step, on the CPU, with a record of its start; a new one each time."""
        return deepcopy(self._adapter)

    @property
    def _is_scaled(self) -> bool:
        return self.config.train.init != "torch" and self.config.train.init_from is None

    @cached_property
    def _adapter(self) -> PEA:
        unet = unet_config(self.config.teacher.folder)
        adapter = untrained_adapter(self.config, unet, self.tables.encoder, self.cache.identity)
        record: dict[str, Any] = {"init": self.config.train.init}
        if self.config.train.init_from is not None:
            adapter.load_state_dict(warm_start(self.config, self.tables.encoder).state_dict())
            record = {"init": "from_adapter"}
        elif self._is_scaled:
            adapter, states = adapter.to(self.tables.device), self.tables.native
            captions = first_captions(self.cache.shards, self.config.student.caption_languages, _NUM_CAPTIONS)
            if self.config.train.init == "whitened":
                record |= whiten_inputs(adapter, states, captions)
            record |= scale_outputs(adapter, states, captions, self.statistics)
            record["statistics"] = self.statistics.digest
        adapter.register_to_config(start=record)
        return adapter.cpu()

    @cached_property
    def statistics(self) -> TextStatistics:
        """Of the English text states.

        Raises:
            CacheError: what is stored of them is damaged, or the cache has no captions.
        """
        try:
            return statistics_of(self.cache, self._asked)
        except ValueError as error:
            raise CacheError(
                "no statistics of the English text states for the adapter's start",
                where=self.cache.directory,
                got=error,
                remedy="Set train.init=torch to start without.",
            ) from error

    def _asked(self) -> TextStatistics:
        """What the English encoder says, which is kept beside the text states for later runs."""
        kept = text_states_folder(self.config) / f"statistics-{teacher_digest(self.cache.identity)[:16]}.json"
        if not kept.exists():
            folder, dtype = self.config.teacher.folder, getattr(torch, self.config.teacher.dtype)
            if self.tables.device.type == "cpu" and dtype == torch.float16:
                dtype = torch.float32
            english = EnglishEncoder.from_checkpoint(folder, dtype, self.tables.device)
            captions = first_captions(self.cache.shards, [self.config.corpora.parallel.source_language])
            found = encoded_statistics(english.encode, captions)
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_text(kept, found.to_json())
        return TextStatistics.from_json(kept.read_bytes())


def initial_adapter(config: Config, unet: Any, encoder: TextEncoder) -> PEA:
    """An adapter of torch's initial weights, of the size that the configuration says."""
    return new_adapter(
        unet,
        encoder.width,
        hidden_size=config.student.adapter.hidden_size,
        num_layers=config.student.adapter.num_layers,
        max_tokens=encoder.max_tokens,
        seed=config.train.seed,
    )


def untrained_adapter(config: Config, unet: Any, encoder: TextEncoder, identity: Identity) -> PEA:
    """An adapter of torch's initial weights that records what it belongs to; `unet`: the UNet's configuration."""
    adapter = initial_adapter(config, unet, encoder)
    unet_digest = identity.fields.get("teacher.unet")
    adapter.register_to_config(
        cache_identity=identity.digest,
        encoder=record_with_places(encoder.record, config.student.places),
        base_model={
            "name": config.teacher.name,
            "unet": unet_digest["tensors"] if isinstance(unet_digest, dict) else unet_digest,
            "values": unet_values(config.teacher.folder / "unet"),
        },
        prediction_type=identity.fields.get("teacher.prediction_type"),
        languages=list(config.student.languages),
    )
    return adapter
