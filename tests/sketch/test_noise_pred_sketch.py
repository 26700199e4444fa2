"""The noise prediction through a sketch of its own: the same losses, unbiased, smaller, and part of the identity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from data_tools.report.cached_sample import cached_sample
from pea.batches.batch import Batch
from pea.cache import Cache
from pea.config import CacheConfig, Config, SketchConfig
from pea.errors import IdentityError
from pea.models.unet import UNetOutput
from pea.sketch.sketch import make_sketch
from pea.training.losses import LossWeights
from pea.training.signals import CachedTeacher, stored_sketch
from pea.training.student import student_losses
from stages.cli import main
from stages.training.setup import Setup, prepare
from tests.tiny_setup import fill_cache, make_setup

CPU = torch.device("cpu")
EXACT = {"kind": "exact", "dtype": "float32"}


def with_sketch(config: Config, run_dir: Path, sketch: dict[str, Any]) -> Config:
    """The same setup with a sketch of the noise prediction, in a run of its own."""
    cache = config.cache.model_copy(update={"noise_pred_sketch": TypeAdapter(SketchConfig).validate_python(sketch)})
    return config.model_copy(update={"cache": cache, "run_dir": run_dir})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return make_setup(tmp_path_factory.mktemp("whole") / "setup", "sdxl")


def refill(config: Config, whole: Config) -> Config:
    folder = Path(whole.corpora.parallel.tars[0]).parent
    fill_cache(config, "parallel", folder)
    fill_cache(config, "culture", folder)
    return config


def gradients(setup: Setup, batch: Batch) -> dict[str, torch.Tensor]:
    hidden, mask = setup.native_states(batch.native_captions)
    assert hidden is not None
    setup.adapter.zero_grad()
    weights = LossWeights(features=0.0, diffusion=0.0)
    student_losses(batch, hidden, mask, setup.adapter, setup.teacher, setup.source, weights).total.backward()
    return {name: p.grad.clone() for name, p in setup.adapter.named_parameters() if p.grad is not None}


@pytest.mark.slow
def test_an_exact_sketch_gives_the_gradients_of_the_whole(whole: Config, tmp_path: Path) -> None:
    config = refill(with_sketch(whole, tmp_path / "run", EXACT), whole)
    one, other = prepare(whole, CPU), prepare(config, CPU)
    for index in range(3):
        kept, sketched = one.data.batch(index), other.data.batch(index)
        assert kept.names == sketched.names and kept.noise_pred_sketch == {}
        assert len(sketched.noise_pred) == 0
        assert torch.equal(sketched.noise_pred_sketch["values"].flatten(1), kept.noise_pred.flatten(1))
        expected, got = gradients(one, kept), gradients(other, sketched)
        assert expected.keys() == got.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(got[name], gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.slow
def test_what_a_small_sketch_stores(whole: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fold = {"kind": "fold", "ratio": 4, "values": "int8"}
    config = refill(with_sketch(whole, tmp_path / "run", fold), whole)
    bucket = Cache.open(config.cache_dir("parallel")).shards[0].buckets["16x16"]
    names = {name for name in bucket.arrays if name.startswith("noise_pred")}
    assert names == {f"noise_pred/{suffix}" for suffix in ("values", "scale", "offset", "squared_norm")}
    assert bucket.arrays["noise_pred/values"].attributes["sketch"] == fold
    before = Cache.open(whole.cache_dir("parallel")).shards[0].buckets["16x16"]
    exact = before.read(["noise_pred"], 0, 5)["noise_pred"]
    stored = bucket.read(sorted(names), 0, 5)
    np.testing.assert_allclose(stored["noise_pred/squared_norm"], np.square(exact).sum((1, 2, 3)), rtol=1e-5)
    assert stored_sketch(bucket, "noise_pred", config.cache.seed).numel == exact[0].size
    assert main(["inspect", "show", str(config.cache_dir("parallel")), "parallel-0/0000"]) == 0
    assert "noise_pred/squared_norm" in capsys.readouterr().out
    with pytest.raises(IdentityError, match=r"noise_pred_dtype(.|\n)*sketched"):
        prepare(whole.model_copy(update={"run_dir": config.run_dir}), CPU)
    other = with_sketch(whole, config.run_dir, {**fold, "ratio": 8})
    with pytest.raises(IdentityError, match="noise_pred_sketch"):
        prepare(other, CPU)


def batch_of(count: int, shape: tuple[int, int, int], stored: dict[str, torch.Tensor], ids: np.ndarray) -> Batch:
    """Parallel records whose noise prediction is sketched, and nothing else."""
    blank = torch.zeros(count, *shape)
    return Batch(
        bucket="b",
        names=[""] * count,
        latents=blank,
        noise=blank,
        timesteps=torch.zeros(count, dtype=torch.int64),
        time_ids=torch.zeros(count, 6, dtype=torch.int64),
        native_captions=[""] * count,
        english_captions=[""] * count,
        noise_pred=blank[:0],
        features={},
        record_ids=ids,
        noise_pred_sketch=stored,
    )


@pytest.mark.parametrize("kind", ["positions", "count", "fold"])
@pytest.mark.parametrize("values", ["float32", "int4"])
def test_error_and_gradient_are_unbiased(kind: str, values: str) -> None:
    """Mean over many records of the same pair: within 5 standard errors of the exact error and gradient."""
    shape, count = (4, 6, 5), 4000
    size = {"fraction": 0.3} if kind == "positions" else {"ratio": 2.0}
    config = TypeAdapter(SketchConfig).validate_python({"kind": kind, "values": values, **size})
    teacher = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    student = teacher + 0.5 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    ids = np.random.default_rng(2).integers(0, 2**64, count, dtype=np.uint64)
    sketch = make_sketch(config, 3, "noise_pred", shape)
    stored = sketch.encode(teacher.expand(count, -1, -1, -1), ids)
    source = CachedTeacher(CacheConfig(noise_pred_sketch=config, seed=3), ())
    answer = student.expand(count, -1, -1, -1).clone().requires_grad_()
    errors = source.errors(UNetOutput(answer, {}), batch_of(count, shape, stored, ids), answer).noise_pred
    errors.sum().backward()
    exact = (student - teacher).square().mean()
    assert abs(errors.mean() - exact) < 5 * errors.std() / count**0.5
    assert answer.grad is not None
    off = answer.grad.mean(0) - 2 * (student - teacher) / teacher.numel()
    assert (off.abs() < 5 * answer.grad.std(0) / count**0.5 + 1e-7).all()
    whole = replace(batch_of(count, shape, {}, ids), noise_pred=teacher.expand(count, -1, -1, -1))
    plain = CachedTeacher(CacheConfig(seed=3), ()).errors(UNetOutput(answer, {}), whole, answer).noise_pred
    torch.testing.assert_close(plain, exact.expand(count))


@pytest.mark.slow
def test_pages_show_a_sketched_noise_prediction(whole: Config, tmp_path: Path) -> None:
    config = refill(with_sketch(whole, tmp_path / "run", {"kind": "fold", "ratio": 4, "values": "int8"}), whole)
    page = tmp_path / "cache.html"
    assert main(["inspect", "export", str(config.cache_dir("parallel")), "--html", str(page)]) == 0
    assert "noise_pred" in page.read_text("utf-8")
    cached = cached_sample(config)
    assert cached is not None and "(its sketch)" in cached["note"] and len(cached["records"]) > 1
