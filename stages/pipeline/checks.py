"""What is wrong with a pipeline, found before anything of it runs."""

from __future__ import annotations

import importlib.machinery
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import PurePath

from pea.config import Config
from pea.config.yaml_text import nearest_name
from pea.errors import ConfigError
from pea.storage import Location
from stages.cli import COMMANDS
from stages.pipeline.definition import Stage, Words


def check_stages(stages: Sequence[Stage], config: Config, words: Words) -> None:
    """Make sure that a pipeline can run, as far as that can be known.

    Raises:
        ConfigError: programs that are not there, unknown sections or placeholders, a wrong order; all at once.
    """
    problems = [f"stage {stage.name}: {problem}" for stage in stages for problem in _in_stage(stage, config, words)]
    problems = problems or list(_in_order({stage.name: _Paths(stage, words) for stage in stages}))
    if problems:
        raise ConfigError("not a pipeline", got=" | ".join(problems), problems=problems)


def _in_stage(stage: Stage, config: Config, words: Words) -> Iterator[str]:
    known = list(type(config).model_fields)
    for name in stage.uses:
        if name not in known:
            nearest = nearest_name(name, known)
            yield f"uses: no such section; got {name}" + (f" (did you mean {nearest}?)" if nearest else "")
    try:
        command = words.fill_command(stage.run)
        words.fill([*stage.reads, *stage.writes])
    except ValueError as error:
        yield str(error)
        return
    yield from _in_command(command)


def _in_command(command: Sequence[str]) -> Iterator[str]:
    program, *arguments = command
    if program == "pea":
        name = arguments[0] if arguments else ""
        if name not in COMMANDS:
            nearest = nearest_name(name, list(COMMANDS))
            yield f"no such command: pea {name}" + (f" (did you mean pea {nearest}?)" if nearest else "")
    elif program == "python":
        if arguments[:1] == ["-m"] and not (arguments[1:] and _is_module(arguments[1])):
            yield f"no such module: python -m {' '.join(arguments[1:2])}"
    elif shutil.which(program) is None:
        yield f"no such program: {program}"


def _is_module(name: str) -> bool:
    """Whether ``python -m`` finds a module; nothing is imported."""
    places: list[str] | None = [os.getcwd(), *sys.path]
    for part in name.split("."):
        spec = importlib.machinery.PathFinder.find_spec(part, places)
        if spec is None:
            return False
        places = list(spec.submodule_search_locations or [])
    return True


class _Paths:
    """The filled paths of a stage, absolute."""

    def __init__(self, stage: Stage, words: Words) -> None:
        self.reads = [_absolute(text) for text in words.fill_patterns(stage.reads)]
        """Glob patterns."""
        self.writes = [_absolute(text) for text in words.fill(stage.writes)]


def _absolute(text: str) -> PurePath:
    """An absolute path; of a URL one that begins with its scheme."""
    place = Location.parse(text)
    return PurePath(os.path.abspath(text)) if place.is_local else PurePath(f"{place.scheme}:", place.bucket, place.key)


def _shown(path: PurePath) -> str:
    return str(path) if path.is_absolute() else str(path).replace(":/", "://", 1)


def _in_order(paths: Mapping[str, _Paths]) -> Iterator[str]:
    """A stage that reads what itself or a later one writes, and two stages that write the same, are never unchanged."""
    names = list(paths)
    for number, name in enumerate(names):
        for writer in names[number:]:
            who = "it writes itself" if writer == name else f"the later stage {writer} writes"
            for written in paths[writer].writes:
                if any(_matches(read, written) for read in paths[name].reads):
                    yield f"stage {name}: reads {_shown(written)}, which {who}"
                if writer != name and any(_touch(own, written) for own in paths[name].writes):
                    yield f"stages {name} and {writer} both write {_shown(written)}"


def _matches(pattern: PurePath, place: PurePath) -> bool:
    """Whether something that a pattern may match is, contains or lies in a place."""
    for part, name in zip(pattern.parts, place.parts, strict=False):
        if part == "**":
            return True
        if not fnmatchcase(name, part):
            return False
    return True


def _touch(one: PurePath, other: PurePath) -> bool:
    return one.is_relative_to(other) or other.is_relative_to(one)
