"""The configuration: one YAML file for all stages of one setup.

*Identity* fields (``teacher``, ``corpora``, and ``cache`` without ``cache.run``) decide what a cache
contains, so that a cache made with other values is refused. *Run options* (paths, workers, batch sizes,
devices) never do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
)

from pea.config_text import describe_problems, merge_files, merge_overrides, parse_yaml
from pea.errors import ConfigError

FloatDtype = Literal["float32", "float16", "bfloat16"]
StoredValues = Literal["float32", "float16", "bfloat16", "int8", "fp8_e4m3", "int4"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A part of the configuration: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class TeacherConfig(Section):
    """The frozen diffusion model that is distilled."""

    checkpoint: Path
    """Folder of a diffusers pipeline in the standard layout (``unet/``, ``vae/``, ``text_encoder/``, ...)."""
    dtype: FloatDtype = "float32"
    """Floating point type in which the teacher runs while its answers are cached."""


class CorpusConfig(Section):
    """Image-caption tars in WebDataset form: ``key.jpg`` or ``key.png`` beside ``key.json``."""

    tars: tuple[str, ...] = Field(min_length=1)
    """Paths or glob patterns of the tars. The order does not matter; tars are used by name."""
    source_language: str = "en"
    """Language whose caption drives the teacher. For the culture corpus: the language its captions are in."""
    captions: dict[str, str] = Field(default_factory=dict)
    """Language -> dotted field of the json, as ``{en: captions.en}``. Empty: all of ``captions``."""

    def caption_fields(self) -> dict[str, str]:
        """The mapping that ``pea.samples.read_tar`` takes."""
        return dict(self.captions) or {"*": "captions"}


class CorporaConfig(Section):
    """What the adapter learns from."""

    parallel: CorpusConfig
    """Images with an English and a native caption: distilled from the teacher."""
    culture: CorpusConfig | None = None
    """Images with a native caption only: the ordinary diffusion loss."""


class ExactSketch(Section):
    """Keep every value: the reference."""

    kind: Literal["exact"]
    """Selects this kind."""
    dtype: FloatDtype = "float16"
    """Type of the stored values."""


class QuantizedSketch(Section):
    """Keep every value in few bits, with a scale per record and channel and unbiased rounding."""

    kind: Literal["quantized"]
    """Selects this kind."""
    values: Literal["int8", "fp8_e4m3", "int4"] = "int8"
    """How a value is stored."""


class PositionsSketch(Section):
    """Keep all channels at a random subset of the spatial positions."""

    kind: Literal["positions"]
    """Selects this kind."""
    fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.0625
    """Share of the positions that is kept; at least one is."""
    values: StoredValues = "float16"
    """How a value is stored."""


class CountSketch(Section):
    """Keep signed sums over random groups of values (a count sketch)."""

    kind: Literal["count"]
    """Selects this kind."""
    ratio: Annotated[float, Field(ge=1.0)] = 16.0
    """Values of the feature map per stored sum."""
    values: StoredValues = "float16"
    """How a sum is stored."""


SketchConfig = Annotated[ExactSketch | QuantizedSketch | PositionsSketch | CountSketch, Field(discriminator="kind")]


class AttentionConfig(Section):
    """Random cross-attention queries of the teacher, kept for training the adapter without a UNet pass."""

    layers: Literal["all"] | tuple[str, ...] = "all"
    """Module paths of the cross-attention layers whose queries are kept."""
    num_queries: PositiveInt = 16
    """Spatial positions whose query is kept, per layer and record."""
    dtype: Literal["float16", "float32"] = "float16"
    """Type of the stored queries and English text states."""


class CacheRunConfig(Section):
    """How the cache is filled. Run options: never identity."""

    num_actors: PositiveInt = 1
    """Ray actors, each with its own teacher."""
    batch_size: PositiveInt = 32
    """Records in one pass of the teacher."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:<index>``."""
    num_cpus_per_actor: NonNegativeFloat = 1.0
    """CPUs that Ray reserves per actor."""
    num_gpus_per_actor: NonNegativeFloat = 0.0
    """GPUs that Ray reserves per actor."""
    max_tries: PositiveInt = 3
    """Tries per tar before it is reported as failed."""
    ray_address: str | None = None
    """Address of a running Ray cluster; null starts a local one (or joins the one ``RAY_ADDRESS`` names)."""


