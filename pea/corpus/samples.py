"""From WebDataset tars to samples: the only importer of webdataset.

Whatever a tar contains has a defined outcome: a ``Sample``, a ``Rejected`` with a reason code of
``REASONS``, or, when the tar as a whole cannot be trusted, a ``CorpusError`` before the first sample.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from pea.corpus.images import BadSampleError, Placed, bucket_name, choose_bucket, place_in_bucket, read_image, to_rgb
from pea.corpus.tars import TarIdentity, check_tar, expand_tars, sample_id, tar_identity, tar_keys, tar_name
from pea.errors import CorpusError

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
                raise BadSampleError("key_not_utf8")
            if key in seen:
                raise BadSampleError("key_duplicate", ", ".join(sorted(files)))
            seen.add(key)
            if key in skip:
                raise BadSampleError("process_killed")
            in_flight(key)
            texts = _read_captions(files, captions, required)
            image = read_image(files, max_image_pixels, max_aspect_ratio)
            yield Sample(name, key, image, texts)
        except BadSampleError as bad:
            yield Rejected(name, safe_key, bad.reason, bad.detail)


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
                raise BadSampleError("caption_not_text", f"{each!a}: {text!a}"[:200])
            if text.strip():
                texts[each] = text
    missing = [language for language in required if language not in texts]
    if missing:
        raise BadSampleError("caption_missing", ", ".join(missing))
    return texts


def _read_json(files: Mapping[str, bytes]) -> dict[str, Any]:
    if "json" not in files:
        raise BadSampleError("json_missing")
    try:
        document = json.loads(files["json"].decode("utf-8-sig"), object_pairs_hook=_without_repeats)
    except UnicodeDecodeError as error:
        raise BadSampleError("json_not_utf8", str(error)) from None
    except (ValueError, RecursionError) as error:
        raise BadSampleError("json_unreadable", str(error)) from None
    if not isinstance(document, dict):
        raise BadSampleError("json_unreadable", f"a {type(document).__name__}, not an object")
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


__all__ = [
    "REASONS",
    "Placed",
    "Rejected",
    "Sample",
    "TarIdentity",
    "bucket_name",
    "check_tar",
    "choose_bucket",
    "expand_tars",
    "place_in_bucket",
    "read_tar",
    "sample_id",
    "tar_identity",
    "tar_keys",
    "tar_name",
    "to_rgb",
]
