"""What is kept of the teacher, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from pea.config.device import DeviceName
from pea.config.section import FloatDtype, Fraction, Section, StoredValues


class ExactSketch(Section):
    """Keep every value: the reference."""

    kind: Literal["exact"]
    """Selects this kind."""
    dtype: FloatDtype = "float16"
    """Type of the stored values."""


class QuantizedSketch(Section):
    """Keep every value in few bits, with a scale per record and channel and unbiased rounding."""

    kind: Literal["quantized"]
    """Selects this kind."""
    values: Literal["int8", "fp8_e4m3", "int4"] = "int8"
    """How a value is stored."""


class PositionsSketch(Section):
    """Keep all channels at a random subset of the spatial positions."""

    kind: Literal["positions"]
    """Selects this kind."""
    fraction: Annotated[float, Field(gt=0.0, le=1.0)] = 0.0625
    """Share of the positions that is kept; at least one is."""
    values: StoredValues = "float16"
    """How a value is stored."""


class CountSketch(Section):
    """Keep signed sums over random groups of values (a count sketch)."""

    kind: Literal["count"]
    """Selects this kind."""
    ratio: Annotated[float, Field(ge=1.0)] = 16.0
    """Values of the feature map per stored sum."""
    values: StoredValues = "float16"
    """How a sum is stored."""


class FoldSketch(Section):
    """Keep signed sums, as ``count`` does, at a fraction of its cost: values a fixed distance apart are added up."""

    kind: Literal["fold"]
    """Selects this kind."""
    ratio: Annotated[float, Field(ge=1.0)] = 16.0
    """Values of the feature map per stored sum."""
    values: StoredValues = "float16"
    """How a sum is stored."""


SketchConfig = Annotated[
    ExactSketch | QuantizedSketch | PositionsSketch | CountSketch | FoldSketch, Field(discriminator="kind")
]


class AttentionConfig(Section):
    """Random cross-attention queries of the teacher, kept for training the adapter without a UNet pass."""

    layers: Literal["all"] | tuple[str, ...] = "all"
    """Module paths of the cross-attention layers whose queries are kept."""
    num_queries: PositiveInt = 16
    """Spatial positions whose query is kept, per layer and record."""
    layers_per_record: PositiveInt | None = None
    """Layers, drawn at random for every record, whose queries it keeps; null keeps those of all ``layers``."""
    dtype: Literal["int8", "float16", "float32"] = "float16"
    """Type of the stored queries and English text states; with ``int8``, which has a scale for every query, the text
    states are float16."""


class CacheRunConfig(Section):
    """How the cache is filled. Run options: never identity."""

    num_actors: PositiveInt = 1
    """Ray actors, each with its own teacher."""
    batch_size: PositiveInt = 32
    """Records in one pass of the teacher."""
    device: DeviceName = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:<index>``."""
    num_cpus_per_actor: NonNegativeFloat = 1.0
    """CPUs that Ray reserves per actor."""
    num_gpus_per_actor: NonNegativeFloat = 0.0
    """GPUs that Ray reserves per actor."""
    compile: bool = False
    """Compile the teacher's UNet with ``torch.compile`` before its first pass: minutes at the start of every actor, and
    values that may differ in their last bits from uncompiled ones. Needs a C++ compiler, on a GPU also triton."""
    max_tries: PositiveInt = 3
    """Tries per tar before it is reported as failed."""
    ray_address: str | None = None
    """Address of a running Ray cluster; null starts a local one (or joins the one ``RAY_ADDRESS`` names)."""


class CacheConfig(Section):
    """What is kept of the teacher."""

    seed: NonNegativeInt = 0
    """Seed of every draw and of every sketch."""
    draws_per_sample: PositiveInt = 4
    """Draws (timestep, noise, caption drop) per sample of the parallel corpus."""
    caption_drop_rate: Fraction = 0.1
    """Probability that a draw replaces the caption by the empty one."""
    caption_drop: Literal["all", "hidden_states"] = "all"
    """What a dropped caption takes along: all of the text, or the hidden states alone, so that the pooled embedding
    (SDXL) keeps the caption, as in the original code."""
    noise_offset: NonNegativeFloat = 0.0
    """Every channel's noise is shifted as a whole by this many standard normal units (offset noise)."""
    blocks: Literal["all"] | tuple[str, ...] = "all"
    """Module paths of the UNet blocks whose output is kept; ``all``: each down, mid and up block."""
    sketch: SketchConfig = CountSketch(kind="count")
    """How a block's feature map is kept."""
    block_sketches: dict[str, SketchConfig] = Field(default_factory=dict)
    """Block -> sketch, where it differs from ``sketch``."""
    noise_pred_dtype: FloatDtype = "float16"
    """Stored type of the teacher's noise prediction where it is kept whole."""
    noise_pred_sketch: SketchConfig | None = None
    """How the noise prediction is kept instead; null keeps it whole."""
    moments_dtype: Literal["float32", "float16"] = "float32"
    """Stored type of the VAE's mean and standard deviation."""
    buckets: tuple[tuple[PositiveInt, PositiveInt], ...] = Field(default=((512, 512),), min_length=1)
    """Image sizes ``[height_px, width_px]``; each image goes to the one of nearest aspect ratio."""
    crop: Literal["centre", "random"] = "centre"
    """What of an image that is wider or higher than its bucket is kept; ``random``: a place drawn once for the sample,
    as the original draws one for SDXL at every look."""
    max_aspect_ratio: Annotated[float, Field(ge=1.0)] = 4.0
    """Images whose longer side is more than this many times the shorter one are dropped."""
    max_image_pixels: PositiveInt = 67_108_864
    """Images with more pixels than this are dropped before they are decoded."""
    max_file_bytes: PositiveInt = 134_217_728
    """Image files of more bytes than this are dropped before they are read."""
    max_dropped_fraction: Fraction = 0.01
    """A run that drops a larger share of the samples fails."""
    attention: AttentionConfig | None = None
    """Cross-attention queries to keep as well; null keeps none."""
    run: CacheRunConfig = CacheRunConfig()
    """How the cache is filled."""

    def sketch_for(self, block: str) -> ExactSketch | QuantizedSketch | PositionsSketch | CountSketch | FoldSketch:
        """The sketch of one block."""
        return self.block_sketches.get(block, self.sketch)
