"""What a tokenizer does, as a digest: the same whatever files it is kept in."""

from __future__ import annotations

import json
from typing import Any

from pea.storage.digests import canonical_json, sha256_text

_PROBES = (
    "",
    "A photo of two CATS, 3.5 km away; it's  raining... don't! café naïve",
    "一只猫在雪地上，漢字カタカナひらがな 한국어",
    "Кошка на снегу, Γάτα, قطة في الثلج, חתול, बिल्ली, แมว",
    "🐈 ①½ ﬁ\t\n x" + "supercalifragilistic" * 8,
)
"""Texts of several scripts: cases, accents, numbers, spaces, characters that are hardly known."""


def tokenizer_digest(tokenizer: Any) -> str:
    """sha256 of vocabulary, merges, special tokens, limit and padding side, and of the ids of some texts."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    model = {} if backend is None else json.loads(backend.to_str()).get("model", {})
    merges = [each if isinstance(each, str) else " ".join(each) for each in model.get("merges") or ()]
    ids = [tokenizer(text, truncation=True, max_length=min(tokenizer.model_max_length, 77)) for text in _PROBES]
    return sha256_text(
        canonical_json(
            {
                "vocabulary": tokenizer.get_vocab(),
                "merges": merges,
                "special": [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id],
                "limit": min(tokenizer.model_max_length, 1 << 20),
                "padding_side": tokenizer.padding_side,
                "ids": [[int(each) for each in text["input_ids"]] for text in ids],
            }
        )
    )
