"""The data card of a corpus, as its cache's manifest carries it: what people should know, of which nothing is computed.

``pea data card`` writes it as ``card.json`` beside the tars. It is no part of the identity: a cache with another card,
or with none, holds the same records.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pea.cache import strict_json as must
from pea.errors import AccessDeniedError, CorpusError, LocationMissingError
from pea.storage.digests import sha256_text
from pea.storage.location import Location

FILE_NAME = "card.json"
FORMAT = "pea-corpus-card"
MOST_CARDS = 64
"""That a manifest carries: one for each folder of tars."""
_MOST_BYTES = 256 << 10
_sha256 = must.text(64, "[0-9a-f]{64}")
card_shape = must.fields(
    {
        "format": must.one_of(FORMAT),
        "format_version": must.one_of(1),
        "title": must.text(200),
        "licence": must.text(200),
        "source": must.text(2000),
        "num_tars": must.count(),
        "num_bytes": must.count(),
        "num_samples": must.count(),
        "num_usable": must.count(),
        "languages": must.map_of(must.text(64), must.count(), 4096),
        "left_out": must.map_of(must.text(64), must.count(), 256),
        "tars_sha256": _sha256,
        "markdown_sha256": _sha256,
        "html_sha256": _sha256,
    }
)
"""``licence`` and ``source`` are what a person wrote, empty where nobody did; ``left_out``: reason -> samples."""


def digest_of_tars(digests: Iterable[str]) -> str:
    """What tells whether a card is of some tars: sha256 of their sha256s, in whatever order."""
    return sha256_text("\n".join(sorted(digests)))


def read_card(folder: Location) -> dict[str, Any] | None:
    """The card in a folder of tars; None: there is none, or a file of that name that is something else.

    Raises:
        CorpusError: it is a card, and damaged.
        StorageError: it cannot be read.
    """
    place = folder / FILE_NAME
    try:
        data = must.read_at_most(place, _MOST_BYTES)
        found: Any = must.parse(data)
    except (LocationMissingError, AccessDeniedError, ValueError):
        return None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return None
    try:
        card_shape(found, FILE_NAME)
    except ValueError as error:
        remedy = "Make it again with `pea data card`, or delete it."
        raise CorpusError("the card of the corpus is damaged", where=place, got=error, remedy=remedy) from None
    return found
