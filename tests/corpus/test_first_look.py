"""A look at the first samples: what is looked up, what is there, and the mapping that would fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pea.corpus.caption_fields import proposed_mapping
from pea.corpus.first_look import MOST_SAMPLES, FirstLook, first_look
from pea.corpus.rules import ReadingRules
from pea.corpus.samples import expand_tars
from tests.corpus.tar_files import ALL, GOOD, write_tar

RULES = ReadingRules()


def look(folder: Path, **documents: list[dict[str, Any]]) -> FirstLook:
    """Tar -> jsons of its samples."""
    for name, records in documents.items():
        files = []
        for number, record in enumerate(records):
            files += [(f"k{number:04d}.png", GOOD["png"]), (f"k{number:04d}.json", json.dumps(record).encode())]
        write_tar(folder / f"{name}.tar", files)
    return first_look(expand_tars([str(folder / "*.tar")]), ALL, ("en",), RULES)


def test_a_hundred_samples_of_the_first_tars(tmp_path: Path) -> None:
    good = {"captions": {"en": "a cat", "zh": "一只猫"}}
    found = look(tmp_path, a=[good] * 150, b=[{"caption": "x"}] * 30)
    assert found.num_kept + found.num_dropped <= MOST_SAMPLES and found.num_kept == 50
    assert found.reasons == {"caption_missing": 30} and found.dropped_share == pytest.approx(30 / 80)
    assert found.languages == {"en": found.num_kept, "zh": found.num_kept}
    assert found.texts["captions.zh"][0] == "一只猫" and found.texts["caption"] == ["x"] * 30


def test_what_is_damaged_is_left_to_who_reads_it_whole(tmp_path: Path) -> None:
    look(tmp_path, a=[{"captions": {"en": "a cat"}}] * 20)
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.tar").write_bytes(b"no tar at all")
    found = first_look(expand_tars([str(tmp_path / "*.tar")]), ALL, ("en",), RULES)
    assert 0 < found.num_kept < 20 and not found.num_dropped


@pytest.mark.parametrize(
    ("texts", "languages", "mapping"),
    [
        ({"caption": ["a cat"], "url": ["http://x"]}, ("en", "zh"), {"en": "caption"}),
        ({"TEXT": ["a cat"], "caption_zh": ["猫"]}, ("en", "zh"), {"en": "TEXT", "zh": "caption_zh"}),
        ({"text": ["一只猫"], "caption": ["a cat", "b"]}, ("en", "zh"), {"en": "caption", "zh": "text"}),
        ({"captions.en-US": ["a"], "captions.pt_BR": ["b"]}, ("en",), {"en": "captions.en-US", "pt": "captions.pt_BR"}),
        ({"caption": ["a cat"], "text_zh": ["猫"]}, ("zh",), {"zh": "text_zh", "en": "caption"}),
        ({"prompt": ["ねこ が 猫"]}, ("en",), {"ja": "prompt"}),
        ({"sha256": ["ab"], "status": ["success"], "key": ["0001"]}, ("en",), {}),
        ({"id": ["a1"], "en": ["a"]}, ("en", "zh"), {"en": "en"}),
        ({"id": ["kucing"], "en": ["a"]}, ("en", "id"), {"en": "en", "id": "id"}),
    ],
)
def test_mappings(texts: dict[str, list[str]], languages: tuple[str, ...], mapping: dict[str, str]) -> None:
    assert proposed_mapping(texts, languages) == mapping
