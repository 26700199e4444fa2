"""Which extra of the installation brings a package that a command lacks. Imports nothing that takes time."""

from __future__ import annotations

EXTRAS = {
    "accelerate": "train",
    "braceexpand": "cache",
    "gradio": "app",
    "jinja2": "cache",
    "matplotlib": "train",
    "msgpack": "import",
    "numcodecs": "cache",
    "obstore": "cache",
    "peft": "lora",
    "pyarrow": "cache",
    "ray": "cache",
    "tensorstore": "cache",
    "zarr": "cache",
}
"""Module -> the extra of `pyproject.toml` that installs it."""
_NOT_IN_ALL = ("gradio",)


def remedy_for(module: str | None) -> str | None:
    """What to install where `module` cannot be imported; None where no extra brings it."""
    name = (module or "").split(".")[0]
    if name not in EXTRAS:
        return None
    everything = "" if name in _NOT_IN_ALL else ", or [all] everything"
    return f"{name} is not installed. pip install 'pea-cache[{EXTRAS[name]}]' brings it{everything}."
