"""`metrics.json`: scores, each with what it was measured with, so that no two of different settings are compared."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pea.evaluation.prompts import Prompt
from pea.storage.digests import canonical_json, sha256_file, sha256_text
from pea.storage.durable import write_text

PROMPT_SCORES = "scores.jsonl"
"""Beside the images of a row and prompt set: what each prompt scored."""
Settings = dict[str, Any]
"""What a score depends on: row, prompt set, prompts' digest and number, seed, steps, guidance, weights' digests."""


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """SHA-256 of prompts: ids, captions and attributes, in order."""
    return sha256_text(canonical_json([[each.id, each.captions, each.attributes] for each in prompts]))


def weights_digest(folder: Path, pattern: str) -> str:
    """SHA-256 of the files right below a folder by name; a folder without any has the digest of nothing."""
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    return sha256_text(canonical_json({path.name: sha256_file(path) for path in files}))


def adapter_digest(folder: Path) -> str:
    """What `Settings` have under ``adapter``: of an adapter's weights, and of its changes of the UNet."""
    return weights_digest(folder, "*.safetensors")


def is_of(settings: Settings, adapter: str, prompts: Mapping[str, str] | None = None) -> bool:
    """Whether something was drawn with this adapter and these prompts; what is not recorded says nothing against it.

    Args:
        settings: of a score or a drawing.
        adapter: digest of the adapter.
        prompts: prompt set -> digest of its prompts.
    """
    wanted = (prompts or {}).get(str(settings.get("prompt_set")))
    return settings.get("adapter", adapter) == adapter and wanted in (None, settings.get("prompts", wanted))


class ScoreRecord:
    """The scores and drawings of a run folder, and what other stages noted of sizes and times."""

    def __init__(self, path: Path) -> None:
        """`path`: of the file; one that is missing or unreadable holds nothing."""
        self.path = path
        try:
            content = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            content = {}
        self.content: dict[str, Any] = content if isinstance(content, dict) else {}

    @property
    def details(self) -> dict[str, dict[str, Any]]:
        """Name of a score -> its mean, attributes, concepts and settings."""
        return _table(self.content, "details")

    @property
    def drawings(self) -> dict[str, Settings]:
        """`row/prompt set` -> what its images were drawn with."""
        return _table(self.content, "drawings")

    def forget_others(self, holds: Callable[[Settings], bool]) -> dict[str, Settings]:
        """Drop each score and drawing whose settings no longer hold; returns the dropped scores' settings by name."""
        details, drawings = self.details, self.drawings
        gone = {name: _table(detail, "settings") for name, detail in details.items()}
        gone = {name: settings for name, settings in gone.items() if not holds(settings)}
        kept = {name: detail for name, detail in details.items() if name not in gone}
        self.content = {name: value for name, value in self.content.items() if not _is_score(name) or name in kept}
        self.content |= {"details": kept, "drawings": {name: each for name, each in drawings.items() if holds(each)}}
        return gone

    def add(self, values: Mapping[str, Any]) -> None:
        """Take in scores and other figures; `details` and `drawings` are added one by one."""
        for name, value in values.items():
            if name in ("details", "drawings"):
                self.content[name] = _table(self.content, name) | value
            else:
                self.content[name] = value

    def write(self) -> None:
        """Replace the file."""
        write_text(self.path, json.dumps(self.content, indent=2, ensure_ascii=False) + "\n")


def differences(former: Settings, present: Settings) -> list[str]:
    """`name former -> present` of each setting that differs; digests are cut short."""
    names = sorted(former.keys() | present.keys())
    return [
        f"{name} {_short(former.get(name))} -> {_short(present.get(name))}"
        for name in names
        if former.get(name) != present.get(name)
    ]


def _short(value: Any) -> str:
    return f"{value[:8]}..." if isinstance(value, str) and len(value) == 64 else str(value)


def _is_score(name: str) -> bool:
    """Whether a key of the file is a score: figures of other stages are `cache.*` and `seconds.*`."""
    return name not in ("details", "drawings") and name.split(".")[0] not in ("cache", "seconds")


def _table(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    found = content.get(name)
    return dict(found) if isinstance(found, dict) else {}
