"""Memory is foretold from shapes alone, and follows what a run of this configuration loads and does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pea.collect.drawing import DRAWN_TOGETHER
from pea.collect.layout import layouts_of
from pea.collect.overlap import DECODED_AHEAD
from pea.collect.teacher_rows import FrozenModels
from pea.config import AttentionConfig, Config
from pea.costs import memory
from pea.costs.caching import read_models
from tests.collect.test_drawn_texts import of_texts


def needs(config: Config, num_samples: int = 1000, **train: Any) -> dict[str, float]:
    models = read_models(config.teacher.checkpoint)
    first = config.cache.model_copy(update={"buckets": config.cache.buckets[:1]})
    [layout] = layouts_of(models.vae, models.unet, first, models.num_tokens).values()
    config = config.model_copy(update={"train": config.train.model_copy(update=train)})
    return memory.memory_needs(config, models, layout, num_samples)


def with_teacher(config: Config, **changes: Any) -> Config:
    return config.model_copy(update={"teacher": config.teacher.model_copy(update=changes)})


def with_run(config: Config, **changes: Any) -> Config:
    run = config.cache.run.model_copy(update=changes)
    return config.model_copy(update={"cache": config.cache.model_copy(update={"run": run})})


@pytest.fixture
def small_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher's pass holds 1,000 bytes a row, the VAE's 10,000,000, or 20,000,000 in float32; a step none."""
    monkeypatch.setattr(memory, "forward_bytes", lambda *_: 1e3)
    monkeypatch.setattr(memory, "encode_bytes", lambda _vae, _image, dtype: 2e7 if dtype == "float32" else 1e7)
    monkeypatch.setattr(memory, "decode_bytes", lambda *_: 0.0)
    monkeypatch.setattr(memory, "step_bytes", lambda *_, **__: 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("dtypes", [("bfloat16", "float32"), ("float32", "bfloat16")])
@pytest.mark.parametrize("texts", [False, True])
def test_weights_of_caching_are_those_that_it_loads(
    tiny_sdxl: Config, tmp_path: Path, dtypes: tuple[str, str], texts: bool
) -> None:
    config = with_teacher(tiny_sdxl, dtype=dtypes[0], vae_dtype=dtypes[1])
    config = of_texts(config, tmp_path) if texts else config
    frozen = FrozenModels(config, "parallel", torch.device("cpu"))
    assert frozen._teacher is not None and (frozen._vae is None) == texts
    loaded = [frozen._teacher.unet, *([] if frozen._vae is None else [frozen._vae.vae])]
    found = sum(each.nbytes for model in loaded for each in model.parameters())
    models = read_models(config.teacher.checkpoint)
    english = memory._text_weights(models, config.teacher.dtype)
    assert memory.frozen_weights(config, models) - english == found
    held = sum(each.nbytes for _, model in frozen._english.parts for each in model.parameters())
    assert english == pytest.approx(held, rel=0.1), "a projection more or less"


@pytest.mark.usefixtures("small_passes")
def test_the_vae_counts_in_the_type_that_it_encodes_in(tiny_sdxl: Config) -> None:
    config = with_run(with_teacher(tiny_sdxl, dtype="bfloat16", vae_dtype="bfloat16"), device="cpu")
    half, whole = needs(config), needs(with_teacher(config, vae_dtype="float32"))
    models = read_models(config.teacher.checkpoint)
    weights = memory.frozen_weights(with_teacher(config, vae_dtype="float32"), models)
    weights -= memory.frozen_weights(config, models)
    images = memory.images_per_pass((16, 16), on_cpu=True)
    batch = config.cache.run.batch_size
    assert whole["caching"] - half["caching"] == pytest.approx(weights + min(batch, images) * 1e7)
    assert {**whole, "caching": 0} == {**half, "caching": 0}


@pytest.mark.usefixtures("small_passes")
def test_on_a_cpu_batches_follow_the_threads_and_decoded_images_count(tiny_sdxl: Config) -> None:
    config = with_run(tiny_sdxl, device="cpu", num_cpus_per_actor=1.0, batch_size=4)
    one, three = (needs(with_run(config, num_cpus_per_actor=count))["caching"] for count in (1.0, 3.9))
    image = 3 * 16 * 16 * 4
    assert three - one == pytest.approx(2 * (4 * 2e7 + 4 * image))
    assert needs(config, num_samples=12)["caching"] == pytest.approx(one - (DECODED_AHEAD + 4 - 12) * image)


@pytest.mark.usefixtures("small_passes")
def test_on_a_gpu_two_batches_are_under_way_of_which_one_is_encoded(tiny_sdxl: Config) -> None:
    config = with_run(tiny_sdxl, device="cuda", batch_size=4)
    both, alone = needs(config)["caching"], needs(config, num_samples=4)["caching"]
    assert 4 * 1e3 < both - alone < 2e7, "the second batch is in the UNet"
    models = read_models(config.teacher.checkpoint)
    assert both - memory.frozen_weights(config, models) < 5 * 2e7, "decoded images lie in the host's memory"


@pytest.mark.usefixtures("small_passes")
def test_texts_are_drawn_and_not_encoded(tiny_sdxl: Config, tmp_path: Path) -> None:
    config = of_texts(tiny_sdxl, tmp_path)
    parallel = config.corpora.parallel
    drawing = parallel.drawing.model_copy(update={"guidance": 1.0})
    corpora = config.corpora.model_copy(update={"parallel": parallel.model_copy(update={"drawing": drawing})})
    guided, plain = needs(config), needs(config.model_copy(update={"corpora": corpora}))
    assert guided["caching"] - plain["caching"] == pytest.approx(DRAWN_TOGETHER * 1e3)
    assert needs(tiny_sdxl)["caching"] - plain["caching"] > 2 * 1e7, "no image is encoded"


@pytest.mark.slow
def test_needs_follow_the_settings(tiny_sdxl: Config) -> None:
    plain = needs(tiny_sdxl)
    assert set(plain) == {"caching", "training", "drawing"}
    assert needs(tiny_sdxl, batch_size=16)["training"] > plain["training"]
    assert needs(tiny_sdxl, gradient_checkpointing=True)["training"] < plain["training"]
    assert needs(tiny_sdxl, num_samples=2)["caching"] < plain["caching"]
    half = tiny_sdxl.model_copy(update={"teacher": tiny_sdxl.teacher.model_copy(update={"dtype": "bfloat16"})})
    assert needs(half)["caching"] < plain["caching"] and needs(half)["training"] == plain["training"]
    queries = tiny_sdxl.cache.model_copy(update={"attention": AttentionConfig(num_queries=4)})
    with_queries = needs(tiny_sdxl.model_copy(update={"cache": queries}))
    assert 0 < with_queries["attention"] < with_queries["training"]
