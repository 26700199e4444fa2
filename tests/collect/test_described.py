"""Described culture images: a cache of their own, with how far the description helps the teacher, and trained on."""

from __future__ import annotations

import json
import re
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_tools.corpus.gains import DescriptionGains
from data_tools.inspect.verify import verify
from pea.batches.dataset import BatchPlan, TrainingData
from pea.batches.selection import Selection
from pea.cache import Bucket, Cache
from pea.cache.differences import check_extends, check_same, with_former_descriptions
from pea.cache.identity import DESCRIBED, TARS, Identity, cache_identity
from pea.cache.joined import JoinedCache
from pea.collect.collector import Collector, Task
from pea.config import Config, DescribedConfig
from pea.corpus.caption_tables import CaptionTables
from pea.corpus.reasons import NO_DESCRIPTION
from pea.corpus.tables import open_table
from pea.draws.recipe import DrawRecipe
from pea.errors import CorpusError, IdentityError
from stages.cli import main
from tests.tiny_setup import fill_cache, write_tar


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
    with pytest.raises(IdentityError, match=r"captions beside it .*`pea cache --replace culture`"):
        Cache.create_or_resume(cache.directory, cache_identity(other, "described"))
    assert cache_identity(config, "described").digest == cache.identity.digest


def with_second_tar(config: Config, folder: Path, texts: dict[str, str]) -> Config:
    """The setup with another tar of culture images, `more`, and its descriptions in the folder of the first's."""
    folder.mkdir()
    assert config.corpora.culture is not None and config.corpora.described is not None
    for place in (*config.corpora.culture.tars, *Path(config.corpora.described.tables[0]).iterdir()):
        shutil.copy(place, folder)
    write_tar(folder / "more.tar", range(200, 203), ("zh",))
    rows = [{"tar": "more", "key": key, "captions": {"described_en": text}} for key, text in texts.items()]
    (folder / "more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw = config.model_dump(mode="json")
    raw["corpora"]["culture"]["tars"] = [str(folder / "*.tar")]
    raw["corpora"]["described"]["tables"] = [str(folder)]
    return Config.model_validate_json(json.dumps(raw))


def test_a_cache_grows_by_tars_with_their_descriptions(described: tuple[Config, Cache], tmp_path: Path) -> None:
    shutil.copytree(described[1].directory, tmp_path / "run/cache/described")
    before = {path: path.read_bytes() for path in sorted((tmp_path / "run").rglob("p000*/**/*")) if path.is_file()}
    config = with_second_tar(described[0], tmp_path / "tars", {"0200": "a cat", "0202": "big ball"})
    config = config.model_copy(update={"run_dir": tmp_path / "run"})
    directory, wanted = config.cache_dir("described"), cache_identity(config, "described")
    with pytest.raises(IdentityError, match=r"corpus\.tars\[more\].*`pea cache --extend`"):
        Cache.create_or_resume(directory, wanted)
    [part] = Cache.create_or_resume(directory, wanted, extend=True).plan()
    assert part.tar == "more"
    grown = fill_cache(config, "described", tmp_path / "tars")
    buckets = [bucket for shard in grown.shards for bucket in shard.buckets.values()]
    texts = dict(pair for bucket in buckets for pair in zip(bucket.keys, bucket.captions("en"), strict=True))
    assert texts == {**TEXTS, "0200": "a cat", "0202": "big ball"}
    assert all(path.read_bytes() == content for path, content in before.items()) and before


def test_tables_that_change_under_way_are_noticed(described: tuple[Config, Cache], tmp_path: Path) -> None:
    config = describe(described[0].model_copy(update={"run_dir": tmp_path / "run"}), tmp_path / "texts", TEXTS)
    cache = Cache.create_or_resume(config.cache_dir("described"), cache_identity(config, "described"))
    describe(config, tmp_path / "texts", {**TEXTS, "0100": "a dog"})
    with pytest.raises(CorpusError, match=r"captions beside the tar have changed .*--replace described/culture"):
        list(Collector(config, "described", torch.device("cpu")).collect(cache, task_of(config, cache)))


def task_of(config: Config, cache: Cache) -> Task:
    """The first part that is to be made."""
    assert config.corpora.culture is not None
    return Task(cache.plan()[0], Path(config.corpora.culture.tars[0]))


def test_verify_reads_the_descriptions_that_were_cached(described: tuple[Config, Cache], tmp_path: Path) -> None:
    config, _ = described
    assert verify(config, "described", num_samples=1, threshold=1e-3).passed
    other = describe(config, tmp_path / "other", {**TEXTS, "0100": "a dog"})
    with pytest.raises(IdentityError, match="captions beside the tar are not those that were cached"):
        verify(other, "described", num_samples=1, threshold=1e-3)


def test_a_cache_whose_tables_have_one_digest_stays_what_it_is(described: tuple[Config, Cache], tmp_path: Path) -> None:
    config, cache = described
    tables = CaptionTables(config.corpora.described.tables)  # type: ignore[union-attr]
    fields = dict(cache.identity.fields)
    fields[DESCRIBED] = {"language": "described_en", "tables": tables.digest()}
    fields[TARS] = [{name: value for name, value in each.items() if name != "captions"} for each in fields[TARS]]
    former = Identity(fields)

    def asked(now: Config) -> Identity:
        found = CaptionTables(now.corpora.described.tables)  # type: ignore[union-attr]
        return with_former_descriptions(cache_identity(now, "described"), former, found)

    assert asked(config).digest == former.digest
    more = asked(with_second_tar(config, tmp_path / "more", {"0200": "a cat"}))
    check_extends(former, more, where="here")
    assert [tar.captions is None for tar in more.tars.values()] == [True, False]
    changed = describe(config, tmp_path / "changed", {**TEXTS, "0100": "a dog"})
    for check in (check_same, check_extends):
        with pytest.raises(IdentityError, match=r"corpus\.described"):
            check(former, asked(changed), where="here")
    assert with_former_descriptions(cache.identity, cache.identity, tables) is cache.identity


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
    limit = statistics.fmean(sorted(gains.values())[:2])
    kept = [key for b in shard.buckets.values() for key in kept_keys(b, Selection(min_description_gain=limit))]
    assert sorted(kept) == sorted(key for key, gain in gains.items() if gain >= limit) and len(kept) == 2
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
    limit = statistics.fmean(sorted(gains.values())[:2])
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
