"""One look at all that a configuration names, before anything is spent: Ray, a teacher's pass, a training run.

Models are looked at by their configurations, the headers of their files and, but for a plan, every number in them;
corpora and prompts by their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pea.config import Config, CorpusConfig, ScorersConfig
from pea.corpus.caption_tables import CaptionTables
from pea.corpus.tars import Tar, expand_tars
from pea.corpus.text_columns import open_texts
from pea.errors import CheckpointError, CorpusError
from pea.evaluation.prompts import read_prompts


def preflight(config: Config) -> list[str]:
    """Before a cache is filled: what could not be looked at yet, one line each.

    Raises:
        CheckpointError: a model is missing, incomplete, not supported, or does not fit the others.
        ConfigError: a block or a bucket does not fit the models.
        CorpusError: a tar is missing.
        EvaluationError: a prompt file is unreadable.
    """
    missing = list[CorpusError]()
    for name in config.corpora.names:
        try:
            find_corpus(config.corpora.source(name))
        except CorpusError as error:
            missing.append(error)
    if missing:
        raise missing[0] if len(missing) == 1 else CorpusError(" | ".join(map(str, missing)))
    check_teacher_folder(config)
    return check_rest(config)


def find_corpus(corpus: CorpusConfig) -> None:
    """Make sure that its tars are there, or its tables with their columns.

    Raises:
        CorpusError: they are not, or caption tables are of other tars.
    """
    if corpus.text_source is None:
        find_tables(corpus, expand_tars(corpus.tars))
    else:
        open_texts(corpus.text_source)


def find_tables(corpus: CorpusConfig, tars: Sequence[Tar]) -> None:
    """Make sure that caption tables, where there are to be some, are called as tars of the corpus are.

    Raises:
        CorpusError: there are none, or not one of them is.
    """
    if not corpus.caption_tables:
        return
    tables = CaptionTables(corpus.caption_tables)
    if not any(tables.has(tar.name) for tar in tars):
        raise CorpusError(
            "no caption table is called as a tar of the corpus is",
            where=", ".join(corpus.caption_tables),
            expected=", ".join(tar.name for tar in tars[:3]) + (", ..." if len(tars) > 3 else ""),
            remedy="`pea data captions TABLE --corpus TARS --out FOLDER` makes them of any table.",
        )


def preflight_plan(config: Config, *, with_teacher: bool) -> list[str]:
    """Before a plan is made: whatever is there must be sound, and what is not there is said.

    Raises:
        CheckpointError, ConfigError, EvaluationError: as `preflight`.
    """
    unchecked = []
    for name in config.corpora.names:
        try:
            find_corpus(config.corpora.source(name))
        except CorpusError as error:
            unchecked.append(f"corpora.{name}: {error}")
    parts = ("unet", "vae", "text_encoder")
    if not with_teacher:
        unchecked.append("teacher.checkpoint: a preset stands for it")
    elif all(any((config.teacher.folder / part).glob("*.safetensors")) for part in parts):
        check_teacher_folder(config, numbers=False)
    else:
        unchecked.append(f"teacher.checkpoint: no weights in {config.teacher.checkpoint}")
    return unchecked + check_rest(config, numbers=False)


def preflight_training(config: Config) -> list[str]:
    """Before a run of training, which needs neither tars nor most of the teacher.

    What it does need of that is looked at now, though some of it is read after hours only.

    Raises:
        CheckpointError: the student's encoder, or a part of the teacher that the run reads, is missing or unusable.
        EvaluationError: a prompt file is unreadable.
    """
    _check_read_in_training(config)
    return check_rest(config, student_is_needed=True)


def _check_read_in_training(config: Config) -> None:
    """The parts of the teacher that a run reads in any case; what a cache lacks of text states may need more."""
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from pea.models.loading import check_weights
    from pea.models.teacher_parts import check_teacher
    from pea.models.unet import unet_config

    checkpoint, phases = config.teacher.folder, config.train.all_phases
    unet_config(checkpoint)
    check_weights(UNet2DConditionModel, checkpoint / "unet")
    with_unet = [train for kind, train in phases if kind == "unet"]
    if any(train.sample_every_steps for train in with_unet):
        check_teacher(checkpoint)
        check_weights(AutoencoderKL, checkpoint / "vae")
    if any(train.targets == "live" or train.text_weight for train in with_unet):
        _check_texts(checkpoint, numbers=True)


def check_teacher_folder(config: Config, *, numbers: bool = True) -> None:
    """The teacher's parts, each by itself and all together. `numbers`: as for `check_weights`.

    Raises:
        CheckpointError, ConfigError: one cannot be used, or they do not fit together.
    """
    from pea.collect.drawing import check_steps
    from pea.collect.layout import bucket_layouts, latent_shape
    from pea.models.noise_schedule import schedule_fields
    from pea.models.vae import vae_config

    checkpoint = config.teacher.folder
    check_checkpoint(checkpoint, numbers=numbers)
    if config.corpora.parallel.texts is not None:
        check_steps(
            config.corpora.parallel.drawing.steps, schedule_fields(checkpoint / "scheduler")["num_train_timesteps"]
        )
    for bucket in config.cache.buckets:
        latent_shape(vae_config(checkpoint), bucket)
    first = config.cache.model_copy(update={"buckets": config.cache.buckets[:1]})  # a pass for each would take long
    bucket_layouts(checkpoint, first)


def check_checkpoint(checkpoint: Path, *, numbers: bool = True) -> None:
    """The parts of a diffusion model, by their files. `numbers`: as for `check_weights`.

    Raises:
        CheckpointError: one cannot be used, or the text encoders do not fit together.
    """
    from diffusers import AutoencoderKL, UNet2DConditionModel

    from pea.models.loading import check_weights
    from pea.models.teacher_parts import check_teacher

    check_teacher(checkpoint)
    check_weights(UNet2DConditionModel, checkpoint / "unet", numbers=numbers)
    check_weights(AutoencoderKL, checkpoint / "vae", numbers=numbers)
    _check_texts(checkpoint, numbers=numbers)


def _check_texts(checkpoint: Path, *, numbers: bool) -> None:
    """English encoders and tokenizers, each pair by itself and both pairs together."""
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    from pea.models.loading import check_weights

    check_weights(CLIPTextModel, checkpoint / "text_encoder", numbers=numbers)
    lengths = [_check_length(checkpoint, "")]
    if (checkpoint / "text_encoder_2").is_dir():
        check_weights(CLIPTextModelWithProjection, checkpoint / "text_encoder_2", numbers=numbers)
        lengths.append(_check_length(checkpoint, "_2"))
    if len(set(lengths)) > 1:
        raise CheckpointError(
            "the two text encoders read texts of different lengths",
            where=checkpoint,
            expected=f"{lengths[0]} tokens",
            got=lengths[1],
        )


def _check_length(checkpoint: Path, suffix: str) -> int:
    """A tokenizer must pad to as many tokens as its encoder has positions: so long are the stored text states."""
    from transformers import CLIPTokenizer

    from pea.models.english import check_english
    from pea.models.loading import load_tokenizer
    from pea.models.teacher_parts import read_config

    folder = checkpoint / f"tokenizer{suffix}"
    tokenizer = load_tokenizer(CLIPTokenizer, folder)
    check_english(tokenizer, checkpoint / f"text_encoder{suffix}")
    positions = int(
        read_config(checkpoint / f"text_encoder{suffix}", "text encoder").get("max_position_embeddings", 77)
    )
    if tokenizer.model_max_length != positions:
        raise CheckpointError(
            "tokenizer and text encoder differ in length",
            where=folder,
            expected=f"model_max_length {positions}",
            got=tokenizer.model_max_length,
            remedy="Correct model_max_length in tokenizer_config.json.",
        )
    return positions


def check_rest(config: Config, *, student_is_needed: bool = False, numbers: bool = True) -> list[str]:
    """The student's encoder and the prompts; returns what is not there yet, judge and CLIP included.

    `numbers`: as for `check_weights`.

    Raises:
        CheckpointError: the encoder, or the adapter to start from, cannot be used, or is needed and is not there.
        EvaluationError: a prompt file is unreadable.
    """
    from pea.models.native import check_native
    from pea.storage.hub import is_hub_id
    from stages.training.warm_start import check_warm_start

    evaluate, student = config.evaluate, config.student
    paths = {"evaluate.judge": evaluate.judge, "evaluate.clip": evaluate.clip}
    paths |= {f"evaluate.scorers.{name}": getattr(evaluate.scorers, name) for name in ScorersConfig.model_fields}
    paths |= {f"evaluate.prompts.{name}": path for name, path in evaluate.prompts.items()}
    for encoder in student.encoders:
        if encoder.is_dir() or student_is_needed:
            check_native(encoder, student.reading, numbers=numbers)
        else:
            paths["student.encoder"] = encoder
    for path in evaluate.prompts.values():
        if path.exists():
            read_prompts(path)
    start = config.train.init_from
    if start is not None and not student_is_needed and not is_hub_id(start) and not start.exists():
        paths["train.init_from"] = start
    elif "student.encoder" not in paths and (is_hub_id(teacher := config.teacher.checkpoint) or teacher.exists()):
        check_warm_start(config)
    return [f"{name}: {path} is not there yet" for name, path in paths.items() if path and not path.exists()]
