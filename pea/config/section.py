"""What every section of the configuration is, and types that several use."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

FloatDtype = Literal["float32", "float16", "bfloat16"]
StoredValues = Literal["float32", "float16", "bfloat16", "int8", "fp8_e4m3", "int4"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A part of the configuration: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
