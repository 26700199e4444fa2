"""Nothing is lost between what goes in and what is counted, whatever comes: caption rows, and samples of tars."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_tools.corpus.caption_index import caption_index, matched
from data_tools.corpus.column_names import ColumnMapping
from data_tools.corpus.tar_items import tar_samples
from data_tools.corpus.tar_to_tar import rewrite_tar
from pea.corpus.places import Tar
from pea.corpus.tables import open_table
from pea.errors import CorpusError
from pea.storage.location import Location
from tests.corpus.tar_files import captions, encoded, picture, write_tar

ROWS = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"key": st.sampled_from(["a", "b", "c", "elsewhere", None]), "de": st.sampled_from(["x", "", None, 5, "y"])}
        ),
        st.sampled_from([7, "no object", ["a"]]),
    ),
    max_size=12,
)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(rows=ROWS)
def test_every_row_and_every_sample_is_counted_once(
    tmp_path_factory: pytest.TempPathFactory, rows: list[object]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    path = folder / "accounts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [{"key": None, "de": None}, *rows]))
    with caption_index(folder / "accounts.sqlite") as index:
        index.fill(open_table(path), lambda row: row.text("key"), ColumnMapping(None, {"de": "de"}))
        found, num_samples = matched(index, [(key, key) for key in "abc"])
        counts = index.counts
        assert counts.rows == len(rows) + 1
        assert counts.rows == (counts.taken + counts.bad + counts.without_id + counts.without_caption + counts.not_text)
        assert index.num_ids() + counts.repeated == counts.taken
        assert num_samples == 3
        assert len(found) + index.num_ids("= 0") == index.num_ids()
        good = [row for row in rows if isinstance(row, dict) and row["key"] and row["de"] in ("x", "y")]
        first = {row["key"]: row["de"] for row in reversed(good)}
        assert dict(found) == {key: {"de": first[key]} for key in "abc" if key in first}


FILES = st.lists(
    st.tuples(
        st.sampled_from(["k1", "k2", "sub/k3", "k.4", "._k1", "é5"]),
        st.sampled_from(["jpg", "JPG", "png", "json", "txt", "mp4", "broken.json"]),
    ),
    max_size=14,
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(files=FILES)
def test_samples_of_any_tar_are_kept_or_left_out(
    tmp_path_factory: pytest.TempPathFactory, files: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("tar")
    content = {"json": captions(en="a cat"), "broken.json": b"{", "txt": b"a cat"}
    image = encoded(picture())
    members = [(f"{key}.{ending}", content.get(ending, image)) for key, ending in files]
    tar = Tar("t", Location.parse(write_tar(folder / "t.tar", members)))
    try:
        samples = list(tar_samples(tar))
    except CorpusError:
        with pytest.raises(CorpusError, match="do not lie side by side"):
            list(tar_samples(tar))
        return
    out = folder / "out"
    record, was_there = rewrite_tar(tar, out, {}, lambda sample, _: None if len(sample.key) > 2 else "short")
    assert not was_there
    assert record.seen == len(samples) == record.kept + record.dropped.total()
    assert record.dropped["unusable"] == sum(sample.problem is not None for sample in samples)
    kept = [sample for sample in samples if not sample.problem and len(sample.key) > 2]
    assert record.kept == len(kept)
    assert (out / "t.tar").exists() == bool(kept)
    if kept:
        again = list(tar_samples(Tar("t", Location.parse(out / "t.tar"))))
        assert [(each.key, each.stored) for each in again] == [(each.key, each.stored) for each in kept]
    assert rewrite_tar(tar, out, {}, lambda *_: None) == (record, True)


def test_an_unreadable_record_is_no_licence_to_write_over(tmp_path: Path) -> None:
    tar = Tar("t", Location.parse(write_tar(tmp_path / "t.tar", [("k.png", encoded(picture())), ("k.json", b"{}")])))
    out = tmp_path / "out"
    assert rewrite_tar(tar, out, {}, lambda *_: None)[0].dropped == Counter()
    (out / "t.part.json").write_text("{")
    with pytest.raises(CorpusError, match="not a record of this"):
        rewrite_tar(tar, out, {}, lambda *_: None)
    (out / "t.part.json").unlink()
    rewrite_tar(tar, out, {}, lambda *_: None)
    (out / "t.tar").unlink()
    with pytest.raises(CorpusError, match="the tar of a finished part is not there"):
        rewrite_tar(tar, out, {}, lambda *_: None)
