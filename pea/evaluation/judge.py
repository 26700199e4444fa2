"""A judge reads attributes off images; which program a judge's folder belongs to is looked up among entry points."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol

from pea.errors import CheckpointError
from pea.evaluation.drawing import Images
from pea.file_names import MODEL_CONFIG

ENTRY_POINTS = "pea.judges"
"""Group of entry points: name in a judge's `config.json` (`_class_name`) -> a class with `load(folder)`."""


class Judge(Protocol):
    """Reads images."""

    def read(self, images: Images) -> dict[str, list[str]]:
        """Attribute -> its value in each of the images, uint8 `[N, H, W, 3]`."""


def load_judge(folder: Path) -> Judge:
    """The judge that is saved in a folder.

    Raises:
        CheckpointError: the folder is missing, or names no judge that is installed.
    """
    path = folder / MODEL_CONFIG
    try:
        name = json.loads(path.read_text("utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError("no judge here", where=folder, expected="a config.json with _class_name") from error
    judge: Judge = _installed(name, path).load().load(folder)
    return judge


def _installed(name: object, path: Path) -> EntryPoint:
    known = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in known:
        raise CheckpointError(
            "no such judge is installed",
            where=path,
            expected=", ".join(sorted(known)) or f"a package with an entry point in {ENTRY_POINTS}",
            got=name,
            remedy="Install the package that this judge comes with.",
        )
    return known[str(name)]
