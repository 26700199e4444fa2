"""What a shard's arrays are called, how they are typed and cut, and how text becomes arrays.

A shard part is a zarr v3 group with one group per bucket. *Sample-level* arrays have one row per sample,
*record-level* arrays one per record, in (sample, draw) order. Text is kept as UTF-8 bytes with offsets, so
that every zarr reader understands it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:  # a look at a summary does without
    import numpy as np
    import numpy.typing as npt

FORMAT_VERSION = 1
KEYS = "keys"
CAPTIONS = "captions"
FEATURES = "features"
NOISE_PRED = "noise_pred"
NOISE_ERRORS = "noise_errors"
QUERIES = "queries"
QUERY_SCALES = "query_scales"
QUERY_LAYERS = "query_layers"
TEXT_STATES = "text/encoder_hidden_states"
TEXT_POOLED = "text/pooled_prompt_embeds"
NOISY_LATENTS = "noisy_latents"
_OF_QUERIES = (QUERIES, QUERY_SCALES, QUERY_LAYERS, TEXT_STATES.partition("/")[0])
TIMESTEPS_PER_BIN = 50
"""Width of the bins in which a completion record counts timesteps."""
_CHUNK_BYTES = 512 << 10
_FILE_BYTES = 32 << 20
_MAX_CHUNK_ROWS = 1024
_MAX_FILE_ROWS = 65_536
_TEXT_BYTES = 16 << 20
_BYTES_PER_TEXT = 64 << 10

Level = Literal["sample", "record"]


class Layout(Protocol):
    """What ``pea.sketch.ArrayLayout`` offers."""

    @property
    def dtype(self) -> str:
        """The name in numpy."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Without the record dimension."""

    @property
    def dimension_names(self) -> tuple[str, ...]:
        """One per dimension of ``shape``."""

    @property
    def attributes(self) -> Mapping[str, Any]:
        """More to store beside the array."""


