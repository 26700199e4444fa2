"""The attention loss beside the losses of a UNet phase: the same loss, on the batch's own queries."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from pydantic import ValidationError

from pea.attention.queries import AttentionTargets, LayerQueries
from pea.config import Config, TrainConfig
from pea.errors import CacheError, ConfigError
from pea.models.conditioning import Conditioning
from pea.models.unet import UNetOutput
from stages import train_adapter
from stages.command.console import Console
from stages.training import row_groups
from stages.training.losses import BatchLosses
from stages.training.setup import Setup, prepare
from tests.tiny_setup import with_queries
from tests.train_runs import log_rows, variant, weights

pytestmark = pytest.mark.slow

WEIGHT = 0.5


@pytest.fixture(scope="module", params=[None, 2], ids=["every layer", "two layers a record"])
def config(request: pytest.FixtureRequest, tiny_sdxl: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    """The tiny setup with a cache that holds queries."""
    return with_queries(tiny_sdxl, tmp_path_factory.mktemp("queries"), layers_per_record=request.param)


def losses_of(config: Config, folder: Path, **train: Any) -> tuple[Setup, BatchLosses]:
    config = variant(config, folder, **train)
    setup = prepare(config, torch.device("cpu"))
    return setup, BatchLosses(config, setup, setup.adapter, Accelerator(cpu=True))


def test_it_is_added_to_the_others(config: Config, tmp_path: Path) -> None:
    _, plain = losses_of(config, tmp_path)
    setup, beside = losses_of(config, tmp_path, attention_weight=WEIGHT)
    batch = setup.data.batch(0)
    one, other = plain(batch, 0), beside(batch, 0)
    assert one.attention is None and other.attention is not None and setup.attention is not None
    assert batch.attention is not None and 0 < batch.num_parallel < len(batch)
    with torch.no_grad():
        student = setup.adapter(*setup.native_states(batch.native_captions[: batch.num_parallel]))
        alone = setup.attention.layers.losses(batch.attention, student, setup.attention.powers)
    assert other.attention.item() == pytest.approx(alone.total.item() * batch.num_parallel / len(batch), rel=1e-5)
    assert other.total.item() == pytest.approx(one.total.item() + WEIGHT * other.attention.item(), rel=1e-6)
    assert other.report()["attention"] == other.attention


def test_it_needs_no_unet_where_nothing_else_does(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = {"noise_pred_weight": 0.0, "feature_weight": 0.0, "culture_fraction": 0.0, "attention_weight": WEIGHT}
    setup, losses = losses_of(config, tmp_path, **alone)
    monkeypatch.setattr(setup.teacher, "forward", None)
    found = losses(setup.data.batch(0), 0)
    assert found.attention is not None and found.total.item() == pytest.approx(WEIGHT * found.attention.item())
    found.total.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in setup.adapter.parameters())


def test_it_asks_the_queries_of_the_students_own_pass(config: Config, tmp_path: Path) -> None:
    start = {"init": "torch"}  # whose gradients are of the size that the tolerances below are for
    setup, cached = losses_of(config, tmp_path, attention_weight=WEIGHT, **start)
    own_setup, own = losses_of(config, tmp_path, attention_weight=WEIGHT, attention_queries="student", **start)
    batch, attention = setup.data.batch(0), own_setup.attention
    rows = batch.num_parallel
    assert attention is not None and batch.attention is not None and 0 < rows < len(batch)
    noisy = own_setup.teacher.add_noise(batch.latents, batch.noise, batch.timesteps)
    student = own_setup.adapter(*own_setup.native_states(batch.native_captions))
    first = Conditioning(student.encoder_hidden_states[:rows], student.pooled_prompt_embeds[:rows])
    with torch.no_grad():
        seen = own_setup.teacher.forward(noisy, batch.timesteps, student, batch.time_ids, "all")
        asked = {name: LayerQueries(torch.arange(rows), each[:rows]) for name, each in seen.queries.items()}
    targets = AttentionTargets(asked, batch.attention.english, batch.attention.time_ids)
    alone = attention.layers.losses(targets, first, attention.powers)
    found = own(batch, 0)
    assert found.attention is not None
    assert found.attention.item() == pytest.approx(alone.total.item() * rows / len(batch), rel=1e-5)
    assert found.attention.item() != pytest.approx(cached(batch, 0).report()["attention"].item(), rel=1e-4)
    parameters = list(own_setup.adapter.parameters())
    gradients = torch.autograd.grad(found.attention, parameters, allow_unused=True)
    for one, other in zip(gradients, torch.autograd.grad(alone.total, parameters, allow_unused=True), strict=True):
        torch.testing.assert_close(one, other * rows / len(batch), rtol=1e-4, atol=1e-8)


class Passes:
    """Notes the passes of a UNet: rows, and whether there is a way back."""

    def __init__(self, setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[int, bool]] = []
        self.forward = setup.teacher.forward
        monkeypatch.setattr(setup.teacher, "forward", self)

    def __call__(self, latents: torch.Tensor, *given: Any) -> UNetOutput:
        output = self.forward(latents, *given)
        self.seen.append((len(latents), output.noise_pred.requires_grad))
        return output


def test_own_queries_cost_a_pass_of_the_unet_but_not_the_way_back(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = {"noise_pred_weight": 0.0, "feature_weight": 0.0, "diffusion_weight": 0.0, "attention_weight": WEIGHT}
    setup, losses = losses_of(config, tmp_path, **alone, attention_queries="student")
    batch, passes = setup.data.batch(0), Passes(setup, monkeypatch)
    found = losses(batch, 0)
    assert passes.seen == [(len(batch), False)]
    assert found.attention is not None and found.total.item() == pytest.approx(WEIGHT * found.attention.item())
    assert found.noise_pred.item() > 0, "the student's pass is reported"
    assert setup.teacher._pass.captured == {}, "nothing is kept of a pass that is over"
    found.total.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in setup.adapter.parameters())


def test_the_unet_sees_culture_rows_alone_where_no_other_loss_looks(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup, every = losses_of(config, tmp_path, attention_weight=WEIGHT)
    batch = setup.data.batch(0)
    wanted = every(batch, 0)
    undistilled = {"noise_pred_weight": 0.0, "feature_weight": 0.0, "attention_weight": WEIGHT}
    setup, losses = losses_of(config, tmp_path, **undistilled)
    passes = Passes(setup, monkeypatch)
    found = losses(batch, 0)
    assert passes.seen == [(len(batch) - batch.num_parallel, True)] and batch.num_parallel > 0
    assert found.diffusion.item() == pytest.approx(wanted.diffusion.item(), rel=1e-5)
    assert found.attention is not None and wanted.attention is not None
    assert found.attention.item() == pytest.approx(wanted.attention.item(), rel=1e-6)
    total = losses.weights.diffusion * found.diffusion + WEIGHT * found.attention
    assert found.total.item() == pytest.approx(total.item(), rel=1e-6)


def test_a_culture_batch_has_none(config: Config, tmp_path: Path) -> None:
    setup, losses = losses_of(config, tmp_path, culture_fraction=1.0, attention_weight=WEIGHT, feature_weight=0.0)
    found = losses(setup.data.batch(0), 0)
    assert found.attention is None and found.total.item() > 0


def test_groups_of_rows_have_the_loss_of_the_whole_batch(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, runs = torch.get_num_threads(), {}
    torch.set_num_threads(2)
    try:
        for name, fewest in (("grouped", 2), ("whole", 100)):
            monkeypatch.setattr(row_groups, "MIN_ROWS", fewest)
            runs[name] = variant(config, tmp_path / name, attention_weight=WEIGHT, learning_rate=1e-3)
            train_adapter.run(runs[name], Console(quiet=True))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*(log_rows(run) for run in runs.values()), strict=True):
        assert math.isclose(one["attention"], other["attention"], rel_tol=1e-5)
        assert math.isclose(one["loss"], other["loss"], rel_tol=1e-5)
    for name, tensor in weights(runs["whole"]).items():
        torch.testing.assert_close(weights(runs["grouped"])[name], tensor, rtol=1e-4, atol=1e-6)


def test_layers_have_weights(config: Config, tmp_path: Path) -> None:
    setup, plain = losses_of(config, tmp_path, attention_weight=WEIGHT)
    assert setup.attention is not None
    first, *others = setup.attention.layers.names
    _, alone = losses_of(config, tmp_path, attention_weight=WEIGHT, attention_layer_weights={first: 0.0})
    batch = setup.data.batch(0)
    assert plain(batch, 0).report()["attention"] != alone(batch, 0).report()["attention"]
    for wrong, message in (({"attic": 1.0}, "no such"), (dict.fromkeys([first, *others], 0.0), "every .* left out")):
        with pytest.raises(ConfigError, match=rf"train\.attention_layer_weights.*{message}"):
            losses_of(config, tmp_path, attention_weight=WEIGHT, attention_layer_weights=wrong)


def test_what_cannot_be_is_refused(tiny_sdxl: Config, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match=r"holds no attention queries.*Set cache\.attention"):
        losses_of(tiny_sdxl, tmp_path, attention_weight=WEIGHT)
    with pytest.raises(ValidationError, match="method kv changes the layers"):
        TrainConfig(method="kv", attention_weight=WEIGHT)
