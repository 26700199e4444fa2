"""The ways in which prompts were drawn, as the report names and colours them."""

from __future__ import annotations

LABELS = {
    "teacher": "teacher, English caption",
    "translation": "teacher, word-for-word English",
    "no_adapter": "native encoder, untrained adapter",
    "adapter": "native encoder, trained adapter",
}
MEASURES = {
    "": "Share of the attributes named in a prompt that an independent judge reads off its image, mean over the "
    "attributes.",
    "clip": "CLIP score: the cosine between image and prompt, mean over the prompts.",
    "english_clip": "English CLIP score: the cosine between image and English caption, mean over the prompts.",
    "pick_score": "PickScore of image and English caption, mean over the prompts.",
    "hps_v2": "HPSv2 of image and English caption, mean over the prompts.",
    "image_reward": "ImageReward of image and English caption, mean over the prompts.",
    "aesthetic": "LAION's aesthetic score of the image, mean over the prompts.",
}
"""What is measured -> what that is."""
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
    found = next((name for name in MEASURES if name and rest.endswith(f".{name}")), "")
    prompt_set, measure = (rest.removesuffix(f".{found}"), found) if found else (rest, "")
    return row, prompt_set.removesuffix("_described"), measure