@dataclass(frozen=True)
class ArraySpec:
    """One array of a bucket's group."""

    name: str
    """Path inside the group."""
    level: Level
    """What a row is."""
    dtype: str
    """The name in numpy."""
    shape: tuple[int, ...]
    """Of one row."""
    dimension_names: tuple[str, ...]
    """One per dimension of ``shape``."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Meaning, units, source: stored as zarr attributes."""

    @property
    def row_bytes(self) -> int:
        """Uncompressed size of one row."""
        import numpy as np

        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def rows_per_chunk(self) -> int:
        """Rows that are compressed, checksummed and read together."""
        return max(1, min(_MAX_CHUNK_ROWS, _CHUNK_BYTES // self.row_bytes))

    @property
    def rows_per_file(self) -> int:
        """Rows per file; a multiple of ``rows_per_chunk``."""
        chunk = self.rows_per_chunk
        rows = max(chunk, min(_MAX_FILE_ROWS, _FILE_BYTES // self.row_bytes))
        return rows // chunk * chunk


@dataclass(frozen=True)
class ShardSchema:
    """What one part of one shard holds."""

    draws_per_sample: int
    """K of this part; 0 without records."""
    languages: tuple[str, ...]
    """Languages that get a caption column even if no sample has one; others are added as they come."""
    buckets: Mapping[str, tuple[ArraySpec, ...]]
    """Bucket name -> its arrays."""
    draw_start: int = 0
    """First draw of this part."""


BucketSchema = tuple[ArraySpec, ...]


def base_arrays(
    latent_shape: Sequence[int],
    moments_dtype: str,
    noise_pred_dtype: str | None,
    noise_pred: Mapping[str, Layout] | None = None,
    noise_pred_attributes: Mapping[str, Any] | None = None,
) -> tuple[ArraySpec, ...]:
    """The arrays that every shard has. ``noise_pred_dtype`` None: no teacher, and thus no records.

    ``noise_pred``: the arrays of its sketch, with the sketch's configuration as attributes; None keeps it whole.
    """
    latent, names = tuple(latent_shape), ("latent_channel", "latent_height", "latent_width")
    vae = {"source": "vae", "units": "unscaled latent"}
    arrays = [
        ArraySpec("latents_mean", "sample", moments_dtype, latent, names, {**vae, "meaning": "posterior mean"}),
        ArraySpec(
            "latents_std",
            "sample",
            moments_dtype,
            latent,
            names,
            {**vae, "meaning": "posterior standard deviation"},
        ),
        ArraySpec(
            "time_ids",
            "sample",
            "int64",
            (6,),
            ("time_id",),
            {
                "units": "px",
                "source": "image",
                "meaning": "original height and width, crop top and left, target height and width",
            },
        ),
    ]
    if noise_pred_dtype is None:
        return tuple(arrays)
    draw = {"source": "draws"}
    stored, bits = ("uint16", {"bits": "bfloat16"}) if noise_pred_dtype == "bfloat16" else (noise_pred_dtype, {})
    return (
        *arrays,
        ArraySpec("timestep", "record", "int64", (), (), {**draw, "units": "training timestep"}),
        ArraySpec("caption_dropped", "record", "bool", (), (), {**draw, "meaning": "the empty caption was used"}),
        ArraySpec("noise_checksum", "record", "uint32", (), (), {**draw, "meaning": "CRC-32 of the float32 noise"}),
        ArraySpec(
            "record_id",
            "record",
            "uint64",
            (),
            (),
            {**draw, "meaning": "keys its sketches"},
        ),
        *(
            [ArraySpec(NOISE_PRED, "record", stored, latent, names, {"source": "unet", **bits})]
            if noise_pred is None
            else _sketch_arrays(NOISE_PRED, noise_pred, {"source": "unet", "sketch": dict(noise_pred_attributes or {})})
        ),
    )


def noise_errors_array() -> ArraySpec:
    """How far off the teacher's noise prediction is, with the record's text and with the empty one."""
    meaning = "mean square error of the noise prediction: with the record's text, with the empty one"
    return ArraySpec(NOISE_ERRORS, "record", "float32", (2,), ("text",), {"source": "unet", "meaning": meaning})


def feature_arrays(block: str, layouts: Mapping[str, Layout], attributes: Mapping[str, Any]) -> tuple[ArraySpec, ...]:
    """The arrays ``features/<block>/<suffix>`` of one block's sketch; ``attributes``: its configuration."""
    meaning = {"source": "unet", "block": block, "sketch": dict(attributes)}
    return tuple(_sketch_arrays(f"{FEATURES}/{block}", layouts, meaning))


def _sketch_arrays(path: str, layouts: Mapping[str, Layout], meaning: Mapping[str, Any]) -> list[ArraySpec]:
    return [
        ArraySpec(
            f"{path}/{suffix}", "record", each.dtype, each.shape, each.dimension_names, {**meaning, **each.attributes}
        )
        for suffix, each in layouts.items()
    ]


def trajectory_array(latent_shape: Sequence[int], dtype: str) -> ArraySpec:
    """Where each record keeps the latents that the teacher was asked about, in the UNet's scale."""
    names = ("latent_channel", "latent_height", "latent_width")
    meaning = {"source": "unet", "units": "scaled latent", "meaning": "state of the teacher's own denoising"}
    return ArraySpec(NOISY_LATENTS, "record", dtype, tuple(latent_shape), names, meaning)


def gains_by_compression(dtype: np.dtype[Any], row_shape: Sequence[int]) -> bool:
    """Whether an array is compressed: numbers of 8 bytes, truth values, and rows of a single value."""
    return dtype.kind == "b" or dtype.itemsize == 8 or not row_shape


def block_of(name: str) -> str | None:
    """The block of a feature array's name, or None: ``features/mid_block/values`` -> ``mid_block``."""
    parts = name.split("/")
    return parts[1] if parts[0] == FEATURES and len(parts) == 3 else None


def is_of_queries(name: str) -> bool:
    """Whether an array is there for attention distillation alone: queries, and the English text states beside them."""
    return name.partition("/")[0] in _OF_QUERIES


def encode_texts(texts: Iterable[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Texts -> (bytes uint8 [total], offsets int64 [n + 1]); text i is bytes[offsets[i]:offsets[i+1]]."""
    import numpy as np

    encoded = [text.encode("utf-8") for text in texts]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(each) for each in encoded], out=offsets[1:])
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), offsets


def decode_texts(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> list[str]:
    """The texts of ``encode_texts``.

    Raises:
        ValueError: offsets do not cut the bytes, or they are no UTF-8.
    """
    whole, ends = data.tobytes(), offsets.tolist()
    if ends[0] != 0 or ends[-1] != len(whole) or any(start > end for start, end in pairwise(ends)):
        raise ValueError("offsets that do not cut the bytes")
    return [whole[start:end].decode("utf-8") for start, end in pairwise(ends)]


def most_text_bytes(num_texts: int) -> int:
    """What a column of texts may take: it is read as a whole, and its file does not tell how large it becomes."""
    return _TEXT_BYTES + num_texts * _BYTES_PER_TEXT
