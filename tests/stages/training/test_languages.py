"""Several languages from one cache, alone and in one adapter."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pea.config import Config, PhaseConfig, load_config, resolved_yaml
from pea.errors import CacheError, ConfigError
from stages import train_adapter
from stages.command.console import Console
from stages.training.caches import open_cache
from stages.training.fingerprints import fingerprint_without_unet
from stages.training.setup import prepare
from tests.tiny_setup import make_setup, with_queries
from tests.train_runs import variant

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return make_setup(tmp_path_factory.mktemp("languages"), "sd15", languages=("en", "zh", "ja"))


@pytest.fixture(scope="module")
def partly(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Sixteen samples: all have English, twelve have Chinese, the other four Japanese."""
    folder = tmp_path_factory.mktemp("partly")
    return make_setup(folder, "sd15", languages_of_last_tar=("en", "ja"))


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
    assert yaml.safe_load(card.split("---")[1])["language"] == ["zh", "ja"]


def test_several_languages_in_a_file(three: Config, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(resolved_yaml(three))
    config = load_config(path, ["student.language=[zh, ja]"])
    assert config.student.languages == ("zh", "ja") == config.student.caption_languages
    assert load_config(path).student.languages == ("zh",)
    assert load_config(path, ["student.training_language=en"]).student.caption_languages == ("en",)


def test_samples_without_a_caption_are_left_out_counted_and_said(partly: Config, tmp_path: Path) -> None:
    said = io.StringIO()
    phases = (PhaseConfig(kind="text", steps=2), PhaseConfig(kind="unet", steps=2, warmup_steps=3))
    run = _speaking(partly, tmp_path, "ja", culture_fraction=0.0, phases=phases)
    summary = train_adapter.run(run, Console(file=said))
    assert "parallel: 12 of 16 samples have no caption in ja\n" in said.getvalue()
    assert "phase 2 (unet): warmup_steps 3 of 2 steps, so it ends below its peak\n" in said.getvalue()
    assert said.getvalue().count("below its peak") == 1
    assert summary["captions"] == {"parallel": {"samples": 16, "with_caption": 4, "ja": 4}}
    assert summary["records"] == 4 * 3
    assert prepare(run, CPU).fingerprint["captions"] == [[16, 4], [5, 0]]
    assert "captions" not in prepare(_speaking(partly, tmp_path, "en", culture_fraction=0.0), CPU).fingerprint


def test_an_image_with_one_language_of_two(partly: Config, tmp_path: Path) -> None:
    run = _speaking(partly, tmp_path, ("zh", "ja"), batch_size=12, validation_fraction=0.3)
    setup = prepare(run, CPU)
    assert setup.validation is not None
    assert setup.data.num_records + setup.validation.num_records == 16 * 3
    by_tar: dict[str, set[bool]] = {}
    for index in range(12):
        batch = setup.data.batch(index)
        for name, text in zip(batch.names[: batch.num_parallel], batch.native_captions, strict=False):
            if text:
                by_tar.setdefault(name.split("/")[0], set()).add(text.endswith("い"))
    assert by_tar == {"parallel-0": {False}, "parallel-1": {True}}


@pytest.mark.parametrize(
    ("language", "train", "message"),
    [
        ("ko", {}, r"no sample has a caption in ko; expected one of en, ja, zh\. Set student\.language"),
        ("ja", {}, r"culture: no sample has a caption in ja; expected one of zh\..*train\.culture_fraction=0"),
        (("zh", "ko"), {}, r"no sample has a caption in ko\. Set student\.language"),
        (
            "zh",
            {"min_captioned_fraction": 0.8},
            r"too few .* in zh; expected a share of 0\.8 \(train\.min_captioned_fraction\); got 0\.75, 12 of 16\.",
        ),
    ],
)
def test_captions_that_are_needed(
    partly: Config, tmp_path: Path, language: Any, train: dict[str, Any], message: str
) -> None:
    with pytest.raises(CacheError, match=message):
        train_adapter.run(_speaking(partly, tmp_path, language, **train), QUIET)
    assert not (tmp_path / "run/adapter").exists(), "before anything is spent"


@pytest.mark.parametrize(("batch_size", "accumulation"), [(1, 1), (2, 1), (2, 3), (3, 2)])
def test_culture_rows_of_small_batches(partly: Config, tmp_path: Path, batch_size: int, accumulation: int) -> None:
    options = {"batch_size": batch_size, "gradient_accumulation_steps": accumulation, "steps": 24}
    one, two = (prepare(variant(partly, tmp_path, **options), CPU, processes).data for processes in (1, 2))
    rows = [one.num_rows(index) for index in range(24 * accumulation)]
    total = batch_size * 24 * accumulation
    assert abs(sum(culture for _, culture in rows) - total / 4) <= len(one.culture), "one rounding a bucket"
    assert rows == [two.num_rows(index) for index in range(24 * accumulation)]


def test_a_share_that_gives_no_row_is_an_error(partly: Config, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"culture_fraction: the culture corpus gives no row .* 1 batches of 2 rows"):
        train_adapter.run(variant(partly, tmp_path, batch_size=2, steps=1), QUIET)
    summary = train_adapter.run(variant(partly, tmp_path, batch_size=2, steps=6, culture_fraction=0.5), QUIET)
    assert summary["culture_samples"] == 5


def test_a_loss_on_queries_beside_batches_of_culture_rows_alone(partly: Config, tmp_path: Path) -> None:
    run = variant(with_queries(partly, tmp_path), tmp_path / "v", batch_size=1, culture_fraction=0.7, steps=8)
    train = run.train.model_copy(update={"attention_weight": 0.1, "text_weight": 0.1})
    summary = train_adapter.run(run.model_copy(update={"train": train}), QUIET)
    assert summary["steps"] == 8 and summary["skipped_steps"] == 0


def test_captions_beside_a_cache_teach_a_language_that_it_does_not_have(three: Config, tmp_path: Path) -> None:
    (tmp_path / "ko").mkdir()
    for tar, numbers in (("parallel-0", range(12)), ("parallel-1", range(12, 15))):
        rows = [{"tar": tar, "key": f"{n:04d}", "captions": {"ko": f"작은 {n}", "en": "never"}} for n in numbers]
        (tmp_path / "ko" / f"{tar}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    parallel = three.corpora.parallel.model_copy(update={"caption_tables": (str(tmp_path / "ko"),)})
    beside = three.model_copy(update={"corpora": three.corpora.model_copy(update={"parallel": parallel})})
    run = _speaking(beside, tmp_path / "run", "ko", culture_fraction=0.0)
    summary = train_adapter.run(run, QUIET)
    assert summary["captions"]["parallel"] == {"samples": 16, "with_caption": 15, "ko": 15}
    batches = [prepare(run, CPU).data.batch(index) for index in range(2)]
    assert {text.split()[0] for batch in batches for text in batch.native_captions if text} == {"작은"}
    assert "never" not in {text for batch in batches for text in batch.english_captions}
    with pytest.raises(CacheError, match="no sample has a caption in ko"):
        train_adapter.run(_speaking(three, tmp_path / "without", "ko", culture_fraction=0.0), QUIET)


def test_other_captions_beside_a_cache_begin_another_training(three: Config, tmp_path: Path) -> None:
    def settings(text: str) -> dict[str, Any]:
        folder = tmp_path / text
        folder.mkdir()
        row = {"key": "0001", "captions": {"zh": text}}
        (folder / "parallel-0.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
        parallel = three.corpora.parallel.model_copy(update={"caption_tables": (str(folder),)})
        config = three.model_copy(update={"corpora": three.corpora.model_copy(update={"parallel": parallel})})
        return fingerprint_without_unet(config, open_cache(config, "parallel"), [], 1)

    plain = fingerprint_without_unet(three, open_cache(three, "parallel"), [], 1)
    one, other = settings("猫"), settings("狗")
    assert "caption_tables" not in plain
    assert one["caption_tables"] != other["caption_tables"]
