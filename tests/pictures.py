"""What tests ask of picture files."""

from __future__ import annotations

from pathlib import Path

from PIL import Image


def size_of(path: Path) -> tuple[int, int]:
    """Width and height in pixels."""
    with Image.open(path) as image:
        return image.size
