"""Model folders and files of a configuration that are URLs: fetched, so that what reads them finds paths."""

from __future__ import annotations

from pathlib import Path

from pea.config.root import Config
from pea.storage import Location
from pea.storage.work import fetched

_FETCHED: dict[Path, Location] = {}
"""Copy on this machine -> what it is a copy of."""


def with_inputs_fetched(config: Config) -> Config:
    """The configuration with a copy on this machine in place of each URL of a model or prompt file.

    What is not there yet becomes a path where nothing is. ``run_dir``, caches and tars stay as they are.

    Raises:
        StorageError: a store cannot be read, or there is no room for a copy.
    """
    teacher, student, evaluate = config.teacher, config.student, config.evaluate
    encoders = tuple(map(_fetched, student.encoders))
    prompts = {name: _fetched(path) for name, path in evaluate.prompts.items()}
    models = {name: _fetched(path) for name in ("judge", "clip") if (path := getattr(evaluate, name)) is not None}
    changes = {
        "teacher": teacher.model_copy(update={"checkpoint": _fetched(teacher.checkpoint)}),
        "student": student.model_copy(update={"encoder": encoders if len(encoders) > 1 else encoders[0]}),
        "evaluate": evaluate.model_copy(update={"prompts": prompts, **models}),
    }
    return config.model_copy(update=changes)


def with_teacher_fetched(config: Config) -> Config:
    """As ``with_inputs_fetched``, the teacher alone: all that a worker reads.

    Raises:
        StorageError: the store cannot be read, or there is no room for a copy.
    """
    teacher = config.teacher.model_copy(update={"checkpoint": _fetched(config.teacher.checkpoint)})
    return config.model_copy(update={"teacher": teacher})


def source_of(path: Path) -> Path | Location:
    """What another machine finds in place of a path: the URL that it is a copy of, or the absolute path."""
    return _FETCHED.get(path) or path.resolve()


def _fetched(place: Path | Location) -> Path:
    if isinstance(place, Path):
        return place
    copy = fetched(place)
    _FETCHED[copy] = place
    return copy
