"""A configuration whose models and tars need not be there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pea.config import Config


@pytest.fixture
def tiny_config(tmp_path: Path) -> Config:
    """Nothing that it names is there yet."""
    raw = {
        "run_dir": str(tmp_path / "run"),
        "teacher": {"checkpoint": str(tmp_path / "teacher")},
        "corpora": {"parallel": {"tars": [str(tmp_path / "*.tar")]}},
        "student": {"encoder": str(tmp_path / "zh")},
        "evaluate": {"prompts": {"general": str(tmp_path / "general.jsonl")}},
    }
    return Config.model_validate_json(json.dumps(raw))
