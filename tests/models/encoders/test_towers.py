"""Text encoders inside models that were published for something else: found, read alike, or refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoTokenizer

from pea.errors import CheckpointError
from pea.models.native import NativeEncoder, check_native
from tests.tiny_models import make_native_encoder

_SIZES = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}
_TEXT = {**_SIZES, "num_attention_heads": 2, "max_position_embeddings": 12}
_WRITER = {**_TEXT, "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 1, "eos_token_id": 2}
_BART = {"vocab_size": 64, "d_model": 16, "max_position_embeddings": 12, "pad_token_id": 0}
_BART |= {f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
_IMAGES = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
_IMAGES |= {"num_hidden_layers": 1}


def _of(kind: str, config: str, **sizes: Any) -> Any:
    return getattr(transformers, kind)(getattr(transformers, config)(**sizes))


def _qwen3_vl() -> Any:
    images = {"depth": 1, "hidden_size": 16, "out_hidden_size": 16, "num_heads": 2, "patch_size": 8}
    images |= {"intermediate_size": 32, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    text = {**_WRITER, "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default"}}
    return _of("Qwen3VLForConditionalGeneration", "Qwen3VLConfig", text_config=text, vision_config=images)


def _t5gemma() -> Any:
    decoder = {**_WRITER, "cross_attention_hidden_size": 16}
    return _of("T5GemmaForConditionalGeneration", "T5GemmaConfig", encoder=_WRITER, decoder=decoder, vocab_size=64)


def _distilbert() -> Any:
    sizes = {"vocab_size": 64, "dim": 16, "hidden_dim": 32, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 12}
    return _of("DistilBertForMaskedLM", "DistilBertConfig", **sizes)


READ: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "a discriminator": (lambda: _of("ElectraForPreTraining", "ElectraConfig", **_TEXT), lambda whole: whole.electra),
    "a masked language model": (_distilbert, lambda whole: whole.distilbert),
    "a translator": (lambda: _of("MBartForConditionalGeneration", "MBartConfig", **_BART), lambda m: m.model.encoder),
    "a writer with a head of its own name": (
        lambda: _of("GPTNeoXForCausalLM", "GPTNeoXConfig", **_TEXT),
        lambda whole: whole.gpt_neox,
    ),
    "a writer that sees": (_qwen3_vl, lambda whole: whole.model.language_model),
    "an encoder of a decoder's kind": (_t5gemma, lambda whole: whole.model.encoder),
    "positions without end": (
        lambda: _of("XLNetModel", "XLNetConfig", vocab_size=64, d_model=16, n_layer=2, n_head=2, d_inner=32),
        lambda whole: whole,
    ),
}


def published(folder: Path, model: Any) -> Path:
    """The model's folder, with a tokenizer of 10 tokens at most."""
    make_native_encoder(folder, "bert")
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", READ)
def test_what_was_published_around_it_is_left_out(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, tower = READ[kind]
    model = make().eval()
    folder = published(tmp_path, model)
    check_native(folder)
    encoder = NativeEncoder.from_pretrained(folder, reading={"hidden_state": "last"})
    tokens = AutoTokenizer.from_pretrained(folder)("一只猫", return_tensors="pt")
    with torch.no_grad():
        expected = tower(model)(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    found = encoder.encode(["一只猫"])[0]
    torch.testing.assert_close(found[:, : tokens["input_ids"].shape[1]], expected.last_hidden_state)


def _blip2() -> Any:
    opt = {**_SIZES, "model_type": "opt", "ffn_dim": 32, "num_attention_heads": 2, "max_position_embeddings": 12}
    former = {**_TEXT, "encoder_hidden_size": 16}
    sizes: dict[str, Any] = {"vision_config": _IMAGES, "qformer_config": former}
    return _of("Blip2ForConditionalGeneration", "Blip2Config", text_config={**opt, "word_embed_proj_dim": 16}, **sizes)


def _characters() -> Any:
    sizes = {**_TEXT, "num_hash_buckets": 64, "downsampling_rate": 4, "local_transformer_stride": 8}
    return _of("CanineModel", "CanineConfig", **sizes)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "its answer is no states": (
        _blip2,
        r"OPTForCausalLM cannot be read as a text encoder; expected states \[1, 2, 16\]",
    ),
    "characters": (_characters, "no text encoder in this model; .* got CanineModel"),
    "no attention of this length": (
        lambda: _of("NystromformerModel", "NystromformerConfig", **_TEXT, num_landmarks=2, segment_means_seq_len=10),
        "NystromformerModel cannot be read as a text encoder",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_read_is_refused_on_loading(kind: str, tmp_path: Path) -> None:
    make, said = REFUSED[kind]
    folder = published(tmp_path, make())
    with pytest.raises(CheckpointError, match=said) as caught:
        NativeEncoder.from_pretrained(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)
