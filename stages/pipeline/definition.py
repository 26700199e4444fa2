"""The file of a pipeline: its stages, and the words in braces that stand in their texts."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from pea.config import Config
from pea.config.placeholders import fill_placeholders
from pea.config.yaml_text import read_yaml
from pea.errors import ConfigError

_Text = Annotated[str, StringConstraints(min_length=1)]


class Stage(BaseModel):
    """One step of a pipeline. In every text ``{config}`` is the configuration's file and ``{run_dir}`` its run_dir.

    ``{cache_root}`` is the folder of its caches. Any other word in braces is refused; other braces stay as they are. Of
    several files, a text with ``{config}`` is repeated for each, and in a command so is the option before it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(pattern=r"^\w[\w .+-]*$", max_length=100)]
    run: Annotated[list[_Text], Field(min_length=1)]
    """Command; a leading ``pea`` is this program, a leading ``python`` this interpreter."""
    uses: list[str] = []
    """Sections of the configuration that decide what the stage does; ``cache.run`` never counts."""
    reads: list[_Text] = []
    """Files, folders and glob patterns that it reads; a cache or an adapter by its folder."""
    writes: list[_Text] = []
    """Files and folders that it leaves."""


def _as_several(given: Any) -> Any:
    return given if isinstance(given, list | tuple) else [given]


class Pipeline(BaseModel):
    """A pipeline file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: Annotated[tuple[Path, ...], BeforeValidator(_as_several), Field(min_length=1)]
    """A file, or several, of which later ones replace settings of earlier ones."""
    stages: Annotated[list[Stage], Field(min_length=1)]

    @field_validator("stages")
    @classmethod
    def _check_names(cls, stages: list[Stage]) -> list[Stage]:
        twice = [name for name, count in Counter(stage.name.casefold() for stage in stages).items() if count > 1]
        if twice:
            raise ValueError(f"two stages of one name: {', '.join(twice)}")
        return stages


def load_pipeline(path: Path) -> Pipeline:
    """Read a pipeline file.

    Raises:
        ConfigError: it cannot be read, or is not a pipeline.
    """
    try:
        return Pipeline.model_validate(read_yaml(path, "pipeline"))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        remedy = "Give a file as pipeline.yaml is, whose `config` names the configuration."
        got = " | ".join(problems)
        raise ConfigError("not a pipeline", where=path, got=got, remedy=remedy, problems=problems) from None


class Words:
    """What the words in braces stand for."""

    def __init__(self, files: Sequence[Path], config: Config) -> None:
        self._files = files
        self._folders = {"run_dir": str(config.run_dir), "cache_root": str(config.cache_dir("parallel").parent)}

    def fill(self, texts: Sequence[str]) -> list[str]:
        """Texts with every placeholder filled in.

        Raises:
            ValueError: an unknown one.
        """
        return [text for each in texts for text in self._filled(each, str)]

    def fill_patterns(self, texts: Sequence[str]) -> list[str]:
        """The same for glob patterns, in which a folder's own name is none."""
        return [text for each in texts for text in self._filled(each, glob.escape)]

    def fill_command(self, texts: Sequence[str]) -> list[str]:
        """A command, with the option before a ``{config}`` repeated for each file."""
        words: list[str] = []
        for option, text in zip(["", *texts], texts, strict=False):
            first, *others = self._filled(text, str)
            words.append(first)
            for other in others:
                words += [option, other] if text == "{config}" else [other]
        return words

    def _filled(self, text: str, plain: Callable[[str], str]) -> list[str]:
        files = self._files if "{config}" in text else self._files[:1]
        folders = {name: plain(folder) for name, folder in self._folders.items()}
        return [fill_placeholders(text, {"config": plain(str(file)), **folders}) for file in files]
