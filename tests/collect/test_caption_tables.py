"""Caching with captions from tables beside the tars."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_tools.inspect.info import collect, render
from data_tools.inspect.verify import verify
from pea.cache import Cache
from pea.cache.differences import without_new_captions
from pea.cache.identity import cache_identity
from pea.cache.takedown import remove_samples
from pea.collect.collector import Collector, Task
from pea.config import Config
from pea.corpus.caption_tables import CaptionTables
from pea.errors import CorpusError, IdentityError
from stages.cluster.planning import TarChanges, plan_corpora
from stages.cluster.session import RaySession
from stages.cluster.summary import describe, summarize
from stages.command.console import Console
from tests.tiny_setup import fill_cache, write_tar

pytestmark = pytest.mark.slow

QUIET = Console(quiet=True)
TEXTS = {f"{number:04d}": f"a cat number {number}" for number in range(4)}


def put(folder: Path, tar: str, texts: Mapping[str, Mapping[str, str]]) -> Path:
    """A folder with the table of one tar: key -> language -> caption."""
    folder.mkdir(exist_ok=True)
    rows = [{"tar": tar, "key": key, "captions": captions} for key, captions in texts.items()]
    (folder / f"{tar}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def english(texts: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Captions in English, and one in Chinese that only training reads."""
    return {key: {"en": text, "zh": "一只猫"} for key, text in texts.items()}


def setup(base: Config, folder: Path, *tables: Path, tar: Path | None = None, **culture: Any) -> Config:
    """The tiny setup with one tar of six samples, which has no English, and tables beside it."""
    folder.mkdir(exist_ok=True)
    if tar is None and not (tar := folder / "t.tar").exists():
        write_tar(tar, range(6), ("ja",))
    raw = base.model_dump(mode="json")
    raw["run_dir"] = str(folder / "run")
    raw["corpora"]["parallel"] |= {"tars": [str(tar)], "caption_tables": [str(each) for each in tables]}
    raw["corpora"]["culture"] |= culture
    raw["cache"] |= {"draws_per_sample": 1, "caption_drop_rate": 0.0, "max_dropped_fraction": 0.5}
    return Config.model_validate_json(json.dumps(raw))


@pytest.fixture(scope="module")
def cached(tiny_sdxl: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Cache]:
    """A cache whose English is from a table that has four of six samples, and one that the tar does not have."""
    folder = tmp_path_factory.mktemp("beside")
    config = setup(tiny_sdxl, folder, put(folder / "texts", "t", english({**TEXTS, "9999": "nobody"})))
    return config, fill_cache(config, "parallel", folder)


def test_the_teacher_reads_the_table(cached: tuple[Config, Cache], tiny_sdxl: Config, tmp_path: Path) -> None:
    _, cache = cached
    [shard] = cache.shards
    found = {key: text for b in shard.buckets.values() for key, text in zip(b.keys, b.captions("en"), strict=True)}
    assert found == TEXTS
    assert {(key, reason) for key, reason, _ in shard.parts[0].record.dropped} == {
        ("0004", "caption_missing"),
        ("0005", "caption_missing"),
    }
    assert sorted(name for bucket in shard.buckets.values() for name in bucket.languages) == ["en", "en", "ja", "ja"]
    other = setup(tiny_sdxl, tmp_path, put(tmp_path / "other", "t", english(dict.fromkeys(TEXTS, "a dog"))))
    again = fill_cache(other, "parallel", tmp_path).shards[0]
    for name, bucket in shard.buckets.items():
        mine, theirs = (b.read(["noise_pred"], 0, b.num_records)["noise_pred"] for b in (bucket, again.buckets[name]))
        assert not np.array_equal(mine, theirs)


def test_what_the_table_lacks_is_counted_and_said(cached: tuple[Config, Cache]) -> None:
    _, cache = cached
    counts = {"of_samples": 4, "missing": 2, "of_no_sample": 1}
    [shard] = cache.shards
    assert shard.parts[0].record.summary["caption_tables"] == counts
    assert collect(cache.directory)["caption_tables"] == counts
    assert "from table 4 captions of samples; 2 samples that the tables lack, 1 caption of no sample" in render(
        collect(cache.directory)
    )
    said = describe(summarize(cache.directory, 1, {}, 1.0, {}), 1.0)
    assert said.endswith("caption tables: 4 of samples, 2 samples that they lack, 1 of no sample")


def test_identity_is_of_the_captions_that_the_teacher_reads(
    cached: tuple[Config, Cache], tiny_sdxl: Config, tmp_path: Path
) -> None:
    config, cache = cached
    tar, texts = Path(config.corpora.parallel.tars[0]), english({**TEXTS, "9999": "nobody"})

    def identity(*tables: Path) -> Any:
        return cache_identity(setup(tiny_sdxl, tmp_path, *tables, tar=tar), "parallel")

    mine = put(tmp_path / "mine", "t", texts)
    german = put(tmp_path / "de", "t", {"0000": {"de": "eine Katze", "zh": "猫"}})
    assert identity(mine, german).digest == cache.identity.digest, "other languages may come and change later"
    assert "captions" not in identity(german).fields["corpus.tars"][0], "older caches stay what they are"
    changed = put(tmp_path / "changed", "t", {**texts, "0001": {"en": "a cow"}})
    with pytest.raises(IdentityError, match=r"captions beside it .*`pea cache --replace t`"):
        Cache.create_or_resume(cache.directory, identity(changed))
    with pytest.raises(IdentityError, match=r"corpus\.tars\[t\]"):
        Cache.create_or_resume(cache.directory, identity())


