"""A configuration may say anything; what it cannot mean is refused by the name of the field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pea.costs.caching import read_models
from pea.errors import CheckpointError
from pea.models.config_fields import TEXT, UNET, VAE
from pea.models.noise_schedule import schedule_fields
from pea.models.teacher_parts import own_size, text_config
from pea.models.unet import unet_config
from pea.models.unet_shapes import block_shapes
from pea.models.vae import vae_config
from tests.tiny_models import make_checkpoint

ABSURD = ("absurd", -1, 0, 1.5, 10**12, {}, [], [-1], True, float("nan"), float("-inf"))
READ: dict[str, tuple[str, set[str], Callable[[Path], Any]]] = {
    "unet": ("unet/config.json", set(UNET), unet_config),
    "vae": ("vae/config.json", set(VAE), vae_config),
    "text": ("text_encoder_2/config.json", set(TEXT), lambda folder: text_config(folder / "text_encoder_2")),
    "noise": (
        "scheduler/scheduler_config.json",
        {"_class_name", "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type"},
        lambda folder: schedule_fields(folder / "scheduler"),
    ),
}
MEANINGFUL: dict[str, tuple[object, ...]] = {"scaling_factor": (1.5, 10**12)}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("fields") / "teacher", "sdxl")


@pytest.mark.parametrize("part", READ)
def test_values_that_a_field_cannot_have_are_refused_in_one_line(part: str, teacher: Path) -> None:
    file, names, read = READ[part]
    path = teacher / file
    good = path.read_text()
    try:
        read(teacher)
        for name in sorted(names):
            for value in ABSURD:
                if value in MEANINGFUL.get(name, ()):
                    continue
                path.write_text(json.dumps(json.loads(good) | {name: value}))
                with pytest.raises(CheckpointError) as caught:
                    read(teacher)
                assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    finally:
        path.write_text(good)


def test_a_field_that_is_absent_has_the_default_of_the_class(teacher: Path) -> None:
    path = teacher / "unet/config.json"
    good = path.read_text()
    try:
        path.write_text(json.dumps({n: v for n, v in json.loads(good).items() if n != "cross_attention_dim"}))
        assert unet_config(teacher)["cross_attention_dim"] == 1280
        path.write_text(json.dumps({n: v for n, v in json.loads(good).items() if n != "addition_time_embed_dim"}))
        with pytest.raises(CheckpointError, match=r"an unusable addition_time_embed_dim; .*got None"):
            unet_config(teacher)
    finally:
        path.write_text(good)


@pytest.mark.parametrize(
    ("name", "value"),
    [("act_fn", "absurd"), ("norm_num_groups", 3), ("freq_shift", "absurd"), ("downsample_padding", None)],
)
def test_a_unet_that_cannot_be_built_or_run_is_refused_before_its_weights(
    name: str, value: object, teacher: Path
) -> None:
    path = teacher / "unet/config.json"
    good = path.read_text()
    try:
        path.write_text(json.dumps(json.loads(good) | {name: value}))
        with pytest.raises(CheckpointError, match=r"config\.json describes no UNet"):
            block_shapes(unet_config(teacher), (8, 8))
    finally:
        path.write_text(good)


def test_a_plan_reads_configurations_alone_and_refuses_a_vae_that_is_none(teacher: Path) -> None:
    path = teacher / "vae/config.json"
    good = path.read_text()
    try:
        path.write_text(json.dumps(json.loads(good) | {"norm_num_groups": 3}))
        with pytest.raises(CheckpointError, match=r"config\.json describes no VAE"):
            read_models(teacher)
    finally:
        path.write_text(good)


def test_the_size_that_is_drawn_is_the_pipelines() -> None:
    assert own_size({"sample_size": 96}) == (96, 96)
    assert own_size({"sample_size": [64, 96]}) == (64, 96)
    assert own_size({}) == own_size({"sample_size": None}) == (64, 64)
    xl = {"addition_embed_type": "text_time", "projection_class_embeddings_input_dim": 2816}
    assert own_size(xl | {"addition_time_embed_dim": 256}) == (128, 128)
