"""What a walk disturbs: a command on a folder, the state that it starts from, and what must come of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _nothing(folder: Any) -> None:
    """Nothing is done or asked."""


@dataclass(frozen=True)
class Scenario:
    """One command. It is run on copies of the prepared folder, so that nothing may depend on the folder's own path.

    Every function takes the folder: a path, or, in a walk over requests, a URL as text.
    """

    command: Callable[[Any], int]
    """Returns its exit code; run again on what a fault left, it must complete the work."""
    result: Callable[[Any], Any]
    """What must be the same as if nothing had happened, as JSON values; raises where it cannot be read."""
    prepare: Callable[[Any], object] = _nothing
    """Makes the state that the command starts from, in an empty folder."""
    between: Callable[[Any], object] = _nothing
    """Raises if the folder, as a fault left it, shows a reader something that is neither old nor new."""
    leftovers: Callable[[Any], list[str]] = lambda _: []
    """What must not be there after the command was run again; one text for each thing found."""


def find_scenario(name: str) -> Scenario:
    """The scenario called ``module:NAME``."""
    module, _, attribute = name.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    assert isinstance(found, Scenario), name
    return found
