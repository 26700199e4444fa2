"""The phases of a training run: what each of them trains on, and its own settings."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from pea.config.section import Fraction, Section, Timesteps

PhaseKind = Literal["text", "attention", "unet"]
PHASES_WITH_QUERIES: tuple[PhaseKind, ...] = ("text", "attention", "unet")
"""What a run consists of by default where the cache keeps queries."""
_WITHOUT_MEANING: dict[str, tuple[str, ...]] = {
    "text": (
        "text_weight",
        "attention_weight",
        "attention_queries",
        "culture_fraction",
        "timesteps",
        "culture_timesteps",
    ),
    "attention": ("attention_weight", "attention_queries", "culture_fraction", "culture_timesteps"),
    "unet": (),
}
"""Settings that a kind of phase does not have."""


class PhaseConfig(Section):
    """One phase, with an optimizer and a schedule of its own. What it leaves out is as in ``train``."""

    kind: PhaseKind
    """``text``: the distance between the student's and the English text states alone; ``attention``: how the frozen
    cross-attention layers answer the teacher's cached queries; ``unet``: passes of the UNet. Only the last phase may
    be a ``unet`` phase, and those before it never load the UNet."""
    steps: PositiveInt | None = None
    """Optimizer steps."""
    batch_size: PositiveInt | None = None
    """Records per step and process."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate."""
    schedule: Literal["constant", "cosine"] | None = None
    """Learning rate after the warmup."""
    warmup_steps: NonNegativeInt | None = None
    """Steps over which the learning rate rises linearly."""
    weight_decay: NonNegativeFloat | None = None
    """Weight decay of AdamW."""
    adam_beta2: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Decay per step of AdamW's mean square of the gradient."""
    culture_fraction: Fraction | None = None
    """Share of a ``unet`` phase's rows that comes from the culture corpus."""
    timesteps: Timesteps | None = None
    """Timesteps of the parallel records of an ``attention`` or ``unet`` phase, ``[first, end]``."""
    culture_timesteps: Timesteps | None = None
    """Timesteps of the culture rows of a ``unet`` phase, ``[first, end]``."""
    text_weight: NonNegativeFloat | None = None
    """Weight of the distance between the text states, beside the losses of an ``attention`` or ``unet`` phase."""
    attention_weight: NonNegativeFloat | None = None
    """Weight of the loss on queries, beside the losses of a ``unet`` phase."""
    attention_queries: Literal["cached", "student"] | None = None
    """Whose queries that loss asks: the teacher's, from the cache, or the student's own."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in _WITHOUT_MEANING[self.kind]:
            if getattr(self, name) is not None:
                raise ValueError(f"{name} has no meaning in a phase of kind {self.kind}")
        return self

    @property
    def given(self) -> dict[str, object]:
        """The settings that it does not leave out."""
        return self.model_dump(exclude={"kind"}, exclude_none=True)
