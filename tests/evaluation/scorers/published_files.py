"""Tiny scorers in the layouts that the real ones were published in, and what their scores have to be."""

from __future__ import annotations

import json
import math
import string
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import BertTokenizer, CLIPModel

from tests.tiny_models import clip_tokenizer, make_native_encoder

SIZE_PX = 16
TEXTS = ["a red cat", "dogs", "a cat in a very long snow"]
HEADS = {"vision_cfg": {"head_width": 8}, "text_cfg": {"heads": 2}, "quick_gelu": True}
"""Of `make_clip`, as open_clip's configuration says it."""
_WIDTH, _VISION = 16, 128


def images(count: int = 3, height: int = 24, width: int = 24) -> Any:
    return np.random.default_rng(7).integers(0, 255, (count, height, width, 3), dtype=np.uint8)


def make_clip(folder: Path, seed: int = 1) -> CLIPModel:
    """A folder of transformers, with weights as uneven as those of trained models."""
    make_native_encoder(folder, "clip", seed)
    model = CLIPModel.from_pretrained(folder)
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model.eval()


def open_clip_state(model: CLIPModel) -> dict[str, Tensor]:
    """The same tensors by the names that open_clip gives them."""
    own = model.state_dict()
    named = {
        "logit_scale": own["logit_scale"],
        "token_embedding.weight": own["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": own["text_model.embeddings.position_embedding.weight"],
        "text_projection": own["text_projection.weight"].T.contiguous(),
        "visual.proj": own["visual_projection.weight"].T.contiguous(),
        "visual.class_embedding": own["vision_model.embeddings.class_embedding"],
        "visual.conv1.weight": own["vision_model.embeddings.patch_embedding.weight"],
        "visual.positional_embedding": own["vision_model.embeddings.position_embedding.weight"],
    }
    for ending in ("weight", "bias"):
        named[f"ln_final.{ending}"] = own[f"text_model.final_layer_norm.{ending}"]
        named[f"visual.ln_pre.{ending}"] = own[f"vision_model.pre_layrnorm.{ending}"]
        named[f"visual.ln_post.{ending}"] = own[f"vision_model.post_layernorm.{ending}"]
        for tower, prefix in (("text_model", ""), ("vision_model", "visual.")):
            for index in range(2):
                old, new = f"{tower}.encoder.layers.{index}", f"{prefix}transformer.resblocks.{index}"
                qkv = [own[f"{old}.self_attn.{letter}_proj.{ending}"] for letter in "qkv"]
                named[f"{new}.attn.in_proj_{ending}"] = torch.cat(qkv)
                named[f"{new}.attn.out_proj.{ending}"] = own[f"{old}.self_attn.out_proj.{ending}"]
                named[f"{new}.ln_1.{ending}"] = own[f"{old}.layer_norm1.{ending}"]
                named[f"{new}.ln_2.{ending}"] = own[f"{old}.layer_norm2.{ending}"]
                named[f"{new}.mlp.c_fc.{ending}"] = own[f"{old}.mlp.fc1.{ending}"]
                named[f"{new}.mlp.c_proj.{ending}"] = own[f"{old}.mlp.fc2.{ending}"]
    return named


def write_hps(folder: Path, model: CLIPModel) -> Path:
    """`HPS_v2.1_compressed.pt` with what lies beside it; real files need no configuration, being ViT-H-14."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": open_clip_state(model)}, folder / "HPS_v2.1_compressed.pt")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": HEADS}))
    clip_tokenizer().save_pretrained(folder)
    return folder


def head_state(width: int, seed: int = 3) -> dict[str, Tensor]:
    """Of the linear layers of ImageReward and of the aesthetic score."""
    torch.manual_seed(seed)
    sizes = {0: (width, 1024), 2: (1024, 128), 4: (128, 64), 6: (64, 16), 7: (16, 1)}
    state = {f"layers.{n}.weight": torch.randn(out, into) / into**0.5 for n, (into, out) in sizes.items()}
    return state | {f"layers.{n}.bias": torch.randn(out) for n, (_, out) in sizes.items()}


def head_answer(state: dict[str, Tensor], vectors: Tensor) -> Tensor:
    for number in (0, 2, 4, 6, 7):
        vectors = functional.linear(vectors, state[f"layers.{number}.weight"], state[f"layers.{number}.bias"])
    return vectors.squeeze(-1)


def bert_tokenizer() -> BertTokenizer:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase]
    words += [f"##{letter}" for letter in string.ascii_lowercase]
    return BertTokenizer(vocab={word: index for index, word in enumerate(words)}, model_max_length=512)


def image_reward_state() -> dict[str, Tensor]:
    """Two blocks and two layers, by the names in `ImageReward.pt`."""
    torch.manual_seed(5)
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, _VISION), "pos_embed": (1, 5, _VISION)}
    shapes |= {"patch_embed.proj.weight": (_VISION, 3, 8, 8), "patch_embed.proj.bias": (_VISION,)}
    shapes |= _linear("norm", _VISION)
    for index in range(2):
        block = f"blocks.{index}"
        shapes |= _linear(f"{block}.norm1", _VISION) | _linear(f"{block}.norm2", _VISION)
        shapes |= _linear(f"{block}.attn.qkv", 3 * _VISION, _VISION) | _linear(f"{block}.attn.proj", _VISION, _VISION)
        shapes |= _linear(f"{block}.mlp.fc1", 96, _VISION) | _linear(f"{block}.mlp.fc2", _VISION, 96)
    state = {f"blip.visual_encoder.{name}": torch.randn(shape) * 0.3 for name, shape in shapes.items()}
    text = {"embeddings.word_embeddings.weight": (len(bert_tokenizer()) + 2, _WIDTH)}
    text |= {"embeddings.position_embeddings.weight": (64, _WIDTH)} | _linear("embeddings.LayerNorm", _WIDTH)
    for index in range(2):
        layer = f"encoder.layer.{index}"
        for name, width in (("attention", _WIDTH), ("crossattention", _VISION)):
            text |= _linear(f"{layer}.{name}.self.query", _WIDTH, _WIDTH)
            text |= _linear(f"{layer}.{name}.self.key", _WIDTH, width)
            text |= _linear(f"{layer}.{name}.self.value", _WIDTH, width)
            text |= _linear(f"{layer}.{name}.output.dense", _WIDTH, _WIDTH)
            text |= _linear(f"{layer}.{name}.output.LayerNorm", _WIDTH)
        text |= _linear(f"{layer}.intermediate.dense", 24, _WIDTH) | _linear(f"{layer}.output.dense", _WIDTH, 24)
        text |= _linear(f"{layer}.output.LayerNorm", _WIDTH)
    state |= {f"blip.text_encoder.{name}": torch.randn(shape) * 0.3 for name, shape in text.items()}
    state |= {f"mlp.{name}": tensor for name, tensor in head_state(_WIDTH).items()}
    for name in state:  # about as trained ones: with norms near 0 no caption would count
        state[name] = state[name] * (3 if "text_encoder" in name else 1)
        if "orm" in name and name.endswith("weight"):
            state[name] = 1 + state[name] / 5
    state["blip.text_encoder.embeddings.position_ids"] = torch.arange(64)[None]
    return state | {f"blip.{name}_proj.weight": torch.randn(4, _WIDTH) for name in ("vision", "text")}


def _linear(name: str, out: int, into: int | None = None) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out,) if into is None else (out, into), f"{name}.bias": (out,)}


def write_image_reward(folder: Path, state: dict[str, Tensor] | None = None) -> Path:
    """`ImageReward.pt`, `med_config.json` and BERT's tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state or image_reward_state(), folder / "ImageReward.pt")
    said = {"vocab_size": len(bert_tokenizer()) + 2, "hidden_size": _WIDTH, "intermediate_size": 24}
    said |= {"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64, "hidden_act": "gelu"}
    said |= {"layer_norm_eps": 1e-12, "encoder_width": 768, "add_cross_attention": True, "type_vocab_size": 2}
    (folder / "med_config.json").write_text(json.dumps(said))
    bert_tokenizer().save_pretrained(folder)
    return folder


def image_reward_answer(state: dict[str, Tensor], pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """The published forward pass, spelt out by the names of its tensors."""

    def linear(name: str, values: Tensor) -> Tensor:
        return functional.linear(values, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(name: str, values: Tensor, eps: float) -> Tensor:
        return functional.layer_norm(values, values.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], eps)

    def attend(query: Tensor, key: Tensor, value: Tensor, shut: Tensor | float = 0.0) -> Tensor:
        split = [each.unflatten(-1, (2, -1)).transpose(1, 2) for each in (query, key, value)]
        scores = split[0] @ split[1].mT / math.sqrt(split[0].shape[-1]) + shut
        return (scores.softmax(-1) @ split[2]).transpose(1, 2).flatten(2)

    eye = "blip.visual_encoder"
    patches = functional.conv2d(
        pixels, state[f"{eye}.patch_embed.proj.weight"], state[f"{eye}.patch_embed.proj.bias"], stride=8
    )
    seen = torch.cat([state[f"{eye}.cls_token"].expand(len(pixels), -1, -1), patches.flatten(2).mT], 1)
    seen = seen + state[f"{eye}.pos_embed"]
    for index in range(2):
        block = f"{eye}.blocks.{index}"
        query, key, value = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", seen, 1e-6)).chunk(3, -1)
        seen = seen + linear(f"{block}.attn.proj", attend(query, key, value))
        inner = linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", seen, 1e-6))
        seen = seen + linear(f"{block}.mlp.fc2", functional.gelu(inner))
    seen = norm(f"{eye}.norm", seen, 1e-6)
    book = "blip.text_encoder"
    read = state[f"{book}.embeddings.word_embeddings.weight"][ids]
    read = read + state[f"{book}.embeddings.position_embeddings.weight"][: ids.shape[1]]
    read = norm(f"{book}.embeddings.LayerNorm", read, 1e-12)
    shut = (1.0 - mask[:, None, None].float()) * -10000.0
    for index in range(2):
        layer = f"{book}.encoder.layer.{index}"
        for name, source, closed in (("attention", None, shut), ("crossattention", seen, 0.0)):
            part, context = f"{layer}.{name}", read if source is None else source
            query, key, value = (
                linear(f"{part}.self.{each}", values)
                for each, values in (("query", read), ("key", context), ("value", context))
            )
            inner = linear(f"{part}.output.dense", attend(query, key, value, closed))
            read = norm(f"{part}.output.LayerNorm", inner + read, 1e-12)
        inner = linear(f"{layer}.output.dense", functional.gelu(linear(f"{layer}.intermediate.dense", read)))
        read = norm(f"{layer}.output.LayerNorm", inner + read, 1e-12)
    head = {name.removeprefix("mlp."): tensor for name, tensor in state.items() if name.startswith("mlp.")}
    return (head_answer(head, read[:, 0]) - 0.16717362830052426) / 1.0333394966054072
