"""The root of the configuration: reading, checking and writing it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self, get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from pea.config.cache import CacheConfig
from pea.config.corpora import CorporaConfig, TeacherConfig
from pea.config.evaluate import EvaluateConfig
from pea.config.phases import PHASES_WITH_QUERIES
from pea.config.placeholders import RunDir, SetupPath, run_dir_context
from pea.config.section import Section
from pea.config.storage import StoreConfig, StoreUrl
from pea.config.student import StudentConfig
from pea.config.train import TrainConfig
from pea.config.yaml_text import describe_problems, merge_files, merge_overrides, merge_settings, read_yaml
from pea.errors import ConfigError
from pea.storage import Location, StorageOptions, configure


class Config(Section):
    """Everything about one setup: the root of the YAML file."""

    run_dir: RunDir
    """Folder, or URL of one, that receives everything this setup makes. In every other path, ``{run_dir}`` stands for
    it."""
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
    cache_root: SetupPath | None = None
    """Folder, or URL of one, of the caches, where several runs share them; null: ``cache`` in ``run_dir``."""
    storage: dict[StoreUrl, StoreConfig] = Field(default_factory=dict)
    """How buckets are reached, where the environment does not say it: beginning of a URL -> options."""

    @model_validator(mode="after")
    def _check_queries(self) -> Self:
        asks = any(kind == "attention" or train.attention_weight > 0 for kind, train in self.train.all_phases)
        if asks and self.cache.attention is None:
            raise ValueError(
                "train asks for queries (a phase of kind attention, attention_weight), and cache.attention keeps none"
            )
        return self

    def storage_options(self) -> dict[str, StorageOptions]:
        """What ``pea.storage.configure`` takes."""
        return {url: store.options() for url, store in self.storage.items()}

    def cache_dir(self, corpus: str) -> Path | Location:
        """Where the cache of ``parallel`` or ``culture`` is: a folder, or of a URL a location."""
        return (self.cache_root or self.run_dir / "cache") / corpus

    @property
    def adapter_dir(self) -> Path:
        """Folder of the trained adapter, as it may be published."""
        return self.run_dir / "adapter"

    @property
    def training_dir(self) -> Path:
        """Folder of what the training leaves beside the adapter: saved states, logs, pictures."""
        return self.run_dir / "training"


def load_config(
    path: str | Path | Sequence[str | Path],
    overrides: Sequence[str] = (),
    settings: Sequence[Mapping[str, Any]] = (),
) -> Config:
    """Read a configuration file and apply ``dotted.key=value`` overrides, each value in YAML.

    Of several files, the settings of a later one replace those of the earlier ones. `settings`, parsed already, are
    laid over the files in the same way and below the overrides; of these, a dotted key replaces a whole value.

    From then on this process reaches the URLs of ``storage`` as it says there.

    Raises:
        ConfigError: a file cannot be read, or keys or values are wrong; all problems are reported at once.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(each) for each in path]
    raw: dict[str, Any] = {}
    for each in paths:
        raw = merge_files(raw, read_yaml(each))
    problems: list[str] = []
    for each_settings in settings:
        raw, wrong = merge_settings(raw, each_settings)
        problems += wrong
    problems += merge_overrides(raw, overrides)
    raw = _with_phases(raw)
    config: Config | None = None
    try:
        # JSON mode lets strict validation accept what YAML can express (a string for a path).
        context = run_dir_context(raw.get("run_dir"))
        config = Config.model_validate_json(json.dumps(raw, default=str), strict=True, context=context)
    except ValidationError as error:
        problems += describe_problems(error.errors(include_url=False), valid_names())
    if config is None or problems:
        raise ConfigError(
            f"{len(problems)} problem{'s' * (len(problems) != 1)} in the configuration",
            where=" + ".join(map(str, paths)),
            got=" | ".join(problems),
            problems=problems,
        )
    configure(config.storage_options())
    return config


def _with_phases(raw: dict[str, Any]) -> dict[str, Any]:
    """Settings with the phases of a run on a cache with queries, where they have such a cache and no phases."""
    cache, train = raw.get("cache"), raw.get("train", {})
    keeps_queries = isinstance(cache, dict) and cache.get("attention") is not None
    if not keeps_queries or not isinstance(train, dict) or "phases" in train:
        return raw
    return {**raw, "train": {**train, "phases": [{"kind": kind} for kind in PHASES_WITH_QUERIES]}}


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
