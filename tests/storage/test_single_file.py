"""A checkpoint in one file, in the layout of the original code."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pea.cache.model_fields import model_fields
from pea.config.corpora import TeacherConfig
from pea.errors import CheckpointError
from pea.models.noise_schedule import schedule_fields
from pea.models.teacher_parts import check_teacher
from pea.storage.single_file import folder_of_single_file
from tests.loopback_hub import SHA
from tests.models.original_layout import write_single_file
from tests.tiny_models import Shape, make_checkpoint

PARTS = {"sd15": ["unet", "vae", "text_encoder", "tokenizer"]}
PARTS["sdxl"] = [*PARTS["sd15"], "text_encoder_2", "tokenizer_2"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pipelines, the same as single files, and their configurations alone, from pipelines of other weights."""
    folder = tmp_path_factory.mktemp("models")
    shapes: tuple[Shape, ...] = ("sd15", "sdxl")
    for shape in shapes:
        make_checkpoint(folder / shape, shape)
        write_single_file(folder / shape, folder / f"{shape}.safetensors")
        make_checkpoint(folder / f"{shape}-config", shape, seed=9)
        for weights in (folder / f"{shape}-config").rglob("*.safetensors"):
            weights.unlink()
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("shape", ["sd15", "sdxl"])
def test_a_single_file_is_the_model_that_the_folder_is(models: Path, shape: str) -> None:
    teacher = TeacherConfig(checkpoint=models / f"{shape}.safetensors", config=models / f"{shape}-config")
    folder = teacher.folder
    check_teacher(folder)
    assert model_fields(folder, PARTS[shape]).values == model_fields(models / shape, PARTS[shape]).values
    assert schedule_fields(folder / "scheduler") == schedule_fields(models / shape / "scheduler")
    assert teacher.folder == folder


