"""A pipeline folder put together: parts from elsewhere in the place of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from pea.errors import CheckpointError
from pea.file_names import MODEL_CONFIG
from pea.storage.digests import canonical_json, sha256_text
from pea.storage.durable import new_folder


def assembled_folder(base: Path, parts: Mapping[str, Path]) -> Path:
    """A folder with everything of `base`, and links to `parts` (`unet`, `vae`) in the place of its own.

    It lies in the user's cache (`$XDG_CACHE_HOME/pea`), holds no weights, and is the same for the same places.

    Raises:
        CheckpointError: a folder is missing or holds no such part.
    """
    if not base.is_dir():
        raise CheckpointError("no such model folder", where=base, remedy="Check teacher.checkpoint.")
    links = {path.name: path.resolve() for path in sorted(base.iterdir()) if path.is_dir()}
    links |= {name: _part(name, folder).resolve() for name, folder in parts.items()}
    files = {path.name: path for path in sorted(base.iterdir()) if path.is_file() and path.suffix == ".json"}
    said = {"links": {name: str(path) for name, path in links.items()}, "base": str(base.resolve())}
    said["files"] = {name: sha256_text(path.read_text("utf-8")) for name, path in files.items()}
    place = _cache() / sha256_text(canonical_json(said))[:24]
    if not place.is_dir():
        with new_folder(place, replace=False) as temporary:
            for name, path in files.items():
                shutil.copyfile(path, temporary / name)
            for name, path in links.items():
                (temporary / name).symlink_to(path, target_is_directory=True)
    return place


def _part(name: str, folder: Path) -> Path:
    """The folder of a part: given itself, or within that of a pipeline."""
    for found in (folder / name, folder):
        if (found / MODEL_CONFIG).is_file():
            return found
    raise CheckpointError(f"no {name} here", where=folder, expected=f"{MODEL_CONFIG}, or {name}/{MODEL_CONFIG}")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pea" / "teachers"
