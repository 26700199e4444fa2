"""Every run of a sweep: each variant with each seed, with a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pea.cache.content import cache_content, is_cache
from pea.config import Config, load_config
from pea.corpus.corpus_names import CORPUS_NAMES
from pea.errors import ConfigError
from pea.storage.digests import canonical_json
from pea.storage.location import Location
from stages.command.run_folder import need_disk
from stages.sweep_study import Study, Variant

SHARED_PHASES = ".phases"
"""Folder beside those of the runs."""

_DONE = "sweep.json"


@dataclass(frozen=True)
class Run:
    """One method with one seed."""

    method: str
    seed: int
    config: Config
    shared_phases: Path
    """Folder of what runs of the same sweep have finished before the UNet (`stages.sweep_phases`)."""
    own_cache: bool = False
    """Whether its cache is filled by the sweep, for it and for the methods that cache the same."""

    @property
    def name(self) -> str:
        """As it is shown."""
        return f"{self.method}, seed {self.seed}"

    @property
    def row(self) -> str:
        """The way to draw that is scored: the trained adapter, unless the method names another."""
        return self.config.evaluate.rows[0]

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the result; a result of other settings is not kept."""
        return self.config.model_dump(mode="json")

    @property
    def result_path(self) -> Path:
        """Written last."""
        return self.config.run_dir / _DONE

    def result(self) -> dict[str, Any] | None:
        """Scores, costs and settings of the finished run; None before it is finished with these settings and rows."""
        if not self.result_path.exists():
            return None
        found: dict[str, Any] = json.loads(self.result_path.read_text("utf-8"))
        found["settings"]["train"].setdefault("init", "torch")  # the only start before there was the setting
        try:  # settings that are newer than the result had their defaults then
            settings = Config.model_validate_json(json.dumps(found["settings"]))
        except ValidationError:
            return None
        if settings != self.config:
            return None
        of_old, now = found.get("caches", {}), self.cached_rows()
        return found if all(now.get(corpus, digest) == digest for corpus, digest in of_old.items()) else None

    def cached_rows(self) -> dict[str, str]:
        """Corpus -> digest of what its cache holds; of those that are there."""
        folders = {name: Location.parse(self.config.cache_dir(name)) for name in CORPUS_NAMES}
        return {name: cache_content(folder).digest for name, folder in folders.items() if is_cache(folder)}


@dataclass(frozen=True)
class Plan:
    """What a sweep does."""

    folder: Path
    """Receives the runs' folders, the table and the figure."""
    runs: tuple[Run, ...]


def plan(
    study: Study,
    files: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    *,
    seeds: Sequence[int] = (),
    only: Sequence[str] = (),
) -> Plan:
    """Every run of a sweep. `files` and `seeds`, where given, take the place of the study's; `only` names variants.

    Raises:
        ConfigError: there is no setup, or a variant does not fit it; the problems of all variants come at once.
    """
    setup = tuple(files) or study.config
    if not setup:
        raise ConfigError("no setup to sweep the methods over", where=study.source, expected="--config FILE")
    chosen = {variant.name for variant in study.only(only)}
    base = load_config(setup, overrides, study.settings)
    need_disk(base, "pea sweep")
    # Of the whole sweep: what `{run_dir}` stands for in paths does not move with the runs' own folders.
    overrides = [*overrides, f"run_dir={json.dumps(str(base.run_dir))}"]
    configs, problems = {}, []
    for variant in study.variants:  # all of them: which one a cache is called after does not depend on the choice
        try:
            configs[variant.name] = load_config([*setup, *variant.files], overrides, variant.settings)
        except ConfigError as error:
            said = error.problems or [str(error)]
            problems += [f"{variant.name}: {problem}" for problem in said if variant.name in chosen]
    if problems:
        raise ConfigError(
            f"{len(problems)} problem{'s' * (len(problems) != 1)} in the methods",
            where=study.source,
            got=" | ".join(problems),
            problems=problems,
        )
    caches = _caches(base, configs)
    runs = [
        _run(variant, seed, configs[variant.name], base, caches[variant.name])
        for variant in study.variants
        if variant.name in chosen
        for seed in seeds or study.seeds
    ]
    return Plan(base.run_dir / "sweep", tuple(runs))


def _caches(base: Config, configs: Mapping[str, Config]) -> dict[str, Path | None]:
    """Variant -> its cache: None for the setup's, else one that it shares with the variants that cache the same."""
    by_content: dict[str, Path | None] = {canonical_json(cached_settings(base)): None}
    return {
        name: by_content.setdefault(canonical_json(cached_settings(config)), base.run_dir / "sweep" / name / "cache")
        for name, config in configs.items()
    }


def _run(variant: Variant, seed: int, config: Config, base: Config, own_cache: Path | None) -> Run:
    update: dict[str, Any] = {
        "run_dir": base.run_dir / "sweep" / variant.name / f"seed{seed}",
        "cache_root": own_cache or base.cache_root or base.run_dir / "cache",
        "train": config.train.model_copy(update={"seed": seed}),
    }
    if not variant.sets("evaluate.rows"):
        update["evaluate"] = config.evaluate.model_copy(update={"rows": ("adapter",)})
    phases = base.run_dir / "sweep" / SHARED_PHASES
    return Run(variant.name, seed, config.model_copy(update=update), phases, own_cache is not None)


def cached_settings(config: Config) -> dict[str, Any]:
    """What decides the content of a cache."""
    return config.model_dump(mode="json", include={"teacher", "corpora", "cache"}, exclude={"cache": {"run"}})
