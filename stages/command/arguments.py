"""Arguments that several commands have. Imports nothing that takes time."""

from __future__ import annotations

import argparse
import math
from pathlib import Path


def add_config_option(
    parser: argparse.ArgumentParser, meaning: str = "the setup's YAML file", *, required: bool = True
) -> None:
    """``--config FILE [--config FILE ...]``."""
    parser.add_argument(
        "--config",
        type=local_path,
        action="append",
        required=required,
        metavar="FILE",
        help=f"{meaning}; settings of a second one replace those of the first",
    )


def local_path(text: str) -> Path:
    """A path on this machine, as the type of an argument; ``Path`` would make a local folder ``s3:`` of a URL."""
    from pea.errors import LocationError
    from pea.storage.urls import parse_url

    try:
        scheme, _, path = parse_url(text)
    except LocationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if scheme != "file":
        raise argparse.ArgumentTypeError(f"a URL cannot stand here, only a path on this machine: {text}")
    return Path(path)


def device_name(text: str) -> str:
    """``auto``, ``cpu``, ``cuda`` or ``cuda:INDEX``, as the type of an argument."""
    from pea.config.device import is_device_name

    if not is_device_name(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a device: auto, cpu, cuda or cuda:INDEX")
    return text


def at_least_one(text: str) -> int:
    """A whole number from 1 on, as the type of an argument."""
    return _at_least(1, text)


def at_least_zero(text: str) -> int:
    """A whole number from 0 on, as the type of an argument."""
    return _at_least(0, text)


def above_zero(text: str) -> float:
    """A finite number above 0, as the type of an argument."""
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def zero_or_above(text: str) -> float:
    """A finite number from 0 on, as the type of an argument."""
    value = _number(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 on")
    return value


def share_above_zero(text: str) -> float:
    """A number above 0 and up to 1, as the type of an argument."""
    value = above_zero(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share: a number above 0 and up to 1")
    return value


def share(text: str) -> float:
    """A number from 0 to 1, as the type of an argument."""
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")
    return value


def _number(text: str) -> float:
    """Not a number where the text is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _at_least(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
    return value
