"""Each kind of encoder is read as it was published, and no caption's states depend on its padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForTextEncoding, AutoTokenizer

from pea.errors import CheckpointError
from pea.models.encoders.traits import OTHER, TRAITS, recorded_reading, traits_of
from pea.models.native import NativeEncoder, check_native
from tests.models.encoders.tiny import make_encoder
from tests.tiny_models import make_native_encoder

LANGUAGE_MODELS = ("qwen2", "qwen3", "gemma", "gemma2", "gemma3", "llama", "mistral")
ROBERTAS = ("roberta", "e5", "xlm-roberta-xl", "camembert", "roberta-prelayernorm")
LENGTHS = {"siglip": 64, "siglip2": 64, "t5": 77, "mt5": 77, "umt5": 77, "byt5": 308}
LENGTHS |= dict.fromkeys((*LANGUAGE_MODELS, *ROBERTAS), 77)
TEXTS = ["一只猫 a b c", "", "d e f g h i j k l"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    return {kind: make_encoder(root / kind, kind) for kind in LENGTHS}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LENGTHS)
def test_states_are_those_of_the_model_called_by_hand(kind: str, folders: dict[str, Path]) -> None:
    folder = folders[kind]
    encoder = NativeEncoder.from_pretrained(folder)
    hidden, mask = encoder.encode(TEXTS)
    assert hidden.shape == (3, LENGTHS[kind], encoder.width) and encoder.width == 32 and hidden.isfinite().all()
    model: Any = (AutoModelForTextEncoding if "t5" in kind else AutoModel).from_pretrained(folder).eval()
    model = model.text_model if "siglip" in kind else model
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for row, text in enumerate(TEXTS):
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        if "siglip" in kind:  # it reads padding as text
            ids = torch.cat([ids, ids.new_full((1, 64 - ids.shape[1]), tokenizer.pad_token_id)], dim=1)
        if not ids.numel():
            ids = torch.tensor([[tokenizer.pad_token_id]])
        assert "siglip" in kind or mask[row].sum() == ids.shape[1]
        with torch.no_grad():
            answer = model(input_ids=ids.long(), output_hidden_states=True)
        alone = answer.hidden_states[-2] if kind in LANGUAGE_MODELS else answer.last_hidden_state
        torch.testing.assert_close(hidden[row, : ids.shape[1]], alone[0], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", LANGUAGE_MODELS)
def test_states_of_a_language_model_do_not_depend_on_the_padding(kind: str, folders: dict[str, Path]) -> None:
    right = NativeEncoder.from_pretrained(folders[kind], reading={"max_tokens": 12})
    left = NativeEncoder.from_pretrained(folders[kind], reading={"max_tokens": 20, "padding_side": "left"})
    (hidden, mask), (other, other_mask) = right.encode(TEXTS), left.encode(TEXTS)
    assert mask[:, 0].all() and other_mask[:, -1].all() and not other_mask[:, 0].any()
    torch.testing.assert_close(hidden[mask.bool()], other[other_mask.bool()], rtol=1e-5, atol=1e-5)


def test_a_language_model_without_padding_token_pads_with_its_end(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "qwen3", "qwen3")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(folder)
    hidden, mask = NativeEncoder.from_pretrained(folder).encode(TEXTS)
    expected, _ = NativeEncoder.from_pretrained(folders["qwen3"]).encode(TEXTS)
    torch.testing.assert_close(hidden[0][mask[0].bool()], expected[0][mask[0].bool()])


def test_what_is_wanted_replaces_the_traits(folders: dict[str, Path]) -> None:
    encoder = NativeEncoder.from_pretrained(folders["e5"], reading={"max_tokens": 9, "hidden_state": -3})
    assert encoder.encode(["a b"])[0].shape == (1, 9, 32)
    assert encoder.record["hidden_state"] == -3 and encoder.record["max_tokens"] == 9
    other = NativeEncoder.from_pretrained(folders["e5"], reading={"max_tokens": 9})
    assert not torch.equal(encoder.encode(["a b"])[0], other.encode(["a b"])[0])


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"max_tokens": 81}, r"many tokens; expected 1 to 80; got 81\. .*student\.max_tokens"),
        ({"max_tokens": 0}, "many tokens"),
        ({"hidden_state": 4}, r"hidden state; expected -4 to 3; got 4\. .*student\.hidden_state"),
        ({"padding_side": "top"}, "padding"),
    ],
)
def test_what_an_encoder_can_not_do_is_refused(wanted: dict[str, Any], words: str, folders: dict[str, Path]) -> None:
    with pytest.raises(CheckpointError, match=words):
        NativeEncoder.from_pretrained(folders["roberta"], reading=wanted)


@pytest.mark.slow
def test_limits_of_small_models_hold(tmp_path: Path) -> None:
    for kind, limit in {"chinese_clip": 10, "alt_clip": 10, "clip": 12}.items():
        assert NativeEncoder.from_pretrained(make_native_encoder(tmp_path / kind, kind)).max_tokens == limit


def test_adapters_from_before_there_were_records_are_read_as_then(tmp_path: Path) -> None:
    folder = make_native_encoder(tmp_path, "clip")
    before = recorded_reading({"encoder": None, "max_tokens": 12})
    assert before == {"hidden_state": "last", "attention_mask": True, "padding_side": "right", "max_tokens": 12}
    masked, _ = NativeEncoder.from_pretrained(folder, reading=before).encode(["a"])
    plain, _ = NativeEncoder.from_pretrained(folder).encode(["a"])
    assert torch.allclose(masked[0, :3], plain[0, :3], atol=1e-6) and not torch.allclose(masked, plain, atol=1e-4)


def test_every_kind_names_its_source_and_others_are_read_as_most_are() -> None:
    assert all(len(traits.source) > 20 for traits in TRAITS.values())
    assert TRAITS["chinese_clip_text_model"].max_tokens == 52

    class Config:
        model_type = "electra"

    assert traits_of(Config(), None) == OTHER


def test_only_special_tokens_may_lie_beyond_the_embedding(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "gemma2", "gemma2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(folder)
    expected, _ = NativeEncoder.from_pretrained(folders["gemma2"]).encode(TEXTS)
    assert torch.equal(NativeEncoder.from_pretrained(folder).encode(TEXTS)[0], expected)
    tokenizer.add_tokens(["beyond"])
    tokenizer.save_pretrained(folder)
    for load in (NativeEncoder.from_pretrained, check_native):
        with pytest.raises(CheckpointError, match=r"knows more tokens than the text encoder; expected 44; got 46$"):
            load(folder)
