"""Captions beside a corpus, by tar and key."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pea.cache import Cache
from pea.corpus.caption_tables import CaptionTables
from pea.errors import CacheError, CorpusError
from tests.cache_helpers import CacheMaker, identity


def _table(folder: Path, tar: str, *rows: dict[str, object]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{tar}.jsonl").write_text("".join(json.dumps({"tar": tar, **row}) + "\n" for row in rows), "utf-8")
    return folder


def test_a_cache_gains_a_language_and_keeps_what_it_has(make_cache: CacheMaker, tmp_path: Path) -> None:
    cache = make_cache.fill(identity())
    folder = _table(
        tmp_path / "more",
        "a",
        {"key": "a-24x32-0", "captions": {"de": "null", "en": "not this"}},
        {"key": "a-24x32-1", "captions": {"zh": "新", "de": None}},
        {"key": "of nobody", "captions": {"de": "x"}},
    )
    read = cache.with_captions(CaptionTables([str(folder)], without=("en",)))
    first, second = (shard.buckets["24x32"] for shard in read.shards)
    assert first.languages == ["de", "en", "zh"]
    assert first.captions("de") == ["null", "", "", ""]
    assert first.captions("zh") == ["", "新", "", ""]
    assert first.captions("en") == [f"caption a-24x32-{number}" for number in range(4)]
    assert (second.languages, second.captions("de")) == (["en", "zh"], [""] * 4)
    assert Cache.open(cache.directory).shards[0].buckets["24x32"].languages == ["en", "zh"]


def test_tables_that_are_not_of_this_cache_are_refused(make_cache: CacheMaker, tmp_path: Path) -> None:
    cache = make_cache.fill(identity())
    for tar, key in (("c", "a-24x32-0"), ("a", "another key")):
        folder = _table(tmp_path / f"of {tar}", tar, {"key": key, "captions": {"de": "x"}})
        with pytest.raises(
            CacheError, match=r"no caption of these tables is of a sample.*called as its tars are: a, b"
        ):
            cache.with_captions(CaptionTables([folder]))


def test_the_last_folder_counts_and_kinds_can_be_mixed(tmp_path: Path) -> None:
    first = _table(tmp_path / "one", "t", {"key": "k", "captions": {"de": "eins", "fr": "un"}})
    second = tmp_path / "two"
    second.mkdir()
    rows = {"tar": ["t", "t"], "key": ["k", "l"], "captions": [{"de": "zwei", "it": None}, {"de": None, "it": "due"}]}
    pq.write_table(pa.table(rows), second / "t.parquet")
    tables = CaptionTables([first, second])
    assert tables.of_tar("t") == {"k": {"de": "zwei", "fr": "un"}, "l": {"it": "due"}}
    assert tables.texts("t", "it", ["l", "k", "m"], ["", "alt", "neu"]) == ["due", "alt", "neu"]
    assert pickle.loads(pickle.dumps(tables)).of_tar("t") == tables.of_tar("t")
    assert tables.digest() != CaptionTables([first]).digest() != CaptionTables([first], without=["de"]).digest()


def test_what_is_no_caption_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"not a folder of caption tables.*pea data captions TABLE"):
        CaptionTables([tmp_path / "nowhere"])
    with pytest.raises(CorpusError, match="no caption table in the folder"):
        CaptionTables([tmp_path])
    for row in ({"captions": {}}, {"tar": "u", "key": "k"}):
        with pytest.raises(CorpusError, match="row of another tar, or of no sample"):
            CaptionTables([_table(tmp_path / "t", "t", row)]).of_tar("t")
    with pytest.raises(CorpusError, match=r"t\.jsonl:1: a caption that is none"):
        CaptionTables([_table(tmp_path / "t", "t", {"key": "k", "captions": {"de": 5}})]).of_tar("t")
