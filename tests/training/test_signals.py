"""Training from the cache is the original method: one contract, held by both sources of the teacher's answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from pea.batches.batch import Batch
from pea.cache import Cache
from pea.config import CacheConfig, Config, SketchConfig
from pea.models.unet import UNetOutput
from pea.training.losses import Losses, LossWeights
from pea.training.signals import CachedTeacher, LiveTeacher, english_conditioning, feature_powers
from pea.training.student import student_losses
from stages.training.setup import Setup, prepare
from tests.tiny_setup import make_setup

TOLERANCE = 1e-5
NUM_BATCHES = 6


@dataclass
class Pair:
    """The same setup twice: with the cache's answers, and with the teacher's own."""

    cached: Setup
    live: Setup

    def get(self, name: str) -> Setup:
        return self.cached if name == "cached" else self.live


@pytest.fixture(
    scope="module",
    params=[pytest.param("sd15", marks=pytest.mark.slow), "sdxl", pytest.param("v_prediction", marks=pytest.mark.slow)],
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    prediction_type = "v_prediction" if request.param == "v_prediction" else "epsilon"
    shape = "sdxl" if request.param == "sdxl" else "sd15"
    config = make_setup(tmp_path_factory.mktemp(request.param), shape, prediction_type=prediction_type)
    return Pair(prepare(config, torch.device("cpu")), prepare(_live(config), torch.device("cpu")))


def _with_train(config: Config, **changes: object) -> Config:
    return config.model_copy(update={"train": config.train.model_copy(update=changes)})


def _live(config: Config) -> Config:
    return _with_train(config, targets="live")


def _losses(setup: Setup, batch: Batch, **options: Any) -> Losses:
    hidden, mask = setup.native_states(batch.native_captions)
    assert hidden is not None
    return student_losses(batch, hidden, mask, setup.adapter, setup.teacher, setup.source, LossWeights(), **options)


def _gradients(setup: Setup, losses: Losses) -> dict[str, Tensor]:
    setup.adapter.zero_grad()
    losses.total.backward()
    return {name: p.grad.clone() for name, p in setup.adapter.named_parameters() if p.grad is not None}


def _relative(a: Tensor, b: Tensor) -> float:
    a, b = a.detach(), b.detach()
    return float((a - b).norm() / b.norm().clamp(min=1e-30))


def test_batches_hold_everything_that_must_agree(pair: Pair) -> None:
    batches = [pair.cached.data.batch(index) for index in range(NUM_BATCHES)]
    assert {batch.bucket for batch in batches} == {"16x16", "16x24"}
    assert all(0 < batch.num_parallel < len(batch) for batch in batches)
    dropped = sum(caption == "" for batch in batches for caption in batch.english_captions)
    assert 0 < dropped < sum(batch.num_parallel for batch in batches)


def test_the_same_losses_and_gradients(pair: Pair) -> None:
    for index in range(NUM_BATCHES):
        cached = _losses(pair.cached, pair.cached.data.batch(index))
        live = _losses(pair.live, pair.live.data.batch(index))
        assert set(cached.blocks) == set(live.blocks) == set(pair.live.teacher.blocks)
        for block in live.blocks:
            assert _relative(cached.blocks[block], live.blocks[block]) <= TOLERANCE, block
        assert _relative(cached.noise_pred, live.noise_pred) <= TOLERANCE
        assert _relative(cached.diffusion, live.diffusion) <= TOLERANCE
        assert _relative(cached.total, live.total) <= TOLERANCE
        ours, theirs = _gradients(pair.cached, cached), _gradients(pair.live, live)
        assert ours.keys() == theirs.keys()
        for name in theirs:
            assert _relative(ours[name], theirs[name]) <= TOLERANCE, name


def test_the_diffusion_loss_of_the_velocity_weighs_each_culture_row_by_its_own_noise(pair: Pair) -> None:
    setup, batch = pair.cached, pair.cached.data.batch(0)
    culture = batch.culture_alone()
    assert 0 < len(culture) < len(batch)
    snr = setup.teacher.snr(culture.timesteps)
    factors = 1 + 1 / snr if setup.teacher.prediction_type == "epsilon" else torch.ones_like(snr)
    of_prediction, of_velocity = (_losses(setup, batch, diffusion_of_velocity=each) for each in (False, True))
    alone = [_row_error(setup, culture, row) for row in range(len(culture))]
    assert _relative(of_prediction.diffusion, torch.stack(alone).sum() / len(batch)) <= TOLERANCE
    assert _relative(of_velocity.diffusion, (torch.stack(alone) * factors).sum() / len(batch)) <= TOLERANCE
    assert of_velocity.noise_pred == of_prediction.noise_pred
    both = [
        _losses(setup, batch, min_snr_gamma=5.0, diffusion_of_velocity=each).diffusion.item() for each in (False, True)
    ]
    assert both[0] == both[1]  # these weights are those of the image's error in either form


def _row_error(setup: Setup, culture: Batch, row: int) -> Tensor:
    """The squared error of the prediction in one culture row."""
    hidden, mask = setup.native_states(culture.native_captions)
    assert hidden is not None
    with torch.no_grad():
        noisy = setup.teacher.add_noise(culture.latents, culture.noise, culture.timesteps)
        output = setup.teacher.forward(noisy, culture.timesteps, setup.adapter(hidden, mask), culture.time_ids)
    target = setup.teacher.target(culture.latents, culture.noise, culture.timesteps)
    return (output.noise_pred - target)[row].square().mean()


@pytest.mark.parametrize("name", ["cached", "live"])
class TestEverySource:
    """What the trainer may rely on, whatever the source."""

    def test_errors_are_one_number_per_parallel_row(self, pair: Pair, name: str) -> None:
        setup = pair.get(name)
        batch = setup.data.batch(0)
        errors = self._errors(setup, batch)
        assert errors.noise_pred.shape == (batch.num_parallel,)
        assert set(errors.blocks) == set(setup.teacher.blocks)
        for rows in errors.blocks.values():
            assert rows.shape == (batch.num_parallel,)
            assert rows.dtype == torch.float32
            assert (rows > 0).all()

    def test_a_student_that_answers_like_the_teacher_has_no_error(self, pair: Pair, name: str) -> None:
        setup = pair.get(name)
        batch = setup.data.batch(1)
        noisy = setup.teacher.add_noise(batch.latents, batch.noise, batch.timesteps)
        rows = batch.num_parallel
        assert isinstance(pair.live.source, LiveTeacher)
        with torch.no_grad():
            conditioning = english_conditioning(pair.live.source.encode, batch, torch.device("cpu"))
            answer = setup.teacher.forward(noisy[:rows], batch.timesteps[:rows], conditioning, batch.time_ids[:rows])
        errors = setup.source.errors(answer, batch, noisy)
        assert errors.noise_pred.max() < 1e-10
        assert max(float(rows.max()) for rows in errors.blocks.values()) < 1e-8

    def test_gradients_reach_the_adapter_only(self, pair: Pair, name: str) -> None:
        setup = pair.get(name)
        gradients = _gradients(setup, _losses(setup, setup.data.batch(0)))
        assert set(gradients) == {name for name, _ in setup.adapter.named_parameters()}
        assert all(gradient.abs().sum() > 0 for gradient in gradients.values())
        assert all(parameter.grad is None for parameter in setup.teacher.unet.parameters())

    def test_a_batch_without_parallel_rows_has_no_distillation(self, pair: Pair, name: str) -> None:
        setup = pair.get(name)
        batch = setup.data.batch(0)
        rows = batch.num_parallel
        culture = replace(
            batch,
            names=batch.names[rows:],
            latents=batch.latents[rows:],
            noise=batch.noise[rows:],
            timesteps=batch.timesteps[rows:],
            time_ids=batch.time_ids[rows:],
            native_captions=batch.native_captions[rows:],
            english_captions=[],
            noise_pred=batch.noise_pred[:0],
            features={b: {s: t[:0] for s, t in arrays.items()} for b, arrays in batch.features.items()},
            record_ids=batch.record_ids[:0],
        )
        losses = _losses(setup, culture)
        assert losses.noise_pred.item() == 0.0
        assert losses.total.item() == pytest.approx(losses.diffusion.item())
        assert losses.diffusion.item() > 0

    @staticmethod
    def _errors(setup: Setup, batch: Batch):  # type: ignore[no-untyped-def]
        hidden, mask = setup.native_states(batch.native_captions)
        noisy = setup.teacher.add_noise(batch.latents, batch.noise, batch.timesteps)
        output = setup.teacher.forward(noisy, batch.timesteps, setup.adapter(hidden, mask), batch.time_ids)
        return setup.source.errors(output, batch, noisy)


@pytest.mark.parametrize(
    "sketch",
    [{"kind": "positions", "fraction": 0.5, "values": "float32"}, {"kind": "count", "ratio": 4.0, "values": "float32"}],
    ids=lambda sketch: str(sketch["kind"]),
)
def test_sketched_errors_are_unbiased(pair: Pair, sketch: dict[str, object]) -> None:
    """Over many random sketches of one record, the mean estimate is the exact error."""
    wanted = TypeAdapter(SketchConfig).validate_python(sketch)
    config = CacheConfig(sketch=wanted)
    source = CachedTeacher(config, ["mid_block"])
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 1, 8, 8, 8, generator=generator)
    count = 600
    batch = pair.cached.data.batch(0)
    ids = torch.randint(0, 2**62, (count,), generator=generator)
    stored = source.sketch("mid_block", (8, 8, 8)).encode(teacher.expand(count, -1, -1, -1), ids)
    many = replace(
        batch,
        english_captions=["x"] * count,
        noise_pred=torch.zeros(count, 1),
        features={"mid_block": stored},
        record_ids=ids.numpy().astype("uint64"),
    )
    output = UNetOutput(torch.zeros(count, 1), {"mid_block": student.expand(count, -1, -1, -1)})
    estimates = source.errors(output, many, torch.zeros(0)).blocks["mid_block"]
    exact = (student - teacher).square().mean()
    assert abs(estimates.mean() - exact) < 4 * estimates.std() / count**0.5


@pytest.mark.slow
@pytest.mark.parametrize("sketch", [{"kind": "count", "ratio": 2}, {"kind": "quantized"}])
def test_feature_powers_are_the_teachers_mean_squares(tmp_path: Path, sketch: dict[str, object]) -> None:
    exact = make_setup(tmp_path / "exact", "sd15")
    sketched = make_setup(tmp_path / "sketched", "sd15", sketch=sketch)
    blocks = Cache.open(exact.cache_dir("parallel")).identity.blocks
    found = feature_powers(Cache.open(sketched.cache_dir("parallel")), blocks)
    values = {block: [] for block in blocks}
    for shard in Cache.open(exact.cache_dir("parallel")).shards:
        for bucket in shard.buckets.values():
            for block in blocks:
                name = f"features/{block}/values"
                values[block].append((bucket.read([name], 0, bucket.num_records)[name] ** 2).ravel())
    for block in blocks:
        assert found[block] == pytest.approx(np.concatenate(values[block]).mean(), rel=0.1)
    raw, relative = (
        prepare(_with_train(exact, feature_scale=scale), torch.device("cpu")).block_weights
        for scale in ("raw", "relative")
    )
    assert raw == dict.fromkeys(blocks, 1.0)
    assert relative == pytest.approx({block: 1 / np.concatenate(values[block]).mean() for block in blocks}, rel=1e-4)
