"""The identity of a cache: everything that decides what its records contain, by content and never by path.

An identity is a flat mapping from dotted names to JSON values. Two caches with equal identities hold equal
records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pea.cache.model_digest import read_json
from pea.cache.model_digest import sha256_folder as sha256_folder
from pea.cache.schema import FORMAT_VERSION
from pea.corpus.tars import TarIdentity, expand_tars, tar_identity
from pea.errors import ConfigError
from pea.storage.digests import canonical_json, sha256_text

if TYPE_CHECKING:  # what checks configurations is slow to import, and looking into a cache does without
    from pea.config import CacheConfig, Config, CorpusConfig

TARS = "corpus.tars"
DRAWS = "cache.draws_per_sample"
BLOCKS = "cache.blocks"
SKETCHES = "cache.sketches"
EXTENDABLE = (TARS, DRAWS, BLOCKS, SKETCHES)
"""Fields that ``pea cache --extend`` may enlarge."""
DRAW_RECIPE = "philox4x64-10, golden-ratio timesteps, AS 241 normals, v1"


@dataclass(frozen=True)
class Identity:
    """What a cache was made from."""

    fields: Mapping[str, Any]
    """Dotted name -> JSON value."""

    @cached_property
    def digest(self) -> str:
        """sha256 of all fields."""
        return sha256_text(canonical_json(dict(self.fields)))

    @cached_property
    def core_digest(self) -> str:
        """sha256 of the fields that cannot be extended."""
        return sha256_text(canonical_json({k: v for k, v in self.fields.items() if k not in EXTENDABLE}))

    @property
    def draws_per_sample(self) -> int:
        """K; 0 for a cache without a teacher."""
        return int(self.fields[DRAWS])

    @property
    def blocks(self) -> tuple[str, ...]:
        """Blocks whose features are kept."""
        return tuple(self.fields[BLOCKS])

    @property
    def tars(self) -> dict[str, TarIdentity]:
        """The tars, by name, in name order."""
        return {each["name"]: TarIdentity(**each) for each in self.fields[TARS]}

    def part_digest(self, tar: str, draw_start: int, draw_stop: int, blocks: Sequence[str]) -> str:
        """What one part of one tar was made from: unchanged when the cache is extended by others."""
        source = self.tars_by_name[tar]
        sketches = self._sketches_digest(tuple(blocks))
        words = (self.core_digest, source.name, source.size_bytes, source.sha256, draw_start, draw_stop, sketches)
        return sha256_text("\0".join(map(str, words)))

    def _sketches_digest(self, blocks: tuple[str, ...]) -> str:
        if blocks not in self._sketches_digests:
            sketches = {block: self.fields[SKETCHES][block] for block in blocks}
            self._sketches_digests[blocks] = sha256_text(canonical_json(sketches))
        return self._sketches_digests[blocks]

    @cached_property
    def _sketches_digests(self) -> dict[tuple[str, ...], str]:
        return {}

    @cached_property
    def tars_by_name(self) -> dict[str, TarIdentity]:
        """``tars``, made once."""
        return self.tars


def cache_identity(
    config: Config, corpus: Literal["parallel", "culture"], blocks: Sequence[str] | None = None
) -> Identity:
    """The complete identity of the cache that ``config`` describes, by reading checkpoint and tars.

    Raises:
        CheckpointError: the checkpoint folder is missing or incomplete.
        CorpusError: a tar is missing.
        ConfigError: there is no such corpus.
    """
    source = config.corpora.parallel if corpus == "parallel" else config.corpora.culture
    if source is None:
        raise ConfigError(f"corpora.{corpus} is not set")
    fields = {**model_identity(config, corpus, blocks).fields, **_corpus_fields(source, config.cache)}
    fields[TARS] = [vars(tar_identity(path)) for path in expand_tars(source.tars)]
    return Identity(dict(sorted(fields.items())))


def model_identity(
    config: Config, corpus: Literal["parallel", "culture"], blocks: Sequence[str] | None = None
) -> Identity:
    """The identity without the corpus: all models and settings.

    Raises:
        CheckpointError: the checkpoint folder is missing or incomplete.
    """
    checkpoint = config.teacher.checkpoint
    parts = ["vae", *(_text_parts(checkpoint) if corpus == "parallel" else ())]
    fields = _model_fields(checkpoint, parts) | dict(reading_identity(config, corpus, blocks).fields)
    return Identity({**fields, "teacher.dtype": config.teacher.dtype})


def reading_identity(
    config: Config, corpus: Literal["parallel", "culture"], blocks: Sequence[str] | None = None
) -> Identity:
    """The part of the identity that a reader can check without tars, VAE and English encoders.

    Raises:
        CheckpointError: the checkpoint folder is missing or incomplete.
    """
    cache, checkpoint = config.cache, config.teacher.checkpoint
    fields: dict[str, Any] = {
        "cache.format_version": FORMAT_VERSION,
        "cache.moments_dtype": cache.moments_dtype,
        "cache.buckets": [list(bucket) for bucket in cache.buckets],
        "cache.draw_recipe": DRAW_RECIPE,
        "cache.seed": cache.seed,
        DRAWS: 0,
        BLOCKS: [],
        SKETCHES: {},
    }
    if corpus == "parallel":
        names = sorted(blocks if blocks is not None else resolve_blocks(cache, checkpoint))
        fields |= _model_fields(checkpoint, ("unet",)) | _scheduler_fields(checkpoint)
        fields |= {
            "cache.draw_recipe": draw_recipe(cache),
            "cache.caption_drop_rate": cache.caption_drop_rate,
            "cache.noise_pred_dtype": cache.noise_pred_dtype,
            "cache.attention": _attention_field(cache),
            DRAWS: cache.draws_per_sample,
            BLOCKS: names,
            SKETCHES: {name: cache.sketch_for(name).model_dump(mode="json") for name in names},
        }
        if cache.noise_pred_sketch is not None:  # a reader compares the fields that it has, so one must differ
            fields["cache.noise_pred_dtype"] = "sketched"
            fields["cache.noise_pred_sketch"] = cache.noise_pred_sketch.model_dump(mode="json")
    return Identity(fields)


def _attention_field(cache: CacheConfig) -> dict[str, Any] | None:
    """Options that are off go unmentioned, so that older caches stay what they are."""
    return cache.attention.model_dump(mode="json", exclude_none=True) if cache.attention else None


def draw_recipe(cache: CacheConfig) -> str:
    """How a record's draws are made; options that are off go unmentioned, so that older caches stay what they are."""
    offset = f"; noise offset {cache.noise_offset!r}" if cache.noise_offset else ""
    return DRAW_RECIPE + offset + ("; pooled text kept" if cache.caption_drop == "hidden_states" else "")


