"""Tars and tables as they are named on a command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pea.errors import ConfigError
from stages.command.corpus_places import parallel_source, tar_patterns


def test_patterns_of_folders(tmp_path: Path) -> None:
    assert tar_patterns([str(tmp_path)]) == [str(tmp_path / "*.tar")], "an empty folder may be filled later"
    (tmp_path / "a.tgz").touch()
    assert tar_patterns([str(tmp_path), "s3://bucket/x", "x::y-*.tar"]) == [
        str(tmp_path / "*.tgz"),
        "s3://bucket/x",
        "x::y-*.tar",
    ]
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(ConfigError, match=r"no tars in this folder; .* Pack images first: `pea data pack"):
        tar_patterns([str(tmp_path / "photos")])
    (tmp_path / "photos" / "b.parquet").touch()
    with pytest.raises(ConfigError, match=r"Captions without images: --parallel .*photos.*parquet.*With images: "):
        tar_patterns([str(tmp_path / "photos")])


def test_a_table_in_place_of_tars() -> None:
    assert parallel_source(["data/captions.csv"]) == {"texts": "data/captions.csv"}
    assert parallel_source(["a.tsv", "s3://b/c.parquet"]) == {"texts": ["a.tsv", "s3://b/c.parquet"]}
    assert parallel_source(["pairs.txt"]) == {"texts": "pairs.txt"}
    assert parallel_source(["a.csv.zst"]) == {"texts": "a.csv.zst"}, "what reads it says what to do"
    assert parallel_source(["a-*.tar"]) == {"tars": ["a-*.tar"]}
    with pytest.raises(ConfigError, match=r"--parallel: tars and tables cannot be one corpus; got a\.tar, b\.csv"):
        parallel_source(["a.tar", "b.csv"])
