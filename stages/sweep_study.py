"""What a sweep compares: the variants of a study file, or the method files of a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeInt, StringConstraints, ValidationError, model_validator

from pea.config import Section
from pea.config.yaml_text import describe_problems, names_in, read_yaml
from pea.errors import ConfigError

_OF_THE_SWEEP = ("run_dir", "cache_root", "train.seed")
_Name = Annotated[str, StringConstraints(pattern=r"^\w[\w.+-]*$")]


class StudyFile(Section):
    """A study: one YAML file that lists its variants.

    Settings are nested, as in a configuration file, and then merged with what is below them; or dotted
    (``evaluate.prompts: {...}``), as on the command line, and then replace the whole value.
    """

    config: tuple[Path, ...] = ()
    """The setup's files (one, or a list), unless the command line names others."""
    seeds: tuple[NonNegativeInt, ...] = Field(default=(0,), min_length=1)
    """Seeds of the training, unless the command line names others."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Laid over the setup, for all variants."""
    variants: dict[_Name, dict[str, Any]] = Field(min_length=1)
    """Name -> settings that are laid over those."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        if len(set(self.seeds)) < len(self.seeds):
            problems.append("a seed occurs twice")
        if "train.seed" in names_in(self.settings):
            problems.append("settings: train.seed is given to each run by the sweep; use seeds")
        for variant, settings in self.variants.items():
            taken = [name for name in names_in(settings) if name in _OF_THE_SWEEP]
            problems += [f"variants.{variant}: {name} is given to each run by the sweep" for name in taken]
        if problems:
            raise ValueError("; ".join(problems))
        return self


@dataclass(frozen=True)
class Variant:
    """One of the things that a sweep compares."""

    name: str
    files: tuple[Path, ...] = ()
    """Laid over the setup's files."""
    settings: tuple[Mapping[str, Any], ...] = ()
    """Laid over all files."""

    def sets(self, name: str) -> bool:
        """Whether it has a value for the setting of that dotted name."""
        given = [*(read_yaml(path) for path in self.files), *self.settings]
        return any(name in names_in(settings) for settings in given)


@dataclass(frozen=True)
class Study:
    """Everything that a sweep is told by its file or folder."""

    source: Path
    variants: tuple[Variant, ...]
    config: tuple[Path, ...] = ()
    seeds: tuple[int, ...] = (0,)
    settings: tuple[Mapping[str, Any], ...] = ()
    """Laid over the setup of every variant."""

    def only(self, names: Sequence[str]) -> tuple[Variant, ...]:
        """The variants of these names, in the study's order; all for no names.

        Raises:
            ConfigError: a name is none of a variant.
        """
        known = [variant.name for variant in self.variants]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ConfigError(
                "no such variant", where=self.source, expected=f"of {', '.join(known)}", got=", ".join(unknown)
            )
        return tuple(variant for variant in self.variants if not names or variant.name in names)


def read_study(source: Path) -> Study:
    """A study file, a folder of method files, or one method file.

    Raises:
        ConfigError: there is nothing to compare, a study is wrong, or lies where method files are expected.
    """
    paths = sorted(source.glob("*.yaml")) if source.is_dir() else [source]
    if not paths or not all(path.is_file() for path in paths):
        raise ConfigError(
            "no methods here", where=source, expected="a study's .yaml file, a folder of method files, or one of them"
        )
    studies = [path for path in paths if _is_study(path)]
    if studies == [source]:
        return _study_in(source)
    if studies:
        raise ConfigError(
            "a study among method files",
            where=studies[0],
            remedy=f"Sweep it by itself: pea sweep {studies[0]}",
        )
    return Study(source, tuple(Variant(path.stem, (path,)) for path in paths))


def _is_study(path: Path) -> bool:
    """Whether it has a key that only studies have, so that a wrong one is not taken for a method file."""
    return not set(read_yaml(path, "study")).isdisjoint(StudyFile.model_fields)


def _study_in(path: Path) -> Study:
    raw = read_yaml(path, "study")
    if isinstance(raw.get("config"), str):
        raw["config"] = [raw["config"]]
    try:
        study = StudyFile.model_validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        problems = describe_problems(error.errors(include_url=False), list(StudyFile.model_fields))
        raise ConfigError(
            f"{len(problems)} problem{'s' * (len(problems) != 1)} in the study",
            where=path,
            got=" | ".join(problems),
            problems=problems,
        ) from None
    variants = tuple(Variant(name, settings=(study.settings, each)) for name, each in study.variants.items())
    return Study(path, variants, study.config, study.seeds, (study.settings,) if study.settings else ())
