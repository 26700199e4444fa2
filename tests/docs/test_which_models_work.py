"""The page "which models work" names tests that exist, and every kind that the code knows."""

from __future__ import annotations

import re
from functools import cache

from pea.models.encoders.traits import TRAITS
from pea.models.noise_schedule import DISCRETE
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs/reference/which_models_work.md").read_text("utf-8")
ROWS = [line for line in PAGE.splitlines() if "`test_" in line]
SPELT = {
    "chinese_clip_text_model": "Chinese-CLIP", "altclip_text_model": "AltCLIP", "clip_text_model": "CLIP",
    "siglip_text_model": "SigLIP", "siglip2_text_model": "SigLIP 2", "bert": "BERT", "roberta": "RoBERTa",
    "xlm-roberta": "XLM-R", "xlm-roberta-xl": "XLM-R XL", "camembert": "CamemBERT",
    "roberta-prelayernorm": "RoBERTa-PreLayerNorm", "t5": "T5", "mt5": "mT5", "umt5": "umT5", "byt5": "ByT5",
    "qwen2": "Qwen2", "qwen3": "Qwen3", "gemma": "Gemma", "gemma2": "Gemma 2", "gemma3_text": "Gemma 3",
    "llama": "Llama", "mistral": "Mistral",
}  # fmt: skip


@cache
def defined() -> dict[str, set[str]]:
    """Name of a test -> the files that define it."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for name in re.findall(r"^def (test_\w+)\(", path.read_text("utf-8"), re.MULTILINE):
            found.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    return found


def test_every_test_that_is_named_exists() -> None:
    assert len(ROWS) > 40
    for row in ROWS:
        missing = [name for name in re.findall(r"`(test_\w+)`", row) if name not in defined()]
        assert not missing, row
        for names, file in re.findall(r"((?:`test_\w+`(?: \([^)]*\))?,? ?)+)in `(tests/[\w/]+\.py)`", row):
            for name in re.findall(r"`(test_\w+)`", names):
                assert file in defined()[name], f"{name} is not in {file}"


def test_every_kind_that_is_known_is_on_the_page() -> None:
    assert set(SPELT) == set(TRAITS)
    works = [row for row in ROWS if "| works" in row]
    for spelt in SPELT.values():
        assert any(re.search(rf"(^|[ ,|(]){re.escape(spelt)}[,) ]", row) for row in works), spelt
    for scheduler in DISCRETE:
        assert re.search(rf"\b{scheduler.removesuffix('Scheduler')}\b", PAGE), scheduler
