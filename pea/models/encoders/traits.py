"""How each kind of text encoder is read: which state, mask or none, how many tokens, padded on which side.

One entry of `TRAITS` a kind, by the `model_type` in the text part of its `config.json`; docs/guides/add_an_encoder.md
shows how one is added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from pea.errors import CheckpointError
from pea.models.config_fields import READING as READING_KINDS
from pea.models.config_fields import check_fields

HiddenState = int | Literal["last"]
"""Index into `hidden_states`, or `last`: what the model gives as its answer, after its last layer norm."""
PaddingSide = Literal["right", "left"]


@dataclass(frozen=True)
class Traits:
    """How encoders of one kind are read, as published."""

    source: str
    """Where that is published: a paper, a file of the upstream code, a model's page."""
    max_tokens: int = 77
    """Tokens that a caption is padded to, where the encoder and its tokenizer allow as many."""
    hidden_state: HiddenState = "last"
    attention_mask: bool = True
    """Whether the encoder is told which tokens are padding; some are trained to read padding."""
    padding_side: PaddingSide = "right"
    positions_after_padding: bool = False
    """RoBERTa counts positions from after the padding token's id, so that it reads that many fewer tokens."""


_PEA = "arXiv 2311.17086: OPPO-Mente-Lab/PEA-Diffusion, train_sdxl_zh.py"
_ROBERTA = Traits(
    source=f"{_PEA} (mul_clip: open_clip's tokenizer and HFTextEncoder, 77 tokens, the mask of padding)",
    positions_after_padding=True,
)
_T5 = Traits(source=f"{_PEA} (mt5: 77 tokens, the mask of padding)")
_SIGLIP = Traits(
    source="arXiv 2303.15343; transformers docs, model_doc/siglip: trained with padding to 64 and without a mask",
    max_tokens=64,
    attention_mask=False,
)
_LANGUAGE_MODEL = Traits(
    source="diffusers, Lumina2Pipeline and ZImagePipeline: the last state but one, masked, padded on the right",
    hidden_state=-2,
)

TRAITS: dict[str, Traits] = {
    "chinese_clip_text_model": Traits(
        source="arXiv 2211.01335: OFA-Sys/Chinese-CLIP, cn_clip/clip/utils.py (tokenize), model.py (encode_text)",
        max_tokens=52,
    ),
    "altclip_text_model": Traits(
        source=f"{_PEA} (alt_clip: 77 tokens, the mask of padding, the projected states)", positions_after_padding=True
    ),
    "clip_text_model": Traits(
        source="arXiv 2103.00020: openai/CLIP, clip/model.py (encode_text): 77 tokens and no mask of padding",
        attention_mask=False,
    ),
    "siglip_text_model": _SIGLIP,
    "siglip2_text_model": _SIGLIP,
    "bert": Traits(source=f"{_PEA}: 77 tokens wherever an encoder has no length of its own"),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "xlm-roberta-xl": _ROBERTA,
    "camembert": _ROBERTA,
    "roberta-prelayernorm": _ROBERTA,
    "t5": _T5,
    "mt5": _T5,
    "umt5": _T5,
    "byt5": Traits(
        source=f"{_PEA} for 77 pieces; arXiv 2105.13626: some four bytes stand for one piece", max_tokens=4 * 77
    ),
    "qwen2": _LANGUAGE_MODEL,
    "qwen3": _LANGUAGE_MODEL,
    "gemma": _LANGUAGE_MODEL,
    "gemma2": _LANGUAGE_MODEL,
    "gemma3_text": _LANGUAGE_MODEL,
    "llama": _LANGUAGE_MODEL,
    "mistral": _LANGUAGE_MODEL,
}
OTHER = Traits(source=f"{_PEA}: what it does with most encoders")
"""Of kinds without an entry."""
READING = "pea_reading"
"""Key of an imported encoder's `config.json`: the fields of `Traits` in which it differs from its kind."""
PAIR_TOKENS = 64
"""Tokens of two encoders side by side. Source: train_sdxl_zh.py, `context_length=64`."""


