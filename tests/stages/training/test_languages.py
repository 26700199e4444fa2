"""Several languages from one cache, alone and in one adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pea.config import Config, load_config, resolved_yaml
from stages import train_adapter
from stages.command.console import Console
from stages.training.setup import prepare
from tests.tiny_setup import make_setup
from tests.train_runs import variant

CPU = torch.device("cpu")
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return make_setup(tmp_path_factory.mktemp("languages"), "sd15", languages=("en", "zh", "ja"))


def _speaking(config: Config, folder: Path, language: Any, **train: Any) -> Config:
    changed = config.model_copy(update={"student": config.student.model_copy(update={"language": language})})
    return variant(changed, folder, **train)


def test_one_cache_serves_several_languages(three: Config, tmp_path: Path) -> None:
    batches = {}
    for language in ("zh", "ja"):
        run = _speaking(three, tmp_path / language, language, culture_fraction=0.0)
        assert train_adapter.run(run, QUIET)["steps"] == 4
        batches[language] = prepare(run, CPU).data.batch(0)
    zh, ja = batches["zh"], batches["ja"]
    assert zh.names == ja.names and torch.equal(zh.noise_pred, ja.noise_pred)
    assert [text[::-1] + "い" if text else "" for text in zh.native_captions] == ja.native_captions


def test_one_adapter_reads_several_languages(three: Config, tmp_path: Path) -> None:
    run = _speaking(three, tmp_path, ("zh", "ja"), batch_size=12)
    setup = prepare(run, CPU)
    seen: dict[str, set[bool]] = {}
    culture = set()
    for index in range(40):
        batch = setup.data.batch(index)
        assert batch.native_captions == setup.data.batch(index).native_captions
        for row, (name, text) in enumerate(zip(batch.names, batch.native_captions, strict=True)):
            if text and row < batch.num_parallel:
                seen.setdefault(name, set()).add(text.endswith("い"))
            elif text:
                culture.add(text.endswith("い"))
    assert sum(len(kinds) == 2 for kinds in seen.values()) > len(seen) / 2, "a record meets both languages"
    assert culture == {False}, "the culture corpus has Chinese captions alone"
    assert train_adapter.run(run, QUIET)["steps"] == 4
    card = (run.adapter_dir / "README.md").read_text("utf-8")
    assert "language: [zh, ja]" in card


def test_several_languages_in_a_file(three: Config, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(resolved_yaml(three))
    config = load_config(path, ["student.language=[zh, ja]"])
    assert config.student.languages == ("zh", "ja") == config.student.caption_languages
    assert load_config(path).student.languages == ("zh",)
    assert load_config(path, ["student.training_language=en"]).student.caption_languages == ("en",)
