"""A model is what its file says, or it is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    MT5Config,
    MT5ForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
    SiglipConfig,
    SiglipModel,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5EncoderModel,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
    XLMRobertaModel,
)

from pea.errors import CheckpointError
from pea.models.loading import load_part
from pea.models.native import NativeEncoder, check_native
from tests.tiny_models import make_native_encoder

Tensors = dict[str, Tensor]
_TEXT = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 12,
}
_VISION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
_T5 = {"vocab_size": 64, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 2, "num_heads": 2}
_CLIP = {**_TEXT, "projection_dim": 12}
PUBLISHED: dict[str, Callable[[], Any]] = {
    "t5": lambda: T5ForConditionalGeneration(T5Config(**_T5)),
    "t5_encoder": lambda: T5EncoderModel(T5Config(**_T5)),
    "mt5": lambda: MT5ForConditionalGeneration(MT5Config(**_T5)),
    "umt5_encoder": lambda: UMT5EncoderModel(UMT5Config(**_T5)),
    "siglip": lambda: SiglipModel(SiglipConfig(text_config={**_TEXT, "projection_size": 16}, vision_config=_VISION)),
    "bert": lambda: BertModel(BertConfig(**_TEXT)),
    "bert_masked_lm": lambda: BertForMaskedLM(BertConfig(**_TEXT)),
    "xlm_roberta": lambda: XLMRobertaModel(XLMRobertaConfig(**_TEXT, pad_token_id=1)),
    "xlm_roberta_masked_lm": lambda: XLMRobertaForMaskedLM(XLMRobertaConfig(**_TEXT, pad_token_id=1)),
    "clip": lambda: CLIPModel(CLIPConfig(text_config=_CLIP, vision_config=_VISION, projection_dim=12)),
    "clip_text": lambda: CLIPTextModel(CLIPTextConfig(**_CLIP)),
    "clip_text_with_projection": lambda: CLIPTextModelWithProjection(CLIPTextConfig(**_CLIP)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_TEXT, num_key_value_heads=2, head_dim=8)),
}
OURS = ("chinese_clip", "alt_clip", "clip", "dual", "bert")


def published(folder: Path, kind: str) -> Path:
    """A folder as it is published, with a tokenizer of 10 tokens at most."""
    make_native_encoder(folder, "bert")
    (folder / "model.safetensors").unlink()
    torch.manual_seed(3)
    PUBLISHED[kind]().save_pretrained(folder)
    return folder


def change(folder: Path, how: Callable[[Tensors], Tensors], name: str = "model.safetensors") -> None:
    """Write other tensors into a folder."""
    save_file(how(load_file(folder / name)), folder / name, metadata={"format": "pt"})


@pytest.mark.slow
@pytest.mark.parametrize("kind", PUBLISHED)
def test_what_is_not_used_may_be_missing_or_beside(kind: str, tmp_path: Path) -> None:
    folder = published(tmp_path, kind)
    states = NativeEncoder.from_pretrained(folder).encode(["一只猫"])[0]
    assert torch.equal(states, NativeEncoder.from_pretrained(folder).encode(["一只猫"])[0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("row", [0, 1])
def test_rows_that_the_library_starts_anew_are_put_back(kind: str, row: int, tmp_path: Path) -> None:
    """transformers 5.23 zeroes the row of the padding in Chinese-CLIP's embeddings; others may follow."""
    folder = make_native_encoder(tmp_path, kind)

    def filled(tensors: Tensors) -> Tensors:
        for name, tensor in tensors.items():
            if "embedding" in name and tensor.ndim == 2 and len(tensor) > row:
                tensor[row] = 0.3
        return tensors

    change(folder, filled)
    encoder = NativeEncoder.from_pretrained(folder)
    embedding = encoder.model.get_input_embeddings()
    assert torch.equal(embedding.weight[row], torch.full((16,), 0.3))


def _renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()}


def _without(part: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}