_MOST_TOKENS = 4096
"""Where neither the encoder nor its tokenizer has an end: far more than a prompt needs, and its states fit a memory."""


@dataclass(frozen=True)
class Reading:
    """How one encoder is read: its traits, within its limits, with what was asked for in their place."""

    max_tokens: int
    hidden_state: HiddenState
    attention_mask: bool
    padding_side: PaddingSide

    def record(self) -> dict[str, Any]:
        """What an adapter keeps of it."""
        return asdict(self)


def traits_of(config: Any, tokenizer: Any) -> Traits:
    """The entry of a model's configuration, whole or of its text part."""
    kind = str(getattr(text_config(config), "model_type", ""))
    if kind == "t5" and "byt5" in type(tokenizer).__name__.lower():
        kind = "byt5"
    return TRAITS.get(kind, OTHER)


def reading_of(config: Any, tokenizer: Any, wanted: Mapping[str, Any] | None = None) -> Reading:
    """How a model is read. `wanted`: fields of `Reading` that replace those of its traits; None leaves one alone.

    Raises:
        CheckpointError: more tokens are wanted than it reads, or a state that it doesn't have.
    """
    traits, limit = traits_of(config, tokenizer), token_limit(config, tokenizer)
    if published := getattr(config, READING, None):
        if not isinstance(published, Mapping) or published.keys() - READING_KINDS.keys():
            raise CheckpointError(
                f"config.json says an unusable {READING}", expected=", ".join(READING_KINDS), got=f"{published!r}"[:60]
            )
        check_fields(published, READING_KINDS, READING)
        traits = replace(traits, **published)
    chosen = {name: value for name, value in (wanted or {}).items() if value is not None}
    reading = Reading(
        max_tokens=int(chosen.get("max_tokens", min(traits.max_tokens, limit))),
        hidden_state=chosen.get("hidden_state", traits.hidden_state),
        attention_mask=bool(chosen.get("attention_mask", traits.attention_mask)),
        padding_side=chosen.get("padding_side", traits.padding_side),
    )
    if not 0 < reading.max_tokens <= limit:
        raise CheckpointError(
            "the text encoder does not read that many tokens",
            expected=f"1 to {limit}",
            got=reading.max_tokens,
            remedy="Set student.max_tokens to fewer, or leave it out.",
        )
    _check_state(config, reading)
    return reading


def _check_state(config: Any, reading: Reading) -> None:
    text = text_config(config)
    count = 1 + int(getattr(text, "num_hidden_layers", None) or getattr(text, "num_layers", None) or 0)
    if reading.padding_side not in get_args(PaddingSide):
        raise CheckpointError("a side that padding cannot be on", expected="right or left", got=reading.padding_side)
    if reading.hidden_state != "last" and not -count <= int(reading.hidden_state) < count:
        raise CheckpointError(
            "the text encoder has no such hidden state",
            expected=f"{-count} to {count - 1}",
            got=reading.hidden_state,
            remedy="Set student.hidden_state within that, or leave it out.",
        )


def token_limit(config: Any, tokenizer: Any) -> int:
    """Most tokens that both the tokenizer and the position embeddings allow."""
    text = text_config(config)
    positions = getattr(text, "max_position_embeddings", None)
    limit = min(tokenizer.model_max_length, _MOST_TOKENS)
    if positions is None or positions < 0:  # XLNet's -1: no end
        return int(limit)
    if traits_of(config, tokenizer).positions_after_padding:
        positions -= 1 + int(text.pad_token_id or 0)
    return int(min(int(positions), limit))


def text_config(config: Any) -> Any:
    """The text part of a model's configuration."""
    return getattr(config, "text_config", None) or config


def recorded_reading(adapter_config: Any) -> dict[str, Any]:
    """How an adapter's encoder was read, for `reading_of`, from the adapter's own configuration.

    Before adapters had a record, every encoder was read as `OTHER` is.
    """
    record: Mapping[str, Any] = adapter_config.get("encoder") or {}
    before = {"hidden_state": "last", "attention_mask": True, "padding_side": "right"}
    return {name: record.get(name, before[name]) for name in before} | {"max_tokens": adapter_config.get("max_tokens")}
