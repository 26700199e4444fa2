"""The original classes of published encoders, where their packages are installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import MagicMock

import pytest

_ABOUT_IMAGES = (
    "torchvision", "torchvision.transforms", "torchvision.transforms.functional", "torchvision.ops",
    "torchvision.ops.misc", "timm", "lmdb", "youtokentome",
)  # fmt: skip


def original(name: str) -> Any:
    """Import a module of an original package without what it needs for images alone; skip where it is not there."""
    if importlib.util.find_spec(name.split(".")[0]) is None:
        pytest.skip(f"{name.split('.')[0]} is not installed")
    import huggingface_hub
    import transformers  # noqa: F401 - it looks for torchvision when it is first imported

    with _stand_ins():
        absent = not hasattr(huggingface_hub, "cached_download")
        if absent:  # ruclip asks for a function of former versions
            huggingface_hub.cached_download = None
        try:
            return importlib.import_module(name)
        finally:
            if absent:
                del huggingface_hub.cached_download


@contextmanager
def _stand_ins() -> Iterator[None]:
    added = [name for name in _ABOUT_IMAGES if name not in sys.modules]
    sys.modules |= {name: MagicMock() for name in added}
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]
