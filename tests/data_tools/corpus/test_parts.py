"""Parts appear whole; a killed run goes on; other settings, or other sources, are refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from data_tools.corpus.parts import Format, PartFolder
from pea.corpus.tables import open_table
from pea.errors import ConfigError
from pea.storage.location import Location

ROWS = [{"tar": "a", "key": "1", "captions": {"zh": "猫"}}, {"tar": "a", "key": "2", "captions": {"ja": "犬"}}]


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_a_part_is_a_table(tmp_path: Path, form: Format) -> None:
    folder = PartFolder(Location.parse(tmp_path / "out"), {"command": "x"}, form)
    assert folder.finished("a", "source") is None
    folder.publish("a", "source", ROWS, Counter(samples=2))
    assert folder.finished("a", "source") == {"samples": 2}
    found = [
        (row.get("key"), row.get("captions.zh"), row.get("captions.ja")) for row in open_table(folder.part("a")).rows()
    ]
    assert found == [("1", "猫", None), ("2", None, "犬")]
    folder.publish("none", "source", [], Counter())
    assert folder.finished("none", "source") == {}


def test_a_part_without_its_counts_is_made_again(tmp_path: Path) -> None:
    folder = PartFolder(Location.parse(tmp_path / "out"), {})
    folder.publish("a", "source", ROWS, Counter())
    for wrong in ("{", "{}", '{"source": "source", "counts": 3}'):
        (tmp_path / "out" / "a.counts.json").write_text(wrong)
        assert folder.finished("a", "source") is None
    (tmp_path / "out" / "a.counts.json").unlink()
    assert folder.finished("a", "source") is None


def test_nothing_is_mixed(tmp_path: Path, bucket: Location) -> None:
    for place in (Location.parse(tmp_path / "out"), bucket / "out"):
        folder = PartFolder(place, {"command": "clean", "rules": ("a", "b")})
        assert PartFolder(place, {"command": "clean", "rules": ["a", "b"]}).settings == folder.settings
        assert len(folder.settings["begun"]) == 10
        other: dict[str, Any]
        for other in ({"command": "clean", "rules": ["a"]}, {"command": "clean"}, {"rules": ["a", "b"], "more": 1}):
            with pytest.raises(ConfigError, match="result of other settings"):
                PartFolder(place, other)
        folder.publish("a", "one, 5 bytes", ROWS, Counter(samples=2))
        with pytest.raises(ConfigError, match="made of something else"):
            folder.finished("a", "one, 6 bytes")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="not empty"):
        PartFolder(Location.parse(tmp_path / "full"), {})
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "settings.json").write_text("[")
    with pytest.raises(ConfigError, match="not readable"):
        PartFolder(Location.parse(tmp_path / "odd"), {})
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["format"] == "jsonl"