class CacheConfig(Section):
    """What is kept of the teacher."""

    seed: NonNegativeInt = 0
    """Seed of every draw and of every sketch."""
    draws_per_sample: PositiveInt = 4
    """Draws (timestep, noise, caption drop) per sample of the parallel corpus."""
    caption_drop_rate: Fraction = 0.1
    """Probability that a draw replaces the caption by the empty one."""
    blocks: Literal["all"] | tuple[str, ...] = "all"
    """Module paths of the UNet blocks whose output is kept; ``all``: each down, mid and up block."""
    sketch: SketchConfig = CountSketch(kind="count")
    """How a block's feature map is kept."""
    block_sketches: dict[str, SketchConfig] = Field(default_factory=dict)
    """Block -> sketch, where it differs from ``sketch``."""
    noise_pred_dtype: FloatDtype = "float16"
    """Stored type of the teacher's noise prediction, which is kept whole."""
    moments_dtype: Literal["float32", "float16"] = "float32"
    """Stored type of the VAE's mean and standard deviation."""
    buckets: tuple[tuple[PositiveInt, PositiveInt], ...] = Field(default=((512, 512),), min_length=1)
    """Image sizes ``[height_px, width_px]``; each image goes to the one of nearest aspect ratio."""
    max_aspect_ratio: Annotated[float, Field(ge=1.0)] = 4.0
    """Images whose longer side is more than this many times the shorter one are dropped."""
    max_image_pixels: PositiveInt = 67_108_864
    """Images with more pixels than this are dropped before they are decoded."""
    max_dropped_fraction: Fraction = 0.01
    """A run that drops a larger share of the samples fails."""
    attention: AttentionConfig | None = None
    """Cross-attention queries to keep as well; null keeps none."""
    run: CacheRunConfig = CacheRunConfig()
    """How the cache is filled."""

    def sketch_for(self, block: str) -> ExactSketch | QuantizedSketch | PositionsSketch | CountSketch:
        """The sketch of one block."""
        return self.block_sketches.get(block, self.sketch)


class AdapterConfig(Section):
    """Size of the adapter (PEA)."""

    hidden_size: PositiveInt = 1024
    """Width of the hidden layers."""
    num_layers: PositiveInt = 2
    """Number of hidden layers."""


class StudentConfig(Section):
    """The native-language side."""

    encoder: Path
    """Folder of the frozen native text encoder (transformers layout)."""
    language: str = "zh"
    """Language of the captions that the student reads."""
    training_language: str | None = None
    """Language of the captions in training, where it is another: with a multilingual encoder, an adapter that saw
    English alone may still follow prompts in `language`. Null: `language`."""
    adapter: AdapterConfig = AdapterConfig()
    """Size of the adapter."""

    @property
    def caption_language(self) -> str:
        """Language of the captions in training."""
        return self.training_language or self.language


class TrainConfig(Section):
    """How the adapter is trained."""

    steps: PositiveInt = 10_000
    """Optimizer steps, `text_steps` included."""
    text_steps: NonNegativeInt = 0
    """First steps, which only pull the text states towards the English ones: no UNet pass, the full learning rate."""
    batch_size: PositiveInt = 32
    """Records per optimizer step and process, parallel and culture together."""
    culture_fraction: Fraction = 0.25
    """Share of a batch that comes from the culture corpus, where there is one."""
    learning_rate: PositiveFloat = 1e-4
    """Peak learning rate of AdamW."""
    weight_decay: NonNegativeFloat = 0.01
    """Weight decay of AdamW."""
    adam_beta2: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.999
    """Decay per step of AdamW's mean square of the gradient. In a run of a few hundred steps, 0.999 remembers the large
    gradients of its beginning to the end; 0.98 forgets them."""
    warmup_steps: NonNegativeInt = 100
    """Steps over which the learning rate rises linearly."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """Learning rate after the warmup."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are clipped to this norm."""
    noise_pred_weight: NonNegativeFloat = 1.0
    """Weight of the distillation loss on the noise prediction (the paper's lambda_L)."""
    feature_weight: NonNegativeFloat = 0.1
    """Weight of the distillation loss on the features (the paper's lambda_FL)."""
    block_weights: dict[str, NonNegativeFloat] = Field(default_factory=dict)
    """Block -> factor on its share of the feature loss; 1 where absent, and 0 leaves the block out."""
    feature_scale: Literal["raw", "relative"] = "raw"
    """``relative`` divides a block's feature error by the mean square of the teacher's features there, so that a block
    of large values drowns neither the others nor the other losses; ``raw`` is the paper's sum."""
    diffusion_weight: NonNegativeFloat = 1.0
    """Weight of the ordinary diffusion loss."""
    text_weight: NonNegativeFloat = 0.0
    """Weight of the distance between the adapter's text states and the teacher's English ones (text-encoder
    distillation); 0 needs no English encoder."""
    diffusion_rows: Literal["culture", "all"] = "culture"
    """Rows with the diffusion loss: those of the culture corpus (hybrid training), or all."""
    attention_steps: NonNegativeInt = 0
    """Steps of the warm start on cached attention queries, before the first UNet step."""
    attention_batch_size: PositiveInt = 256
    """Records per step of the warm start."""
    attention_learning_rate: PositiveFloat = 1e-3
    """Peak learning rate of the warm start."""
    targets: Literal["cached", "live"] = "cached"
    """Where the teacher's answers come from: the cache, or the teacher itself at every step."""
    min_snr_gamma: PositiveFloat | None = None
    """Weight records by min-SNR with this gamma; null weights all alike."""
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Publish an exponential moving average of the adapter with this decay per step; null: the last weights."""
    max_skipped_steps: PositiveInt = 10
    """Consecutive steps without a finite loss after which the run stops; fewer are skipped and counted."""
    resume: Literal["auto", "never", "must"] = "auto"
    """Go on from the newest saved state of the same run: if there is one, never, or fail if there is none."""
    seed: NonNegativeInt = 0
    """Seed of the adapter's initial weights and of the order of the records."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision."""
    device: str = "auto"
    """``auto`` or ``cpu``."""
    gradient_accumulation_steps: PositiveInt = 1
    """Batches per optimizer step."""
    gradient_checkpointing: bool = False
    """Recompute UNet activations in the backward pass to save memory."""
    save_every_steps: PositiveInt = 1_000
    """Steps between two saved states that a stopped run resumes from."""
    keep_states: PositiveInt = 2
    """Saved states that are kept."""
    log_every_steps: PositiveInt = 10
    """Steps between two rows of the training log."""
    num_workers: NonNegativeInt = 0
    """Batches that a thread reads ahead of the trainer; 0 reads them between the steps."""


