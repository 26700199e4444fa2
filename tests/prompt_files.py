"""Prompt files for tests of evaluation."""

from __future__ import annotations

import json
from pathlib import Path


def write_prompts(path: Path, count: int, *, translation: bool) -> None:
    """`count` prompts in English and Chinese, whose images are to be bright."""
    lines = []
    for number in range(count):
        captions = {"en": "a cat", "zh": "一只猫"} | ({"translation_zh": "one animal cat"} if translation else {})
        lines.append(json.dumps({"id": f"p{number}", "captions": captions, "attributes": {"light": "bright"}}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
