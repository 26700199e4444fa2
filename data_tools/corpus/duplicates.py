"""Images that are there twice, byte for byte or to the eye, within a corpus and across several.

To the eye: brightness of neighbours on a grid of 9 by 8, across and down, gives 128 bits; images are equal where at
most 6 of them differ. Images without structure (one colour) have no such bits and are compared byte for byte alone.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict

import numpy as np
from PIL import Image

from data_tools.corpus.image_bytes import open_image
from data_tools.corpus.tar_items import TarSample
from data_tools.corpus.tar_to_tar import PartRecord

MAX_DIFFERENT_BITS = 6
_BANDS = MAX_DIFFERENT_BITS + 1  # of two hashes that differ in so few bits, one band is the same
_BAND_BITS = -(-128 // _BANDS)
_MIN_CONTRAST = 4.0
_GRID = 8
EXACT, PERCEPTUAL = "the same file as another", "the same picture as another"
_NOTE = "hashes"


class Duplicates:
    """Everything that was kept so far; the first one of equal images stays. Some 100 bytes of memory for each."""

    def __init__(self, *, perceptual: bool) -> None:
        self._perceptual = perceptual
        self._files: set[bytes] = set()
        self._pictures: dict[tuple[int, int], list[int]] = defaultdict(list)

    def __call__(self, sample: TarSample, record: PartRecord) -> str | None:
        """Why a sample is left out, if it is; one that stays is known from then on, and noted in the record."""
        digest = hashlib.sha256(sample.image).digest()[:16]
        if digest in self._files:
            return EXACT
        picture = perceptual_hash(sample.image) if self._perceptual else None
        if picture is not None and self._has_picture(picture):
            return PERCEPTUAL
        self._remember(digest, picture)
        record.notes.setdefault(_NOTE, []).append([digest.hex(), None if picture is None else f"{picture:032x}"])
        return None

    def recall(self, record: PartRecord) -> None:
        """Know what a part that was done before has kept."""
        for digest, picture in record.notes.get(_NOTE, []):
            self._remember(bytes.fromhex(digest), None if picture is None else int(picture, 16))

    def _has_picture(self, picture: int) -> bool:
        near = (other for band in enumerate(_bands(picture)) for other in self._pictures.get(band, ()))
        return any((other ^ picture).bit_count() <= MAX_DIFFERENT_BITS for other in near)

    def _remember(self, digest: bytes, picture: int | None) -> None:
        self._files.add(digest)
        if picture is not None:
            for band in enumerate(_bands(picture)):
                self._pictures[band].append(picture)


def perceptual_hash(data: bytes) -> int | None:
    """128 bits of an image; None: it cannot be decoded, or has no structure."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open_image(data) as image:
                image.draft("L", (_GRID * 8, _GRID * 8))
                small = image.convert("L").resize((_GRID + 1, _GRID + 1), Image.Resampling.BOX)
    except Exception:  # noqa: BLE001 (a decoder of damaged bytes may raise anything)
        return None
    grid = np.asarray(small, dtype=np.int16)
    if grid.std() < _MIN_CONTRAST:
        return None
    across, down = grid[:_GRID, 1:] > grid[:_GRID, :-1], grid[1:, :_GRID] > grid[:-1, :_GRID]
    return int.from_bytes(np.packbits(np.concatenate([across.ravel(), down.ravel()])).tobytes(), "big")


def _bands(picture: int) -> list[int]:
    return [(picture >> (place * _BAND_BITS)) & ((1 << _BAND_BITS) - 1) for place in range(_BANDS)]
