"""KoCLIP and CLIP-Italian: flax checkpoints, read with msgpack alone."""

from __future__ import annotations

import json
from pathlib import Path

import msgpack
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from pea.errors import CheckpointError
from pea.models.imports.flax_files import read_flax
from pea.models.imports.importing import import_encoder
from pea.models.native import NativeEncoder
from tests.models.imports.flax_writer import write_flax
from tests.models.imports.test_imports import WIDE, check, randomized
from tests.models.imports.tokenizer_folders import WORDS, write_vocabulary

KINDS = {
    "koclip": (RobertaModel, RobertaConfig, {"type_vocab_size": 1, "pad_token_id": 1, "layer_norm_eps": 1e-5}),
    "clip-italian": (BertModel, BertConfig, {"type_vocab_size": 2, "pad_token_id": 0, "layer_norm_eps": 1e-12}),
}


@pytest.mark.parametrize("name", KINDS)
def test_hybrid_clip_by_names(name: str, tmp_path: Path) -> None:
    """`FlaxHybridCLIP` hands its text model positions from 0, be it a BERT or a RoBERTa."""
    model_class, config_class, options = KINDS[name]
    config = config_class(**WIDE, **options, vocab_size=len(WORDS), max_position_embeddings=128)
    text = randomized(model_class(config))
    state = {f"text_model.{key}": tensor for key, tensor in text.state_dict().items()}
    state |= {"text_projection.weight": torch.zeros(8, 128), "logit_scale": torch.zeros(())}
    state["vision_model.vision_model.embeddings.class_embedding"] = torch.zeros(8)
    write_flax(state, tmp_path / "flax_model.msgpack", chunked=("text_model.embeddings.word_embeddings.weight",))
    told = {"model_type": "hybrid-clip", "text_config": config.to_dict(), "vision_config": {}}
    (tmp_path / "config.json").write_text(json.dumps(told))
    write_vocabulary(tmp_path)
    done = import_encoder(tmp_path, tmp_path / "out")
    assert done.layout.name.startswith("FlaxHybridCLIP")

    def theirs(ids: Tensor, mask: Tensor) -> Tensor:
        positions, kinds = torch.arange(ids.shape[1]).expand_as(ids), torch.zeros_like(ids)
        return text(ids, attention_mask=mask, position_ids=positions, token_type_ids=kinds).last_hidden_state

    check(tmp_path / "out", theirs, 96)


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    state = {
        "layer.LayerNorm.weight": torch.rand(4),
        "layer.dense.weight": torch.rand(3, 4),
        "layer.dense.bias": torch.rand(3).half(),
        "word_embeddings.weight": torch.rand(5, 4),
    }
    read = read_flax(write_flax(state, tmp_path / "m.msgpack", chunked=("layer.dense.weight",)))
    assert read.keys() == state.keys() and all(torch.equal(read[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a flax checkpoint"),
        (b"\x93\x01\x02\x03", "list instead of a dictionary"),
        (msgpack.packb({"a": {"kernel": "text"}}), r"str under a\.kernel"),
        (msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(([2], "float32", b"1234")))}), "4 bytes for float32"),
        (msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(([1], "object", b"1234")))}), "an array of object"),
        (msgpack.packb({"a": msgpack.ExtType(9, b"")}), "extension type 9"),
        (msgpack.packb({"a": 1})[:-1], "not a flax checkpoint"),
    ],
)
def test_other_files_are_refused(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "m.msgpack").write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        read_flax(tmp_path / "m.msgpack")
    assert "\n" not in str(caught.value)


def test_an_imported_one_is_plain_safetensors(tmp_path: Path) -> None:
    text = randomized(BertModel(BertConfig(**WIDE, vocab_size=len(WORDS))))
    state = {f"text_model.{key}": tensor for key, tensor in text.state_dict().items()}
    write_flax(state, tmp_path / "flax_model.msgpack")
    write_vocabulary(tmp_path)
    encoder = import_encoder(tmp_path, tmp_path / "out").encoder
    assert isinstance(encoder, NativeEncoder)
    assert load_file(tmp_path / "out/model.safetensors")["embeddings.word_embeddings.weight"].shape == (len(WORDS), 128)
