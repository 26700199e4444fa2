"""``pea inspect show``: one sample in words, numbers and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from data_tools.tables import table
from pea.cache import Bucket, Cache
from pea.cache.checks import recipe_of
from pea.cache.schema import block_of
from pea.corpus.tars import sample_id
from pea.draws.recipe import checksum, noise
from pea.errors import CacheError
from pea.storage.durable import make_folder

Pixels = npt.NDArray[np.uint8]
_PICTURE_PX = 256


@dataclass(frozen=True)
class Found:
    """Where a sample is."""

    cache: Cache
    tar: str
    bucket: Bucket
    row: int

    @property
    def key(self) -> str:
        """Its key."""
        return self.bucket.keys[self.row]

    def read(self, name: str) -> npt.NDArray[Any]:
        """Its rows of an array: one at the sample level, K at the record level."""
        count = 1 if self.bucket.arrays[name].level == "sample" else self.bucket.draws_per_sample
        return self.bucket.read([name], self.row * count, (self.row + 1) * count)[name]


def find_sample(cache: Cache, name: str) -> Found:
    """The sample ``tar/key``, or the only one of that key.

    Raises:
        CacheError: there is none, or several.
    """
    found = []
    for shard in cache.shards:
        wanted = {name, name.removeprefix(f"{shard.tar}/")}
        if not any(wanted.intersection(keys) for keys in shard.record.kept.values()):
            for key, reason, detail in shard.record.dropped:
                if f"{shard.tar}/{key}" == name:
                    raise CacheError("the sample was dropped", where=name, got=f"{reason} {detail}".strip())
            continue
        for bucket in shard.buckets.values():
            found += [Found(cache, shard.tar, bucket, row) for row, key in enumerate(bucket.keys) if key in wanted]
    exact = [each for each in found if f"{each.tar}/{each.key}" == name] or found
    if len(exact) != 1:
        places = ", ".join(f"{each.tar}/{each.key}" for each in exact[:3])
        raise CacheError("no such sample" if not exact else "several samples", where=name, got=places or None)
    return exact[0]


def render(found: Found) -> str:
    """Captions, draws and statistics as text."""
    bucket = found.bucket
    lines = [f"{found.tar}/{found.key}", f"bucket {bucket.name}"]
    lines += [f"{name}: {text}" for name in bucket.languages if (text := bucket.captions(name)[found.row])]
    if "time_ids" in bucket.arrays:
        ids = found.read("time_ids")[0].tolist()
        lines.append(f"original {ids[0]}x{ids[1]} px, cut at {ids[2]},{ids[3]}, to {ids[4]}x{ids[5]} px")
    parts = ["\n".join(lines)]
    if bucket.draws_per_sample:
        parts.append(table(["draw", "timestep", "caption", "noise", "record"], list(_draw_rows(found))))
    parts.append(table(["array", "type", "shape", "mean", "std", "min", "max"], list(_statistics(found))))
    return "\n\n".join(parts)


def _draw_rows(found: Found) -> Iterator[list[object]]:
    recipe, shape = recipe_of(found.cache.identity), found.bucket.arrays["latents_mean"].shape
    columns = [found.read(name) for name in ("timestep", "caption_dropped", "noise_checksum", "record_id")]
    for draw, (step, dropped, stored, record) in enumerate(zip(*columns, strict=True)):
        same = recipe is not None and checksum(noise(recipe, sample_id(found.tar, found.key), draw, shape)) == stored
        yield [draw, step, "dropped" if dropped else "kept", "ok" if same else "DIFFERS", f"{record:016x}"]


def _statistics(found: Found) -> Iterator[list[object]]:
    for name, spec in found.bucket.arrays.items():
        rows = found.read(name)
        if rows.dtype.kind == "f":
            values = rows.astype(np.float64)
            numbers = [f"{number:.4g}" for number in (values.mean(), values.std(), values.min(), values.max())]
            yield [name, spec.dtype, "x".join(map(str, spec.shape)) or "-", *numbers]


def write_pictures(found: Found, directory: Path, checkpoint: Path | None) -> list[Path]:
    """PNG files of the latent, of the latent decoded by a VAE, and of each block's feature map at each draw."""
    make_folder(directory)
    pictures = {"latent": false_colours(found.read("latents_mean")[0])}
    if checkpoint is not None:
        pictures["decoded"] = decode_latent(found.read("latents_mean"), checkpoint)
    for block in feature_blocks(found.bucket):
        for draw, feature in enumerate(feature_maps(found, block)):
            pictures[f"{block}.draw{draw}"] = false_colours(feature)
    paths = []
    for name, pixels in pictures.items():
        path = directory / f"{name}.png"
        enlarge(pixels).save(path)
        paths.append(path)
    return paths


def feature_blocks(bucket: Bucket) -> list[str]:
    """Blocks of which a bucket holds feature maps."""
    return sorted({block for name in bucket.arrays if (block := block_of(name))})


def feature_maps(found: Found, block: str) -> npt.NDArray[np.float32]:
    """The best guess at a block, or at ``noise_pred``, from its sketch: float32 [K, C, H, W]. Loads torch."""
    import torch

    from pea.sketch.sketch import from_numpy
    from pea.training.signals import sketch_path, stored_sketch

    sketch = stored_sketch(found.bucket, block, found.cache.identity.fields["cache.seed"])
    stored = {suffix: from_numpy(found.read(f"{sketch_path(block)}/{suffix}")) for suffix in sketch.arrays}
    with torch.no_grad():
        guess: npt.NDArray[np.float32] = sketch.back_project(stored, found.read("record_id")).numpy()
    return guess


def decode_latent(latents: npt.NDArray[Any], checkpoint: Path) -> Pixels:
    """The image that a pipeline's VAE makes of a latent [1, c, h, w]: uint8 [H, W, 3]. Loads diffusers."""
    import torch
    from diffusers import AutoencoderKL

    from pea.models.loading import load_part

    vae = load_part(AutoencoderKL, checkpoint / "vae", torch.float32)
    with torch.inference_mode():
        image = vae.decode(torch.from_numpy(latents).float()).sample[0]
    return ((image.permute(1, 2, 0).numpy() + 1) * 127.5).clip(0, 255).astype(np.uint8)


def false_colours(values: npt.NDArray[Any]) -> Pixels:
    """[C, H, W] as a picture: its first three principal components as red, green and blue: uint8 [H, W, 3]."""
    channels, height, width = values.shape
    flat = values.reshape(channels, -1).astype(np.float64)
    flat = flat - flat.mean(1, keepdims=True)
    left, _, _ = np.linalg.svd(flat, full_matrices=False)
    signs = np.sign(
        left[np.abs(left).argmax(0), np.arange(left.shape[1])]
    )  # or the colours would depend on the library
    components = (left * signs).T[:3] @ flat
    components = np.pad(components, ((0, 3 - len(components)), (0, 0)))
    spread = np.abs(components).max(1, keepdims=True) + 1e-12
    scaled = (components / spread + 1) * 127.5
    return scaled.T.reshape(height, width, 3).astype(np.uint8)


def enlarge(pixels: Pixels) -> Image.Image:
    """A picture of at least 256 px on its longer side, every pixel a square."""
    image = Image.fromarray(pixels)
    factor = max(1, _PICTURE_PX // max(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