def noise_offset_of(identity: Identity) -> float:
    """The offset in a cache's draw recipe."""
    _, _, offset = str(identity.fields.get("cache.draw_recipe", "")).partition("; noise offset ")
    return float(offset.partition(";")[0] or 0.0)


def _corpus_fields(source: CorpusConfig, cache: CacheConfig) -> dict[str, Any]:
    return {
        "corpus.source_language": source.source_language,
        "corpus.captions": dict(sorted(source.caption_fields().items())),
        "cache.max_aspect_ratio": cache.max_aspect_ratio,
        "cache.max_image_pixels": cache.max_image_pixels,
    }


def _model_fields(checkpoint: Path, parts: Sequence[str]) -> dict[str, Any]:
    return {f"teacher.{part}": sha256_folder(checkpoint / part) for part in parts}


def _text_parts(checkpoint: Path) -> list[str]:
    parts = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    return [part for part in parts if (checkpoint / part).is_dir()]


def _scheduler_fields(checkpoint: Path) -> dict[str, Any]:
    scheduler = read_json(checkpoint / "scheduler" / "scheduler_config.json")
    kept = {key: value for key, value in sorted(scheduler.items()) if not key.startswith("_")}
    return {"teacher.scheduler": kept, "teacher.prediction_type": kept.get("prediction_type", "epsilon")}


def resolve_blocks(cache: CacheConfig, checkpoint: Path) -> list[str]:
    """The blocks that ``cache.blocks`` names; ``all``: every down, mid and up block of ``unet/config.json``.

    Raises:
        CheckpointError: the checkpoint folder is missing or incomplete.
    """
    if cache.blocks != "all":
        return list(cache.blocks)
    unet = read_json(checkpoint / "unet" / "config.json")
    down = [f"down_blocks.{index}" for index in range(len(unet.get("down_block_types", ())))]
    up = [f"up_blocks.{index}" for index in range(len(unet.get("up_block_types", ())))]
    return [*down, "mid_block", *up]
