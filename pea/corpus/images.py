"""Images: decode untrusted bytes, bring any mode to RGB, and place them in aspect-ratio buckets."""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features

from pea.corpus.reasons import BadSampleError
from pea.corpus.rules import ReadingRules
from pea.errors import ConfigError

_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange height and width
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")  # of an object in memory: another one each time
_pillow_limit_lock = threading.Lock()


class Placed(NamedTuple):
    """An image in its bucket."""

    pixels: npt.NDArray[np.float32]
    """float32 [3, H, W] in [-1, 1]."""
    bucket: tuple[int, int]
    """(H, W) in px."""
    time_ids: npt.NDArray[np.int64]
    """int64 [6], px: original height and width, crop top and left, target height and width (SDXL)."""


class Upright(NamedTuple):
    """A decoded image."""

    image: Image.Image
    """RGB, as it is to be looked at."""
    turned: bool
    """Whether it is stored with height and width exchanged."""


def check_formats(rules: ReadingRules) -> None:
    """Make sure that this Pillow has the decoders that the rules name.

    Raises:
        ConfigError: it has not.
    """
    Image.init()
    optional = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000", "JPEG": "jpg", "PNG": "zlib"}
    missing = [
        name
        for name in rules.image_formats
        if name not in Image.OPEN or (name in optional and not features.check(optional[name]))
    ]
    if missing:
        raise ConfigError(
            f"the installed Pillow cannot read {', '.join(missing)}",
            where="corpora.*.image_formats",
            remedy="Install a newer Pillow, or leave the format out.",
        )


def read_image(files: Mapping[str, bytes], rules: ReadingRules) -> Upright:
    """The one image among the files of a key, upright and RGB. ``files``: extension -> bytes.

    An orientation in EXIF or XMP is honoured. An ICC profile is not: values are taken as if they were sRGB.

    Raises:
        BadSampleError: there is none or more than one, it is damaged, too large, or too long.
    """
    extensions = [extension for extension in rules.image_extensions if extension in files]
    if not extensions:
        raise BadSampleError("image_missing", ", ".join(sorted(files)))
    if len(extensions) > 1:
        raise BadSampleError("image_ambiguous", ", ".join(extensions))
    data = files[extensions[0]]
    if not data:
        raise BadSampleError("image_empty")
    with warnings.catch_warnings(), _pillow_allows(rules.max_image_pixels):
        warnings.simplefilter("ignore")  # PIL warns of what is decided here: size, odd metadata
        return _decode(data, rules)


def _decode(data: bytes, rules: ReadingRules) -> Upright:
    try:
        with Image.open(io.BytesIO(data), formats=rules.image_formats) as image:
            width, height = image.size
            if width * height > rules.max_image_pixels:
                raise BadSampleError("image_too_large", f"{width}x{height} px")
            if max(width, height) > rules.max_aspect_ratio * min(width, height):
                raise BadSampleError("aspect_ratio", f"{width}x{height} px")
            upright = ImageOps.exif_transpose(image)
            return Upright(to_rgb(upright), image.getexif().get(ExifTags.Base.Orientation) in _TURNED)
    except BadSampleError:
        raise
    except UnidentifiedImageError:
        raise BadSampleError("image_undecodable", f"not {', '.join(rules.image_formats)}, or damaged") from None
    except Image.DecompressionBombError as error:
        raise BadSampleError("image_too_large", str(error)) from None
    except Exception as error:  # noqa: BLE001 (a decoder of damaged bytes may raise anything)
        detail = _ADDRESS.sub("0x…", f"{type(error).__name__}: {error}")
        raise BadSampleError("image_undecodable", detail[:200]) from None


@contextmanager
def _pillow_allows(num_pixels: int) -> Iterator[None]:
    """Lift Pillow's own limit for as long as an image is decoded, where the configuration allows more pixels."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is None or num_pixels <= limit:
        yield
        return
    with _pillow_limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, num_pixels
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


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


def place_in_bucket(
    image: Image.Image,
    buckets: Sequence[tuple[int, int]],
    original_size: tuple[int, int] | None = None,
    crop: tuple[int, int] | None = None,
) -> Placed:
    """Resize an RGB image to cover its bucket and cut the bucket out of it.

    ``original_size``: (H, W) in px that the image had before it became what it is here; None: it was never another.
    ``crop``: numbers in [0, 2**64) that choose the place from above and from the left; None: the centre.
    """
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
    spare = (new_height - target_height, new_width - target_width)
    top, left = (room // 2 for room in spare)
    if crop is not None:
        top, left = ((word * (room + 1)) >> 64 for word, room in zip(crop, spare, strict=True))
    cut = np.asarray(image)[top : top + target_height, left : left + target_width]
    pixels = np.ascontiguousarray(cut.transpose(2, 0, 1)).astype(np.float32) / np.float32(127.5) - np.float32(1)
    time_ids = np.array([*(original_size or (height, width)), top, left, target_height, target_width], dtype=np.int64)
    return Placed(pixels, (target_height, target_width), time_ids)
