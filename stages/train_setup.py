"""What training needs before its first step: checked caches, frozen models, batches, and the run's fingerprint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch

from pea.adapter import PEA, new_adapter
from pea.cache import Cache, Identity
from pea.cache.identity import reading_identity, sha256_folder
from pea.config import Config
from pea.dataset import BatchPlan, TrainingData
from pea.draws import DrawRecipe
from pea.encoders import EnglishEncoder, NativeEncoder, vae_scaling_factor
from pea.errors import ConfigError
from pea.signals import CachedTeacher, LiveTeacher, SignalSource, feature_powers
from pea.teacher import Teacher
from pea.text_states import TextStates

_DTYPES = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_NOT_FINGERPRINT = {
    "save_every_steps", "keep_states", "log_every_steps", "num_workers", "device", "resume", "max_skipped_steps",
}  # fmt: skip
"""Settings of `train` that do not change the result."""


@dataclass
class Setup:
    """Everything the loop works with."""

    data: TrainingData
    teacher: Teacher
    source: SignalSource
    adapter: PEA
    native_states: TextStates
    english_states: TextStates | None
    """Of the English encoders, where a loss compares text states."""
    block_weights: dict[str, float]
    """Factor of each block's error in the feature loss."""
    fingerprint: dict[str, Any]


def prepare(config: Config, device: torch.device, num_processes: int = 1) -> Setup:
    """Open and check everything.

    Raises:
        IdentityError: a cache is not the one that this configuration describes.
        CheckpointError: a model folder is missing or unusable.
        ConfigError: a setting does not fit the others.
    """
    parallel = Cache.open(config.cache_dir("parallel"), expect=reading_identity(config, "parallel"))
    culture = None
    if config.corpora.culture:
        culture = Cache.open(config.cache_dir("culture"), expect=reading_identity(config, "culture"))
    teacher = Teacher.from_checkpoint(
        config.teacher.checkpoint, config.cache.blocks, _DTYPES[config.train.precision], device, channels_last=True
    )
    if config.train.gradient_checkpointing:
        teacher.recompute_activations()
    blocks = _wanted_blocks(config, teacher)
    encoder = NativeEncoder.from_pretrained(config.student.encoder, device=device)
    adapter = _new_adapter(config, teacher, encoder, parallel.identity)
    data = _training_data(config, parallel, culture, teacher, blocks)
    return Setup(
        data=data,
        teacher=teacher,
        source=_source(config, teacher, data, blocks, device),
        adapter=adapter,
        native_states=TextStates(encoder.encode, data.captions(config.student.caption_language)),
        english_states=_english_states(config, teacher, data, device)
        if config.train.text_weight or config.train.text_steps
        else None,
        block_weights=_block_weights(config, parallel, blocks),
        fingerprint=_fingerprint(config, parallel, culture, num_processes),
    )


def _new_adapter(config: Config, teacher: Teacher, encoder: NativeEncoder, identity: Identity) -> PEA:
    adapter = new_adapter(
        teacher.unet.config,
        encoder.width,
        hidden_size=config.student.adapter.hidden_size,
        num_layers=config.student.adapter.num_layers,
        max_tokens=encoder.max_tokens,
        seed=config.train.seed,
    )
    adapter.register_to_config(cache_identity=identity.digest)
    return adapter


def _training_data(
    config: Config, parallel: Cache, culture: Cache | None, teacher: Teacher, blocks: tuple[str, ...]
) -> TrainingData:
    train = config.train
    recipe = DrawRecipe(
        config.cache.seed, config.cache.caption_drop_rate, int(teacher.scheduler.config.num_train_timesteps)
    )
    return TrainingData(
        parallel,
        culture,
        BatchPlan(train.batch_size, train.culture_fraction, train.seed),
        recipe,
        vae_scaling_factor(config.teacher.checkpoint),
        blocks if train.targets == "cached" else (),
        config.student.caption_language,
        config.corpora.parallel.source_language,
    )


def _source(
    config: Config, teacher: Teacher, data: TrainingData, blocks: tuple[str, ...], device: torch.device
) -> SignalSource:
    if config.train.targets == "cached":
        return CachedTeacher(config.cache, blocks)
    return LiveTeacher(teacher, _english_states(config, teacher, data, device), blocks)


def _english_states(config: Config, teacher: Teacher, data: TrainingData, device: torch.device) -> TextStates:
    english = EnglishEncoder.from_checkpoint(config.teacher.checkpoint, teacher.unet.dtype, device)
    return TextStates(english.encode, data.captions(config.corpora.parallel.source_language))


def _wanted_blocks(config: Config, teacher: Teacher) -> tuple[str, ...]:
    """Blocks with a weight in the loss.

    Raises:
        ConfigError: a weight is given for a block that the cache does not hold.
    """
    weights = config.train.block_weights
    unknown = sorted(set(weights) - set(teacher.blocks))
    if unknown:
        raise ConfigError(
            "no such block in the cache",
            where="train.block_weights",
            expected=", ".join(teacher.blocks),
            got=", ".join(unknown),
        )
    if config.train.feature_weight == 0:
        return ()
    return tuple(block for block in teacher.blocks if weights.get(block, 1.0) > 0)


def _block_weights(config: Config, parallel: Cache, blocks: tuple[str, ...]) -> dict[str, float]:
    weights = {block: config.train.block_weights.get(block, 1.0) for block in blocks}
    if config.train.feature_scale == "raw":
        return weights
    powers = feature_powers(parallel, blocks)
    return {block: weight / max(powers[block], 1e-12) for block, weight in weights.items()}


def _fingerprint(config: Config, parallel: Cache, culture: Cache | None, num_processes: int) -> dict[str, Any]:
    """What decides the trained weights; a saved state of another fingerprint is not resumed."""
    train = config.train.model_dump(mode="json", exclude=_NOT_FINGERPRINT)
    return {
        "cache": {"parallel": parallel.identity.digest, "culture": culture.identity.digest if culture else None},
        "student": {
            "encoder": sha256_folder(config.student.encoder),
            "language": config.student.caption_language,
            "adapter": config.student.adapter.model_dump(mode="json"),
        },
        "train": json.loads(json.dumps(train)),
        "num_processes": num_processes,
    }
