"""The data card of a corpus: what is in it and how it looks, in Markdown, as a page, and for a cache's manifest."""

from __future__ import annotations

import base64
import heapq
import io
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from data_tools.corpus.corpus_facts import CorpusFacts, in_order
from data_tools.pages import render_page
from data_tools.tables import human_bytes
from pea.cache.cards import FORMAT, card_shape, digest_of_tars
from pea.corpus.reasons import REASONS
from pea.errors import ConfigError
from pea.foreign_text import visible
from pea.plurals import count_of
from pea.storage.digests import sha256_text

THUMBNAIL_PX = 160
_MAX_CAPTION = 160


@dataclass(order=True)
class _Chosen:
    number: int
    id: str = field(compare=False)
    picture: str = field(compare=False)
    captions: dict[str, str] = field(compare=False)


class ContactSheet:
    """Some samples, chosen by their ids, so that the same corpus has the same sheet; small pictures of them."""

    def __init__(self, num_samples: int) -> None:
        self._most, self._heap = num_samples, list[_Chosen]()

    def add(self, sample: str, image: Image.Image, captions: Mapping[str, str]) -> None:
        """Look at a sample; keeps it if it is among the chosen."""
        number = -zlib.crc32(f"card\0{sample}".encode())
        if self._most and (len(self._heap) < self._most or number > self._heap[0].number):
            chosen = _Chosen(number, sample, _picture(image), dict(sorted(captions.items())))
            (heapq.heappush if len(self._heap) < self._most else heapq.heappushpop)(self._heap, chosen)

    @property
    def samples(self) -> list[_Chosen]:
        """The chosen ones, by id."""
        return sorted(self._heap, key=lambda each: each.id)


@dataclass(frozen=True)
class About:
    """What a person says of a corpus; empty where nobody does."""

    title: str
    licence: str = ""
    source: str = ""
    """Where it is from."""

    @property
    def rows(self) -> list[tuple[object, ...]]:
        """What there is to say under the title."""
        found = (("licence", self.licence), ("source", self.source))
        return [(name, text) for name, text in found if text]


def tables_of(facts: CorpusFacts) -> list[tuple[str, tuple[str, ...], list[tuple[object, ...]]]]:
    """(Heading, head, rows) of every table of the card."""
    captions: list[tuple[object, ...]] = [(name, count) for name, count in sorted(facts.languages.items())]
    found = [("Captions", ("language", "captions"), captions)]
    for language, counts in sorted(facts.lengths.items()):
        rows: list[tuple[object, ...]] = [*in_order(counts)]
        found.append((f"Length of captions in {language}", ("characters", "captions"), rows))
    found.append(("Shorter sides", ("px", "images"), [*in_order(facts.shorter_sides)]))
    if facts.dropped:
        left_out: list[tuple[object, ...]] = [(r, n, REASONS[r]) for r, n in facts.dropped.most_common()]
        found.append(("Samples that cannot be used", ("reason", "samples", "meaning"), left_out))
    tars: list[tuple[object, ...]] = [
        (each.name, human_bytes(each.size_bytes), each.sha256) for each in facts.identities
    ]
    found.append(("Tars", ("name", "size", "sha256"), tars))
    return found


def markdown(about: About, facts: CorpusFacts) -> str:
    """The card as Markdown, without pictures."""
    lines = [f"# {_cell(about.title)}", "", summary(facts), ""]
    lines += [f"* {name}: {_cell(text)}" for name, text in about.rows] + ([""] if about.rows else [])
    for heading, head, rows in tables_of(facts):
        lines += [f"## {_cell(heading)}", "", _row(head), _row(["---"] * len(head)), *map(_row, rows), ""]
    lines += [f"* damaged: {_cell(line)}" for line in facts.damaged]
    return "\n".join(lines).rstrip() + "\n"


def for_manifests(about: About, facts: CorpusFacts, markdown: str, html: str) -> str:
    """The card as a cache's manifest carries it; ``markdown`` and ``html``: the others.

    Raises:
        ConfigError: a text of a person is too long.
    """
    found = {
        "format": FORMAT,
        "format_version": 1,
        **vars(about),
        "num_tars": facts.num_tars,
        "num_bytes": facts.num_bytes,
        "num_samples": facts.seen,
        "num_usable": facts.usable,
        "languages": dict(sorted(facts.languages.items())),
        "left_out": dict(sorted(facts.dropped.items())),
        "tars_sha256": digest_of_tars(tar.sha256 for tar in facts.identities),
        "markdown_sha256": sha256_text(markdown),
        "html_sha256": sha256_text(html),
    }
    try:
        card_shape(found, "card")
    except ValueError as error:
        raise ConfigError("this is too much for a card", where="pea data card", got=error) from None
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def html(about: About, facts: CorpusFacts, sheet: ContactSheet) -> str:
    """The card as a page with a contact sheet."""
    samples: list[dict[str, Any]] = [
        {
            "id": visible(each.id),
            "picture": each.picture,
            "captions": [(name, visible(text[:_MAX_CAPTION])) for name, text in each.captions.items()],
        }
        for each in sheet.samples
    ]
    return render_page(
        "corpus/page_card.html",
        title=about.title,
        lead=summary(facts),
        cards=[],
        samples=samples,
        about=about.rows,
        tables=tables_of(facts),
        damaged=facts.damaged,
    )


def summary(facts: CorpusFacts) -> str:
    """One sentence."""
    return (
        f"{facts.usable:,} of {facts.seen:,} samples can be used, in {count_of(facts.num_tars, 'tar')} of together "
        f"{human_bytes(facts.num_bytes)}."
    )


def _picture(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _row(cells: Any) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(value: object) -> str:
    return visible(str(value)).replace("|", r"\|").replace("<", "&lt;")
