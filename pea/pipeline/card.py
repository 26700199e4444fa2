"""The model card of an adapter: the front matter that the hub reads, and a snippet that runs.

Source: huggingface.co/docs/hub/model-cards (`base_model`, `language`, `license`, `library_name`, `model-index`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pea.config.yaml_text import parse_yaml
from pea.copies import as_stored
from pea.errors import ConfigError
from pea.evaluation.record import ScoreRecord, is_of
from pea.file_names import METRICS
from pea.pipeline.licences import hub_languages
from pea.storage.hub import is_hub_id

MADE = "## How it was made"
"""Heading of what stays when the card is written anew."""
_EXAMPLES = {
    "ar": "قطة",
    "de": "eine Katze",
    "en": "a cat",
    "es": "un gato",
    "fr": "un chat",
    "hi": "एक बिल्ली",
    "it": "un gatto",
    "ja": "一匹の猫",
    "ko": "고양이 한 마리",
    "pt": "um gato",
    "ru": "кошка",
    "zh": "一只猫",
}
_KINDS = {
    "english_clip": "English CLIP score",
    "clip": "CLIP score",
    "pick_score": "PickScore",
    "hps_v2": "HPSv2",
    "image_reward": "ImageReward",
    "aesthetic": "aesthetic score",
    "": "judge's accuracy",
}
"""Scorer -> what its score is called; without one, it is the judge's."""
_TYPES = {
    kind: "accuracy" if not scorer else "clip_score" if scorer == "clip" else scorer for scorer, kind in _KINDS.items()
}
"""What a score is called -> its type on the hub."""
_FENCE = "---\n"
_INTRODUCTION = """\
A small MLP between the frozen text encoder `{encoder}` and the UNet of `{base}`, trained by knowledge distillation
(PEA-Diffusion, arXiv 2311.17086). `pip install pea-cache` brings what these lines import:
"""
_LICENCES = "The licence of this page is the adapter's; the diffusion model and the text encoder have their own.\n"


@dataclass(frozen=True)
class CardFacts:
    """What a card says beside the adapter's own configuration."""

    place: str
    """Folder, or `org/name`, that the snippet loads the adapter from."""
    base: str
    """Folder, or `org/name@revision`, of the diffusion model."""
    licence: str | None = None
    """As the hub spells it: `apache-2.0`, `openrail++`."""
    has_lora: bool = False
    scores: Mapping[str, float] | None = None
    """Name of a prompt set and of the score -> value."""
    picture: str | None = None
    """File of a grid of images, beside the card."""
    made: str = ""
    """Markdown: what it was made from."""


def model_card(config: Any, facts: CardFacts) -> str:
    """The README.md of an adapter's folder; `config`: the adapter's."""
    languages = list(config.languages or [])
    spoken = ", ".join(languages) or "other"
    shape = "SD1.5" if config.pooled_dim is None else "SDXL"
    encoder = str((config.encoder or {}).get("name") or f"of width {config.input_dim}").replace(" + ", "` and `")
    base = str((config.base_model or {}).get("name") or as_stored(facts.base))
    parts = [
        _FENCE + yaml.safe_dump(front_matter(config, facts), sort_keys=False, allow_unicode=True) + _FENCE,
        f"# PEA adapter: {spoken} prompts for an {shape}-shaped diffusion model\n",
        _INTRODUCTION.format(encoder=encoder, base=base),
        f"```python\n{snippet(config, facts)}```\n",
        _LICENCES if facts.licence else "",
        f"![Images of held-out prompts]({facts.picture})\n" if facts.picture else "",
        _score_table(facts.scores) if facts.scores else "",
        f"{MADE}\n\n{facts.made.strip()}\n" if facts.made.strip() else "",
    ]
    return "\n".join(part for part in parts if part)


