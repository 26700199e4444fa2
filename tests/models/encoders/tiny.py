"""Tiny random text encoders of every kind, with real classes, in transformers folders."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    ByT5Tokenizer,
    CamembertConfig,
    CamembertModel,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MT5Config,
    MT5ForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    RobertaConfig,
    RobertaModel,
    RobertaPreLayerNormConfig,
    RobertaPreLayerNormModel,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
    XLMRobertaConfig,
    XLMRobertaModel,
    XLMRobertaXLConfig,
    XLMRobertaXLModel,
)

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2}
_T5 = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 3, "num_heads": 2, "decoder_start_token_id": 0}
_LM = {**SIZES, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 128}
_POSITIONS = {"max_position_embeddings": 82, "pad_token_id": 1, "type_vocab_size": 1}
WORDS = ["<s>", "<pad>", "</s>", "<unk>", *string.ascii_lowercase, *"一只猫狗", *string.digits]


def word_tokenizer(template: str | None = "<s> $A </s>", **options: Any) -> PreTrainedTokenizerFast:
    """Each character between spaces is a token; `template`: special tokens around a caption, or none."""
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Split("", behavior="isolated")]
    )
    if template:
        special = [(token, vocabulary[token]) for token in ("<s>", "</s>")]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **(names | options))


def make_encoder(folder: Path, kind: str, seed: int = 3) -> Path:
    """A transformers folder of this kind, hidden states of width 32."""
    torch.manual_seed(seed)
    model, tokenizer = _make(kind)
    for parameter in model.parameters():  # fresh ones are near zero or one; those of published models are not
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _make(kind: str) -> tuple[Any, Any]:
    size = {"vocab_size": len(WORDS)}
    if kind in ("siglip", "siglip2"):
        text = {**SIZES, **size, "max_position_embeddings": 64, "pad_token_id": 1, "projection_size": 32}
        vision = {**SIZES, "patch_size": 8}
        if kind == "siglip2":
            both = Siglip2Config(text_config=text, vision_config={**vision, "num_patches": 4})
            return Siglip2Model(both), word_tokenizer("$A </s>")
        both = SiglipConfig(text_config=text, vision_config={**vision, "image_size": 16})
        return SiglipModel(both), word_tokenizer("$A </s>")
    if kind == "t5":
        return T5EncoderModel(T5Config(**_T5, **size, pad_token_id=1)), word_tokenizer("$A </s>")
    if kind == "mt5":
        return MT5ForConditionalGeneration(MT5Config(**_T5, **size, pad_token_id=1)), word_tokenizer("$A </s>")
    if kind == "umt5":
        return UMT5EncoderModel(UMT5Config(**_T5, **size, pad_token_id=1)), word_tokenizer("$A </s>")
    if kind == "byt5":
        return T5EncoderModel(T5Config(**_T5, vocab_size=384)), ByT5Tokenizer()
    if kind in _LANGUAGE_MODELS:
        config, model, special = _LANGUAGE_MODELS[kind]
        shape = {name: value for name, value in _LM.items() if kind != "qwen2" or name != "head_dim"}
        return model(config(**shape, **size, **special)), (
            word_tokenizer(None, bos_token=None, padding_side="left") if "qwen" in kind else word_tokenizer("<s> $A")
        )
    config, model = _ROBERTAS[kind]
    return model(config(**SIZES, **size, **_POSITIONS)), word_tokenizer()


_LANGUAGE_MODELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {}),
    "gemma": (GemmaConfig, GemmaForCausalLM, {}),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM, {"sliding_window": 64}),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM, {"sliding_window": 64}),
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "mistral": (MistralConfig, MistralForCausalLM, {}),
}
_ROBERTAS: dict[str, tuple[Any, Any]] = {
    "e5": (XLMRobertaConfig, XLMRobertaModel),
    "roberta": (RobertaConfig, RobertaModel),
    "xlm-roberta-xl": (XLMRobertaXLConfig, XLMRobertaXLModel),
    "camembert": (CamembertConfig, CamembertModel),
    "roberta-prelayernorm": (RobertaPreLayerNormConfig, RobertaPreLayerNormModel),
}
