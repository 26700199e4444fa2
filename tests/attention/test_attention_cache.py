"""Query arrays are arrays like the others: they grow, are planned, shown, verified, and not served when damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_tools.inspect.verify import verify
from pea.attention.queries import decode_queries
from pea.batches.attention_batches import AttentionData
from pea.cache import Bucket, Cache
from pea.cache.audit import audit
from pea.cache.schema import TEXT_STATES
from pea.collect.teacher_rows import FrozenModels
from pea.config import AttentionConfig, Config, resolved_yaml
from pea.errors import PeaError
from pea.models.english import EnglishEncoder
from stages.cli import main
from tests.collect.test_collector import assert_same, collect, with_cache

pytestmark = pytest.mark.slow

FEW: dict[str, Any] = {"num_queries": 3, "layers_per_record": 2, "dtype": "int8"}


def with_attention(config: Config, folder: Path, attention: dict[str, Any], **changes: Any) -> Config:
    moved = config.model_copy(update={"run_dir": folder})
    return with_cache(moved, attention=AttentionConfig(**attention), blocks=(), **changes)


def buckets(cache: Cache) -> dict[tuple[str, str], Bucket]:
    return {(shard.tar, name): bucket for shard in cache.shards for name, bucket in shard.buckets.items()}


def all_rows(bucket: Bucket, *names: str) -> dict[str, np.ndarray]:
    return bucket.read(list(names), 0, bucket.num_records)


@pytest.fixture(scope="module")
def few(tiny_sdxl: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Cache]:
    config = with_attention(tiny_sdxl, tmp_path_factory.mktemp("few"), FEW)
    return config, collect(config)


@pytest.fixture(scope="module")
def whole(tiny_sdxl: Config, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    exact = {"num_queries": 3, "dtype": "float32"}
    return collect(with_attention(tiny_sdxl, tmp_path_factory.mktemp("whole"), exact))


def test_a_few_layers_in_int8_are_those_of_the_whole(few: tuple[Config, Cache], whole: Cache) -> None:
    every = buckets(whole)
    for place, bucket in buckets(few[1]).items():
        rows = all_rows(bucket, "queries/3x16", "query_scales/3x16", "query_layers/3x16")
        layers = bucket.arrays["query_layers/3x16"].attributes["layers"]
        exact = np.stack([all_rows(every[place], f"queries/{name}")[f"queries/{name}"] for name in layers], axis=1)
        expected = np.take_along_axis(exact, rows["query_layers/3x16"].astype(int)[:, :, None, None], axis=1)
        found = decode_queries(rows, "3x16").numpy()
        assert found.shape == (bucket.num_records, 2, 3, 16) and len(layers) == 4
        assert (np.abs(found - expected) <= 0.51 / 127 * np.abs(expected).max(-1, keepdims=True) + 1e-6).all()


def test_a_cache_grows_by_draws(few: tuple[Config, Cache], tiny_sdxl: Config, tmp_path: Path) -> None:
    shorter = with_attention(tiny_sdxl, tmp_path, FEW, draws_per_sample=2)
    collect(shorter)
    grown = collect(with_cache(shorter, draws_per_sample=3), extend=True)
    assert_same(grown, few[1])


def test_batches_hold_each_records_own_layers(few: tuple[Config, Cache]) -> None:
    config, cache = few
    empty = EnglishEncoder.from_checkpoint(config.teacher.checkpoint).encode([""])
    data = AttentionData(cache, ("zh",), 5, 0, empty)
    assert data.num_records == 48
    for index in range(data.batches_per_epoch):
        batch = data.batch(index)
        kept = torch.cat([queries.rows for queries in batch.targets.queries.values()])
        assert torch.bincount(kept, minlength=5).tolist() == [2] * 5
        assert {queries.share for queries in batch.targets.queries.values()} == {0.5}


def test_dropped_captions_stay_in_the_pooled_text_where_the_cache_says_so(few: tuple[Config, Cache]) -> None:
    config, cache = few
    empty = EnglishEncoder.from_checkpoint(config.teacher.checkpoint).encode([""])
    one, other = (AttentionData(cache, ("zh",), 8, 0, empty, keep_pooled=keep).batch(0) for keep in (False, True))
    dropped = [not text for text in one.native_captions]
    assert any(dropped) and not all(dropped) and other.native_captions == one.native_captions
    assert one.native_pooled_captions is None and other.native_pooled_captions is not None
    assert all(other.native_pooled_captions)
    pooled = [batch.targets.english.pooled_prompt_embeds for batch in (one, other)]
    assert pooled[0] is not None and pooled[1] is not None and empty.pooled_prompt_embeds is not None
    for row, drop in enumerate(dropped):
        assert torch.equal(pooled[0][row], empty.pooled_prompt_embeds[0]) == drop
        assert torch.equal(pooled[0][row], pooled[1][row]) != drop


def test_the_plan_counts_the_queries(
    few: tuple[Config, Cache], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, cache = few
    plans = {}
    for name, attention in (("with", config.cache.attention), ("without", None)):
        (tmp_path / f"{name}.yaml").write_text(resolved_yaml(with_cache(config, attention=attention)))
        words = ["plan", "--config", str(tmp_path / f"{name}.yaml"), "--samples", "100"]
        assert main([*words, "--json"]) == 0
        plans[name] = json.loads(capsys.readouterr().out)
        assert main(words) == 0
        assert ("attention queries: " in capsys.readouterr().out) == (name == "with")
    bucket = buckets(cache)["parallel-0", "16x16"]
    stored = [spec for name, spec in bucket.arrays.items() if name.startswith("quer")]
    texts = [spec for name, spec in bucket.arrays.items() if name.startswith("text/")]
    exact = sum(spec.row_bytes for spec in stored) + sum(spec.row_bytes for spec in texts) / 3
    added = plans["with"]["attention"]["bytes_per_record"]
    assert added == pytest.approx(exact, rel=0.35)  # compressed, and with checksums
    assert plans["without"]["attention"] is None
    [unet] = [phase for phase in plans["with"]["work"]["phases"] if phase["kind"] == "unet"]
    assert 0 < plans["with"]["attention"]["tflop_per_record"] < unet["flop"] / unet["rows"] / 1e12


def test_they_are_shown(few: tuple[Config, Cache], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "info", str(few[1].directory)]) == 0
    shown = capsys.readouterr().out
    for name in ("queries", "query_layers", "query_scales", "text"):
        assert f"\n{name} " in shown
    assert "'layers_per_record': 2" in shown


def test_they_are_verified(few: tuple[Config, Cache], monkeypatch: pytest.MonkeyPatch) -> None:
    config, _ = few
    found = verify(config, "parallel", num_samples=3, threshold=0.01)
    assert found.passed and found.errors["queries/3x16"]["largest"] < 0.01
    original = FrozenModels.answer

    def faulty(self: FrozenModels, *given: Any) -> Any:
        rows, rejected = original(self, *given)
        assert rows is not None
        rows.records["query_scales/3x16"] = rows.records["query_scales/3x16"] * np.float32(1.1)
        rows.records["query_layers/3x16"] = rows.records["query_layers/3x16"][:, ::-1]
        return rows, rejected

    monkeypatch.setattr(FrozenModels, "answer", faulty)
    problems = "\n".join(verify(config, "parallel", num_samples=2, threshold=0.01).problems)
    assert "query_layers/3x16 differs" in problems and "queries/3x16: relative error 0.1" in problems


@pytest.mark.parametrize("array", ["queries/3x16", "query_scales/3x16", "query_layers/3x16", TEXT_STATES])
def test_damage_is_found_and_not_served(tiny_sdxl: Config, tmp_path: Path, array: str) -> None:
    cache = collect(with_attention(tiny_sdxl, tmp_path, FEW, draws_per_sample=1))
    file = max(
        (f for f in Path(cache.directory).rglob(f"{array}/c/**/*") if f.is_file()), key=lambda f: f.stat().st_size
    )
    data = bytearray(file.read_bytes())
    data[len(data) // 4] ^= 4
    file.write_bytes(data)
    assert audit(cache.directory).problems
    with pytest.raises(PeaError):
        for bucket in buckets(Cache.open(cache.directory)).values():
            bucket.read([array], 0, bucket.num_samples)
