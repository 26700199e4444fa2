"""Versions: Python's, ours, and those of the libraries that we need."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement

from pea.config import Config
from stages.diagnosis.finding import Finding

OURS = "pea-cache"
SHOWN = (
    *("torch", "diffusers", "transformers", "accelerate", "zarr", "tensorstore", "obstore", "ray", "numpy"),
    *("safetensors", "peft"),
)
_LORA_METHODS = ("lora", "kv")


def look_at_libraries(config: Config | None) -> Iterator[Finding]:
    """One line with all versions, and one for each that does not fit."""
    named = [("python", platform.python_version()), (OURS, version(OURS) or "not installed")]
    named += [(name, version(name) or "not installed") for name in SHOWN]
    yield Finding("versions", "ok", ", ".join(f"{name} {number}" for name, number in named))
    yield Finding("system", "ok", f"{platform.system()} {platform.release()}, {platform.machine()}")
    wrong = list(_unfitting())
    if wrong:
        remedy = "Install what is asked for: `make install`, or `pip install -e .`, in the source."
        yield Finding("libraries", "problem", "; ".join(wrong), remedy)
    if config is not None and config.train.method in _LORA_METHODS and not version("peft"):
        yield Finding("peft", "problem", f"train.method={config.train.method} needs it", "pip install peft")
    if not __debug__:
        yield Finding("python", "warning", "started with -O or PYTHONOPTIMIZE: checks of our own are off", "Unset it.")


def version(name: str) -> str | None:
    """The installed version of a distribution."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _unfitting() -> Iterator[str]:
    """Requirements of our own distribution that are not met; without it, the libraries that are not there."""
    try:
        requirements = [Requirement(text) for text in metadata.requires(OURS) or ()]
    except metadata.PackageNotFoundError:
        requirements = [Requirement(name) for name in SHOWN if name != "peft"]
    for each in requirements:
        if each.marker is not None and not each.marker.evaluate({"extra": ""}):
            continue
        installed = version(each.name)
        if installed is None:
            yield f"{each.name} is not installed"
        elif not each.specifier.contains(installed, prereleases=True):
            yield f"{each.name} {installed} is not {each.specifier}"
