"""Arguments that several commands have. Imports nothing that takes time."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_config_option(
    parser: argparse.ArgumentParser, meaning: str = "the setup's YAML file", *, required: bool = True
) -> None:
    """``--config FILE [--config FILE ...]``."""
    parser.add_argument(
        "--config",
        type=Path,
        action="append",
        required=required,
        metavar="FILE",
        help=f"{meaning}; settings of a second one replace those of the first",
    )
