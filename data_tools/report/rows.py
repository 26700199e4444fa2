"""The ways in which prompts were drawn, as the report names and colours them."""

from __future__ import annotations

LABELS = {
    "teacher": "teacher, English caption",
    "translation": "teacher, word-for-word English",
    "no_adapter": "native encoder, untrained adapter",
    "adapter": "native encoder, trained adapter",
}
COLUMNS = ("teacher", "translation", "adapter")
"""Rows whose images are shown side by side, where there are any."""


def label(row: str) -> str:
    """`adapter_ja` is the adapter with Japanese captions."""
    return LABELS.get(row) or f"{LABELS['adapter']}, {row.removeprefix('adapter_')}"


def style(row: str) -> str:
    """Class of the row's colour and mark."""
    return row if row in LABELS else "adapter"


def split_score(name: str) -> tuple[str, str, str]:
    """Row, prompt set and measure (`""` is the judge's accuracy) of a score's name in `metrics.json`."""
    row, rest = name.split(".", 1)
    prompt_set, measure = (rest.removesuffix(".clip"), "clip") if rest.endswith(".clip") else (rest, "")
    return row, prompt_set.removesuffix("_described"), measure
