"""The published layouts: how each is known, and the text tower in it. docs/guides/add_an_encoder.md adds one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from transformers import CONFIG_MAPPING

from pea.errors import CheckpointError
from pea.models.imports.published import Published
from pea.models.imports.towers import Tower, bert_tower, clip_tower, t5_tower, xlm_roberta_tower

_WORDS = "embeddings.word_embeddings.weight"
_T5_WORDS = "block.0.layer.0.SelfAttention.q.weight"


class Layout(NamedTuple):
    """A form that text encoders were published in."""

    name: str
    source: str
    matches: Callable[[Published], bool]
    text_tower: Callable[[Published], Tower]


def _has(*names: str) -> Callable[[Published], bool]:
    return lambda published: all(name in published.state for name in names)


def _said(published: Published) -> dict[str, Any]:
    """What the configuration says of the text tower."""
    said = published.config.get("text_config") or published.config.get("text_config_dict") or {}
    return said if isinstance(said, dict) else {}


def _cn_clip(published: Published) -> Tower:
    return bert_tower(published.below("bert."), _said(published), eps=1e-12)._replace(max_tokens=52)


def _open_clip(published: Published) -> Tower:
    state = published.below("text.transformer.")
    return xlm_roberta_tower(state, published.config)._replace(max_tokens=77)


def _m_clip(published: Published) -> Tower:
    state = published.below("transformer.")
    is_bert = len(state.get("embeddings.token_type_embeddings.weight", ())) == 2  # RoBERTa and XLM-R have one
    tower = bert_tower(state, published.config, eps=1e-12) if is_bert else xlm_roberta_tower(state, published.config)
    return tower._replace(max_tokens=77)


def _is_rinna(published: Published) -> bool:
    return published.config.get("model_type") in ("clip", "cloob") and f"text_model.{_WORDS}" in published.state


def _rinna(published: Published) -> Tower:
    # Its positions count from 0 and its tokenizer puts [CLS] before a caption and nothing after it.
    tower = bert_tower(published.below("text_model."), _said(published), eps=1e-5)
    return tower._replace(max_tokens=77, template="{cls} $A", lower_case=True)


def _is_hybrid_clip(published: Published) -> bool:
    return published.is_flax and f"text_model.{_WORDS}" in published.state


def _hybrid_clip(published: Published) -> Tower:
    # FlaxHybridCLIP counts positions from 0 whatever its text model is.
    return bert_tower(published.below("text_model."), _said(published), eps=1e-12)._replace(max_tokens=96)


def _clip(published: Published) -> Tower:
    config, state = published.config, published.below("text.") or published.state
    model = config.get("model_cfg", {})
    if "transformer_heads" in config:
        return clip_tower(state, heads=config["transformer_heads"], activation="quick_gelu", bos=2, eos=3, pad=0)
    if "text_cfg" in model:
        last = len(state["token_embedding.weight"]) - 1
        activation = "quick_gelu" if model.get("quick_gelu") else "gelu"
        heads = model["text_cfg"].get("heads", 8)
        return clip_tower(state, heads=heads, activation=activation, bos=last - 1, eos=last, pad=0)
    raise CheckpointError(
        "nothing says how many heads this CLIP has, nor which activation",
        where=published.weights,
        expected="ruCLIP's config.json, or open_clip_config.json, beside it",
    )


def _is_clip(published: Published) -> bool:
    names = ("token_embedding.weight", "ln_final.weight")
    return any(_has(*(prefix + name for name in names))(published) for prefix in ("", "text."))


def _t5(published: Published) -> Tower:
    return t5_tower(published.state, published.config)


def _is_transformers(published: Published) -> bool:
    return published.config.get("model_type") in CONFIG_MAPPING and not published.is_flax


def _transformers(published: Published) -> Tower:
    config = {name: value for name, value in published.config.items() if name != "auto_map"}
    return Tower(config, {name: each for name, each in published.state.items() if not name.endswith("position_ids")})


LAYOUTS = (
    Layout(
        "cn_clip",
        "OFA-Sys/Chinese-CLIP: clip_cn_*.pt; cn_clip/clip/model.py, utils.py (tokenize: 52 tokens)",
        _has(f"bert.{_WORDS}", "text_projection"),
        _cn_clip,
    ),
    Layout(
        "open_clip with an XLM-R or RoBERTa",
        "mlfoundations/open_clip: open_clip/hf_model.py; tokenizer.py (77 tokens)",
        _has(f"text.transformer.{_WORDS}"),
        _open_clip,
    ),
    Layout(
        "M-CLIP",
        "FreddeFrallan/Multilingual-CLIP: multilingual_clip/pt_multilingual_clip.py",
        _has(f"transformer.{_WORDS}", "LinearTransformation.weight"),
        _m_clip,
    ),
    Layout(
        "rinna's Japanese CLIP and CLOOB",
        "rinnakk/japanese-clip: clip/modeling_clip.py; tokenizer.py (77 tokens, [CLS] first)",
        _is_rinna,
        _rinna,
    ),
    Layout(
        "FlaxHybridCLIP (KoCLIP, CLIP-Italian)",
        "jaketae/koclip: koclip/model.py, train.sh; clip-italian: modeling_hybrid_clip.py, run_training.sh (96 tokens)",
        _is_hybrid_clip,
        _hybrid_clip,
    ),
    Layout(
        "ruCLIP, and open_clip's own CLIPs",
        "ai-forever/ru-clip: ruclip/model.py; openai/CLIP: clip/model.py",
        _is_clip,
        _clip,
    ),
    Layout(
        "T5, mT5, umT5 and ByT5, the encoder alone",
        "transformers: modeling_t5.py; arXiv 2010.11934, 2304.09151, 2105.13626",
        _has("shared.weight", f"encoder.{_T5_WORDS}"),
        _t5,
    ),
    Layout("transformers' own, as .bin", "transformers: save_pretrained before 2023", _is_transformers, _transformers),
)
"""The first that matches counts."""


def layout_of(published: Published) -> Layout:
    """Which layout a model was published in.

    Raises:
        CheckpointError: none that is known.
    """
    for layout in LAYOUTS:
        if layout.matches(published):
            return layout
    raise CheckpointError(
        "not a layout that is known",
        where=published.weights,
        expected="; ".join(layout.name for layout in LAYOUTS),
        got="tensors named " + (", ".join(sorted(published.state)[:5]) or "nothing"),
        remedy="docs/guides/add_an_encoder.md says how a layout is added.",
    )
