"""From WebDataset tars to samples: the only importer of webdataset.

Whatever a tar contains has a defined outcome: a ``Sample``, a ``Rejected`` with a reason code of
``REASONS``, or, when the tar as a whole cannot be trusted, a ``CorpusError`` before the first sample.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import re
import tarfile
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from pea.errors import CorpusError

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
_BLOCK_BYTES = 512  # of the tar format
_NAME = re.compile(r"^((?:.*/|)[^.]+)[.][^/]*$")  # key, then everything after the first dot: as webdataset splits
_LANGUAGE = re.compile(r"[A-Za-z0-9_-]{1,32}")

REASONS = {
    "key_duplicate": "the tar has this key before; the first one counts",
    "key_not_utf8": "the file name is not UTF-8",
    "image_missing": "no jpg, jpeg, png or webp beside the json",
    "image_ambiguous": "more than one image for one key",
    "image_empty": "the image file has no bytes",
    "image_undecodable": "the image is damaged or of an unknown kind",
    "image_too_large": "more pixels than cache.max_image_pixels; not decoded",
    "aspect_ratio": "longer side more than cache.max_aspect_ratio times the shorter one",
    "json_missing": "no json beside the image",
    "json_not_utf8": "the json is not UTF-8",
    "json_unreadable": "the json is not one JSON object without repeated names",
    "caption_missing": "no caption, or an empty one, in a language that is needed",
    "caption_not_text": "a caption, or the name of its language, is not plain text",
    "nonfinite_latents": "the VAE answered NaN or infinity (common with the SDXL VAE in float16)",
    "nonfinite_teacher": "a text encoder or the UNet answered NaN, infinity, or more than its type holds",
    "process_killed": "the sample ended its process more often than cache.run.max_tries allows",
    "removed": "taken down with `pea inspect remove`",
}
"""Every reason for which a sample is left out of a cache."""


@dataclass(frozen=True)
class Sample:
    """One image with its captions."""

    tar: str
    """Name of the tar."""
    key: str
    """WebDataset ``__key__``."""
    image: Image.Image
    """RGB, upright."""
    captions: dict[str, str]
    """Language -> caption; no empty ones."""

    @property
    def id(self) -> str:
        """What names the sample everywhere: tar and key."""
        return sample_id(self.tar, self.key)


@dataclass(frozen=True)
class Rejected:
    """A sample that is left out, and why."""

    tar: str
    """Name of the tar."""
    key: str
    """WebDataset ``__key__``."""
    reason: str
    """Code from ``REASONS``."""
    detail: str = ""
    """What was found."""


@dataclass(frozen=True)
class TarIdentity:
    """What makes two tars the same."""

    name: str
    """File name without ``.tar``."""
    size_bytes: int
    """Size of the file."""
    sha256: str
    """Digest of the file."""


class Placed(NamedTuple):
    """An image in its bucket."""

    pixels: npt.NDArray[np.float32]
    """float32 [3, H, W] in [-1, 1]."""
    bucket: tuple[int, int]
    """(H, W) in px."""
    time_ids: npt.NDArray[np.int64]
    """int64 [6], px: original height and width, crop top and left, target height and width (SDXL)."""


class _BadSampleError(Exception):
    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


def sample_id(tar: str, key: str) -> str:
    """The id of a sample, from which its draws follow."""
    return f"{tar}/{key}"


def tar_name(path: str | Path) -> str:
    """The name of a tar: its file name without ``.tar``."""
    return Path(path).name.removesuffix(".tar")


def expand_tars(patterns: Sequence[str]) -> list[Path]:
    """The tars that paths and glob patterns name, sorted by name.

    Raises:
        CorpusError: a pattern matches nothing, or two tars have one name.
    """
    found: dict[str, Path] = {}
    for pattern in patterns:
        matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
        if not matches:
            raise CorpusError(
                "no such tar",
                where=pattern,
                remedy="Correct corpora.*.tars, or run the stage that writes them.",
            )
        for path in matches:
            other = found.setdefault(tar_name(path), path)
            if other.resolve() != path.resolve():
                raise CorpusError(f"two tars are named {tar_name(path)}", got=f"{other} and {path}")
    return [found[name] for name in sorted(found)]


def tar_identity(path: str | Path) -> TarIdentity:
    """Name, size and sha256 of a tar.

    Raises:
        CorpusError: the file cannot be read.
    """
    digest, size_bytes = hashlib.sha256(), 0
    try:
        with Path(path).open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
                size_bytes += len(block)
    except OSError as error:
        raise CorpusError("cannot read the tar", where=path, got=error.strerror) from error
    return TarIdentity(tar_name(path), size_bytes, digest.hexdigest())


def read_tar(
    path: str | Path,
    captions: Mapping[str, str],
    *,
    required: Sequence[str] = (),
    max_image_pixels: int = 67_108_864,
    max_aspect_ratio: float = 4.0,
    skip: Collection[str] = (),
    in_flight: Callable[[str], object] = lambda _: None,
) -> Iterator[Sample | Rejected]:
    """Yield every sample of a tar in the tar's order, usable or not.

    ``captions`` maps a language to a dotted field of the json; ``{"*": "captions"}`` takes each language of
    that object. A language that is absent or empty is left out of ``Sample.captions``, unless it is in
    ``required``.

    Raises:
        CorpusError: the tar is missing, not a plain tar, truncated, or damaged between its members.
    """
    path = Path(path)
    check_tar(path)
    name = tar_name(path)
    seen: set[str] = set()
    for key, files in _groups(path):
        safe_key = key.encode("utf-8", "backslashreplace").decode()
        try:
            if safe_key != key:
                raise _BadSampleError("key_not_utf8")
            if key in seen:
                raise _BadSampleError("key_duplicate", ", ".join(sorted(files)))
            seen.add(key)
            if key in skip:
                raise _BadSampleError("process_killed")
            in_flight(key)
            texts = _read_captions(files, captions, required)
            image = _read_image(files, max_image_pixels, max_aspect_ratio)
            yield Sample(name, key, image, texts)
        except _BadSampleError as bad:
            yield Rejected(name, safe_key, bad.reason, bad.detail)


def check_tar(path: str | Path) -> None:
    """Make sure that a tar is whole. ``tarfile`` ends silently at a damaged header or a missing end mark.

    Raises:
        CorpusError: missing, not a plain tar, truncated, or damaged between its members.
    """
    remedy = "Restore the tar from its source."
    try:
        with tarfile.open(path, "r:") as archive:
            for _ in archive:
                archive.members = []  # type: ignore[attr-defined]  # keeps memory flat
            end = archive.offset
        with Path(path).open("rb") as file:
            file.seek(end)
            mark = file.read(_BLOCK_BYTES)
    except FileNotFoundError as error:
        raise CorpusError("no such tar", where=path) from error
    except (OSError, tarfile.TarError, EOFError, ValueError) as error:
        raise CorpusError(
            "the tar is damaged, truncated, or compressed", where=path, got=error, remedy=remedy
        ) from error
    if len(mark) < _BLOCK_BYTES:
        raise CorpusError("the tar is truncated: it has no end mark", where=path, got=f"{end} bytes", remedy=remedy)
    if mark.strip(b"\0"):
        raise CorpusError("the tar is damaged: no header", where=path, got=f"other bytes at {end}", remedy=remedy)


def tar_keys(path: str | Path) -> list[str]:
    """Every key of a tar once, in order of first appearance, without reading the files.

    Raises:
        CorpusError: the tar cannot be read.
    """
    try:
        with tarfile.open(path, "r:") as archive:
            matches = (_NAME.match(member.name) for member in archive if member.isreg())
            keys = [match.group(1) for match in matches if match]
    except (OSError, tarfile.TarError) as error:
        raise CorpusError("cannot read the tar", where=path, got=error) from error
    return [key.encode("utf-8", "backslashreplace").decode() for key in dict.fromkeys(keys)]


def _groups(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Consecutive files of one key: (key, {extension: bytes}). A repeated extension starts the key anew."""
    from webdataset import (
        tariterators,  # imports torch: late, so that this module starts without it
    )

    current, files = None, dict[str, bytes]()
    try:
        with path.open("rb") as stream:
            for member in tariterators.tar_file_iterator(stream):
                key, extension = tariterators.base_plus_ext(member["fname"])
                if key is None:
                    continue
                extension = extension.lower()
                if current is not None and (key != current or extension in files):
                    yield current, files
                    files = {}
                current = key
                files[extension] = member["data"]
    except (OSError, tarfile.TarError, EOFError) as error:
        raise CorpusError("the tar cannot be read", where=path, got=error) from error
    if current is not None:
        yield current, files


