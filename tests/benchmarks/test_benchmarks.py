"""The benchmarks run on the smallest sizes and publish what they say; no figure is judged."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pea.config import Config, resolved_yaml
from tests.benchmarks import (
    bench_bucket,
    bench_caching,
    bench_growth,
    bench_memory,
    bench_storage,
    bench_training,
    bench_waiting,
    bench_writing,
    harness,
)
from tests.benchmarks.stores import Memmaps, SafetensorsFiles, WebDataset


def test_rounds_are_interleaved_and_the_first_is_not_counted() -> None:
    order: list[str] = []
    seconds = harness.interleave({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2, lambda: None)
    assert "".join(order) == "abbaab"
    assert {name: len(each) for name, each in seconds.items()} == {"a": 2, "b": 2}
    assert harness.ratio([2.0, 30.0, 2.0], [1.0, 10.0, 1.0]) == 2.0
    assert harness.table(["x", "y"], [[1, 2]]) == "| x | y |\n| --- | --- |\n| 1 | 2 |\n"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves tars open
@pytest.mark.parametrize("kind", [bench_storage.PeaCache, Memmaps, SafetensorsFiles, WebDataset])
def test_every_store_gives_back_every_record(kind: type, tmp_path: Path) -> None:
    records = bench_storage.make_records(60_000, 40)
    assert sum(values[0].nbytes for values in records.values()) == pytest.approx(60_000, abs=16)
    store = kind(tmp_path)
    store.write(records)
    batches = list(store.batches(16, 0))
    ids = [int(number) for batch in batches for number in batch["record_id"]]
    assert sorted(ids) == sorted(records["record_id"].tolist()) and ids != records["record_id"].tolist()
    assert set(batches[0]) - {"__key__"} == set(records) and len(records) == 12


@pytest.mark.slow
def test_made_up_shards_are_a_cache_without_problems(tmp_path: Path) -> None:
    bench_growth.make_cache(tmp_path, 3)
    found = bench_growth.measure(tmp_path, ["plan", "check"], 1)
    assert all(len(each["seconds"]) == 1 and each["megabytes"][0] > 10 for each in found.values())


@pytest.mark.slow
def test_training_benchmark_publishes_all_kinds_of_steps(
    tiny_sdxl: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(resolved_yaml(tiny_sdxl))
    out = tmp_path / "training.json"
    assert bench_training.main(["--config", str(tmp_path / "c.yaml"), "--rounds", "2", "--out", str(out)]) == 0
    seconds = json.loads(out.read_text())["seconds"]
    assert set(seconds["steps"]) == set(bench_training.KINDS)
    assert all(len(each) == 2 for each in seconds["steps"].values())
    assert "| cached |" in capsys.readouterr().out


@pytest.mark.slow
def test_caching_benchmark_counts_the_same_records(
    tiny_sdxl: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text(resolved_yaml(tiny_sdxl))
    out = tmp_path / "caching.json"
    assert bench_caching.main(["--config", str(tmp_path / "c.yaml"), "--rounds", "1", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert result["records"] == 12 * tiny_sdxl.cache.draws_per_sample
    assert set(result["seconds"]) == {"bare", "bare, a batch per core", "models", "collector"}
    assert "| teacher |" in capsys.readouterr().out


@pytest.mark.slow
def test_memory_benchmark_tells_the_bytes_of_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "memory.json"
    assert bench_memory.main(["--shards", "2", "4", "--steps", "20", "--rounds", "1", "--out", str(out)]) == 0
    found = json.loads(out.read_text())["bytes"]
    assert [found[size]["records"] for size in ("2", "4")] == [[2 * 768], [4 * 768]]
    assert all(len(found["4"][name]) == 1 for name in bench_memory.POINTS)
    assert "bytes a shard" in capsys.readouterr().out


@pytest.mark.slow
def test_writing_benchmark_compares_two_trees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "writing.json"
    former = str(Path(__file__).parents[2])  # any tree will do: here this one against itself
    assert bench_writing.main(["--former", former, "--records", "40", "--rounds", "2", "--out", str(out)]) == 0
    found = json.loads(out.read_text())["60000"]["seconds"]
    assert {name: len(each) for name, each in found.items()} == {"this writer": 2, "former writer": 2}
    assert "| this writer |" in capsys.readouterr().out


@pytest.mark.slow
def test_waiting_benchmark_counts_every_step_of_every_phase(tiny_sdxl: Config) -> None:
    config = tiny_sdxl.model_copy(update={"train": tiny_sdxl.train.model_copy(update={"num_workers": 2})})
    found = bench_waiting.measure(config, 1, 3)
    assert found
    for each in found.values():
        assert 0 <= each["share"][0] <= 1 and 0 < each["share_with_first"][0] <= 1 and each["step_ms"][0] > 0


@pytest.mark.slow
def test_the_ceiling_fetches_what_the_reader_fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with bench_bucket.running() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        bucket = server.new_bucket()
        cache = bench_storage.PeaCache(bench_bucket.Location.parse(f"s3://{bucket}"))  # type: ignore[arg-type]
        cache.write(bench_storage.make_records(60_000, 40))
        gets = bench_bucket.gets_of(server.url, bucket, lambda: bench_storage.consume(cache.batches(16, 0), 40))
        assert len({get.key for get in gets}) > 8
        assert bench_bucket.fetch_all(server.url, bucket, gets) > 40 * 60_000
