"""The text towers of published models as transformers' own classes: configuration and tensors by their names there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor
from transformers import BertConfig, CLIPTextConfig, PretrainedConfig, XLMRobertaConfig

from pea.errors import CheckpointError

_HEAD_WIDTH = 64
"""Of every BERT and XLM-R that was published with a CLIP; where no configuration says how many heads there are."""


class Tower(NamedTuple):
    """What is written."""

    config: dict[str, Any]
    state: dict[str, Tensor]
    max_tokens: int | None = None
    """The length that it was published with, where its kind does not tell."""
    template: str | None = None
    """Special tokens around a caption (`[CLS] $A`), where the original does not take its tokenizer's."""
    lower_case: bool = False


def bert_tower(state: Mapping[str, Tensor], said: Mapping[str, Any], *, eps: float) -> Tower:
    """Of tensors named as in transformers' BERT and RoBERTa; positions count from 0, as in BERT.

    `said`: what a configuration says of it; sizes are read off the tensors.
    """
    return _bert(BertConfig, state, said, eps, pad_token_id=0)


def xlm_roberta_tower(state: Mapping[str, Tensor], said: Mapping[str, Any]) -> Tower:
    """The same where positions count from after the padding's, as in RoBERTa and XLM-R."""
    return _bert(XLMRobertaConfig, state, said, 1e-5, pad_token_id=1)


def _bert(kind: Any, state: Mapping[str, Tensor], said: Mapping[str, Any], eps: float, pad_token_id: int) -> Tower:
    kept = {
        name: tensor
        for name, tensor in state.items()
        if name.startswith(("embeddings.", "encoder.")) and not name.endswith("_ids")
    }
    words, positions, types = (
        _take(kept, f"embeddings.{name}_embeddings.weight") for name in ("word", "position", "token_type")
    )
    config = kind(
        vocab_size=len(words),
        hidden_size=words.shape[1],
        num_hidden_layers=_count(kept, "encoder.layer."),
        num_attention_heads=said.get("num_attention_heads") or _heads(words.shape[1]),
        intermediate_size=len(_take(kept, "encoder.layer.0.intermediate.dense.weight")),
        max_position_embeddings=len(positions),
        type_vocab_size=len(types),
        hidden_act=said.get("hidden_act", "gelu"),
        layer_norm_eps=said.get("layer_norm_eps", eps),
        pad_token_id=said.get("pad_token_id", pad_token_id),
    )
    return Tower(_written(config, kind.__name__.replace("Config", "Model"), words), kept)


_CLIP_NAMES = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
CLIP_BLOCK = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
"""Parts of a block, of the text tower and of the vision tower: the name in openai/CLIP -> that in transformers."""


def clip_tower(state: Mapping[str, Tensor], *, heads: int, activation: str, bos: int, eos: int, pad: int) -> Tower:
    """Of tensors named as in openai/CLIP, clip/model.py."""
    words = _take(state, "token_embedding.weight")
    kept = {new: _take(state, old) for old, new in _CLIP_NAMES.items()}
    blocks = _count(state, "transformer.resblocks.")
    for index in range(blocks):
        old, new = f"transformer.resblocks.{index}", f"encoder.layers.{index}"
        for ending in ("weight", "bias"):
            for former, latter in CLIP_BLOCK.items():
                kept[f"{new}.{latter}.{ending}"] = _take(state, f"{old}.{former}.{ending}")
            parts = _take(state, f"{old}.attn.in_proj_{ending}").chunk(3)
            kept |= {f"{new}.self_attn.{n}_proj.{ending}": part for n, part in zip("qkv", parts, strict=True)}
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=words.shape[1],
        intermediate_size=len(_take(state, "transformer.resblocks.0.mlp.c_fc.weight")),
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        max_position_embeddings=len(_take(state, "positional_embedding")),
        hidden_act=activation,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
    )
    return Tower(_written(config, "CLIPTextModel", words), kept)


_T5_CLASSES = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}


def t5_tower(state: Mapping[str, Tensor], said: Mapping[str, Any]) -> Tower:
    """The encoder alone of T5, mT5, umT5 and ByT5, whose tensors are named as in transformers."""
    kept = {name: tensor for name, tensor in state.items() if name == "shared.weight" or name.startswith("encoder.")}
    same = kept.pop("encoder.embed_tokens.weight", None)
    if "shared.weight" not in kept and same is not None:
        kept["shared.weight"] = same
    words, kind = _take(kept, "shared.weight"), str(said.get("model_type"))
    if kind not in _T5_CLASSES:
        raise CheckpointError(
            "its configuration is not that of a T5", expected=", ".join(_T5_CLASSES), got=said.get("model_type")
        )
    config = {name: value for name, value in said.items() if name != "auto_map"}
    config |= {"is_encoder_decoder": False, "use_cache": False, "architectures": [_T5_CLASSES[kind]]}
    return Tower(config | {"dtype": str(words.dtype).removeprefix("torch.")}, kept)


def _written(config: PretrainedConfig, architecture: str, words: Tensor) -> dict[str, Any]:
    written: dict[str, Any] = config.to_dict()
    return written | {"architectures": [architecture], "dtype": str(words.dtype).removeprefix("torch.")}


def _take(state: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in state:
        raise CheckpointError("a tensor is missing", expected=name, got=", ".join(sorted(state)[:3]) or "none")
    return state[name]


def _count(state: Mapping[str, Tensor], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in state if name.startswith(prefix)})


def _heads(width: int) -> int:
    if width % _HEAD_WIDTH:
        raise CheckpointError(
            "nothing says how many attention heads it has",
            expected=f"num_attention_heads in a config.json beside it, or a width that {_HEAD_WIDTH} divides",
            got=f"width {width}",
        )
    return width // _HEAD_WIDTH
