"""Digests of captions beside tars, remembered for as long as the tables stay."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pea.corpus.caption_tables import CaptionTables
from stages.cluster.caption_facts import FILE_NAME, CaptionFacts


def test_a_table_is_read_once_and_again_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    path, read = folder / "t.jsonl", list[str]()
    real = CaptionTables.digest_of

    def counted(tables: CaptionTables, tar: str, language: str) -> str | None:
        read.append(f"{tar} {language}")
        return real(tables, tar, language)

    monkeypatch.setattr(CaptionTables, "digest_of", counted)

    def put(text: str, age_s: float) -> None:
        path.write_text(f'{{"key": "k", "captions": {{"en": "{text}"}}}}\n')
        os.utime(path, (time.time() - age_s,) * 2)

    def digests() -> list[str | None]:
        facts, tables = CaptionFacts(tmp_path), CaptionTables([folder])
        found = [facts.digest(tables, "t", language) for language in ("en", "de", "en")]
        facts.save()
        return found

    put("a cat", 60)
    first = digests()
    assert first[0] == first[2] is not None and first[1] is None and read == ["t en", "t de"]
    assert digests() == first and len(read) == 2
    put("a dog", 50)
    changed = digests()
    assert changed[0] != first[0] and len(read) == 4
    put("a cow", 0)
    young = digests()
    assert digests() == young != changed and len(read) == 8, "a table that has just changed is not trusted to stay"
    (tmp_path / FILE_NAME).write_text("[]")
    assert digests() == young
