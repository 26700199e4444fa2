"""Models without data: their modules and the shapes of their tensors, from a configuration alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pea.errors import CheckpointError

_SHOWN = 200
"""Characters of what a library says of a configuration that it cannot use."""


@contextmanager
def on_meta(name: str) -> Iterator[None]:
    """Make a model on the meta device from what its file says. ``name``: what an error calls it.

    Raises:
        CheckpointError: the configuration describes none.
    """
    try:
        with torch.device("meta"):
            yield
    except Exception as error:  # of many kinds: what the file says is put to constructors unchecked
        raise describes_none(name, name, error) from error


def describes_none(name: str, what: str, error: Exception) -> CheckpointError:
    """The error of a configuration that describes no such thing, in the library's own words."""
    got = str(error)[:_SHOWN] or type(error).__name__
    return CheckpointError(f"the {name}'s config.json describes no {what}", got=got)
