"""Every published layout comes over: the states are those of the original class, or of its documented names and calls.

The originals are cn-clip, open-clip-torch, multilingual-clip and ruclip, where they are installed; otherwise their
tests are skipped, and those by key names remain. To have them without their dependencies:

    pip install --no-deps --target FOLDER cn-clip open-clip-torch multilingual-clip ruclip \\
        ftfy regex wcwidth more-itertools
    PYTHONPATH=FOLDER pytest tests/models/imports
"""

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
    BertModel,
    BertTokenizer,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from pea.models.imports.importing import import_encoder
from pea.models.native import NativeEncoder
from tests.models.encoders.tiny import make_encoder, word_tokenizer
from tests.models.imports.originals import original
from tests.models.imports.tokenizer_folders import WORDS, write_vocabulary, write_yttm

pytestmark = pytest.mark.slow

TEXTS = ["一只猫", "a b c d e", ""]
WIDE = {"hidden_size": 128, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 2}
Reference = Callable[[Tensor, Tensor], Tensor]


def randomized(model: Any, seed: int = 0) -> Any:
    """Weights as uneven as those of trained models, the rows of padding among them."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = parameter.data.float() + 0.1 * torch.randn_like(parameter, dtype=torch.float32)
    return model.eval()


def check(out: Path, reference: Reference, length: int, width: int = 128, texts: list[str] = TEXTS) -> NativeEncoder:
    """What comes over reads as the original does."""
    encoder = NativeEncoder.from_pretrained(out)
    tokens = encoder.tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    hidden, _ = encoder.encode(texts)
    with torch.no_grad():
        expected = reference(tokens["input_ids"], tokens["attention_mask"])
    assert hidden.shape == (len(texts), length, width) and encoder.max_tokens == length
    torch.testing.assert_close(hidden, expected.float(), rtol=1e-5, atol=1e-5)
    return encoder


def bert(**options: Any) -> BertModel:
    return randomized(BertModel(BertConfig(**{**WIDE, "vocab_size": len(WORDS), "pad_token_id": 0, **options})))


def renamed(model: Any, prefix: str, **others: Tensor) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in model.state_dict().items()} | others


def test_cn_clip_by_names(tmp_path: Path) -> None:
    text = bert()
    state = renamed(text, "module.bert.", **{"module.text_projection": torch.zeros(128, 8)})
    state |= {"module.visual.conv1.weight": torch.zeros(4, 3, 8, 8), "module.logit_scale": torch.zeros(())}
    torch.save({"epoch": 3, "name": "zh", "state_dict": state}, tmp_path / "clip_cn_vit-h-14.pt")
    vocabulary = write_vocabulary(tmp_path / "vocabulary")
    done = import_encoder(tmp_path / "clip_cn_vit-h-14.pt", tmp_path / "out", vocabulary)
    assert done.layout.name == "cn_clip"
    check(tmp_path / "out", lambda ids, mask: text(ids, attention_mask=mask).last_hidden_state, 52)


def test_cn_clip_as_its_package_reads_it(tmp_path: Path) -> None:
    module, tokenizers = original("cn_clip.clip.model"), original("cn_clip.clip.bert_tokenizer")
    sizes = {f"text_{name}": size for name, size in WIDE.items()}
    model = module.CLIP(
        embed_dim=8, image_resolution=16, vision_layers=1, vision_width=64, vision_patch_size=8,
        vocab_size=len(WORDS), text_attention_probs_dropout_prob=0.1, text_hidden_act="gelu",
        text_hidden_dropout_prob=0.1, text_initializer_range=0.02, text_max_position_embeddings=64,
        text_type_vocab_size=2, **sizes,
    )  # fmt: skip
    randomized(model)
    state = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "clip_cn.pt")
    vocabulary = write_vocabulary(tmp_path / "vocabulary")
    import_encoder(tmp_path / "clip_cn.pt", tmp_path / "out", vocabulary)
    encoder = check(tmp_path / "out", lambda ids, mask: model.bert(ids, attention_mask=mask.float())[0], 52)
    theirs = tokenizers.FullTokenizer(str(vocabulary / "vocab.txt"))
    for caption in ("一只猫", "a 红球 b?"):
        ids = theirs.convert_tokens_to_ids(["[CLS]", *theirs.tokenize(caption), "[SEP]"])
        assert encoder.tokenizer(caption)["input_ids"] == ids


def xlm_roberta() -> XLMRobertaModel:
    sizes = {"vocab_size": len(word_tokenizer()), "max_position_embeddings": 130, "type_vocab_size": 1}
    return randomized(XLMRobertaModel(XLMRobertaConfig(**WIDE, **sizes, pad_token_id=1, layer_norm_eps=1e-5)))


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "open_clip_model.safetensors"])
def test_open_clip_by_names(name: str, tmp_path: Path) -> None:
    text = xlm_roberta()
    state = renamed(text, "text.transformer.", **{"text.proj.0.weight": torch.zeros(4, 128)})
    state |= {"visual.conv1.weight": torch.zeros(4, 3, 8, 8), "logit_scale": torch.zeros(())}
    word_tokenizer().save_pretrained(tmp_path / "in")
    (tmp_path / "in/open_clip_config.json").write_text(json.dumps({"model_cfg": {"embed_dim": 8}}))
    (save_file if name.endswith("safetensors") else torch.save)(state, tmp_path / "in" / name)
    done = import_encoder(tmp_path / "in", tmp_path / "out")
    assert done.layout.name.startswith("open_clip with")
    check(tmp_path / "out", lambda ids, mask: text(ids, attention_mask=mask).last_hidden_state, 77)


def test_open_clip_as_its_package_reads_it(tmp_path: Path) -> None:
    text = xlm_roberta()
    tower = original("open_clip.hf_model").HFTextEncoder(
        "", 8, config=text.config, pooler_type="mean_pooler", proj_type="mlp", output_tokens=True
    )
    randomized(tower)
    torch.save(
        {f"text.{name}": tensor for name, tensor in tower.state_dict().items()},
        tmp_path / "open_clip_pytorch_model.bin",
    )
    word_tokenizer().save_pretrained(tmp_path)
    import_encoder(tmp_path, tmp_path / "out")
    check(tmp_path / "out", lambda ids, mask: tower(ids)[1], 77)


@pytest.mark.parametrize("base", ["xlm-roberta-large", "bert-base-multilingual-cased"])
def test_m_clip_by_names(base: str, tmp_path: Path) -> None:
    text = xlm_roberta() if "roberta" in base else bert(vocab_size=len(word_tokenizer()), pad_token_id=1)
    head = {"LinearTransformation.weight": torch.zeros(8, 128), "LinearTransformation.bias": torch.zeros(8)}
    torch.save(renamed(text, "transformer.", **head), tmp_path / "pytorch_model.bin")
    config = {"model_type": "M-CLIP", "modelBase": base, "numDims": 8, "transformerDimensions": 128}
    (tmp_path / "config.json").write_text(json.dumps(config))
    word_tokenizer().save_pretrained(tmp_path)
    done = import_encoder(tmp_path, tmp_path / "out")
    assert done.layout.name == "M-CLIP"
    check(tmp_path / "out", lambda ids, mask: text(ids, attention_mask=mask).last_hidden_state, 77)


def test_m_clip_as_its_package_reads_it(tmp_path: Path) -> None:
    module = original("multilingual_clip.pt_multilingual_clip")
    text = xlm_roberta()
    text.save_pretrained(tmp_path / "base")
    config = module.Config_MCLIP.MCLIPConfig(str(tmp_path / "base"), 128, 8)
    model = randomized(module.MultilingualCLIP(config))
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    word_tokenizer().save_pretrained(tmp_path)
    import_encoder(tmp_path, tmp_path / "out")
    encoder = check(tmp_path / "out", lambda ids, mask: model.transformer(input_ids=ids, attention_mask=mask)[0], 77)
    hidden, mask = encoder.encode(TEXTS[:2])
    pooled = (hidden * mask.unsqueeze(2)).sum(1) / mask.sum(1, keepdim=True)
    with torch.no_grad():
        theirs = model(TEXTS[:2], word_tokenizer())
    torch.testing.assert_close(model.LinearTransformation(pooled), theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text_type", ["bert", "roberta"])
def test_rinna_by_names(text_type: str, tmp_path: Path) -> None:
    """`modeling_clip.py` calls its text model with positions from 0, and its tokenizer gives [CLS] and no end."""
    sizes = {**WIDE, "vocab_size": len(WORDS), "max_position_embeddings": 96, "type_vocab_size": 2}
    kind = (BertModel, BertConfig) if text_type == "bert" else (RobertaModel, RobertaConfig)
    text = randomized(kind[0](kind[1](**sizes, pad_token_id=0, layer_norm_eps=1e-5)))
    state = renamed(text, "text_model.", **{"text_projection.weight": torch.zeros(8, 128)})
    state |= {"vision_model.embeddings.cls_token": torch.zeros(1, 1, 8), "logit_scale": torch.zeros(())}
    torch.save(state, tmp_path / "pytorch_model.bin")
    config = {"model_type": "clip", "text_config": {"model_type": text_type, **WIDE, "layer_norm_eps": 1e-5}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    plain = AutoTokenizer.from_pretrained(save_bert_tokenizer(tmp_path / "tokenizer"))
    done = import_encoder(tmp_path, tmp_path / "out", tmp_path / "tokenizer")
    assert done.layout.name.startswith("rinna")

    def theirs(ids: Tensor, mask: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1]).expand_as(ids)
        return text(ids, attention_mask=mask, position_ids=positions).last_hidden_state

    encoder = check(tmp_path / "out", theirs, 77)
    pieces = plain("一只猫 abc", add_special_tokens=False)["input_ids"]
    assert encoder.tokenizer("一只猫 ABC")["input_ids"] == [plain.cls_token_id, *pieces]


def save_bert_tokenizer(folder: Path) -> Path:
    folder.mkdir()
    BertTokenizer(vocab={word: index for index, word in enumerate(WORDS)}).save_pretrained(folder)
    return folder


def test_ruclip_by_names(tmp_path: Path) -> None:
    """`ruclip/model.py`: pre-norm blocks with QuickGELU under a causal mask, and padding read as text."""
    torch.manual_seed(0)
    state = ruclip_state()
    write_ruclip(state, tmp_path / "in")
    done = import_encoder(tmp_path / "in", tmp_path / "out")
    assert done.layout.name.startswith("ruCLIP")

    def theirs(ids: Tensor, _: Tensor) -> Tensor:
        x = state["token_embedding.weight"][ids] + state["positional_embedding"]
        for index in range(2):
            block = {
                name.removeprefix(f"transformer.resblocks.{index}."): tensor
                for name, tensor in state.items()
                if name.startswith(f"transformer.resblocks.{index}.")
            }
            x = x + attention(norm(x, block, "ln_1"), block)
            inner = linear(norm(x, block, "ln_2"), block, "mlp.c_fc")
            x = x + linear(inner * torch.sigmoid(1.702 * inner), block, "mlp.c_proj")
        return norm(x, state, "ln_final")

    encoder = check(tmp_path / "out", theirs, 77, texts=["кот", "Рыба и КОТ", ""])
    assert not encoder.reading.attention_mask
    assert encoder.tokenizer("Кот  cтол")["input_ids"][:2] == [2, 39]  # one word is one merged token


def norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return torch.nn.functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"])


def linear(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return torch.nn.functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def attention(x: Tensor, weights: dict[str, Tensor]) -> Tensor:
    layer = torch.nn.MultiheadAttention(x.shape[-1], 2, batch_first=True)
    layer.load_state_dict({name.removeprefix("attn."): w for name, w in weights.items() if name.startswith("attn.")})
    mask = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)
    return layer(x, x, x, need_weights=False, attn_mask=mask)[0]


def ruclip_state() -> dict[str, Tensor]:
    def some(*shape: int) -> Tensor:
        return 0.2 * torch.randn(shape)

    state = {
        "token_embedding.weight": some(42, 128),
        "positional_embedding": some(77, 128),
        "ln_final.weight": 1 + some(128),
        "ln_final.bias": some(128),
        "text_projection": some(128, 8),
        "visual.class_embedding": some(8),
        "logit_scale": torch.zeros(()),
    }
    for index in range(2):
        block = f"transformer.resblocks.{index}"
        for name, shape in {
            "attn.in_proj_weight": (384, 128), "attn.in_proj_bias": (384,), "attn.out_proj.weight": (128, 128),
            "attn.out_proj.bias": (128,), "mlp.c_fc.weight": (512, 128), "mlp.c_fc.bias": (512,),
            "mlp.c_proj.weight": (128, 512), "mlp.c_proj.bias": (128,), "ln_1.weight": (128,), "ln_1.bias": (128,),
            "ln_2.weight": (128,), "ln_2.bias": (128,),
        }.items():  # fmt: skip
            state[f"{block}.{name}"] = some(*shape)
    return state


def write_ruclip(state: dict[str, Tensor], folder: Path) -> None:
    folder.mkdir()
    config = {
        "embed_dim": 8, "image_resolution": 16, "vision_layers": 1, "vision_width": 64, "vision_patch_size": 8,
        "context_length": 77, "vocab_size": 42, "transformer_width": 128, "transformer_heads": 2,
        "transformer_layers": 2,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(state, folder / "pytorch_model.bin")
    write_yttm(folder / "bpe.model")


def test_ruclip_as_its_package_reads_it(tmp_path: Path) -> None:
    model = original("ruclip.model").CLIP(8, 16, 1, 64, 8, 77, 42, 128, 2, 2)
    randomized(model)
    write_ruclip(model.state_dict(), tmp_path / "in")
    import_encoder(tmp_path / "in", tmp_path / "out")

    def theirs(ids: Tensor, _: Tensor) -> Tensor:
        states: list[Tensor] = []
        handle = model.ln_final.register_forward_hook(lambda *call: states.append(call[2]))
        model.encode_text(ids)
        handle.remove()
        return states[0]

    check(tmp_path / "out", theirs, 77, texts=["кот", "Рыба и КОТ", ""])


def test_open_clips_own_text_tower(tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = {f"text.{name}" if "visual" not in name else name: tensor for name, tensor in ruclip_state().items()}
    torch.save(state, tmp_path / "open_clip_pytorch_model.bin")
    config = {"model_cfg": {"embed_dim": 8, "text_cfg": {"width": 128, "heads": 2, "layers": 2}}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    write_yttm(tmp_path / "bpe.model")
    import_encoder(tmp_path, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["hidden_act"] == "gelu" and config["num_attention_heads"] == 2


@pytest.mark.parametrize("kind", ["mt5", "umt5", "t5"])
@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_of_a_t5_the_encoder_comes_over_alone(kind: str, suffix: str, tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "in", kind)
    expected = NativeEncoder.from_pretrained(folder).encode(TEXTS)[0]
    state = load_file(folder / "model.safetensors")
    state |= {"decoder.final_layer_norm.weight": torch.zeros(32), "lm_head.weight": torch.zeros(40, 32)}
    state["encoder.embed_tokens.weight"] = state["shared.weight"].clone()
    (folder / "model.safetensors").unlink()
    (save_file if suffix == ".safetensors" else torch.save)(
        state, folder / ("model.safetensors" if suffix == ".safetensors" else "pytorch_model.bin")
    )
    import_encoder(folder, tmp_path / "out")
    names = load_file(tmp_path / "out/model.safetensors").keys()
    assert all(name == "shared.weight" or name.startswith("encoder.") for name in names)
    assert torch.equal(NativeEncoder.from_pretrained(tmp_path / "out").encode(TEXTS)[0], expected)


@pytest.mark.parametrize("sharded", [False, True])
def test_transformers_own_layout_in_bin(sharded: bool, tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "in", "roberta")
    expected = NativeEncoder.from_pretrained(folder).encode(TEXTS)[0]
    state = load_file(folder / "model.safetensors") | {"embeddings.position_ids": torch.arange(82)[None]}
    (folder / "model.safetensors").unlink()
    if sharded:
        names = sorted(state)
        halves = {"a.bin": names[::2], "b.bin": names[1::2]}
        for file, part in halves.items():
            torch.save({name: state[name] for name in part}, folder / file)
        weight_map = {name: file for file, part in halves.items() for name in part}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    else:
        torch.save(state, folder / "pytorch_model.bin")
    import_encoder(folder, tmp_path / "out")
    assert torch.equal(NativeEncoder.from_pretrained(tmp_path / "out").encode(TEXTS)[0], expected)


def test_half_precision_stays_half(tmp_path: Path) -> None:
    text = bert().half()
    torch.save(renamed(text, "bert.", text_projection=torch.zeros(128, 8)), tmp_path / "clip.pt")
    import_encoder(tmp_path / "clip.pt", tmp_path / "out", write_vocabulary(tmp_path / "v"))
    assert {each.dtype for each in load_file(tmp_path / "out/model.safetensors").values()} == {torch.float16}
    check(tmp_path / "out", lambda ids, mask: text.float()(ids, attention_mask=mask).last_hidden_state, 52)
