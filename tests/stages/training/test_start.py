"""Where a run starts: whence its statistics come, and what keeps a record of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from pea.cache import Cache
from pea.cache.audit import audit
from pea.cache.text_statistics import FILE_NAME, first_captions, read_statistics
from pea.collect import collector
from pea.config import Config, PhaseConfig
from pea.errors import CacheError
from pea.models.adapter import PEA
from pea.models.english import EnglishEncoder
from pea.models.text_statistics import text_statistics
from pea.training.saved_state import TrainStates
from stages import train_adapter
from stages.command.console import Console
from stages.training.caches import open_cache
from stages.training.start import Start
from stages.training.text_tables import TextTables, text_states_folder
from tests.tiny_setup import fill_cache, with_queries
from tests.train_runs import log_rows, same, variant, weights

QUIET = Console(quiet=True)
CPU = torch.device("cpu")


def start_of(config: Config) -> Start:
    return Start(config, open_cache(config, "parallel"), TextTables(config, CPU))


@pytest.fixture(scope="module")
def own(tiny_sdxl: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The tiny setup with caches of its own, filled as the caching stage fills larger ones."""
    config = tiny_sdxl.model_copy(update={"run_dir": tmp_path_factory.mktemp("start"), "cache_root": None})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collector, "_FEWEST_CAPTIONS", 2)
        for corpus in ("parallel", "culture"):
            fill_cache(config, corpus, Path(tiny_sdxl.corpora.parallel.tars[0]).parent)
    return config


@pytest.mark.slow
def test_the_caching_stage_stores_the_statistics_of_the_first_tar(own: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache.open(own.cache_dir("parallel"))
    found = read_statistics(cache.directory)
    captions = first_captions(cache.shards[:1], ["en"])
    assert len(captions) == len(set(captions)) == 6
    english = EnglishEncoder.from_checkpoint(own.teacher.folder)
    assert found == text_statistics([english.encode(captions)])
    assert not (Cache.open(own.cache_dir("culture")).directory / FILE_NAME).exists()
    assert not audit(own.cache_dir("parallel"), jobs=1).problems
    monkeypatch.setattr(EnglishEncoder, "from_checkpoint", None)  # nobody is asked
    assert start_of(own).statistics == found


def test_an_older_cache_asks_the_english_encoder_once(
    tiny_sdxl: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_sdxl.model_copy(update={"run_dir": tmp_path})
    shutil.copytree(str(tiny_sdxl.cache_dir("parallel")), tmp_path / "cache/parallel")
    found = start_of(config).statistics
    english = EnglishEncoder.from_checkpoint(config.teacher.folder)
    assert found == text_statistics([english.encode(first_captions(open_cache(config, "parallel").shards, ["en"]))])
    monkeypatch.setattr(EnglishEncoder, "from_checkpoint", None)
    assert start_of(config).statistics == found
    [kept] = text_states_folder(config).glob("statistics-*.json")
    kept.write_text("{}")
    with pytest.raises(CacheError, match=r"train\.init=torch"):
        _ = start_of(config).statistics


@pytest.mark.slow
def test_a_cache_with_text_states_needs_no_english_encoder(
    tiny_sdxl: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_queries(tiny_sdxl, tmp_path, dtype="float32")
    english = EnglishEncoder.from_checkpoint(config.teacher.folder)
    shards = open_cache(config, "parallel").shards
    captions = [text for shard in shards for bucket in shard.buckets.values() for text in bucket.captions("en")]
    monkeypatch.setattr(EnglishEncoder, "from_checkpoint", None)
    found, wanted = start_of(config).statistics, text_statistics([english.encode(captions)])
    assert found.num_captions == len(captions) == 16
    assert found.hidden.std == pytest.approx(wanted.hidden.std, rel=1e-4)
    assert found.pooled and wanted.pooled and found.pooled.mean == pytest.approx(wanted.pooled.mean, rel=1e-4, abs=1e-5)


def test_a_damaged_file_of_statistics_is_named(own: Config, tmp_path: Path) -> None:
    copy = own.model_copy(update={"run_dir": tmp_path})
    shutil.copytree(str(own.cache_dir("parallel")), tmp_path / "cache/parallel")
    (tmp_path / "cache/parallel" / FILE_NAME).write_text('{"num_captions": 3}')
    with pytest.raises(CacheError, match=r"statistics of text states are damaged.*Delete the file"):
        _ = start_of(copy).statistics


@pytest.mark.slow
def test_a_run_records_its_start(own: Config, tmp_path: Path) -> None:
    record = {}
    for init in ("whitened", "scaled", "torch"):
        run = variant(own, tmp_path / init, init=init, steps=1)
        summary = train_adapter.run(run, QUIET)
        record[init] = PEA.load(run.adapter_dir).config.start
        assert summary["start"] == record[init]
    assert record["torch"] == {"init": "torch"}
    assert record["scaled"]["init"] == "scaled" and min(record["scaled"][name] for name in ("sequence", "pooled")) > 0
    assert record["scaled"]["statistics"] == start_of(own).statistics.digest
    assert record["whitened"].keys() - record["scaled"].keys() == {"whitening_floor"}
    starts = {init: start_of(variant(own, tmp_path / init, init=init)) for init in record}
    assert len({str(start.fingerprint) for start in starts.values()}) == 3


@pytest.mark.slow
def test_another_start_is_another_run(own: Config, tmp_path: Path) -> None:
    """A state saved before there was a scaled start has no word of it: it goes on with torch's weights only."""
    run = variant(own, tmp_path, init="torch", steps=2, save_every_steps=1, log_every_steps=1)
    train_adapter.run(run, QUIET)
    state = TrainStates(run.training_dir / "states", 2).newest()
    assert state is not None and "start" not in state.record["fingerprint"]
    before = log_rows(run)
    train_adapter.run(variant(own, tmp_path, init="torch", steps=2, save_every_steps=1, log_every_steps=1), QUIET)
    assert log_rows(run) == before
    said: list[str] = []
    console = Console(quiet=True)
    console.print = lambda text, **_: said.append(str(text))  # type: ignore[method-assign]
    train_adapter.run(variant(own, tmp_path, steps=2, save_every_steps=1, log_every_steps=1), console)
    assert any("training anew" in line and "start" in line for line in said)
    assert log_rows(run)[0]["loss"] != before[0]["loss"]


@pytest.mark.slow
def test_every_first_phase_starts_there(tiny_sdxl: Config, tmp_path: Path) -> None:
    """One step of next to no length leaves each kind of phase at the start."""
    config = with_queries(tiny_sdxl, tmp_path)
    start = dict(start_of(config).adapter().named_parameters())
    for kind in ("text", "attention", "unet"):
        phase = PhaseConfig(kind=kind, steps=1, batch_size=4, learning_rate=1e-8)
        run = variant(config, tmp_path / kind, phases=(phase,), weight_decay=0.0)
        train_adapter.run(run, QUIET)
        for name, tensor in weights(run).items():
            torch.testing.assert_close(tensor, start[name].detach(), rtol=1e-6, atol=1e-7)
    assert not same(weights(run), {name: tensor.detach() for name, tensor in start.items()})