class EvaluateConfig(Section):
    """How the adapter is scored."""

    rows: tuple[Literal["teacher", "translation", "no_adapter", "adapter"], ...] = Field(
        default=("teacher", "translation", "no_adapter", "adapter"), min_length=1
    )
    """Ways to draw the prompts: the teacher with English, with a word-for-word translation, an untrained adapter, the
    adapter."""
    prompts: dict[str, Path] = Field(default_factory=dict)
    """Prompt set (``general``, ``culture``) -> jsonl file."""
    judge: Path | None = None
    """Folder of the judge that reads attributes off a generated image; null draws images and scores nothing."""
    num_inference_steps: PositiveInt = 25
    """Denoising steps per image."""
    guidance_scale: NonNegativeFloat = 5.0
    """Strength of classifier-free guidance."""
    seed: NonNegativeInt = 0
    """Seed of the initial noise."""
    batch_size: PositiveInt = 32
    """Images generated at a time."""
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    max_prompts: PositiveInt | None = None
    """Use only the first prompts of each set; null uses all."""


class Config(Section):
    """Everything about one setup: the root of the YAML file."""

    run_dir: Path
    """Folder that receives everything this setup makes."""
    teacher: TeacherConfig
    """The frozen diffusion model."""
    corpora: CorporaConfig
    """What the adapter learns from."""
    cache: CacheConfig = CacheConfig()
    """What is kept of the teacher."""
    student: StudentConfig
    """The native-language side."""
    train: TrainConfig = TrainConfig()
    """How the adapter is trained."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """How the adapter is scored."""
    cache_root: Path | None = None
    """Folder of the caches, where several runs share them; null: ``cache`` in ``run_dir``."""

    def cache_dir(self, corpus: str) -> Path:
        """Folder of the cache of ``parallel`` or ``culture``."""
        return (self.cache_root or self.run_dir / "cache") / corpus

    @property
    def adapter_dir(self) -> Path:
        """Folder of the trained adapter."""
        return self.run_dir / "adapter"


def load_config(path: str | Path | Sequence[str | Path], overrides: Sequence[str] = ()) -> Config:
    """Read a configuration file and apply ``dotted.key=value`` overrides, each value in YAML.

    Of several files, the settings of a later one replace those of the earlier ones.

    Raises:
        ConfigError: a file cannot be read, or keys or values are wrong; all problems are reported at once.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(each) for each in path]
    raw: dict[str, Any] = {}
    for each in paths:
        try:
            text = each.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError("cannot read the configuration", where=each, got=error) from None
        raw = merge_files(raw, parse_yaml(text, where=str(each)))
    problems = merge_overrides(raw, overrides)
    config: Config | None = None
    try:
        # JSON mode lets strict validation accept what YAML can express (a string for a path).
        config = Config.model_validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        problems += describe_problems(error.errors(include_url=False), valid_names())
    if config is None or problems:
        raise ConfigError(
            f"{len(problems)} problem{'s' * (len(problems) != 1)} in the configuration",
            where=" + ".join(map(str, paths)),
            got=" | ".join(problems),
            problems=problems,
        )
    return config


def resolved_yaml(config: Config) -> str:
    """The complete configuration, defaults included, as YAML that ``load_config`` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=110)


def valid_names() -> list[str]:
    """Every dotted name that a configuration may contain."""
    return sorted(set(_names_of(Config, "")))


def _names_of(section: type[Section], prefix: str) -> list[str]:
    names = []
    for name, field in section.model_fields.items():
        names.append(prefix + name)
        for nested in _sections_in(field.annotation):
            names += _names_of(nested, f"{prefix}{name}.")
    return names


def _sections_in(annotation: object) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    if getattr(annotation, "__origin__", None) is dict:
        return []  # the keys below are the user's own
    return [section for part in get_args(annotation) for section in _sections_in(part)]
