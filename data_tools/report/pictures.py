"""Pictures of a run as `data:` URLs: drawn images, maps of cached arrays, decoded latents."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pea.config import Config

LARGEST_PX = 512
"""Longer sides are shown smaller: a page of seventy pictures stays below 10 MB; the files keep every pixel."""
_PIXEL_ART_PX = 128
_NEGATIVE, _ZERO, _POSITIVE = np.array([[33, 102, 172], [247, 247, 247], [178, 24, 43]], np.float32)
"""ColorBrewer's RdBu (C. Brewer), which most colour-blind eyes can tell apart."""


def data_url(png: bytes, kind: str = "png") -> str:
    """A picture as a URL that needs no file."""
    return f"data:image/{kind};base64,{base64.b64encode(png).decode()}"


def shown_picture(path: Path) -> dict[str, Any]:
    """A picture file for a page: `image` (URL), `width` and `height` in pixels, and `pixelated` for small ones."""
    with Image.open(path) as image:
        width, height = image.size
        if max(width, height) <= LARGEST_PX:
            url = data_url(path.read_bytes())
        else:
            small = image.convert("RGB")
            small.thumbnail((LARGEST_PX, LARGEST_PX), Image.Resampling.LANCZOS)
            width, height = small.size
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=85)
            url = data_url(buffer.getvalue(), "jpeg")
    return {"image": url, "width": width, "height": height, "pixelated": max(width, height) <= _PIXEL_ART_PX}


def heat_map(values: npt.NDArray[Any]) -> str:
    """A two-dimensional array in colour, symmetric about zero."""
    values = values.astype(np.float32)
    limit = float(np.abs(values).max()) or 1.0
    share = np.abs(values / limit)[..., None]
    ends = np.where(values[..., None] < 0, _NEGATIVE, _POSITIVE)
    return _png((_ZERO + share * (ends - _ZERO)).round().astype(np.uint8))


def sketch_map(values: npt.NDArray[Any]) -> str:
    """The stored numbers of one sketch, row by row in a square."""
    flat = values.reshape(-1).astype(np.float32)
    width = int(np.ceil(np.sqrt(flat.size)))
    square = np.zeros(width * width, dtype=np.float32)
    square[: flat.size] = flat
    return heat_map(square.reshape(width, width))


def decoded_sample(config: Config, latents: npt.NDArray[Any]) -> str:
    """Unscaled latents `[c, h, w]` through the checkpoint's VAE."""
    import torch

    from pea.models.vae import VaeEncoder

    vae = VaeEncoder.from_checkpoint(config.teacher.folder).vae
    with torch.inference_mode():
        pixels = vae.decode(torch.from_numpy(latents.astype(np.float32))[None]).sample[0]
    return _png(((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


def _png(pixels: npt.NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return data_url(buffer.getvalue())
