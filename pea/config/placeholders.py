"""Placeholders in paths: ``{run_dir}/corpora/*.tar`` follows the run's folder wherever that is put.

A placeholder is one word in braces. Other braces (``{00000..00099}``, ``{a,b}``) are left as they are.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, PlainSerializer, ValidationInfo, WithJsonSchema, WrapValidator
from pydantic_core import PydanticCustomError

from pea.errors import LocationError
from pea.storage import Location

_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")


def fill_placeholders(text: str, values: Mapping[str, str]) -> str:
    """`text` with the value of each placeholder in its place; nothing in a value is replaced again.

    Raises:
        ValueError: a placeholder is none of `values`.
    """
    unknown = [f"{{{name}}}" for name in dict.fromkeys(_PLACEHOLDER.findall(text)) if name not in values]
    if unknown:
        known = " and ".join(f"{{{name}}}" for name in values)
        raise ValueError(f"unknown placeholder {', '.join(unknown)}: only {known} can stand here")
    return _PLACEHOLDER.sub(lambda match: values[match[1]], text)


def run_dir_context(run_dir: object) -> dict[str, str]:
    """The validation context in which `SetupPath` and `TarPattern` are filled in; empty if that is no folder."""
    try:
        return {"run_dir": str(_path_or_url(run_dir))} if isinstance(run_dir, str) else {}
    except PydanticCustomError:
        return {}


def _path_or_url(value: Any) -> Path | Location:
    """A path, or the location that a URL names. ``Path`` would make the local folder ``s3:`` of a URL."""
    try:
        place = Location.parse(value)
    except LocationError as error:
        raise PydanticCustomError("location", "{message}", {"message": str(error)}) from None
    return place.local_path if place.is_local else place


def _fill_path(value: Any, validate: Any, info: ValidationInfo) -> Any:
    """In place of pydantic's own reading of a path, which knows no URLs; of what is no text, it says what is wrong."""
    if not isinstance(value, str | Path | Location):
        return validate(value)
    return _path_or_url(fill_placeholders(str(value), {"run_dir": _run_dir_in(info)}))


def _run_dir(value: Any, validate: Any) -> Any:
    if not isinstance(value, str | Path | Location):
        return validate(value)
    if set("{}") & set(str(value)):
        raise ValueError("other paths may begin with it, so it cannot hold braces")
    return _path_or_url(value)


def _run_dir_in(info: ValidationInfo) -> str:
    return str((info.context or {}).get("run_dir", "{run_dir}"))


def _fill_pattern(pattern: str, info: ValidationInfo) -> str:
    return fill_placeholders(pattern, {"run_dir": glob.escape(_run_dir_in(info))})


_AS_TEXT = (PlainSerializer(str, return_type=str), WithJsonSchema({"type": "string", "format": "path"}))
SetupPath = Annotated[Path, WrapValidator(_fill_path), *_AS_TEXT]
"""A path in which ``{run_dir}`` stands for the run's folder; where a URL stands, it is a ``Location`` until the command
that needs it has fetched it (``pea.config.inputs``)."""
TarPattern = Annotated[str, AfterValidator(_fill_pattern)]
"""A glob pattern in which ``{run_dir}`` stands for the run's folder, whatever that is called."""
RunDir = Annotated[Path, WrapValidator(_run_dir), *_AS_TEXT]
"""The run's folder itself; of a URL a ``Location``, until a command works on a copy of it."""
