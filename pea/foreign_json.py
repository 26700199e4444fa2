"""JSON that others wrote: an object, or a ``ValueError`` that says in a few words what is there instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_POINTER = b"version https://git-lfs.github.com/"
_POINTER_BYTES = 1024
"""More than any pointer has. Source: the specification of git-lfs."""
POINTER = "a git-LFS pointer in place of the file; `git lfs pull` in its folder fetches that"


def json_object(data: bytes | str) -> dict[str, Any]:
    """The object in a JSON text, UTF-8.

    Raises:
        ValueError: it is no JSON, nested too deeply, or something else than an object.
    """
    raw = data.encode() if isinstance(data, str) else data
    if is_pointer(raw):
        raise ValueError(POINTER)
    if not raw.strip():
        raise ValueError("an empty file")
    try:
        found = json.loads(raw.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError(f"not a JSON object but {kind_of(found)}")
    return found


def kind_of(value: object) -> str:
    """What something parsed is, as people say it: ``a list``, ``nothing``."""
    kinds = {type(None): "nothing", list: "a list", str: "a text", bool: "a truth value", int: "a number"}
    return (kinds | {float: "a number", dict: "an object"}).get(type(value), type(value).__name__)


def is_pointer(head: bytes) -> bool:
    """Whether a file that begins so stands for another one that git-LFS keeps."""
    return head.startswith(_POINTER)


def pointers_in(folder: Path) -> list[Path]:
    """The files of a folder that stand for others; what cannot be read is none."""
    found = []
    for path in sorted(folder.iterdir()):
        try:
            if path.is_file() and path.stat().st_size < _POINTER_BYTES and is_pointer(path.read_bytes()):
                found.append(path)
        except OSError:
            continue
    return found
