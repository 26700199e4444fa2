"""What an image becomes in a tar: its stored bytes, or, where the cache would not read those, a PNG of equal pixels."""

from __future__ import annotations

import io
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, NamedTuple

from PIL import Image, ImageOps, UnidentifiedImageError

MAX_FILE_BYTES = 1 << 30
_JPEG_QUALITY = 95
_PNG_MODES = {"1", "L", "LA", "P", "RGB", "RGBA", "I;16"}
_STARTS_PROGRAMS = ("EPS", "WMF")
"""Kinds that Pillow leaves to a program of the system (Ghostscript, Windows' own)."""
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
_plugins_sought = False


class Packed(NamedTuple):
    """An image as it goes into a tar."""

    data: bytes
    extension: str
    """``jpg``, ``png`` or ``webp``."""
    changes: tuple[str, ...] = ()
    """What was done to it, in words."""
    original_size: tuple[int, int] | None = None
    """(H, W) in px, upright, of what was made smaller."""


class UnusableImageError(Exception):
    """An image cannot be packed; never leaves ``data_tools.corpus``."""

    def __init__(self, reason: str, detail: object = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, str(detail)[:200]


def stored_format(data: bytes) -> str | None:
    """``jpg``, ``png`` or ``webp`` by the first bytes; None: something that the cache does not read unasked."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def open_image(data: bytes) -> Image.Image:
    """An image of any kind that Pillow decodes itself; no other program is started on strangers' bytes.

    Raises what Pillow does; UnidentifiedImageError for all other kinds.
    """
    Image.init()
    return Image.open(io.BytesIO(data), formats=[kind for kind in Image.ID if kind not in _STARTS_PROGRAMS])


def packed_image(data: bytes, *, shorter_side_px: int | None = None, verify: bool = False) -> Packed:
    """What goes into a tar.

    ``shorter_side_px``: make larger images smaller, to this shorter side. ``verify``: decode every image in full, also
    those that are kept as they are.

    Raises:
        UnusableImageError: empty, of an unknown kind, or damaged.
    """
    if not data:
        raise UnusableImageError("file_empty")
    extension = stored_format(data)
    if extension and shorter_side_px is None and not verify:
        return Packed(data, extension)
    try:
        return _looked_at(data, extension, shorter_side_px)
    except UnusableImageError:
        raise
    except UnidentifiedImageError:
        raise UnusableImageError("image_unknown", f"begins with {data[:8]!r}{_missing_plugin(data)}") from None
    except Image.DecompressionBombError as error:
        raise UnusableImageError("image_too_large", error) from None
    except Exception as error:  # noqa: BLE001 (a decoder of damaged bytes may raise anything)
        raise UnusableImageError("image_undecodable", f"{type(error).__name__}: {error}") from None


def _looked_at(data: bytes, extension: str | None, shorter_side_px: int | None) -> Packed:
    if extension is None:
        _register_plugins()
    with open_image(data) as image:
        kind, frames = str(image.format), int(getattr(image, "n_frames", 1))
        image.load()
        smaller = shorter_side_px is not None and min(image.size) > shorter_side_px
        if extension and not smaller:
            return Packed(data, extension)
        info = {"icc_profile": image.info["icc_profile"]} if image.info.get("icc_profile") else {}
        if image.mode == "F" or (image.mode == "I" and not _is_of_16_bits(image)):
            raise UnusableImageError("image_unknown", f"{kind} of pixel mode {image.mode}, outside of 16 bits")
        upright = ImageOps.exif_transpose(image)
        changes = [] if frames == 1 else [f"first of several pictures in a {kind}"]
        if smaller:
            assert shorter_side_px is not None
            return _made_smaller(upright, shorter_side_px, changes, info)
        return _as_png(upright, kind, changes, info)


def _as_png(image: Image.Image, kind: str, changes: list[str], info: dict[str, Any]) -> Packed:
    made = f"{kind} to PNG, without loss"
    if image.mode.startswith("I"):
        image = image if image.mode == "I;16" else image.convert("I;16")
    elif image.mode not in _PNG_MODES:
        target = "RGBA" if image.mode in ("RGBa", "PA", "La") else "RGB"
        made = f"{kind} of mode {image.mode} to a PNG of {target}"
        image = image.convert(target)
        info = {}
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **info)
    return Packed(buffer.getvalue(), "png", (*changes, made))


def _is_of_16_bits(image: Image.Image) -> bool:
    least, most = image.getextrema()
    return bool(least >= 0 and most <= 65_535)  # type: ignore[operator]


def _made_smaller(image: Image.Image, shorter_side_px: int, changes: list[str], info: dict[str, Any]) -> Packed:
    width, height = image.size
    scale = shorter_side_px / min(width, height)
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    elif image.mode not in ("L", "LA", "RGB", "RGBA"):
        from pea.corpus.images import to_rgb

        image = to_rgb(image)
    small = image.resize((round(width * scale), round(height * scale)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if small.mode in ("RGBA", "LA"):
        small.save(buffer, "PNG", **info)
        extension = "png"
    else:
        small.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0, **info)
        extension = "jpg"
    return Packed(buffer.getvalue(), extension, (*changes, "made smaller"), (height, width))


def _missing_plugin(data: bytes) -> str:
    """What to install for an image that an optional package can read."""
    is_heif = data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS
    if is_heif and find_spec("pillow_heif") is None:
        return ": a HEIC image; `pip install 'pea-cache[data]'` brings what reads it"
    is_jxl = data.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL "))
    if is_jxl and find_spec("pillow_jxl") is None:
        return ": a JPEG XL image; `pip install pillow-jxl-plugin` brings what reads it"
    return ""


def _register_plugins() -> None:
    """Let Pillow read what further installed packages can: HEIC, JPEG XL."""
    global _plugins_sought
    if _plugins_sought:
        return
    _plugins_sought = True
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    with suppress(ImportError):
        import pillow_jxl  # noqa: F401 (registers itself)