def front_matter(config: Any, facts: CardFacts) -> dict[str, Any]:
    """What the hub reads; what is not known is left out."""
    is_sdxl = config.pooled_dim is not None
    kept: dict[str, Any] = {"library_name": "diffusers", "pipeline_tag": "text-to-image"}
    kept["tags"] = ["pea-diffusion", "text-to-image", "adapter"]
    kept["tags"] += ["stable-diffusion-xl" if is_sdxl else "stable-diffusion"] + ["lora"] * facts.has_lora
    if spoken := hub_languages(config.languages or []):
        kept["language"] = spoken
    if facts.licence:
        kept["license"] = facts.licence
    if is_hub_id(facts.base):
        kept |= {"base_model": facts.base.partition("@")[0], "base_model_relation": "adapter"}
    if facts.scores:
        metrics = [
            {"type": _TYPES[name.rpartition(", ")[2]], "name": name, "value": value}
            for name, value in facts.scores.items()
        ]
        result = {"task": {"type": "text-to-image"}, "metrics": metrics}
        result["dataset"] = {"name": "held-out prompts", "type": "held-out-prompts"}
        kept["model-index"] = [{"name": facts.place.rpartition("/")[2], "results": [result]}]
    return kept


def snippet(config: Any, facts: CardFacts) -> str:
    """Lines of Python that draw one image."""
    kind = "StableDiffusionPipeline" if config.pooled_dim is None else "StableDiffusionXLPipeline"
    prompt = _EXAMPLES.get((config.languages or [""])[0], "...")
    place = as_stored(facts.place)
    lora = lora_call(place) if facts.has_lora else ""
    return (
        f"from diffusers import {kind}\n"
        "from pea.pipeline import PEAPrompt\n\n"
        f"pipe = {pipeline_call(kind, facts.base)}\n"
        f'pea = PEAPrompt.from_pretrained("{place}")\n{lora}'
        "pea.attach(pipe)\n"
        f'image = pipe("{prompt}").images[0]\n'
    )


def pipeline_call(kind: str, base: str) -> str:
    """The Python that loads a base model: a folder, `org/name` or `org/name@revision`.

    diffusers reads no URL, so that of a copy of one, which is said behind it.
    """
    name, _, revision = base.partition("@") if is_hub_id(base) else (base, "", "")
    place = as_stored(name)
    if "://" in place:
        return f'{kind}.from_pretrained("{place.rpartition("/")[2]}")  # a copy of {place}'
    pinned = f', revision="{revision}"' if revision not in ("", "main") else ""
    way = "from_single_file" if place.endswith(".safetensors") else "from_pretrained"
    return f'{kind}.{way}("{place}"{pinned})'


def lora_call(place: str) -> str:
    """The line that loads the changes of the UNet that an adapter brings; of a URL's from the copy that is here."""
    return "pipe.load_lora_weights({})\n".format("pea.folder" if "://" in place else f'"{place}"')


def read_scores(run_dir: Path, digest: str) -> dict[str, float]:
    """The adapter's mean score on each prompt set, of the run whose folder this is; empty where it was not scored.

    `digest`: of the adapter that the card is of. Scores of another, as of the one before the last training, are none.
    """
    try:
        details = ScoreRecord(run_dir / METRICS).details
        means = {
            name: float(entry["mean"]["accuracy"])
            for name, entry in details.items()
            if is_of(entry.get("settings", {}), digest)
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}
    found: dict[str, float] = {}
    for name, value in sorted(means.items()):
        row, _, prompt_set = name.partition(".")
        if row == "adapter" and math.isfinite(value):
            scorer = next((each for each in _KINDS if prompt_set.endswith(f".{each}")), "")
            found[f"{prompt_set.removesuffix(f'.{scorer}')}, {_KINDS[scorer]}"] = round(value, 4)
    return found


def read_front_matter(card: str) -> tuple[dict[str, Any], str]:
    """The front matter of a card, and what follows it; {} where there is none that can be read."""
    if not card.startswith(_FENCE) or _FENCE not in card[len(_FENCE) :]:
        return {}, card
    head, _, body = card[len(_FENCE) :].partition(_FENCE)
    try:
        return parse_yaml(head, where="the card", what="front matter"), body
    except ConfigError:
        return {}, card


def _score_table(scores: Mapping[str, float]) -> str:
    rows = "\n".join(f"| {name} | {value} |" for name, value in scores.items())
    return f"| held-out prompts | |\n|---|---|\n{rows}\n"


def sections_made(card: str) -> str:
    """What a card says below `MADE`."""
    return card.partition(f"{MADE}\n")[2].strip()


def is_own(card: str, languages: Sequence[str]) -> bool:
    """Whether a card is one of ours that nobody has rewritten: its title is as `model_card` writes it."""
    return f"# PEA adapter: {', '.join(languages) or 'other'} prompts for an " in card
