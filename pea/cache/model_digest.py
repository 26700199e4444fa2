"""Digests of model folders, by content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pea.errors import CheckpointError
from pea.file_names import MODEL_CONFIG
from pea.storage.digests import canonical_json, sha256_file, sha256_text

_MODEL_FILES = (".safetensors", ".bin", ".json", ".txt", ".model")
_VOLATILE_KEYS = ("transformers_version", "torch_dtype", "dtype")  # of config.json; and those that start with _
_memo: dict[tuple[str, int, int, int], str] = {}


def sha256_folder(folder: str | Path) -> str:
    """Digest of a model folder's files (weights, configuration, vocabulary) by name and content.

    In ``config.json`` the entries that only tell which program wrote it are ignored. Digests of unchanged
    files are remembered in memory.

    Raises:
        CheckpointError: the folder is missing or holds no model file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(
            "no such model folder",
            where=folder,
            remedy="Point teacher.checkpoint at a diffusers pipeline folder.",
        )
    paths = sorted(path for path in folder.iterdir() if path.suffix in _MODEL_FILES and path.is_file())
    if not paths:
        raise CheckpointError("no model files in the folder", where=folder, expected=" ".join(_MODEL_FILES))
    return sha256_text(canonical_json([[path.name, _digest(path)] for path in paths]))


def _digest(path: Path) -> str:
    if path.name == MODEL_CONFIG:
        kept = {k: v for k, v in read_json(path).items() if not k.startswith("_") and k not in _VOLATILE_KEYS}
        return sha256_text(canonical_json(kept))
    status = path.stat()
    key = (str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino)
    if key not in _memo:
        _memo[key] = sha256_file(path)
    return _memo[key]


def read_json(path: Path) -> dict[str, Any]:
    """A model's configuration.

    Raises:
        CheckpointError: it is missing or no JSON object.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError("cannot read the model's configuration", where=path, got=error) from None
    if not isinstance(document, dict):
        raise CheckpointError("not a configuration", where=path, expected="a JSON object")
    return document