def _image_layers_cut(tensors: Tensors) -> Tensors:
    return {n: t[:1].clone() if "vision" in n and ".layers." in n else t for n, t in tensors.items()}


def _with_a_nan(part: str) -> Callable[[Tensors], Tensors]:
    def spoilt(tensors: Tensors) -> Tensors:
        for name in tensors:
            if part in name:
                tensors[name].view(-1)[-1] = float("nan")
        return tensors

    return spoilt


@pytest.mark.parametrize(
    ("kind", "read", "unread"),
    [("clip", "text_model.final_layer_norm.weight", "visual_projection"), ("t5", "encoder.final", "decoder.final")],
)
def test_every_number_that_is_read_is_looked_at_before_loading(
    kind: str, read: str, unread: str, tmp_path: Path
) -> None:
    folder = published(tmp_path, kind) if kind in PUBLISHED else make_native_encoder(tmp_path, kind)
    change(folder, _with_a_nan(unread))
    check_native(folder)
    change(folder, _with_a_nan(read))
    check_native(folder, numbers=False)
    with pytest.raises(CheckpointError, match=f"weights that are no finite numbers; got {read}"):
        check_native(folder)


@pytest.mark.parametrize("kind", ["chinese_clip", "alt_clip", "clip", "dual", "siglip"])
def test_layers_for_images_are_not_read(kind: str, tmp_path: Path) -> None:
    """They are up to three quarters of a dual encoder: ones of a shape that cannot be loaded do not matter."""
    folder = published(tmp_path, kind) if kind in PUBLISHED else make_native_encoder(tmp_path, kind)
    encoder = NativeEncoder.from_pretrained(folder)
    change(folder, _image_layers_cut)
    again = NativeEncoder.from_pretrained(folder)
    assert torch.equal(encoder.encode(["一只猫"])[0], again.encode(["一只猫"])[0])
    assert encoder.record == again.record


def test_layers_for_images_by_a_name_of_their_own_are_not_unknown(tmp_path: Path) -> None:
    """As in models that see and write, whose image tower lies beside the language model."""
    folder = published(tmp_path, "bert")
    (folder / "model.safetensors").unlink()
    gemma = {**_TEXT, "num_key_value_heads": 2, "head_dim": 8}
    model = Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=gemma, vision_config=_VISION, mm_tokens_per_image=4)
    )
    model.save_pretrained(folder)
    states, _ = NativeEncoder.from_pretrained(folder).encode(["一只猫"])
    assert states.shape[-1] == 16