def _read_captions(files: Mapping[str, bytes], fields: Mapping[str, str], required: Sequence[str]) -> dict[str, str]:
    document = _read_json(files)
    texts: dict[str, str] = {}
    for language, field in fields.items():
        value = _lookup(document, field)
        found = value if language == "*" and isinstance(value, dict) else {language: value}
        for each, text in found.items():
            if each == "*" or text is None:
                continue
            if not isinstance(text, str) or not _LANGUAGE.fullmatch(each) or not _is_unicode(text):
                raise _BadSampleError("caption_not_text", f"{each!a}: {text!a}"[:200])
            if text.strip():
                texts[each] = text
    missing = [language for language in required if language not in texts]
    if missing:
        raise _BadSampleError("caption_missing", ", ".join(missing))
    return texts


def _read_json(files: Mapping[str, bytes]) -> dict[str, Any]:
    if "json" not in files:
        raise _BadSampleError("json_missing")
    try:
        document = json.loads(files["json"].decode("utf-8-sig"), object_pairs_hook=_without_repeats)
    except UnicodeDecodeError as error:
        raise _BadSampleError("json_not_utf8", str(error)) from None
    except (ValueError, RecursionError) as error:
        raise _BadSampleError("json_unreadable", str(error)) from None
    if not isinstance(document, dict):
        raise _BadSampleError("json_unreadable", f"a {type(document).__name__}, not an object")
    return document


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a name occurs twice")
    return document


