"""The caching stage on a real local Ray."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from pea.cache import Cache
from pea.config import AttentionConfig, Config, PhaseConfig
from pea.errors import CacheError, CheckpointError, CorpusError, DeviceError, IdentityError
from pea.storage import Location
from stages import train_adapter
from stages.cluster import filling, session_folder
from stages.cluster.actors import scales
from stages.cluster.planning import TarChanges
from stages.cluster.pool import Pool
from stages.cluster.session import start_local
from stages.command.console import Console
from tests.collect.test_collector import assert_same, contents, with_cache
from tests.collect.test_drawn_texts import fill, of_texts
from tests.tiny_setup import write_tar
from tests.train_runs import variant


@pytest.fixture(scope="module")
def _local_ray() -> Iterator[None]:
    """One Ray for the module: the stage joins it and leaves it running."""
    folder = start_local(num_cpus=2)
    yield
    ray.shutdown()
    session_folder.clear(folder)


def on_ray(test: Any) -> Any:
    """A slow test, with that Ray."""
    return pytest.mark.slow(pytest.mark.usefixtures("_local_ray")(test))


def run(config: Config, **options: Any) -> tuple[dict[str, Any], str]:
    """Summaries, and what was shown."""
    shown = io.StringIO()
    return filling.fill_caches(config, Console(file=shown, width=300), **options), shown.getvalue()


def with_tars(config: Config, **tars: Path) -> Config:
    """The configuration with other tars per corpus; the others are left out."""
    parallel = config.corpora.parallel.model_copy(update={"tars": (str(tars["parallel"]),)})
    return config.model_copy(
        update={"corpora": config.corpora.model_copy(update={"parallel": parallel, "culture": None})}
    )


def with_workers(config: Config, **options: Any) -> Config:
    """The configuration with other run options of the cache."""
    run_config = config.cache.run.model_copy(update=options)
    return config.model_copy(update={"cache": config.cache.model_copy(update={"run": run_config})})


@on_ray
def test_two_actors_then_extending_give_what_one_process_gives_at_once(fresh_run: Config, tiny_sdxl: Config) -> None:
    run(with_workers(with_cache(fresh_run, draws_per_sample=1), num_actors=2))
    with pytest.raises(IdentityError, match=r"draws_per_sample.*--extend"):
        run(fresh_run)
    summaries, shown = run(fresh_run, extend=True)
    assert "2 shards finished already, 2 to do" in shown
    for corpus in ("parallel", "culture"):
        assert_same(Cache.open(fresh_run.cache_dir(corpus)), Cache.open(tiny_sdxl.cache_dir(corpus)))
    summary = summaries["parallel"]
    assert (summary["samples"], summary["records"], summary["dropped"], summary["failed"]) == (16, 48, {}, {})
    assert json.loads((fresh_run.cache_dir("parallel") / "run_summary.json").read_text()) == summary
    again, shown = run(fresh_run)
    assert again == summaries, "finished shards are not done again, and no time is added"
    assert "everything is finished already: 4 shards" in shown
    queried = with_cache(fresh_run, attention=AttentionConfig(num_queries=2, layers_per_record=2, dtype="int8"))
    with pytest.raises(IdentityError, match=r"cache\.attention.*--extend"):
        run(queried)
    _, shown = run(queried, extend=True)
    assert "4 shards finished already, 2 to do" in shown
    grown, kept = (contents(Cache.open(each.cache_dir("parallel"))) for each in (fresh_run, tiny_sdxl))
    added = {name.partition("/")[0] for _, _, name in grown.keys() - kept.keys()}
    assert added == {"text", "queries", "query_layers", "query_scales"}
    assert all(np.array_equal(grown[name], rows) for name, rows in kept.items())


@on_ray
def test_bad_input_is_named_and_the_next_run_completes(fresh_run: Config, tmp_path: Path) -> None:
    path = tmp_path / "some.tar"
    write_tar(path, range(9), ("en", "zh"))
    with tarfile.open(path, "a") as tar:
        for name in ("0100.png", "0100.json"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    whole = path.read_bytes()
    path.write_bytes(whole[:5000])
    config = with_tars(fresh_run, parallel=path)
    with pytest.raises(CorpusError, match=r"some\.tar"):
        run(config)
    assert not config.cache_dir("parallel").exists(), "a damaged tar is no part of any identity"
    path.write_bytes(whole)
    with pytest.raises(CacheError, match=r"too many samples were dropped; expected at most 1\.00% .*10\.00%"):
        run(config)
    assert Cache.open(config.cache_dir("parallel")).num_samples == 9, "it is complete nevertheless"
    summaries, shown = run(with_cache(config, max_dropped_fraction=0.1))
    assert list(summaries["parallel"]["dropped"].values()) == [1]
    assert "dropped 1 (" in shown


def test_a_corpus_without_samples_is_refused_before_anything_is_spent(fresh_run: Config, tmp_path: Path) -> None:
    for name in ("a", "b"):
        with tarfile.open(tmp_path / f"{name}.tar", "w"):
            pass
    config = with_tars(fresh_run, parallel=tmp_path / "*.tar")
    with pytest.raises(CorpusError, match="the corpus has no samples; got 2 tars"):
        run(config)
    assert not config.cache_dir("parallel").exists()


@on_ray
def test_a_tar_that_changed_is_replaced_or_retired_as_a_whole(fresh_run: Config, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_tar(tmp_path / f"{name}.tar", range(3), ("en", "zh"))
    config = with_tars(fresh_run, parallel=tmp_path / "*.tar")
    run(config)
    directory = Location.parse(config.cache_dir("parallel"))
    stores = {name: (directory / "shards" / name / "p000.json").read_text() for name in ("one", "two")}
    write_tar(tmp_path / "two.tar", range(5, 10), ("en", "zh"))
    with pytest.raises(IdentityError, match=r"corpus\.tars\[two\].*`pea cache --replace two`"):
        run(config)
    with pytest.raises(IdentityError, match=r"cache\.seed: the cache has 0, wanted 1$|cache\.seed"):
        run(with_cache(config, seed=1), changes=TarChanges(replaced=("two",)))
    with pytest.raises(CacheError, match=r"no such tar in the caches; expected one, two; got three"):
        run(config, changes=TarChanges(replaced=("three",)))
    assert json.loads((directory / "run_summary.json").read_text())["samples"] == 6, "nothing was done yet"
    summaries, shown = run(config, changes=TarChanges(replaced=("two",)))
    assert "two is replaced, and 3 samples made again" in shown and summaries["parallel"]["samples"] == 8
    assert (directory / "shards/one/p000.json").read_text() == stores["one"]
    at_once = with_tars(fresh_run.model_copy(update={"run_dir": tmp_path / "other"}), parallel=tmp_path / "*.tar")
    run(at_once)
    assert_same(Cache.open(directory), Cache.open(at_once.cache_dir("parallel")))
    summaries, shown = run(config, changes=TarChanges(retired=("two",)))
    assert "two is retired, and 5 samples with it" in shown and summaries["parallel"]["samples"] == 3
    again, shown = run(config)
    assert "retired, and left out: two" in shown and again["parallel"]["samples"] == 3
    assert "two is retired, and no samples with it" in run(config, changes=TarChanges(retired=("two",)))[1]
    (tmp_path / "one.tar").unlink()
    with pytest.raises(CorpusError, match="no tar is left; got all that there are, retired"):
        run(config, changes=TarChanges(replaced=("one",)))


@on_ray
def test_texts_alone_from_a_table_to_an_adapter(fresh_run: Config, tmp_path: Path) -> None:
    config = of_texts(fresh_run, tmp_path)
    summaries, shown = run(config)
    assert "parallel: 20 texts in 2 parts" in shown and summaries["parallel"]["samples"] == 20
    alone = of_texts(fresh_run, tmp_path / "alone")
    assert_same(Cache.open(config.cache_dir("parallel")), fill(alone))
    assert "everything is finished already: 2 shards" in run(config)[1]
    phases = (PhaseConfig(kind="text", steps=2), PhaseConfig(kind="unet", steps=2))
    summary = train_adapter.run(variant(config, tmp_path / "train", phases=phases), Console(quiet=True))
    assert summary["steps"] == 4 and summary["records"] == 60
    table = tmp_path / "texts.csv"
    table.write_text(table.read_text("utf-8").replace("dog number 13,", "cat,"), "utf-8")
    with pytest.raises(IdentityError, match=r"corpus\.tars\[texts-00001\].*`pea cache --replace texts-00001`"):
        run(config)
    shown = run(config, changes=TarChanges(replaced=("texts-00001",)))[1]
    assert "texts-00001 is replaced, and 8 samples made again" in shown
    shown = run(config, changes=TarChanges(retired=("texts-00001",)))[1]
    assert Cache.open(config.cache_dir("parallel")).num_samples == 12


@pytest.mark.slow
def test_every_broken_tar_of_every_corpus_is_named_in_one_run(fresh_run: Config, tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "e"):
        write_tar(tmp_path / f"{name}.tar", range(3), ("en", "zh"))
        (tmp_path / f"{name}.tar").write_bytes((tmp_path / f"{name}.tar").read_bytes()[:3000])
    config = with_tars(fresh_run, parallel=tmp_path / "[abc].tar")
    culture = fresh_run.corpora.culture.model_copy(update={"tars": (str(tmp_path / "[de].tar"),)})  # type: ignore[union-attr]
    config = config.model_copy(update={"corpora": config.corpora.model_copy(update={"culture": culture})})
    with pytest.raises(CorpusError) as info:
        run(config)
    assert all(f"{name}.tar: the tar is truncated" in str(info.value) for name in "abcde")
    missing = ("no1.tar", "no2.tar")
    parallel = config.corpora.parallel.model_copy(update={"tars": missing})
    culture = culture.model_copy(update={"tars": ("no3.tar",)})
    config = config.model_copy(
        update={"corpora": config.corpora.model_copy(update={"parallel": parallel, "culture": culture})}
    )
    with pytest.raises(CorpusError) as info:
        run(config)
    assert all(f"{name}: no such tar" in str(info.value) for name in (*missing, "no3.tar"))


@on_ray
def test_a_cluster_with_too_little_room(fresh_run: Config, tiny_sdxl: Config) -> None:
    with pytest.raises(DeviceError, match=r"num_gpus_per_actor: no node .* a node with 64 GPUs and 1 CPU; got"):
        run(with_workers(fresh_run, num_gpus_per_actor=64.0))
    _, shown = run(with_workers(fresh_run, num_actors=3, num_cpus_per_actor=1.5))
    assert not scales()
    assert shown.count("has room for 1 of 3 actors") == 1
    assert_same(Cache.open(fresh_run.cache_dir("parallel")), Cache.open(tiny_sdxl.cache_dir("parallel")))


def test_missing_checkpoint_folder(fresh_run: Config, tmp_path: Path) -> None:
    teacher = fresh_run.teacher.model_copy(update={"checkpoint": tmp_path / "nowhere"})
    with pytest.raises(CheckpointError, match="nowhere"):
        run(fresh_run.model_copy(update={"teacher": teacher}))
    assert not fresh_run.cache_dir("parallel").exists()


@on_ray
def test_an_error_in_the_worker_is_retried_then_named_and_the_rest_is_finished(
    fresh_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tar that disappears after planning stands for storage that fails."""
    plan = filling.plan_corpora

    def losing(*args: Any, **options: Any) -> Any:
        plans = plan(*args, **options)
        for job in plans["parallel"]:
            if job.part.tar == "parallel-0":
                shutil.copy(job.tar.local_path, tmp_path / "lost.tar")
                job.tar = Location.parse(tmp_path / "lost.tar")
        return plans

    begin = Pool._begin

    def unlinking(self: Any, handle: Any, job: Any) -> Any:
        if job.tar.name == "lost.tar":
            job.tar.local_path.unlink(missing_ok=True)
        return begin(self, handle, job)

    monkeypatch.setattr(filling, "plan_corpora", losing)
    monkeypatch.setattr(Pool, "_begin", unlinking)
    with pytest.raises(CacheError, match=r"1 tar failed; got parallel-0: .*lost\.tar"):
        run(fresh_run)
    assert [shard.tar for shard in Cache.open(fresh_run.cache_dir("parallel"), partial=True).shards] == ["parallel-1"]
    monkeypatch.undo()
    assert run(fresh_run)[0]["parallel"]["samples"] == 16
