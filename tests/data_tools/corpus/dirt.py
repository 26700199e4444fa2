"""Photos and tables as they come: kinds of dirt, each with what has to become of it."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

COLUMNS = ("file", "caption_zh", "caption_en", "watermark")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


def pixels(mode: str = "RGB", size: tuple[int, int] = (24, 16), seed: int = 0) -> Image.Image:
    width, height = size
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    if mode in ("I;16", "I"):
        return Image.fromarray(noise[..., 0].astype(np.uint16) * 257).convert(mode)
    return Image.fromarray(noise).convert(mode)


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    pixels(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def _animated(kind: str) -> bytes:
    return encoded(kind, save_all=True, append_images=[pixels(seed=seed) for seed in (1, 2)])


def _heic() -> bytes:
    import pillow_heif

    buffer = io.BytesIO()
    pillow_heif.from_pillow(pixels()).save(buffer, quality=-1, matrix_coefficients=0, chroma=444)
    return buffer.getvalue()


@dataclass
class Corpus:
    """A folder and the rows of its table, with what has to become of them."""

    folder: Path
    rows: list[list[str]] = field(default_factory=list)
    expected: Counter[str] = field(default_factory=Counter)
    """``packed``, or the reason, of each row."""
    not_images: int = 0
    """Files that are none."""
    unnamed: int = 0
    """Images that no row names."""

    def file(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def row(self, outcome: str, file: str, zh: str = "一只猫", en: str = "a cat") -> None:
        self.rows.append([file, zh, en, "0.1"])
        self.expected[outcome] += 1

    def photo(self, outcome: str, name: str, data: bytes) -> None:
        self.file(name, data)
        self.row(outcome, name)

    def write_table(self, path: Path, delimiter: str, encoding: str) -> None:
        with path.open("w", encoding=encoding, newline="") as file:
            csv.writer(file, delimiter=delimiter).writerows([COLUMNS, *self.rows])


Dirt = Callable[[Corpus, str], None]
"""Adds one case, whose files have a name of their own."""


def _two_of_a_name(corpus: Corpus, name: str) -> None:
    corpus.file(f"one/{name}.jpg", encoded("JPEG"))
    corpus.file(f"two/{name}.jpg", encoded("JPEG"))
    corpus.unnamed += 2
    corpus.row("file_ambiguous", f"{name}.jpg")


def _same_name_in_two_folders(corpus: Corpus, name: str) -> None:
    for folder in ("one", "two"):
        corpus.photo("packed", f"{folder}/{name}.jpg", encoded("JPEG"))


def _decomposed(corpus: Corpus, name: str) -> None:
    corpus.file(unicodedata.normalize("NFD", f"é{name} ü.jpg"), encoded("JPEG"))
    corpus.row("packed", unicodedata.normalize("NFC", f"é{name} ü.jpg"))


def _link(corpus: Corpus, name: str) -> None:
    (corpus.folder / f"{name}.jpg").symlink_to(_beside(corpus, name))
    corpus.row("packed", f"{name}.jpg")


def _broken_link(corpus: Corpus, name: str) -> None:
    (corpus.folder / f"{name}.jpg").symlink_to("nowhere.jpg")
    corpus.row("file_unreadable", f"{name}.jpg")


def _loop(corpus: Corpus, name: str) -> None:
    (corpus.folder / f"{name}.jpg").symlink_to(f"{name}.jpg")
    corpus.row("file_unreadable", f"{name}.jpg")


def _pipe(corpus: Corpus, name: str) -> None:
    os.mkfifo(corpus.folder / f"{name}.jpg")
    corpus.row("file_unreadable", f"{name}.jpg")


def _device(corpus: Corpus, name: str) -> None:
    (corpus.folder / f"{name}.jpg").symlink_to("/dev/zero")
    corpus.row("file_unreadable", f"{name}.jpg")


def _in_two_spellings(corpus: Corpus, name: str) -> None:
    for form in ("NFC", "NFD"):
        corpus.photo("packed", unicodedata.normalize(form, f"{name}é.jpg"), encoded("JPEG"))
    for letters in (f"{name}A.jpg", f"{name}a.jpg"):
        corpus.photo("packed", letters, encoded("JPEG"))
    corpus.row("packed", f"D:\\photos\\{name}A.jpg")


def _beside(corpus: Corpus, name: str) -> Path:
    path = corpus.folder.parent / f"elsewhere-{name}.jpg"
    path.write_bytes(encoded("JPEG"))
    return path


def _hidden(corpus: Corpus, name: str) -> None:
    corpus.file(f"._{name}.jpg", b"\0\5\x16\7")
    corpus.file(f"__MACOSX/{name}.jpg", b"\0\5\x16\7")
    corpus.file(f".{name}.jpg", b"")
    corpus.not_images += 3


def _others(corpus: Corpus, name: str) -> None:
    corpus.file(f"{name}.mp4", b"film")
    corpus.file(f"{name}-readme", b"hello")
    corpus.not_images += 2


def _unnamed(corpus: Corpus, name: str) -> None:
    corpus.file(f"{name}.jpg", encoded("JPEG"))
    corpus.unnamed += 1


def _capital(corpus: Corpus, name: str) -> None:
    corpus.file(f"{name}.JPG", encoded("JPEG"))
    corpus.row("packed", f"{name}.jpg")


def _without_extension(corpus: Corpus, name: str) -> None:
    corpus.file(f"deep/er/{name}.jpeg", encoded("JPEG"))
    corpus.row("packed", name)


def _url(corpus: Corpus, name: str) -> None:
    corpus.file(f"{name} x.jpg", encoded("JPEG"))
    corpus.row("packed", f"https://example.org/a/{name}%20x.jpg?size=3")


def _twice(corpus: Corpus, name: str) -> None:
    corpus.photo("packed", f"{name}.jpg", encoded("JPEG"))
    corpus.row("packed", f"{name}.jpg", "另一句话")


def _ragged(corpus: Corpus, name: str) -> None:
    corpus.unnamed += 1
    corpus.file(f"{name}.jpg", encoded("JPEG"))
    corpus.rows.append([f"{name}.jpg", "少了"])
    corpus.expected["row_bad"] += 1


def _no_captions(corpus: Corpus, name: str) -> None:
    corpus.file(f"{name}.jpg", encoded("JPEG"))
    corpus.row("caption_missing", f"{name}.jpg", "", "  ")


def _one_caption(corpus: Corpus, name: str) -> None:
    corpus.file(f"{name}.jpg", encoded("JPEG"))
    corpus.row("packed", f"{name}.jpg", zh="")


def _placeholder(corpus: Corpus, name: str) -> None:
    for number, text in enumerate(("nan", "NULL", " N/A ", "None", "#REF!", "#NAME?")):
        corpus.file(f"{name}-{number}.jpg", encoded("JPEG"))
        corpus.row("caption_missing", f"{name}-{number}.jpg", text, text)


def _entities(corpus: Corpus, name: str) -> None:
    corpus.file(f"{name}.jpg", encoded("JPEG"))
    corpus.row("packed", f"{name}.jpg", en="a cat &amp; a dog")


def _backslashes(corpus: Corpus, name: str) -> None:
    corpus.file(f"in/{name}.jpg", encoded("JPEG"))
    corpus.row("packed", f"in\\{name}.jpg")


def _path_of_another_machine(corpus: Corpus, name: str) -> None:
    corpus.file(f"of/{name}-a.jpg", encoded("JPEG"))
    corpus.row("packed", f"C:\\Users\\me\\photos\\of\\{name}-a.jpg")
    corpus.file(f"of/{name}-b.jpg", encoded("JPEG"))
    corpus.row("packed", f"/home/me/photos/of/{name}-b.jpg")


def _archive(corpus: Corpus, name: str) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(f"{name}.jpg", encoded("JPEG"))
    corpus.file(f"{name}.zip", data.getvalue())
    corpus.not_images += 1
    corpus.row("file_missing", f"{name}.jpg")


def _odd_caption(corpus: Corpus, name: str) -> None:
    corpus.file(f"{name}.jpg", encoded("JPEG"))
    corpus.row("packed", f"{name}.jpg", 'a; "b",\nc\t\u2028\x85 \U0001f408', "x" * 5000)


def _photo(outcome: str, ending: str, make: Callable[[], bytes]) -> Dirt:
    return lambda corpus, name: corpus.photo(outcome, f"{name}{ending}", make())


def _nothing_to_see(corpus: Corpus, name: str) -> None:
    corpus.file(f"{name}.jpg", encoded("JPEG"))
    corpus.row("caption_missing", f"{name}.jpg", "\0\x07", "\ufeff\u202e")
    corpus.row("packed", f"{name}.jpg", "a\0b", "")


def _long_captions(corpus: Corpus, name: str) -> None:
    corpus.file(f"{name}.jpg", encoded("JPEG"))
    corpus.row("packed", f"{name}.jpg", "字" * 200_000, "")
    corpus.row("json_too_large", f"{name}.jpg", "字" * 1_400_000, "")


def _bomb() -> bytes:
    data = bytearray(encoded("BMP"))
    data[18:26] = (40_000).to_bytes(4, "little") * 2  # width and height in px
    return bytes(data)


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded("JPEG", exif=exif)


KINDS: dict[str, Dirt] = {
    "jpeg": _photo("packed", ".jpg", lambda: encoded("JPEG")),
    "png with alpha": _photo("packed", ".png", lambda: encoded("PNG", "RGBA")),
    "webp": _photo("packed", ".webp", lambda: encoded("WEBP")),
    "a png that is named jpg": _photo("packed", ".jpg", lambda: encoded("PNG")),
    "spaces and quotes in the name": _photo("packed", " of, my 'cat'; (1).jpg", lambda: encoded("JPEG")),
    "dots in the name": _photo("packed", ".v1.final.jpg", lambda: encoded("JPEG")),
    "Chinese name": _photo("packed", "-猫.jpg", lambda: encoded("JPEG")),
    "decomposed name": _decomposed,
    "capital extension": _capital,
    "name without extension": _without_extension,
    "URL": _url,
    "same name in two folders": _same_name_in_two_folders,
    "ambiguous name": _two_of_a_name,
    "missing file": lambda corpus, name: corpus.row("file_missing", f"{name}-gone.jpg"),
    "path out of the folder": lambda corpus, name: corpus.row("file_missing", f"../../etc/{name}.jpg"),
    "no file named": lambda corpus, name: corpus.row("image_not_named", "  "),
    "empty file": _photo("file_empty", ".jpg", lambda: b""),
    "no image": _photo("image_unknown", ".tif", lambda: b"MZ" + bytes(100)),
    "a page in place of an image": _photo("image_unknown", ".jpg", lambda: b"<!DOCTYPE html><html></html>"),
    "truncated tiff": _photo("image_undecodable", ".tiff", lambda: encoded("TIFF")[:-500]),
    "link": _link,
    "broken link": _broken_link,
    "link to itself": _loop,
    "pipe": _pipe,
    "device": _device,
    "EPS in place of an image": _photo("image_unknown", ".jpg", lambda: EPS),
    "more pixels than can be decoded": _photo("image_too_large", ".bmp", _bomb),
    "names that differ by form or capitals": _in_two_spellings,
    "spaces around the name": lambda corpus, name: corpus.photo("packed", f" {name}.jpg ", encoded("JPEG")),
    "captions of control characters": _nothing_to_see,
    "longest captions": _long_captions,
    "hidden files": _hidden,
    "other files": _others,
    "image that no row names": _unnamed,
    "two rows for a file": _twice,
    "ragged row": _ragged,
    "no captions": _no_captions,
    "one caption": _one_caption,
    "odd captions": _odd_caption,
    "placeholders for captions": _placeholder,
    "HTML entities": _entities,
    "paths of Windows": _backslashes,
    "path of another machine": _path_of_another_machine,
    "archive of images": _archive,
    "EXIF orientation": _photo("packed", ".jpg", _rotated),
    "CMYK jpeg": _photo("packed", ".jpg", lambda: encoded("JPEG", "CMYK")),
    "16 bit png": _photo("packed", ".png", lambda: encoded("PNG", "I;16")),
    "animated gif": _photo("packed", ".gif", lambda: _animated("GIF")),
    "animated webp": _photo("packed", ".webp", lambda: _animated("WEBP")),
    "tiff": _photo("packed", ".tif", lambda: encoded("TIFF")),
    "16 bit tiff": _photo("packed", ".tif", lambda: encoded("TIFF", "I;16")),
    "CMYK tiff": _photo("packed", ".tif", lambda: encoded("TIFF", "CMYK")),
    "float tiff": _photo("image_unknown", ".tif", lambda: encoded("TIFF", "F")),
    "bmp": _photo("packed", ".bmp", lambda: encoded("BMP")),
    "avif": _photo("packed", ".avif", lambda: encoded("AVIF")),
    "heic": _photo("packed", ".HEIC", _heic),
}
