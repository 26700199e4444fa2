"""A finding, and how it is shown without secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Level = Literal["ok", "note", "warning", "problem"]

_RELEVANT = re.compile(
    r"^(ACCELERATE|AWS|AZURE|CUDA|DIFFUSERS|GCP|GOOGLE|HF|HUGGING|KMP|LD|MASTER|MKL|NCCL|NVIDIA|OMP|OPENBLAS|PYTHON|PYTORCH|"
    r"RAY|SLURM|TORCH|TORCHINDUCTOR|TRANSFORMERS|TRITON|WORLD|XDG|http|https|no|HTTP|HTTPS|NO)_|^(TMPDIR|CXX|CC|RANK)$"
)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|SAS|AUTH|COOKIE|CONNECTION_STRING", re.IGNORECASE)
_IN_URL = re.compile(r"(?<=://)[^/\s@]+@")
_SHORTEST = 4
"""A value of fewer characters (``1``, ``yes``) says nothing, and stands in every text."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    topic: str
    level: Level
    """``problem``: something that is needed cannot be used. ``warning``: it can, but not well."""
    what: str
    remedy: str | None = None

    def line(self) -> str:
        """For a person."""
        what = self.what if self.remedy is None else f"{self.what.rstrip('.')}. {self.remedy}"
        return f"{self.topic}: {what}"


def relevant_names(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Names, never values, of the variables that libraries of ours go by."""
    return sorted(name for name, value in environment.items() if value and _RELEVANT.match(name))


def without_secrets(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """The text without what variables hold: secrets are blotted out, other values replaced by their names."""
    text = _IN_URL.sub("***@", text)
    values = {value: name for name, value in environment.items() if len(value) >= _SHORTEST}
    for value in sorted(values, key=len, reverse=True):
        name = values[value]
        if _SECRET.search(name) and not name.endswith("_MODE"):
            text = text.replace(value, "***")
        elif _RELEVANT.match(name) and not value.isalpha():  # `error` and `token` are words of every message
            text = text.replace(value, f"${name}")
    home = str(Path.home())
    return text.replace(home, "~") if len(home) >= _SHORTEST else text


def report(findings: list[Finding], environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Everything for a bug report, ready for JSON."""
    return {
        "usable": is_usable(findings),
        "findings": [
            {
                "topic": without_secrets(each.topic, environment),
                "level": each.level,
                "what": without_secrets(each.what, environment),
                "remedy": each.remedy and without_secrets(each.remedy, environment),
            }
            for each in findings
        ],
        "environment": relevant_names(environment),
    }


def is_usable(findings: list[Finding]) -> bool:
    """Whether nothing that is needed is out of order."""
    return all(each.level != "problem" for each in findings)
