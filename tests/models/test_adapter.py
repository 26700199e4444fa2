"""The adapter: published layout and sizes, seeds, saving, official checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pea.errors import CheckpointError
from pea.models.adapter import PEA, convert_official, new_adapter
from tests.tiny_models import ENCODER_RECORD


def test_published_sizes() -> None:
    with torch.device("meta"):
        sdxl = PEA(1024, 2048, 1280, hidden_size=1024)
        sd15 = PEA(1024, 768, None, hidden_size=2048)
    assert sum(p.numel() for p in sdxl.parameters()) == 6_033_408
    assert sum(p.numel() for p in sd15.parameters()) == 7_866_368
    names = ["layernorm.weight", "layernorm.bias", "projector.0.weight", "projector.2.weight", "projector.4.weight"]
    assert [name for name, _ in sd15.named_parameters()] == names
    assert [name for name, _ in sdxl.named_parameters()] == [*names, "fc.weight", "fc.bias"]


def test_sdxl_pools_over_the_tokens() -> None:
    adapter = PEA(8, 6, 4, hidden_size=8)
    hidden = torch.randn(2, 5, 8)
    sequence, pooled = adapter(hidden)
    assert sequence.shape == (2, 5, 6) and pooled is not None and pooled.shape == (2, 4)
    torch.testing.assert_close(pooled, adapter.projector(adapter.layernorm(hidden)).mean(1))


def test_masked_pooling_ignores_padding() -> None:
    adapter = PEA(8, 6, 4, hidden_size=8, pooling="unmasked_tokens")
    hidden, mask = torch.randn(1, 5, 8), torch.tensor([[1, 1, 0, 0, 0]])
    torch.testing.assert_close(adapter(hidden, mask)[1], adapter(hidden[:, :2], mask[:, :2])[1])


def test_depth_and_sd15_head() -> None:
    adapter = PEA(8, 6, None, hidden_size=16, num_layers=4)
    sequence, pooled = adapter(torch.randn(2, 5, 8))
    assert sequence.shape == (2, 5, 6) and pooled is None
    assert len([layer for layer in adapter.projector if isinstance(layer, torch.nn.Linear)]) == 5


def test_a_seed_is_the_weights_and_leaves_the_global_generator_alone() -> None:
    config = {"cross_attention_dim": 6}
    state = torch.get_rng_state()
    one = new_adapter(config, 8, hidden_size=8, num_layers=2, max_tokens=10, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(1)
    two = new_adapter(config, 8, hidden_size=8, num_layers=2, max_tokens=10, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_saved_and_loaded(tmp_path: Path) -> None:
    adapter = PEA(8, 6, 4, hidden_size=8, max_tokens=10, cache_identity="abc", encoder=ENCODER_RECORD, languages=["zh"])
    adapter.save_pretrained(tmp_path)
    loaded = PEA.load(tmp_path)
    assert loaded.config.cache_identity == "abc" and loaded.config.max_tokens == 10
    assert loaded.config.encoder == ENCODER_RECORD and loaded.config.languages == ["zh"]
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    hidden = torch.randn(1, 3, 8)
    assert torch.equal(loaded(hidden)[0], adapter(hidden)[0])
    with pytest.raises(CheckpointError, match=r"no adapter here.*pea train"):
        PEA.load(tmp_path / "absent")
    adapter.save_pretrained(tmp_path / "run/adapter")
    with pytest.raises(CheckpointError, match=r"no adapter here.*Name \S*run/adapter\.$"):
        PEA.load(tmp_path / "run")


@pytest.mark.parametrize("config", [{"model_type": "clip"}, {"_class_name": "UNet2DConditionModel"}])
def test_a_folder_of_another_model_is_no_adapter(tmp_path: Path, config: dict[str, str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=f"not an adapter; got a {next(iter(config.values()))}. Name the folder"):
        PEA.load(tmp_path)


@pytest.mark.parametrize("pooled_dim", [4, None])
def test_official_checkpoints_convert(tmp_path: Path, pooled_dim: int | None) -> None:
    adapter = PEA(8, 6, pooled_dim, hidden_size=16, num_layers=3)
    torch.save({name: tensor.half() for name, tensor in adapter.state_dict().items()}, tmp_path / "pytorch_model.bin")
    converted = convert_official(tmp_path / "pytorch_model.bin")
    assert converted.config.hidden_size == 16 and converted.config.num_layers == 3
    assert converted.config.pooled_dim == pooled_dim and converted.config.cross_attention_dim == 6
    torch.testing.assert_close(converted(torch.ones(1, 2, 8))[0], adapter(torch.ones(1, 2, 8))[0], rtol=0.01, atol=0.01)


def test_other_files_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "other.bin")
    (tmp_path / "text.bin").write_text("hello")
    for name in ("other.bin", "text.bin", "absent.bin"):
        with pytest.raises(
            CheckpointError, match=r"not an official PEA checkpoint|cannot read the weights|more than plain"
        ):
            convert_official(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensor: tensor * float("nan"), "no finite numbers"),
        (lambda tensor: (100 * tensor).to(torch.int8), "quantized weights"),
        (lambda tensor: tensor.to(torch.float8_e4m3fn), "quantized weights"),
        (lambda tensor: tensor > 0, "quantized weights"),
    ],
)
@pytest.mark.parametrize("ending", [".bin", ".safetensors"])
def test_an_official_checkpoint_of_no_numbers_is_refused(
    ending: str, change: Callable[[torch.Tensor], torch.Tensor], said: str, tmp_path: Path
) -> None:
    path = tmp_path / f"pea{ending}"
    changed = {name: change(tensor) for name, tensor in PEA(8, 6, 4, hidden_size=8).state_dict().items()}
    save_file(changed, path) if ending == ".safetensors" else torch.save(changed, path)
    with pytest.raises(CheckpointError, match=said):
        convert_official(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda tensors: tensors.pop("fc.bias"), r"1 missing \(fc.bias\)"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), r"1 unknown \(extra\)"),
        (lambda tensors: tensors.update({"fc.bias": torch.zeros(7)}), "fc.bias"),
    ],
)
def test_an_adapter_of_other_tensors_is_refused(
    how: Callable[[dict[str, torch.Tensor]], object], said: str, tmp_path: Path
) -> None:
    PEA(8, 6, 4, hidden_size=8, encoder=ENCODER_RECORD).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    how(tensors)
    save_file(tensors, tmp_path / "diffusion_pytorch_model.safetensors")
    with pytest.raises(CheckpointError, match=said) as caught:
        PEA.load(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises((CheckpointError, ValueError), match=said):
        PEA.from_pretrained(tmp_path)


def test_a_pickled_adapter_is_not_opened(tmp_path: Path) -> None:
    adapter = PEA(8, 6, 4, hidden_size=8, encoder=ENCODER_RECORD)
    adapter.save_pretrained(tmp_path)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(adapter.state_dict(), tmp_path / "diffusion_pytorch_model.bin")
    with pytest.raises(CheckpointError, match="no safetensors weights"):
        PEA.load(tmp_path)
    with pytest.raises(OSError, match="safetensors"):
        PEA.from_pretrained(tmp_path)


def test_a_diffusion_model_of_another_shape_is_refused() -> None:
    adapter = PEA(8, 6, None, hidden_size=8, base_model={"name": "tiny"})
    adapter.check_base({"cross_attention_dim": 6}, "here")
    with pytest.raises(CheckpointError, match=r"width 6, pooled None, as tiny has; got 8, pooled None"):
        adapter.check_base({"cross_attention_dim": 8}, "here")


def test_a_diffusion_model_that_predicts_something_else_is_refused() -> None:
    adapter = PEA(8, 6, None, hidden_size=8, base_model={"name": "tiny"}, prediction_type="epsilon")
    adapter.check_base({"cross_attention_dim": 6}, "here", "epsilon")
    adapter.check_base({"cross_attention_dim": 6}, "here")
    with pytest.raises(CheckpointError, match=r"another prediction type; expected epsilon, as tiny has; got v_pred"):
        adapter.check_base({"cross_attention_dim": 6}, "here", "v_prediction")
    PEA(8, 6, None, hidden_size=8).check_base({"cross_attention_dim": 6}, "here", "v_prediction")


def test_weights_are_those_that_were_saved(tmp_path: Path) -> None:
    PEA(8, 6, 4, hidden_size=8, encoder=ENCODER_RECORD).save_pretrained(tmp_path)
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    for load in (PEA.load, PEA.from_pretrained):
        with pytest.raises(CheckpointError, match="the weights are not those that were saved with"):
            load(tmp_path)
    path.write_bytes(whole)
    changed = PEA.load(tmp_path)
    with torch.no_grad():
        changed.layernorm.weight.add_(1)
    changed.save_pretrained(tmp_path)
    assert torch.equal(PEA.load(tmp_path).layernorm.weight, changed.layernorm.weight), "saved anew, it is whole again"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_layers", 10**12), ("num_layers", -1), ("input_dim", "absurd"), ("pooled_dim", []), ("pooling", "median"),
        ("max_tokens", "absurd"), ("encoder", "absurd"), ("base_model", ["absurd"]), ("languages", "zh"),
        ("weights", 7),
    ],
)  # fmt: skip
def test_a_configuration_that_means_nothing_is_refused(name: str, value: object, tmp_path: Path) -> None:
    PEA(16, 32, None, 8).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(CheckpointError, match=f"an unusable {name}; expected .*; got "):
        PEA.load(tmp_path)


NO_PLACE = ("x", 5, [], {}, ["zh"], ["../zh"], [5], True)
NO_DIGEST = ("x", 5, -1, None, [], {}, True, ["1" * 64], ["1" * 64] * 3, "1" * 63)
RECORDS: dict[str, tuple[object, ...]] = {
    "name": (5, -1, None, [], ["a", "b"], {}, "", "a\nb", "\x1b[31mred"),
    "class": (5, None, {}, ["a"]),
    "tensors": NO_DIGEST,
    "tokenizer": NO_DIGEST,
    "hidden_state": ("x", "1", {}, [], 1.5, None, True, float("nan"), [1, "x"]),
    "attention_mask": ("false", 0, 1, None, {}),
    "padding_side": ("up", 5, None, ["left", "up"]),
    "max_tokens": ("7", 1.5, None, True, {}),
    "places": NO_PLACE,
    "computed_with": (5, "gelu", [1, 2], [{}]),
}
QUICK = ("tensors", "max_tokens", "places")


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=() if each in QUICK else pytest.mark.slow) for each in RECORDS]
)
def test_a_record_of_the_encoder_that_tells_nothing_is_refused(name: str, tmp_path: Path) -> None:
    PEA(8, 6, 4, hidden_size=8, encoder=ENCODER_RECORD).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for value in RECORDS[name]:
        changed = config | {"encoder": ENCODER_RECORD | {name: value}}
        (tmp_path / "config.json").write_text(json.dumps(changed))
        with pytest.raises(CheckpointError, match=rf"says an unusable (encoder\.)?{name}; expected") as caught:
            PEA.load(tmp_path)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    needed = {key: value for key, value in ENCODER_RECORD.items() if key != name}
    (tmp_path / "config.json").write_text(json.dumps(config | {"encoder": needed}))
    if name in ENCODER_RECORD:  # without it, any encoder of that width would do
        with pytest.raises(CheckpointError, match=f"an unusable {name}"):
            PEA.load(tmp_path)
    else:
        assert PEA.load(tmp_path).config.encoder == needed


def test_a_record_of_two_encoders_is_taken(tmp_path: Path) -> None:
    both = {name: [value, value] for name, value in ENCODER_RECORD.items()} | {"name": "zh + en", "max_tokens": 64}
    both |= {"hidden_state": ["last", -2], "attention_mask": [True, False], "places": ["/zh", "s3://bucket/en"]}
    PEA(8, 6, 4, hidden_size=8, encoder=both).save_pretrained(tmp_path)
    assert PEA.load(tmp_path).config.encoder == both


@pytest.mark.parametrize("base", [{"name": 5}, {"unet": []}, {"values": "x"}, {"name": ["a"]}])
def test_a_record_of_the_base_model_that_says_nothing_is_refused(base: dict[str, object], tmp_path: Path) -> None:
    PEA(8, 6, 4, hidden_size=8, encoder=ENCODER_RECORD, base_model=base).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"base_model: .* says an unusable"):
        PEA.load(tmp_path)
