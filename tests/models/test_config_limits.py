"""A configuration that no machine can follow is refused before a model is made of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pea.errors import CheckpointError
from pea.models.adapter import PEA
from pea.models.config_limits import check_limits
from pea.models.native import NativeEncoder, check_native
from tests.models.encoders.tiny import make_encoder
from tests.tiny_models import make_native_encoder

USUAL: tuple[dict[str, Any], ...] = (
    {"num_hidden_layers": 48, "max_window_layers": 70, "layer_norm_eps": 1e-12, "layerdrop": 0, "layers": None},
    {"vision_feature_layer": -2, "max_position_embeddings": 10_485_760, "transformer_layers_per_block": [1, 2, 10]},
    {"rope_theta": 10_000_000, "head_dim": None, "num_key_value_heads": None, "quantization_config": None},
)
UNUSABLE: tuple[tuple[dict[str, Any], str], ...] = (
    ({"num_hidden_layers": 10**9}, "num_hidden_layers; expected at most 1,000 layers; got 1000000000"),
    ({"text_config": {"num_layers": 1001}}, r"text_config\.num_layers; expected at most 1,000"),
    ({"n_layer": 10**9}, "n_layer"),
    ({"transformer_layers_per_block": [1, 10**9]}, "transformer_layers_per_block"),
    ({"num_attention_heads": -1}, "num_attention_heads; expected 1 or more; got -1"),
    ({"num_heads": 0}, "num_heads; expected 1 or more; got 0"),
    ({"layer_norm_eps": float("nan")}, "layer_norm_eps; expected a number; got nan"),
    ({"vision_config": {"scale": [1.0, float("inf")]}}, r"vision_config\.scale; expected a number; got inf"),
    (
        {"quantization_config": {"quant_method": "gptq"}},
        "quantized weights are not supported.*quantization_config gptq",
    ),
    ({"text_config": {"quantization_config": {"quant_method": "awq"}}}, "quantized weights.*quantization_config awq"),
    ({"compression_config": {"quant_method": "compressed-tensors"}}, "quantized weights.* compressed-tensors"),
    ({"quantization_config": 5}, "quantized weights are not supported.*quantization_config 5"),
)


@pytest.mark.parametrize("config", USUAL)
def test_usual_values_pass(config: dict[str, Any]) -> None:
    check_limits(config, "here")


@pytest.mark.parametrize(("config", "said"), UNUSABLE)
def test_unusable_ones_are_named(config: dict[str, Any], said: str) -> None:
    with pytest.raises(CheckpointError, match=said) as caught:
        check_limits(config, "here")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("encoders")
    return {"bert": make_native_encoder(folder / "bert", "bert"), "t5": make_encoder(folder / "t5", "t5")}


@pytest.mark.parametrize(
    ("kind", "field", "value", "said"),
    [
        ("bert", "num_hidden_layers", 10**9, "at most 1,000 layers"),
        ("bert", "num_attention_heads", -1, "expected 1 or more"),
        ("bert", "layer_norm_eps", float("nan"), "expected a number"),
        ("bert", "quantization_config", {"quant_method": "fp8"}, "quantized weights"),
        ("bert", "model_type", None, "not a folder of transformers; expected config.json with a model_type"),
        ("t5", "relative_attention_num_buckets", 10**9, "far larger model than the weights"),
        ("t5", "d_ff", 10**8, "far larger model than the weights"),
    ],
)
def test_an_encoder_is_refused_before_it_is_made(
    encoders: dict[str, Path], kind: str, field: str, value: Any, said: str
) -> None:
    path = encoders[kind] / "config.json"
    good = path.read_text()
    path.write_text(json.dumps(json.loads(good) | {field: value}))
    asks: tuple[Callable[[Path], Any], ...] = (check_native, NativeEncoder.from_pretrained)
    try:
        for ask in asks:
            with pytest.raises(CheckpointError, match=said) as caught:
                ask(encoders[kind])
            assert "\n" not in str(caught.value)
    finally:
        path.write_text(good)


def test_an_adapter_of_endless_size_is_refused_before_it_is_made(tmp_path: Path) -> None:
    PEA(8, 6, 4, hidden_size=8).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_size": 40_000, "num_layers": 900}))
    with pytest.raises(CheckpointError, match="far larger model than the weights"):
        PEA.load(tmp_path)