FOREIGN: dict[str, tuple[str, Callable[[Tensors], Tensors], str]] = {
    "a layer is missing": ("chinese_clip", _without("text_model.encoder.layer.1."), r"16 missing \(text_model"),
    "one tensor is missing": (
        "bert",
        _without("embeddings.LayerNorm.bias"),
        r"1 missing \(embeddings.LayerNorm.bias\)",
    ),
    "data parallel": ("bert", lambda tensors: {f"module.{n}": t for n, t in tensors.items()}, "missing"),
    "cn_clip": ("chinese_clip", _renamed("text_model.", "bert."), "missing"),
    "open_clip": ("bert", lambda tensors: {f"text.transformer.{n}": t for n, t in tensors.items()}, "missing"),
    "multilingual_clip": ("bert", lambda tensors: {f"transformer.{n}": t for n, t in tensors.items()}, "missing"),
    "sentence-transformers": ("bert", lambda tensors: {f"0.auto_model.{n}": t for n, t in tensors.items()}, "missing"),
    "decoder alone": ("bert", lambda tensors: {"decoder.layer.0.weight": torch.zeros(2, 2)}, "missing"),
    "deeper than its configuration": (
        "bert",
        lambda tensors: tensors | {n.replace("layer.1", "layer.2"): t.clone() for n, t in tensors.items()},
        r"16 unknown \(encoder.layer.2.attention",
    ),
    "another shape": (
        "bert",
        lambda tensors: tensors | {"embeddings.word_embeddings.weight": torch.zeros(7, 16)},
        r"another shape than config.json says: .*\(7, 16\), not \(",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_file_of_other_tensors_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    kind, how, said = FOREIGN[case]
    folder = make_native_encoder(tmp_path, kind)
    change(folder, how)
    for ask in (check_native, NativeEncoder.from_pretrained):
        with pytest.raises(CheckpointError, match=said) as caught:
            ask(folder)
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def _a_lora(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "org/name"}')


def _a_lora_alone(folder: Path) -> None:
    _a_lora(folder)
    (folder / "config.json").unlink()
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")


def _without_tokenizer(folder: Path) -> None:
    for path in folder.glob("*"):
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()


def _with_limit(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": "512"}))


FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a model with a LoRA": (_a_lora, r"a LoRA .* and no model; got adapter_config.json\. Merge it"),
    "a LoRA alone": (_a_lora_alone, r"a LoRA .* and no model; got adapter_config.json\. Merge it"),
    "no tokenizer": (_without_tokenizer, "vocabulary is empty or missing; expected tokenizer.json"),
    "a limit in words": (_with_limit, "model_max_length is no number of tokens; expected 1 or more; got '512'"),
}


@pytest.mark.parametrize("kind", ["bert", "t5_encoder"])
@pytest.mark.parametrize("case", FOLDERS)
def test_what_is_no_whole_folder_is_refused(kind: str, case: str, tmp_path: Path) -> None:
    """Some classes make a tokenizer, and some models another model, of what lies there, without a word."""
    how, said = FOLDERS[case]
    folder = published(tmp_path, kind) if kind in PUBLISHED and kind != "bert" else make_native_encoder(tmp_path, kind)
    how(folder)
    for ask in (check_native, NativeEncoder.from_pretrained):
        with pytest.raises(CheckpointError, match=said) as caught:
            ask(folder)
        assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_the_other_half_may_lack_tensors(tmp_path: Path) -> None:
    folder = make_native_encoder(tmp_path, "chinese_clip")
    states = NativeEncoder.from_pretrained(folder).encode(["一只猫"])[0]
    change(folder, _without("vision_model"))
    assert torch.equal(NativeEncoder.from_pretrained(folder).encode(["一只猫"])[0], states)


def test_a_folder_of_another_class_is_refused(tmp_path: Path) -> None:
    folder = make_native_encoder(tmp_path, "bert")
    with pytest.raises(CheckpointError, match=r"as CLIPTextModel; expected clip_text_model; got bert"):
        load_part(CLIPTextModel, folder, torch.float32)
    loaded = load_part(CLIPTextModel, published(tmp_path / "clip", "clip"), torch.float32)
    assert isinstance(loaded, CLIPTextModel)  # the tower of a whole CLIP
    with pytest.raises(CheckpointError, match=r"1 missing \(text_projection.weight\)"):
        load_part(CLIPTextModelWithProjection, published(tmp_path / "text", "clip_text"), torch.float32)


def test_code_in_a_folder_is_neither_run_nor_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> str:
        raise AssertionError("a question on the terminal")

    monkeypatch.setattr("builtins.input", asked)
    folder = make_native_encoder(tmp_path, "bert")
    (folder / "code.py").write_text("import pathlib\npathlib.Path('executed').touch()\nclass Model: pass\n")
    monkeypatch.chdir(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    mapped = {"auto_map": {"AutoModel": "code.Model", "AutoConfig": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(config | mapped))
    assert NativeEncoder.from_pretrained(folder).width == 16  # the library has a class of its own for it
    (folder / "config.json").write_text(json.dumps(config | mapped | {"model_type": "unheard_of"}))
    with pytest.raises(CheckpointError, match="no code from a model's folder is run"):
        NativeEncoder.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "Unheard", "auto_map": {"AutoTokenizer": ["code.Model", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert len(load_part(AutoTokenizer, folder, None)) > 0  # tokenizer.json says it all
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError) as caught:
        load_part(AutoTokenizer, folder, None)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "executed").exists()
