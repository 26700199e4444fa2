"""The identity of a cache: everything that decides what its records contain, by content and never by path.

An identity is a flat mapping from dotted names to JSON values. Two caches with equal identities hold equal
records.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pea.cache.model_digest import sha256_folder as sha256_folder
from pea.cache.model_fields import Fields, MeansSame, model_fields, scheduler_fields, vae_dtype_field
from pea.cache.schema import FORMAT_VERSION
from pea.corpus.caption_tables import CaptionTables
from pea.corpus.corpus_names import DISTILLED, CorpusName
from pea.corpus.places import Tar, expand_tars
from pea.corpus.tars import TarIdentity, tar_identity
from pea.corpus.text_columns import open_texts
from pea.corpus.texts import text_parts
from pea.models.teacher_parts import check_teacher, check_unet, check_vae, read_config, unet_blocks
from pea.storage.digests import canonical_json, sha256_text

if TYPE_CHECKING:  # what checks configurations is slow to import, and looking into a cache does without
    from pea.config import CacheConfig, Config, CorpusConfig

TARS = "corpus.tars"
READING = "corpus.reading"
"""How tars are read. Caches without this field were made by older rules: what is finished stays as it is, and no other
tar is read for them."""
DESCRIBED = "corpus.described"
"""Where the descriptions of culture images are from."""
DRAWS = "cache.draws_per_sample"
BLOCKS = "cache.blocks"
SKETCHES = "cache.sketches"
ATTENTION = "cache.attention"
"""Which attention queries are kept; None: none."""
RETIRED = "corpus.retired"
"""Names of tars that were taken out, and are left out although the configuration may name them."""
EXTENDABLE = (TARS, DRAWS, BLOCKS, SKETCHES)
"""Fields that ``pea cache --extend`` may enlarge. It may also set ``cache.attention`` where that was None."""
DRAWING_VERSION = "ddim, trailing, groups of 8, v1"
"""How the teacher draws texts; see ``pea.collect.drawing``."""
DRAW_RECIPE = "philox4x64-10, golden-ratio timesteps, AS 241 normals, v1"


@dataclass(frozen=True)
class Identity:
    """What a cache was made from."""

    fields: Mapping[str, Any]
    """Dotted name -> JSON value."""
    means_same: Mapping[str, MeansSame] = field(default_factory=dict, compare=False, repr=False)
    """Field -> whether what an older version recorded there means the same."""

    @cached_property
    def digest(self) -> str:
        """sha256 of all fields."""
        return sha256_text(canonical_json(dict(self.fields)))

    @cached_property
    def core_digest(self) -> str:
        """sha256 of the fields that cannot be extended; whether tars were retired does not count."""
        return sha256_text(canonical_json({k: v for k, v in self.fields.items() if k not in (*EXTENDABLE, RETIRED)}))

    @cached_property
    def core_digest_before_queries(self) -> str:
        """``core_digest`` of the cache that it was before queries were added."""
        return Identity({**self.fields, ATTENTION: None}).core_digest

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

    def sketches_digest(self, blocks: tuple[str, ...]) -> str:
        """sha256 of what is kept of some blocks."""
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


def retired_tars(identity: Identity) -> tuple[str, ...]:
    """Names of the tars that were taken out of a cache."""
    return tuple(identity.fields.get(RETIRED, ()))


def without_newer_fields(wanted: Identity, cached: Identity) -> Identity:
    """What can be asked of a cache that is older than the field ``corpus.reading``."""
    if READING in cached.fields:
        return wanted
    fields = {name: value for name, value in wanted.fields.items() if name != READING}
    return Identity(fields, wanted.means_same)


def cache_identity(
    config: Config,
    corpus: CorpusName,
    blocks: Sequence[str] | None = None,
    *,
    identify: Callable[[Tar], TarIdentity] = tar_identity,
    leave_out: Collection[str] = (),
    texts: Sequence[TarIdentity] | None = None,
    captions: Callable[[CaptionTables, str, str], str | None] = CaptionTables.digest_of,
) -> Identity:
    """The complete identity of the cache that ``config`` describes, by reading checkpoint and tars.

    ``identify``: what makes a tar the same, for those who need not read it again. ``leave_out``: names of tars that
    were retired. ``texts``: the parts of a corpus of texts, for those who know them. ``captions``: digest of the
    captions in tables, of a tar in a language.

    Raises:
        CheckpointError: the checkpoint folder is missing or incomplete.
        CorpusError: a tar is missing.
        ConfigError: there is no such corpus.
    """
    source = config.corpora.source(corpus)
    models = model_identity(config, corpus, blocks)
    fields = {**models.fields, **_corpus_fields(source, config.cache)}
    if corpus == "described" and config.corpora.described is not None:
        fields[DESCRIBED] = config.corpora.described.identity()
    if source.text_source is None:
        found = [identify(tar) for tar in expand_tars(source.tars) if tar.name not in leave_out]
        if (beside := config.corpora.texts_beside(corpus)) is not None:
            tables, language = beside
            found = [replace(tar, captions=captions(tables, tar.name, language)) for tar in found]
    else:
        found = [each for _, each in text_parts(source.text_source)] if texts is None else list(texts)
    fields[TARS] = [each.entry for each in sorted(found, key=lambda tar: tar.name) if each.name not in leave_out]
    return Identity(dict(sorted(fields.items())), models.means_same)


def model_identity(config: Config, corpus: CorpusName, blocks: Sequence[str] | None = None) -> Identity:
    """The identity without the corpus: all models and settings.

    Raises:
        CheckpointError: the checkpoint folder is missing or incomplete, or of a kind that is not supported.
    """
    checkpoint, dtype, parts = config.teacher.folder, config.teacher.dtype, ["vae"]
    if corpus in DISTILLED:
        check_teacher(checkpoint)
        parts += _text_parts(checkpoint)
    else:
        check_vae(read_config(checkpoint / "vae", "VAE"), checkpoint / "vae")
    read = reading_identity(config, corpus, blocks)
    models = model_fields(checkpoint, parts) | vae_dtype_field(checkpoint, config.teacher.vae_dtype, dtype)
    both = models | Fields({**read.fields, "teacher.dtype": dtype}, dict(read.means_same))
    return Identity(both.values, both.means_same)


def reading_identity(config: Config, corpus: CorpusName, blocks: Sequence[str] | None = None) -> Identity:
    """The part of the identity that a reader can check without tars, VAE and English encoders.

    Raises:
        CheckpointError: the checkpoint folder is missing or incomplete.
    """
    cache, checkpoint = config.cache, config.teacher.folder
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
    models = Fields({}, {})
    if corpus in DISTILLED:
        check_unet(read_config(checkpoint / "unet", "UNet"), checkpoint / "unet")
        models = model_fields(checkpoint, ("unet",)) | scheduler_fields(checkpoint)
        names = sorted(blocks if blocks is not None else resolve_blocks(cache, checkpoint))
        fields |= models.values
        fields |= {
            "cache.draw_recipe": draw_recipe(cache),
            "cache.caption_drop_rate": cache.caption_drop_rate,
            "cache.noise_pred_dtype": cache.noise_pred_dtype,
            ATTENTION: _attention_field(cache),
            DRAWS: cache.draws_per_sample,
            BLOCKS: names,
            SKETCHES: {name: cache.sketch_for(name).model_dump(mode="json") for name in names},
        }
        if cache.noise_pred_sketch is not None:  # a reader compares the fields that it has, so one must differ
            fields["cache.noise_pred_dtype"] = "sketched"
            fields["cache.noise_pred_sketch"] = cache.noise_pred_sketch.model_dump(mode="json")
    return Identity(fields, models.means_same)


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
    texts = source.text_source
    if texts is not None:
        return {
            "corpus.source_language": source.source_language,
            "corpus.captions": dict(sorted(open_texts(texts)[1].items())),
            "corpus.texts": {"sampler": DRAWING_VERSION, **source.drawing.model_dump(exclude={"rows_per_part"})},
            READING: texts.identity(),
        }
    return {
        "corpus.source_language": source.source_language,
        "corpus.captions": dict(sorted(source.caption_fields().items())),
        "cache.max_aspect_ratio": cache.max_aspect_ratio,
        "cache.max_image_pixels": cache.max_image_pixels,
        READING: source.reading_rules(cache).identity(),
        **({"cache.crop": cache.crop} if cache.crop != "centre" else {}),
    }


def _text_parts(checkpoint: Path) -> list[str]:
    parts = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    return [part for part in parts if (checkpoint / part).is_dir()]


def resolve_blocks(cache: CacheConfig, checkpoint: Path) -> list[str]:
    """The blocks that ``cache.blocks`` names; ``all``: every down, mid and up block of ``unet/config.json``.

    Raises:
        CheckpointError: the checkpoint folder is missing or incomplete.
    """
    if cache.blocks != "all":
        return list(cache.blocks)
    return list(unet_blocks(read_config(checkpoint / "unet", "UNet")))
