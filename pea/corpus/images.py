"""Images: decode untrusted bytes, bring any mode to RGB, and place them in aspect-ratio buckets."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")


class Placed(NamedTuple):
    """An image in its bucket."""

    pixels: npt.NDArray[np.float32]
    """float32 [3, H, W] in [-1, 1]."""
    bucket: tuple[int, int]
    """(H, W) in px."""
    time_ids: npt.NDArray[np.int64]
    """int64 [6], px: original height and width, crop top and left, target height and width (SDXL)."""


class BadSampleError(Exception):
    """A sample cannot be used; never leaves ``pea.corpus.samples``."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def read_image(files: Mapping[str, bytes], max_image_pixels: int, max_aspect_ratio: float) -> Image.Image:
    """The one image among the files of a key, upright and RGB. ``files``: extension -> bytes.

    Raises:
        BadSampleError: there is none or more than one, it is damaged, too large, or too long.
    """
    extensions = [extension for extension in IMAGE_EXTENSIONS if extension in files]
    if not extensions:
        raise BadSampleError("image_missing", ", ".join(sorted(files)))
    if len(extensions) > 1:
        raise BadSampleError("image_ambiguous", ", ".join(extensions))
    data = files[extensions[0]]
    if not data:
        raise BadSampleError("image_empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns of what is decided here: size, odd metadata
        return _decode(data, max_image_pixels, max_aspect_ratio)


def _decode(data: bytes, max_image_pixels: int, max_aspect_ratio: float) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > max_image_pixels:
                raise BadSampleError("image_too_large", f"{width}x{height} px")
            if max(width, height) > max_aspect_ratio * min(width, height):
                raise BadSampleError("aspect_ratio", f"{width}x{height} px")
            return to_rgb(ImageOps.exif_transpose(image))
    except BadSampleError:
        raise
    except Image.DecompressionBombError as error:
        raise BadSampleError("image_too_large", str(error)) from None
    except Exception as error:  # noqa: BLE001 (a decoder of damaged bytes may raise anything)
        raise BadSampleError("image_undecodable", f"{type(error).__name__}: {error}"[:200]) from None


def to_rgb(image: Image.Image) -> Image.Image:
    """Any PIL mode to 8-bit RGB: transparency over white, 16-bit values scaled (PIL would clip them)."""
    if image.mode.startswith("I") or image.mode == "F":
        return _scale_to_8_bit(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    converted = image.convert("RGB")
    return converted.copy() if converted is image else converted


def _scale_to_8_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise BadSampleError("image_undecodable", f"pixel mode {image.mode} outside of 16 bits")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def bucket_name(bucket: tuple[int, int]) -> str:
    """``(64, 80)`` -> ``"64x80"``: height by width."""
    return f"{bucket[0]}x{bucket[1]}"


def choose_bucket(height: int, width: int, buckets: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The bucket (H, W) of nearest aspect ratio; among equal ones the one of nearest size, then the first."""

    def distance(bucket: tuple[int, int]) -> tuple[float, int]:
        one, other = width * bucket[0], height * bucket[1]
        return max(one / other, other / one), abs(bucket[0] * bucket[1] - height * width)

    return min(buckets, key=distance)


def place_in_bucket(image: Image.Image, buckets: Sequence[tuple[int, int]]) -> Placed:
    """Resize an RGB image to cover its bucket and cut the centre out."""
    width, height = image.size
    target_height, target_width = choose_bucket(height, width, buckets)
    if width * target_height >= height * target_width:  # relatively wider than the bucket: the height decides
        new_height = target_height
        new_width = max(target_width, round(width * target_height / height))
    else:
        new_width = target_width
        new_height = max(target_height, round(height * target_width / width))
    if (new_width, new_height) != (width, height):
        image = image.resize((new_width, new_height), Image.Resampling.LANCZOS)
    top, left = (new_height - target_height) // 2, (new_width - target_width) // 2
    cut = np.asarray(image)[top : top + target_height, left : left + target_width]
    pixels = np.ascontiguousarray(cut.transpose(2, 0, 1)).astype(np.float32) / np.float32(127.5) - np.float32(1)
    time_ids = np.array([height, width, top, left, target_height, target_width], dtype=np.int64)
    return Placed(pixels, (target_height, target_width), time_ids)
