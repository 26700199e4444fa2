"""Described culture images: a cache of their own, with how far the description helps the teacher, and trained on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_tools.corpus.gains import DescriptionGains
from pea.batches.dataset import BatchPlan, TrainingData
from pea.batches.selection import Selection
from pea.cache import Bucket, Cache
from pea.cache.identity import cache_identity
from pea.cache.joined import JoinedCache
from pea.config import Config, DescribedConfig
from pea.corpus.reasons import NO_DESCRIPTION
from pea.corpus.tables import open_table
from pea.draws.recipe import DrawRecipe
from pea.errors import IdentityError
from stages.cli import main
from tests.tiny_setup import fill_cache


def describe(config: Config, folder: Path, texts: dict[str, str], language: str = "described_en") -> Config:
    """The setup with a table that describes some of its culture images."""
    folder.mkdir(exist_ok=True)
    rows = [{"tar": "culture", "key": key, "captions": {language: text}} for key, text in texts.items()]
    (folder / "culture.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw = config.model_dump(mode="json")
    raw["corpora"]["described"] = {"tables": [str(folder)]}
    return Config.model_validate_json(json.dumps(raw))


TEXTS = {"0100": "a cat", "0101": "a red dog", "0103": "big ball"}


@pytest.fixture(scope="module")
def described(tiny_sdxl: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Cache]:
    """A setup with descriptions of three of five images, and their cache."""
    folder = tmp_path_factory.mktemp("described")
    config = describe(tiny_sdxl.model_copy(update={"run_dir": folder / "run"}), folder / "texts", TEXTS)
    return config, fill_cache(config, "described", Path(tiny_sdxl.corpora.parallel.tars[0]).parent)


def test_the_cache_holds_those_that_are_described(described: tuple[Config, Cache]) -> None:
    _, cache = described
    [shard] = cache.shards
    english = {key: text for b in shard.buckets.values() for key, text in zip(b.keys, b.captions("en"), strict=True)}
    native = [text for b in shard.buckets.values() for text in b.captions("zh")]
    assert english == TEXTS and all(native)
    [part] = shard.parts
    assert [tuple(each)[:2] for each in part.record.dropped] == [
        ("0102", NO_DESCRIPTION),
        ("0104", NO_DESCRIPTION),
    ]


def test_how_far_a_description_helps_is_recorded(described: tuple[Config, Cache], tiny_sdxl: Config) -> None:
    _, cache = described
    parallel = Cache.open(tiny_sdxl.cache_dir("parallel"))
    assert all("noise_errors" not in bucket.arrays for shard in parallel.shards for bucket in shard.buckets.values())
    for bucket in cache.shards[0].buckets.values():
        count = bucket.num_samples * bucket.draws_per_sample
        found = bucket.read(["noise_errors", "caption_dropped"], 0, count)
        errors, dropped = found["noise_errors"], found["caption_dropped"]
        assert errors.shape == (count, 2) and (errors > 0).all()
        np.testing.assert_allclose(errors[dropped, 0], errors[dropped, 1], rtol=1e-5)
        assert (errors[~dropped, 0] != errors[~dropped, 1]).all()


def test_the_errors_are_those_of_the_answer(described: tuple[Config, Cache]) -> None:
    config, cache = described
    for name, bucket in cache.shards[0].buckets.items():
        count = bucket.num_samples * bucket.draws_per_sample
        data = TrainingData(cache, None, BatchPlan(count, 0.0, 0), recipe_of(config), 1.0, (), ("zh",))
        index = next(index for index in range(4) if data.batch(index).bucket == name)
        batch = data.batch(index)
        wanted = (batch.noise_pred - batch.noise).square().flatten(1).mean(1)
        errors = dict(
            zip(
                bucket.read(["record_id"], 0, count)["record_id"].tolist(),
                bucket.read(["noise_errors"], 0, count)["noise_errors"][:, 0],
                strict=True,
            )
        )
        found = torch.tensor([float(errors[number]) for number in batch.record_ids.tolist()])
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def recipe_of(config: Config) -> DrawRecipe:
    """That of the tiny setup."""
    return DrawRecipe(config.cache.seed, config.cache.caption_drop_rate, 1000, config.cache.noise_offset)


def test_other_descriptions_are_another_cache(described: tuple[Config, Cache], tmp_path: Path) -> None:
    config, cache = described
    other = describe(config, tmp_path / "other", {**TEXTS, "0100": "a dog"})
    with pytest.raises(IdentityError, match=r"corpus\.described"):
        Cache.create_or_resume(cache.directory, cache_identity(other, "described"))
    assert cache_identity(config, "described").digest == cache.identity.digest


def test_joined_with_the_parallel_cache(described: tuple[Config, Cache], tiny_sdxl: Config) -> None:
    config, cache = described
    parallel = Cache.open(tiny_sdxl.cache_dir("parallel"))
    both = JoinedCache(parallel, cache)
    assert both.num_samples == parallel.num_samples + 3 and both.identity.digest not in (
        parallel.identity.digest,
        cache.identity.digest,
    )
    data = TrainingData(both, None, BatchPlan(4, 0.0, 0), recipe_of(config), 1.0, (), ("zh",))
    assert data.num_records == 3 * (parallel.num_samples + 3)
    seen = {name for index in range(data.batches_per_epoch) for name in data.batch(index).names}
    assert {f"culture/{key}" for key in TEXTS} & {name.partition("#")[0] for name in seen}


def test_settings(tiny_sdxl: Config) -> None:
    raw: dict[str, Any] = tiny_sdxl.model_dump(mode="json")
    raw["corpora"]["described"] = {}
    config = Config.model_validate_json(json.dumps(raw))
    assert config.corpora.names == ["parallel", "culture", "described"]
    source = config.corpora.source("described")
    assert source.source_language == "en" and source.caption_fields()["en"] == "captions.described_en"
    raw["corpora"]["culture"]["captions"] = {"zh": "caption", "described_en": "blip"}
    mapped = Config.model_validate_json(json.dumps(raw)).corpora.source("described")
    assert mapped.caption_fields() == {"zh": "caption", "described_en": "blip", "en": "blip"}
    del raw["corpora"]["culture"]
    with pytest.raises(ValueError, match="described needs the culture corpus"):
        Config.model_validate_json(json.dumps(raw))


def test_only_what_the_teacher_understands_is_kept(described: tuple[Config, Cache], tiny_sdxl: Config) -> None:
    _, cache = described
    [shard] = cache.shards
    gains = {}
    for bucket in shard.buckets.values():
        count = bucket.num_samples * bucket.draws_per_sample
        read = bucket.read(["noise_errors", "caption_dropped"], 0, count)
        for place, key in enumerate(bucket.keys):
            mine = slice(place * bucket.draws_per_sample, (place + 1) * bucket.draws_per_sample)
            errors = read["noise_errors"][mine][~read["caption_dropped"][mine]].sum(0)
            gains[key] = 1 - errors[0] / errors[1] if errors[1] else 0.0
    limit = sorted(gains.values())[1]
    kept = [key for b in shard.buckets.values() for key in kept_keys(b, Selection(min_description_gain=limit))]
    assert sorted(kept) == sorted(key for key, gain in gains.items() if gain >= limit - 1e-9) and len(kept) == 2
    parallel = Cache.open(tiny_sdxl.cache_dir("parallel")).shards[0]
    assert all(Selection(min_description_gain=0.9).rows(b, "x") is None for b in parallel.buckets.values())


def kept_keys(bucket: Bucket, selection: Selection) -> list[str]:
    """Keys of the samples that are kept."""
    rows = selection.rows(bucket, "culture")
    numbers = range(bucket.num_samples) if rows is None else sorted({row // bucket.draws_per_sample for row in rows})
    return [bucket.keys[number] for number in numbers]


@pytest.mark.slow
def test_route_keeps_the_descriptions_that_the_teacher_understands(
    described: tuple[Config, Cache], tiny_sdxl: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, cache = described
    assert config.corpora.culture is not None and config.corpora.described is not None
    gains = DescriptionGains(str(cache.directory)).of_tar("culture")
    limit = sorted(gains.values())[1]
    tars, beside = config.corpora.culture.tars[0], config.corpora.described.tables[0]
    words = ["data", "route", tars, "--out", str(tmp_path / "out"), "--beside", beside, "--min-gain", repr(limit)]
    assert main(words) == 2 and "--min-gain: no gain is known" in capsys.readouterr().err
    parallel = str(config.model_copy(update={"run_dir": tiny_sdxl.run_dir}).cache_dir("parallel"))
    assert main([*words, "--gains", parallel]) == 2
    assert "records no noise errors" in capsys.readouterr().err
    assert main([*words, "--gains", str(cache.directory)]) == 0
    assert re.search(r"described_en: not understood by the teacher +1\n", capsys.readouterr().out)
    rows = {row.get("key"): row for row in open_table(tmp_path / "out").rows()}
    assert {row.get("route") for row in rows.values()} == {"culture"} and rows.keys() >= gains.keys()
    for key, row in rows.items():
        kept, reasons = row.get("captions").get("described_en"), " ".join(row.get("reasons"))
        assert kept == (TEXTS[key] if key in gains and gains[key] >= limit else None)
        assert row.get("description_gain") == (round(gains[key], 4) if key in gains else None)
        assert ("lowers the teacher's noise error by" in reasons) == (key in gains)
    tables = DescribedConfig(tables=(str(tmp_path / "out"),)).read_tables()
    assert tables is not None
    assert sum("described_en" in texts for texts in tables.of_tar("culture").values()) == 2
