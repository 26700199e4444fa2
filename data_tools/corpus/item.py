"""One sample that is to be packed: where it comes from, its captions and columns, and how to get its image."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_ENCODER = json.JSONEncoder(default=repr)


@dataclass(frozen=True)
class Problem:
    """Why something is not packed."""

    reason: str
    detail: str = ""


@dataclass
class Item:
    """One sample to be packed."""

    where: str
    """Table and line, or path of the image: for the one who looks for it."""
    size: int
    """Bytes of the image, as far as that is known without reading it."""
    read: Callable[[], bytes]
    """Gives the bytes of the image; raises UnusableImageError."""
    captions: dict[str, str] = field(default_factory=dict)
    columns: dict[str, Any] = field(default_factory=dict)
    """Everything else that is known of it, for the json."""
    file: str = ""
    """Path of the image in its folder, where it has one."""
    problem: Problem | None = None
    respelled: bool = False
    """Whether the table spells the file's name otherwise than the disk."""
    notes: list[str] = field(default_factory=list)
    """What a person should know of its captions, each to be counted."""

    def fingerprint(self) -> bytes:
        """What it would be packed from, without its bytes."""
        said = [self.where, self.size, self.file, self.captions, self.columns, self.problem and self.problem.reason]
        return _ENCODER.encode(said).encode()
