"""Tars for tests, good and bad."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from PIL import Image

from pea.corpus.samples import Rejected, Sample, read_tar

ALL = {"*": "captions"}


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(width: int = 8, height: int = 8) -> Image.Image:
    return Image.new("RGB", (width, height), (200, 100, 50))


def captions(**texts: object) -> bytes:
    return json.dumps({"captions": texts}).encode()


GOOD = {"png": encoded(picture()), "json": captions(en="a cat", zh="一只猫", it="")}


def write_tar(path: Path, files: Iterable[tuple[str, bytes]], **options: Any) -> Path:
    with tarfile.open(path, "w", **options) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def good_files(keys: Iterable[str], image: bytes = GOOD["png"]) -> list[tuple[str, bytes]]:
    return [
        (f"{key}.{extension}", data) for key in keys for extension, data in (("png", image), ("json", GOOD["json"]))
    ]


def good_tar(path: Path, count: int = 5) -> Path:
    noisy = encoded(Image.effect_noise((32, 32), 60))
    return write_tar(path, good_files([f"k{i}" for i in range(count)], noisy))


def members_end(path: Path) -> int:
    """Where the end mark begins."""
    with tarfile.open(path) as archive:
        last = archive.getmembers()[-1]
    return last.offset_data + -(-last.size // 512) * 512


def joined(*parts: bytes | Path) -> bytes:
    """One tar of the members of several: bytes of members, or whole tars."""
    members = b"".join(part if isinstance(part, bytes) else part.read_bytes()[: members_end(part)] for part in parts)
    return members + bytes(1024 + -(len(members) + 1024) % 10_240)


def outcome(path: Path, **options: Any) -> list[tuple[Any, ...]]:
    """Everything that reading a tar says."""
    return [
        (item.key, item.captions, item.image.tobytes(), item.original_size)
        if isinstance(item, Sample)
        else (item.key, item.reason, item.detail)
        for item in read_tar(path, ALL, **options)
    ]


def kept(path: Path, **options: Any) -> list[str]:
    return [item.key for item in read_tar(path, ALL, **options) if isinstance(item, Sample)]


def dropped(path: Path, **options: Any) -> list[tuple[str, str]]:
    return [(item.key, item.reason) for item in read_tar(path, ALL, **options) if isinstance(item, Rejected)]
