"""How large a corpus is, before a plan is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pea.config import Config
from pea.costs.plan import corpus_size
from pea.errors import ConfigError
from tests.corpus.tar_files import good_tar, write_tar


def _config(**parallel: Any) -> Config:
    raw = {"run_dir": "run", "teacher": {"checkpoint": "teacher"}, "student": {"encoder": "zh"}}
    return Config.model_validate_json(json.dumps(raw | {"corpora": {"parallel": parallel}}))


def test_every_tar_that_cannot_be_counted_is_named(tmp_path: Path) -> None:
    for name in "abc":
        good_tar(tmp_path / f"{name}.tar", 3)
    assert corpus_size(_config(tars=[str(tmp_path)]), None) == (9, 3, 3, False)
    for name in "ac":
        (tmp_path / f"{name}.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(ConfigError, match=r"2 tars cannot be used; got .*a\.tar: .* \| .*c\.tar: "):
        corpus_size(_config(tars=[str(tmp_path)]), None)


def test_a_corpus_without_a_sample_has_no_plan(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [])
    (tmp_path / "t.csv").write_text("en,zh\n")
    for config in (_config(tars=[str(tmp_path / "a.tar")]), _config(texts=str(tmp_path / "t.csv"))):
        with pytest.raises(ConfigError, match="the corpus has no samples"):
            corpus_size(config, None)
        assert corpus_size(config, 5)[0] == 5
