"""Digests by content: files, folders, caches, adapters, URLs."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from stages.pipeline import digests as digests_module
from stages.pipeline.digests import ABSENT, Digests
from tests.cache_helpers import CacheMaker


@pytest.fixture
def digests(tmp_path: Path) -> Digests:
    return Digests(tmp_path / "state" / "digests.json")


def make_adapter(folder: Path, weights: bytes = b"weights") -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"_class_name": "PEA", "hidden_size": 16}))
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(weights)


def test_of_an_adapter_config_and_weights_count(tmp_path: Path, digests: Digests) -> None:
    adapter = tmp_path / "adapter"
    make_adapter(adapter)
    before = digests.of(str(adapter))
    (adapter / "train_summary.json").write_text('{"seconds": 3}')
    (adapter / "states").mkdir()
    (adapter / "states" / "step.safetensors").write_bytes(b"state")
    assert digests.of(str(adapter)) == before
    for name in ("config.json", "diffusion_pytorch_model.safetensors", "pytorch_lora_weights.safetensors"):
        content = (adapter / name).read_bytes() if (adapter / name).exists() else b""
        (adapter / name).write_bytes(content + b" ")
        assert digests.of(str(adapter)) != before
        before = digests.of(str(adapter))


def test_a_cache_counts_by_its_records_wherever_it_lies(
    make_cache: CacheMaker, tmp_path: Path, digests: Digests
) -> None:
    make_cache.fill()
    inside, around = digests.of(str(make_cache.directory)), digests.of(str(tmp_path))
    assert inside.problems == ()
    (make_cache.directory / "totals.json").write_text("{}")
    assert digests.of(str(make_cache.directory)) == inside
    next(path for path in make_cache.directory.rglob("c/**/0") if path.is_file()).unlink()
    assert digests.of(str(make_cache.directory)).digest != inside.digest
    assert digests.of(str(tmp_path)).digest != around.digest
    assert digests.of(str(make_cache.directory)).problems == digests.of(str(tmp_path)).problems != ()
    (make_cache.directory / "manifest.json").write_text("{")
    assert "the manifest is damaged" in digests.of(str(make_cache.directory)).problems[0]


def test_equal_size_and_time_with_other_bytes_is_a_change(tmp_path: Path, digests: Digests) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one")
    old = time.time_ns() - 10**12
    os.utime(file, ns=(old, old))
    before = digests.of(str(file))
    file.write_text("two")
    os.utime(file, ns=(old, old))
    assert digests.of(str(file)) != before


def test_a_file_that_stays_the_same_is_read_once(
    tmp_path: Path, digests: Digests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests_module, "_SETTLED_NS", 0)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.txt").write_text("one")
    time.sleep(0.02)
    before = digests.of(str(tmp_path / "folder"))
    monkeypatch.setattr(digests_module, "sha256_file", lambda _: pytest.fail("read again"))
    assert Digests(tmp_path / "state" / "digests.json").of(str(tmp_path / "folder")) == before


def test_a_file_of_this_moment_is_not_remembered(tmp_path: Path, digests: Digests) -> None:
    (tmp_path / "a.txt").write_text("one")
    digests.of(str(tmp_path / "a.txt"))
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 3}'])
def test_a_damaged_memory_is_none(tmp_path: Path, text: str) -> None:
    memory, file = tmp_path / "digests.json", tmp_path / "a"
    file.write_text("one")
    expected = Digests(memory).of(str(file))
    memory.write_text(text.replace('"a"', json.dumps(str(file))))
    assert Digests(memory).of(str(file)) == expected


def test_names_and_absence(tmp_path: Path, digests: Digests) -> None:
    assert digests.of(str(tmp_path / "nothing")).digest == ABSENT
    (tmp_path / "a[1].txt").write_text("one")
    assert digests.of(str(tmp_path / "a[[]1].txt")).digest != ABSENT
    (tmp_path / ".a.tmp-123").write_text("of a dead run")
    before = digests.of(str(tmp_path))
    (tmp_path / ".a.tmp-123").unlink()
    assert digests.of(str(tmp_path)) == before
    (tmp_path / "a[1].txt").rename(tmp_path / "b.txt")
    assert digests.of(str(tmp_path)) != before
