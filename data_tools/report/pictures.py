"""Pictures of a run as `data:` URLs: charts, maps of cached arrays, decoded latents."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from pea.config import Config

_CURVES = {
    "loss": "total",
    "noise_pred": "noise prediction",
    "features": "features (sum over blocks)",
    "diffusion": "diffusion loss (culture)",
}


def data_url(png: bytes) -> str:
    """A PNG as a URL that needs no file."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def loss_chart(log: Sequence[dict[str, Any]]) -> str | None:
    """The training log's losses over steps, on a logarithmic scale; None where it has none."""
    figure = Figure(figsize=(10, 3.6), dpi=144, layout="constrained")
    axes = figure.subplots()
    for name, label in _CURVES.items():
        points = [(row["step"], row[name]) for row in log if row.get(name, 0) > 0]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1.6)
    if not axes.lines:
        return None
    axes.set(xlabel="optimizer step", ylabel="mean squared error", yscale="log")
    axes.grid(visible=True, which="major", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=4, loc="lower right", bbox_to_anchor=(1, 1))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return data_url(buffer.getvalue())


def heat_map(values: np.ndarray) -> str:
    """A two-dimensional array in colour, symmetric about zero."""
    values = values.astype(np.float32)
    limit = float(np.abs(values).max()) or 1.0
    colours = mpl.colormaps["RdBu_r"]((values / limit + 1) / 2, bytes=True)[..., :3]
    return _png(colours)


def sketch_map(values: np.ndarray) -> str:
    """The stored numbers of one sketch, row by row in a square."""
    flat = values.reshape(-1).astype(np.float32)
    width = int(np.ceil(np.sqrt(flat.size)))
    square = np.zeros(width * width, dtype=np.float32)
    square[: flat.size] = flat
    return heat_map(square.reshape(width, width))


def decoded_sample(config: Config, latents: np.ndarray) -> str:
    """Unscaled latents `[c, h, w]` through the checkpoint's VAE."""
    import torch

    from pea.models.vae import VaeEncoder

    vae = VaeEncoder.from_checkpoint(config.teacher.folder).vae
    with torch.inference_mode():
        pixels = vae.decode(torch.from_numpy(latents.astype(np.float32))[None]).sample[0]
    return _png(((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy())


def _png(pixels: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return data_url(buffer.getvalue())
