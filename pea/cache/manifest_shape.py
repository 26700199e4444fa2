"""What a manifest may say: kinds and bounds of its entries, and of those identity fields that are computed with."""

from __future__ import annotations

from typing import Any

from pea.cache import strict_json as must
from pea.cache.cards import MOST_CARDS, card_shape

_MOST_TARS = 1 << 20
_MOST_DRAWS = 1 << 20
_block = must.text(256, r"[A-Za-z0-9_.]+")
_tar = must.fields(
    {"name": must.plain_name, "size_bytes": must.count(), "sha256": must.text(64)}, {"captions": must.text(64)}
)
_draws = must.items(must.count(_MOST_DRAWS), must.count(_MOST_DRAWS))
_scheduler = must.fields({}, {"num_train_timesteps": must.count(1 << 20, 1)}, others=True)
_identity = must.fields(
    {
        "cache.draws_per_sample": must.count(_MOST_DRAWS),
        "cache.blocks": must.list_of(_block, 4096),
        "cache.sketches": must.map_of(_block, must.fields({}, others=True), 4096),
        "corpus.tars": must.list_of(_tar, _MOST_TARS),
    },
    {
        "cache.format_version": must.count(99),
        "corpus.retired": must.list_of(must.plain_name, _MOST_TARS),
        "cache.seed": must.count(must.MOST, -must.MOST),
        "cache.caption_drop_rate": must.number(0, 1),
        "cache.draw_recipe": must.text(1024),
        "teacher.scheduler": must.optional(_scheduler),
    },
    others=True,
)
_manifest = must.fields(
    {
        "format": must.one_of("pea-cache"),
        "format_version": must.count(99),
        "identity": _identity,
        "parts": must.list_of(
            must.fields(
                {
                    "part": must.text(8, "p[0-9]{3,7}"),
                    "kind": must.one_of("whole", "draws", "blocks", "queries"),
                    "draws": _draws,
                    "blocks": must.list_of(_block, 4096),
                    "tars": must.list_of(must.plain_name, _MOST_TARS),
                },
                {"before_queries": must.one_of(True)},
            ),
            1 << 16,
        ),
    },
    {"cards": must.list_of(card_shape, MOST_CARDS)},
)


def check_manifest(raw: Any) -> None:
    """Make sure that a manifest is one, and that its parts are of its own tars, draws and blocks, each once.

    Raises:
        ValueError: it is not; names the entry.
    """
    _manifest(raw, "manifest")
    identity, seen = raw["identity"], set()
    tars = {each["name"] for each in identity["corpus.tars"]}
    if len(tars) != len(identity["corpus.tars"]):
        raise ValueError("manifest.identity.corpus.tars: a name is there twice")
    blocks, most = set(identity["cache.sketches"]), identity["cache.draws_per_sample"]
    if not blocks >= set(identity["cache.blocks"]):
        raise ValueError("manifest.identity.cache.sketches: a block has none")
    for entry in raw["parts"]:
        first, last = entry["draws"]
        if not first <= last <= most or not blocks.issuperset(entry["blocks"]) or not tars.issuperset(entry["tars"]):
            raise ValueError(f"manifest.parts: {entry['part']} has draws, blocks or tars that the identity has not")
        for tar in entry["tars"]:
            if (tar, entry["part"]) in seen:
                raise ValueError(f"manifest.parts: {tar}/{entry['part']} is there twice")
            seen.add((tar, entry["part"]))