def _lookup(document: Any, field: str) -> Any:
    for part in field.split("."):
        document = document.get(part) if isinstance(document, dict) else None
    return document


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True


def _read_image(files: Mapping[str, bytes], max_image_pixels: int, max_aspect_ratio: float) -> Image.Image:
    extensions = [extension for extension in IMAGE_EXTENSIONS if extension in files]
    if not extensions:
        raise _BadSampleError("image_missing", ", ".join(sorted(files)))
    if len(extensions) > 1:
        raise _BadSampleError("image_ambiguous", ", ".join(extensions))
    data = files[extensions[0]]
    if not data:
        raise _BadSampleError("image_empty")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns of what is decided here: size, odd metadata
        return _decode(data, max_image_pixels, max_aspect_ratio)


def _decode(data: bytes, max_image_pixels: int, max_aspect_ratio: float) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height = image.size
            if width * height > max_image_pixels:
                raise _BadSampleError("image_too_large", f"{width}x{height} px")
            if max(width, height) > max_aspect_ratio * min(width, height):
                raise _BadSampleError("aspect_ratio", f"{width}x{height} px")
            return to_rgb(ImageOps.exif_transpose(image))
    except _BadSampleError:
        raise
    except Image.DecompressionBombError as error:
        raise _BadSampleError("image_too_large", str(error)) from None
    except Exception as error:  # noqa: BLE001 (a decoder of damaged bytes may raise anything)
        raise _BadSampleError("image_undecodable", f"{type(error).__name__}: {error}"[:200]) from None


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
        raise _BadSampleError("image_undecodable", f"pixel mode {image.mode} outside of 16 bits")
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
