"""What is read from a tar, and how much of it: the rules that decide keys, records, and what is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

READING_VERSION = 2
"""Goes up whenever another sample would be kept, or the same one with another key or record. Version 1 is what caches
without the identity's field ``corpus.reading`` were made with."""

TEXT_READING_VERSION = 1
"""The same for tables of texts."""

ImageFormat = Literal["JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "JPEG2000", "TIFF"]
"""Formats, as Pillow names them, whose decoders may be let loose on a corpus; none starts another program."""

EXTENSIONS: Mapping[ImageFormat, tuple[str, ...]] = {
    "JPEG": ("jpg", "jpeg"),
    "PNG": ("png",),
    "WEBP": ("webp",),
    "AVIF": ("avif",),
    "BMP": ("bmp",),
    "GIF": ("gif",),
    "JPEG2000": ("jp2", "j2k"),
    "TIFF": ("tif", "tiff"),
}
"""How files of a format are named."""
assert set(EXTENSIONS) == set(get_args(ImageFormat))

DEFAULT_FORMATS: tuple[ImageFormat, ...] = ("JPEG", "PNG", "WEBP")
JSON = "json"
MAX_JSON_BYTES = 4 << 20
MAX_JSON_DEPTH = 64
MAX_LANGUAGES = 256
"""Languages of one tar; each makes files of its own in the cache."""
MAX_KEY_CHARACTERS = 1024


@dataclass(frozen=True)
class ReadingRules:
    """How a corpus is read."""

    image_formats: tuple[ImageFormat, ...] = DEFAULT_FORMATS
    """The only ones whose decoders see a byte."""
    max_file_bytes: int = 128 << 20
    """Images with more bytes are not read."""
    max_image_pixels: int = 67_108_864
    """Images with more pixels are not decoded."""
    max_aspect_ratio: float = 4.0
    """Images whose longer side is more than this many times the shorter one are left out."""
    original_size: bool = True
    """Whether ``original_width`` and ``original_height`` of the json count (not in version 1)."""

    @property
    def image_extensions(self) -> tuple[str, ...]:
        """What follows the key's dot in the name of an image, in small letters."""
        return extensions_of(self.image_formats)

    def identity(self) -> dict[str, Any]:
        """The part of a cache's identity that is said nowhere else in it."""
        formats = sorted(self.image_formats)
        return {"version": READING_VERSION, "image_formats": formats, "max_file_bytes": self.max_file_bytes}


@dataclass(frozen=True)
class TextSource:
    """Which tables, and what is read of them."""

    places: tuple[str, ...]
    """Paths, URLs and patterns."""
    captions: tuple[tuple[str, str], ...]
    """Language and column; empty: the object ``captions``, or the columns that are named by languages."""
    source_language: str
    """Of the texts that the teacher draws."""
    id_column: str | None
    """None: ``id`` or ``key``, where the table has it."""
    rows_per_part: int

    def identity(self) -> dict[str, Any]:
        """The part of a cache's identity that is said nowhere else in it."""
        return {"version": TEXT_READING_VERSION, "kind": "texts"}


def extensions_of(formats: tuple[ImageFormat, ...]) -> tuple[str, ...]:
    """The extensions of some formats, in the order in which they are listed here."""
    return tuple(extension for name, names in EXTENSIONS.items() if name in formats for extension in names)