def test_another_file_of_the_same_name_is_another_model(models: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    shutil.copyfile(models / "sd15.safetensors", file)
    first = folder_of_single_file(file, models / "sd15-config")
    tensors = load_file(file)
    tensors["model.diffusion_model.out.2.bias"] += 1
    save_file(tensors, file)
    second = folder_of_single_file(file, models / "sd15-config")
    assert first != second
    assert model_fields(first, ["unet"]).values != model_fields(second, ["unet"]).values


@pytest.mark.parametrize(("more", "expected"), [({}, "epsilon"), ({"v_pred": torch.zeros(0)}, "v_prediction")])
def test_a_file_that_says_how_it_predicts_is_believed(
    models: Path, tmp_path: Path, more: dict[str, Any], expected: str
) -> None:
    file = write_single_file(models / "sdxl", tmp_path / "model.safetensors", **more, ztsnr=torch.zeros(0))
    fields = schedule_fields(folder_of_single_file(file, models / "sdxl-config") / "scheduler")
    assert fields["prediction_type"] == expected
    assert bool(fields.get("rescale_betas_zero_snr")) == (expected == "v_prediction")


def test_the_hubs_cache_lends_configuration_and_tokenizer(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    snapshot = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
    with pytest.raises(CheckpointError, match=r"no configuration and tokenizer.*teacher\.config"):
        folder_of_single_file(models / "sd15.safetensors")
    shutil.copytree(models / "sd15-config", snapshot / "snapshots" / SHA)
    (snapshot / "refs").mkdir()
    (snapshot / "refs" / "main").write_text(SHA)
    found = folder_of_single_file(models / "sd15.safetensors")
    assert model_fields(found, PARTS["sd15"]).values == model_fields(models / "sd15", PARTS["sd15"]).values


def changed(models: Path, file: Path, **changes: Any) -> Path:
    tensors = load_file(models / "sd15.safetensors")
    for name, tensor in changes.items():
        tensors[name] = tensor
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, file)
    return file


def test_what_is_no_checkpoint_is_refused_by_name(models: Path, tmp_path: Path) -> None:
    file, config = tmp_path / "model.safetensors", models / "sd15-config"
    zero = torch.zeros(1)
    for tensors, problem in (
        ({"conditioner.embedders.0.model.ln_final.bias": zero}, "the SDXL refiner is not supported"),
        ({"lora_unet_down.weight": zero}, r"not a whole checkpoint .*got lora_unet_down\.weight"),
        ({"model.diffusion_model.out.2.bias": zero}, r"not a whole checkpoint .*got model\.diffusion_model\."),
    ):
        save_file(tensors, file)
        with pytest.raises(CheckpointError, match=problem):
            folder_of_single_file(file, config)
    file.write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        folder_of_single_file(file, config)
    with pytest.raises(CheckpointError, match="not the configuration of SDXL"):
        folder_of_single_file(models / "sdxl.safetensors", config)
    with pytest.raises(CheckpointError, match="for single files alone"):
        _ = TeacherConfig(checkpoint=models / "sd15", config=config).folder


def test_tensors_that_nobody_knows_are_refused(models: Path, tmp_path: Path) -> None:
    file = changed(models, tmp_path / "m.safetensors", **{"model.diffusion_model.strange.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"the unet in this file is not .*of which \d+ are known"):
        folder_of_single_file(file, models / "sd15-config")


def test_a_configuration_of_other_sizes_is_refused_before_anything_is_spent(models: Path, tmp_path: Path) -> None:
    config = tmp_path / "config"
    shutil.copytree(models / "sd15-config", config)
    settings = json.loads((config / "unet/config.json").read_text())
    (config / "unet/config.json").write_text(json.dumps(settings | {"cross_attention_dim": 24}))
    with pytest.raises(
        CheckpointError, match=r"the unet in this file .*attn2\.to_k\.weight \(\d+, \d+\), not \(\d+, 24\)"
    ):
        folder_of_single_file(models / "sd15.safetensors", config)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("model.diffusion_model.out.2.bias", "the unet in this file .*no conv_out.bias"),
        ("first_stage_model.decoder.conv_out.bias", "the vae in this file .*no decoder.conv_out.bias"),
    ],
)
def test_a_missing_tensor_is_named_before_anything_is_written(
    models: Path, tmp_path: Path, name: str, problem: str
) -> None:
    file = changed(models, tmp_path / "m.safetensors", **{name: None})
    with pytest.raises(CheckpointError, match=problem):
        folder_of_single_file(file, models / "sd15-config")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("part", "number"),
    [("model.diffusion_model.", math.nan), ("first_stage_model.", -math.inf), ("cond_stage_model.", math.inf)],
)
def test_numbers_that_are_none_are_refused_before_anything_is_written(
    models: Path, tmp_path: Path, part: str, number: float
) -> None:
    tensors = load_file(models / "sd15.safetensors")
    name = next(each for each in tensors if each.startswith(part) and each.endswith("bias"))
    tensors[name].view(-1)[-1] = number
    save_file(tensors, tmp_path / "m.safetensors")
    with pytest.raises(CheckpointError, match=r"weights that are no finite numbers; got .*bias of the"):
        folder_of_single_file(tmp_path / "m.safetensors", models / "sd15-config")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("name", "text"), [("unet/config.json", "[]"), ("vae/config.json", "[" * 100_000)])
def test_a_lent_configuration_that_is_none_is_refused(name: str, text: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "sd", "sd15")
    file = write_single_file(folder, tmp_path / "sd.safetensors")
    (folder / name).write_text(text)
    with pytest.raises(CheckpointError, match=f"the configuration {name} that was lent to this file is none") as caught:
        folder_of_single_file(file, folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["edm_mean", "edm_std", "edm_vpred.sigma_max"])
def test_a_file_that_says_that_its_noise_is_another_is_refused(models: Path, tmp_path: Path, name: str) -> None:
    file = changed(models, tmp_path / "m.safetensors", **{name: torch.zeros(1)})
    with pytest.raises(CheckpointError, match=f"a model of other noise .* is not supported; .* got {name}"):
        folder_of_single_file(file, models / "sd15-config")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int8])
@pytest.mark.parametrize("part", ["model.", "cond_stage_model."])
def test_a_quantized_file_is_refused_before_it_is_copied(
    dtype: torch.dtype, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = make_checkpoint(tmp_path / "sd", "sd15")
    file = write_single_file(folder, tmp_path / "sd.safetensors")
    packed = {name: tensor.to(dtype) if name.startswith(part) else tensor for name, tensor in load_file(file).items()}
    save_file(packed, tmp_path / "packed.safetensors")
    with pytest.raises(CheckpointError, match="quantized weights are not supported"):
        folder_of_single_file(tmp_path / "packed.safetensors", folder)
    assert not (tmp_path / "cache").exists()
