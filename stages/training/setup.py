"""What training needs before its first step: checked caches, frozen models, batches, and the run's fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from pea.attention.layers import MAX_POWER_BATCHES, AttentionLayers
from pea.attention.queries import AttentionTargets
from pea.batches.batch import Batch
from pea.batches.curriculum import Curriculum, stages
from pea.batches.dataset import BatchPlan, TrainingData
from pea.batches.selection import Selection
from pea.batches.text_states import TextStates
from pea.cache import Cache
from pea.config import Config, Phase, TrainConfig
from pea.draws.recipe import DrawRecipe
from pea.errors import ConfigError
from pea.models.adapter import PEA
from pea.models.english import EnglishEncoder
from pea.models.trainable import open_unet
from pea.models.unet import Blocks, Teacher
from pea.models.vae import vae_scaling_factor
from pea.training.recipe import with_recipe
from pea.training.signals import CachedTeacher, LiveTeacher, SignalSource, feature_powers
from pea.training.student import AttentionLoss
from stages.training.caches import min_gain, open_cache, open_distilled
from stages.training.fingerprints import fingerprint_with_unet
from stages.training.sources import check_rows, parallel_batches
from stages.training.start import Start
from stages.training.text_tables import DTYPES, TextTables, empty_conditioning, english_captions


@dataclass
class Setup:
    """Everything the loop works with."""

    data: TrainingData
    """All rows that are trained on."""
    batch: Callable[[int], Batch]
    """Batch of an index: `data.batch`, or from the records of a stage of the curriculum."""
    validation: TrainingData | None
    """The rows that are held out."""
    teacher: Teacher
    """The student's UNet: the teacher's own, unless parts of it are trained."""
    source: SignalSource
    adapter: PEA
    unet_parameters: dict[str, nn.Parameter]
    """What is trained of the student's UNet."""
    native_states: TextStates
    english_states: TextStates | None
    """Of the English captions, averaged over tokens, where a loss compares text states."""
    block_weights: dict[str, float]
    """Factor of each block's error in the feature loss."""
    fingerprint: dict[str, Any]
    attention: AttentionLoss | None = None
    """The loss on cached queries, where it has a weight."""


def distilling_alone(train: TrainConfig, **changes: Any) -> TrainConfig:
    """Settings for a look at parallel records: the adapter alone, no phases, and no loss but distillation."""
    off = {"culture_fraction": 0.0, "curriculum_steps": 0, "text_weight": 0.0, "attention_weight": 0.0}
    return train.model_copy(update={"method": "adapter", "phases": (), **off, **changes})


def prepare(
    config: Config,
    device: torch.device,
    num_processes: int = 1,
    former: Sequence[Phase] = (),
    start: Start | None = None,
) -> Setup:
    """Open and check everything; `former`: the phases that come before, `start`: of the run, with its text states.

    Raises:
        IdentityError: a cache is not the one that this configuration describes.
        CheckpointError: a model folder is missing or unusable.
        ConfigError: a setting does not fit the others.
    """
    parallel = open_distilled(config)
    width = config.student.adapter.hidden_size
    train = with_recipe(Phase("unet", config.train), width, num_processes, lambda: parallel.num_samples).train
    config = config.model_copy(update={"train": train})
    culture = open_cache(config, "culture") if config.corpora.culture else None
    own_queries = bool(config.train.attention_weight) and config.train.attention_queries == "student"
    teacher = Teacher.from_checkpoint(
        config.teacher.folder,
        config.cache.blocks,
        DTYPES[config.train.precision],
        device,
        channels_last=True,
        query_layers=_query_layers(config) if own_queries else (),
    )
    if config.train.gradient_checkpointing:
        teacher.recompute_activations()
    blocks = _wanted_blocks(config, teacher)
    start = start or Start(config, parallel, TextTables(config, device))
    data, batch, validation = _data(config, parallel, culture, teacher, blocks, num_processes)
    source = _source(config, teacher, blocks, device)  # before the UNet is opened: the teacher stays frozen
    return Setup(
        data=data,
        batch=batch,
        validation=validation,
        teacher=teacher,
        source=source,
        adapter=start.adapter(),
        unet_parameters=open_unet(teacher.unet, config.train.method, config.train.lora_rank, config.train.seed),
        native_states=start.tables.native,
        english_states=start.tables.english_means if config.train.text_weight else None,
        block_weights=_block_weights(config, parallel, blocks),
        fingerprint=fingerprint_with_unet(config, parallel, culture, former, num_processes)
        | data.fingerprint
        | start.fingerprint,
        attention=_attention(config, data, teacher, device) if config.train.attention_weight else None,
    )


