"""Names of devices, as settings and options have them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import StringConstraints

_PATTERN = r"^(auto|cpu|cuda(:[0-9]{1,3})?)$"
DeviceName = Annotated[str, StringConstraints(pattern=_PATTERN)]
"""``auto``, ``cpu``, ``cuda`` or ``cuda:<index>``."""


def is_device_name(text: str) -> bool:
    """Whether a device can be called so; not whether it is there."""
    return re.fullmatch(_PATTERN, text) is not None
