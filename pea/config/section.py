"""What every section of the configuration is, and types that several use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt

FloatDtype = Literal["float32", "float16", "bfloat16"]
StoredValues = Literal["float32", "float16", "bfloat16", "int8", "fp8_e4m3", "int4"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


def _rising(timesteps: tuple[int, int]) -> tuple[int, int]:
    if timesteps[0] >= timesteps[1]:
        raise ValueError("the first timestep has to be below the second")
    return timesteps


Timesteps = Annotated[tuple[NonNegativeInt, NonNegativeInt], AfterValidator(_rising)]
"""``[first, end]``: the timesteps ``first <= t < end``."""


class Section(BaseModel):
    """A part of the configuration: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