def test_a_table_that_changes_under_way_is_noticed(tiny_sdxl: Config, tmp_path: Path) -> None:
    config = setup(tiny_sdxl, tmp_path, put(tmp_path / "texts", "t", english(TEXTS)))
    cache = Cache.create_or_resume(config.cache_dir("parallel"), cache_identity(config, "parallel"))
    put(tmp_path / "texts", "t", english({**TEXTS, "0000": "a cow"}))
    collector = Collector(config, "parallel", torch.device("cpu"))
    with pytest.raises(CorpusError, match=r"captions beside the tar have changed .*`pea cache --replace t`"):
        list(collector.collect(cache, Task(cache.plan()[0], tmp_path / "t.tar")))


def test_verify_reads_the_table_too(cached: tuple[Config, Cache], tmp_path: Path) -> None:
    config, _ = cached
    assert verify(config, "parallel", num_samples=2, threshold=1e-3).passed
    changed = put(tmp_path / "changed", "t", english({**TEXTS, "0000": "a cow"}))
    parallel = config.corpora.parallel.model_copy(update={"caption_tables": (str(changed),)})
    corpora = config.corpora.model_copy(update={"parallel": parallel})
    with pytest.raises(IdentityError, match="captions beside the tar are not those that were cached"):
        verify(config.model_copy(update={"corpora": corpora}), "parallel", num_samples=2, threshold=1e-3)


def test_takedown_reaches_captions_of_tables(tiny_sdxl: Config, tmp_path: Path) -> None:
    config = setup(tiny_sdxl, tmp_path, put(tmp_path / "texts", "t", english(TEXTS)))
    cache = fill_cache(config, "parallel", tmp_path)
    assert remove_samples(cache, "t", ["0001"]) == ["0001"]
    read = Cache.open(cache.directory).with_captions(
        CaptionTables(config.corpora.parallel.caption_tables, without=["en"])
    )
    texts = [text for bucket in read.shards[0].buckets.values() for text in bucket.captions("en")]
    assert sorted(texts) == sorted(text for key, text in TEXTS.items() if key != "0001")
    assert sum(len(bucket.captions("zh")) for bucket in read.shards[0].buckets.values()) == 3


def test_planning_knows_tables_and_remembers_them(
    tiny_sdxl: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = put(tmp_path / "texts", "t", english(TEXTS))
    config = setup(tiny_sdxl, tmp_path, folder, tar=tmp_path / "*.tar")
    write_tar(tmp_path / "t.tar", range(4), ("en",))
    write_tar(tmp_path / "u.tar", range(4), ("en",))
    plan_corpora(config, ["parallel"], RaySession(config.cache.run), Console())
    assert "1 of 2 tars have no caption table: u" in capsys.readouterr().out
    fill_cache(config, "parallel", tmp_path)
    put(folder, "u", english({"0000": "a cow"}))
    with pytest.raises(IdentityError, match=r"corpus\.tars\[u\].*`pea cache --replace u`"):
        plan_corpora(config, ["parallel"], RaySession(config.cache.run), QUIET)
    [job] = plan_corpora(
        config, ["parallel"], RaySession(config.cache.run), QUIET, changes=TarChanges(replaced=("u",))
    )["parallel"]
    assert (
        job.name == "u"
        and len(plan_corpora(config, ["parallel"], RaySession(config.cache.run), QUIET)["parallel"]) == 1
    )


def test_a_culture_corpus_may_have_all_its_captions_in_a_table(tiny_sdxl: Config, tmp_path: Path) -> None:
    tar = tmp_path / "c.tar"
    write_tar(tar, range(4), ())
    tables = put(tmp_path / "texts", "c", {"0000": {"zh": "猫"}, "0002": {"zh": "狗"}})
    config = setup(tiny_sdxl, tmp_path / "run", tars=[str(tar)], caption_tables=[str(tables)])
    cache = fill_cache(config, "culture", tmp_path)
    texts = [text for bucket in cache.shards[0].buckets.values() for text in bucket.captions("zh")]
    assert sorted(texts) == ["狗", "猫"]


def test_a_culture_cache_stays_when_its_captions_are_cleaned_later(tiny_sdxl: Config, tmp_path: Path) -> None:
    tables = put(tmp_path / "clean", "culture", {"0100": {"zh": "猫"}})
    cached = Cache.open(tiny_sdxl.cache_dir("culture")).identity
    wanted = cache_identity(setup(tiny_sdxl, tmp_path, caption_tables=[str(tables)]), "culture")
    names = [tar.captions for tar in wanted.tars.values()]
    assert any(names) and without_new_captions(wanted, cached).tars == cached.tars
    assert without_new_captions(wanted, cached, besides=["culture"]).tars == wanted.tars