def _data(
    config: Config,
    parallel: Cache,
    culture: Cache | None,
    teacher: Teacher,
    blocks: Sequence[str],
    num_processes: int,
) -> tuple[TrainingData, Callable[[int], Batch], TrainingData | None]:
    """The rows to train on, the batches made of them, and the rows that are held out."""
    train, fraction = config.train, config.train.validation_fraction

    def open_data(selection: Selection, culture: Cache | None = culture) -> TrainingData:
        return _training_data(config, parallel, culture, teacher, blocks, selection)

    data = open_data(Selection(fraction, timesteps=train.timesteps))
    check_rows(data, train, num_processes)
    validation = None
    held_out = Selection(fraction, True, train.timesteps, config.student.caption_languages)
    if fraction and held_out.keeps_any(parallel):
        validation = open_data(held_out, culture if culture and held_out.keeps_any(culture) else None)
    if not train.curriculum_steps:
        return data, data.batch, validation
    per_step = train.gradient_accumulation_steps * num_processes
    num_batches = train.curriculum_steps * per_step
    end = data.recipe.num_train_timesteps
    plan = stages(num_batches, train.curriculum_stages, end)

    def open_stage(first: int) -> TrainingData:
        return open_data(Selection(fraction, timesteps=(first, end) if first else None))

    return data, Curriculum(plan, open_stage).batch, validation


def _training_data(
    config: Config,
    parallel: Cache,
    culture: Cache | None,
    teacher: Teacher,
    blocks: Sequence[str],
    selection: Selection,
) -> TrainingData:
    train = config.train
    recipe = DrawRecipe(
        config.cache.seed,
        config.cache.caption_drop_rate,
        int(teacher.scheduler.config.num_train_timesteps),
        config.cache.noise_offset,
    )
    return TrainingData(
        parallel,
        culture,
        BatchPlan(train.batch_size, train.culture_fraction, train.seed, train.culture_draws, train.culture_timesteps),
        recipe,
        vae_scaling_factor(config.teacher.folder),
        blocks if train.targets == "cached" else (),
        config.student.caption_languages,
        config.corpora.parallel.source_language,
        keep_pooled=config.cache.caption_drop == "hidden_states",
        selection=replace(selection, min_description_gain=min_gain(config)).unless_all(),
        empty=empty_conditioning(config, parallel.identity) if train.attention_weight else None,
        alphas_cumprod=teacher.scheduler.alphas_cumprod,
    )


def _attention(config: Config, data: TrainingData, teacher: Teacher, device: torch.device) -> AttentionLoss | None:
    """The loss on the cached queries, with the UNet's own layers; None where all rows are culture rows."""
    if config.train.culture_fraction == 1 and data.culture:
        return None
    with_parallel = parallel_batches(data, MAX_POWER_BATCHES)

    def take(name: str, names: Sequence[str]) -> dict[str, torch.Tensor]:
        module = teacher.unet.get_submodule(name)
        return {each: module.get_parameter(each).detach() for each in names}

    def targets(index: int) -> AttentionTargets:
        found = data.batch(with_parallel[index]).attention
        assert found is not None
        return found.to(device)

    layers = AttentionLayers.assemble(teacher.unet.config, take, _query_layers(config))
    layers.check_weights(config.train.attention_layer_weights)
    own_queries = config.train.attention_queries == "student"
    return AttentionLoss(layers, layers.first_powers(targets), config.train.attention_layer_weights, own_queries)


def _query_layers(config: Config) -> Blocks:
    """The cross-attention layers whose queries the cache keeps."""
    return config.cache.attention.layers if config.cache.attention else "all"


def _source(config: Config, teacher: Teacher, blocks: tuple[str, ...], device: torch.device) -> SignalSource:
    if config.train.targets == "cached":
        return CachedTeacher(config.cache, blocks)
    if config.train.method != "adapter":  # the student's UNet will change
        checkpoint, dtype = config.teacher.folder, teacher.unet.dtype
        teacher = Teacher.from_checkpoint(checkpoint, config.cache.blocks, dtype, device, channels_last=True)
    english = EnglishEncoder.from_checkpoint(config.teacher.folder, teacher.unet.dtype, device)
    return LiveTeacher(teacher, TextStates(english.encode, english_captions(config)), blocks)


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
