"""Placeholders in paths: ``{run_dir}/corpora/*.tar`` follows the run's folder wherever that is put.

A placeholder is one word in braces. Other braces (``{00000..00099}``, ``{a,b}``) are left as they are.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

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
    return {"run_dir": str(Path(run_dir))} if isinstance(run_dir, str) else {}


def _run_dir_in(info: ValidationInfo) -> str:
    return str((info.context or {}).get("run_dir", "{run_dir}"))


def _fill_path(path: Path, info: ValidationInfo) -> Path:
    return Path(fill_placeholders(str(path), {"run_dir": _run_dir_in(info)}))


def _fill_pattern(pattern: str, info: ValidationInfo) -> str:
    return fill_placeholders(pattern, {"run_dir": glob.escape(_run_dir_in(info))})


def _without_braces(path: Path) -> Path:
    if set("{}") & set(str(path)):
        raise ValueError("other paths may begin with it, so it cannot hold braces")
    return path


SetupPath = Annotated[Path, AfterValidator(_fill_path)]
"""A path in which ``{run_dir}`` stands for the run's folder."""
TarPattern = Annotated[str, AfterValidator(_fill_pattern)]
"""A glob pattern in which ``{run_dir}`` stands for the run's folder, whatever that is called."""
RunDir = Annotated[Path, AfterValidator(_without_braces)]
"""The run's folder itself."""
