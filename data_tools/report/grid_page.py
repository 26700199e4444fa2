"""The page of a grid: tables, and thumbnails of every prompt by variant, in one file of less than 10 MB."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from data_tools.pages import render_page
from data_tools.report.pictures import data_url
from pea.plurals import count_of

_MOST_BYTES = 9_000_000
"""Of all thumbnails, as they stand in the page."""
_SIZES_PX = (256, 192, 144, 112, 96)
_PIXEL_ART_PX = 64


@dataclass(frozen=True)
class GridCell:
    """One image."""

    variant: str
    path: Path
    caption: str
    """What it was drawn from."""
    language: str


Rows = Sequence[Sequence[GridCell | None]]
"""A row a prompt, a column a variant; None where a variant left the prompt out."""


def grid_page(
    title: str,
    tables: Mapping[str, Sequence[Sequence[str]]],
    pictures: Mapping[str, tuple[Sequence[str], Rows]],
    paired: Sequence[Sequence[str]],
    facts: Sequence[str],
) -> str:
    """The HTML.

    Args:
        title: of the page.
        tables: prompt set -> head and rows of its scores.
        pictures: prompt set -> variants' names and their images.
        paired: head and rows of the comparison prompt by prompt; a head alone is not shown.
        facts: lines about what everything was made with.
    """
    thumbnails, shown, size_px = _thumbnails(pictures)
    total = sum(len(rows) for _, rows in pictures.values())
    sets = []
    for name, (variants, rows) in pictures.items():
        kept = [_row(row, thumbnails) for row in rows[: shown[name]]]
        left_out = len(rows) - len(kept)
        sets.append({"name": name, "variants": variants, "rows": kept, "left_out": _left_out(left_out)})
    return render_page(
        "report/page_grid.html",
        title=title,
        lead=_lead(sum(shown.values()), total, size_px, thumbnails.values()),
        cards=[],
        tables=[{"caption": caption, "head": cells[0], "rows": cells[1:]} for caption, cells in tables.items()],
        sets=sets,
        paired={"head": paired[0], "rows": paired[1:]} if len(paired) > 1 else None,
        facts=facts,
    )


def _lead(shown: int, total: int, size_px: int, thumbnails: Iterable[Mapping[str, Any]]) -> str:
    """How much of what was drawn is shown; images that are no larger than a thumbnail are shown whole."""
    prompts = count_of(total, "prompt") if shown == total else f"{shown:,} of {count_of(total, 'prompt')}"
    smaller = any(each["smaller"] for each in thumbnails)
    return f"{prompts}, {size_px} px thumbnails; the files keep every pixel." if smaller else f"{prompts}."


def _left_out(count: int) -> str:
    """Said above a set of which prompts are not shown."""
    are = "is" if count == 1 else "are"
    return f"{count_of(count, 'more prompt')} {are} in the files, and not on this page." if count else ""


def _row(row: Sequence[GridCell | None], thumbnails: Mapping[Path, dict[str, Any]]) -> dict[str, Any]:
    """Captions, each once with what was drawn from it, and the images."""
    captions = {(cell.caption, cell.language): None for cell in row if cell is not None}
    return {
        "captions": [{"text": text, "language": language} for text, language in captions],
        "cells": [
            None if cell is None else thumbnails[cell.path] | {"alt": f"{cell.variant}: {cell.caption}"} for cell in row
        ],
    }


def _thumbnails(
    pictures: Mapping[str, tuple[Sequence[str], Rows]],
) -> tuple[dict[Path, dict[str, Any]], dict[str, int], int]:
    """Path -> thumbnail, prompt set -> how many of its first rows are shown, and the thumbnails' size in pixels."""
    cells = sum(len(row) for _, rows in pictures.values() for row in rows)
    size_px = next((size for size in _SIZES_PX if cells * size * size / 3 < _MOST_BYTES), _SIZES_PX[-1])
    made: dict[Path, dict[str, Any]] = {}
    shown = dict.fromkeys(pictures, 0)
    left = _MOST_BYTES
    for name, row in _in_turn(pictures):
        own = {cell.path: _thumbnail(cell.path, size_px) for cell in row if cell is not None}
        left -= sum(len(each["image"]) for each in own.values())
        if left < 0:
            break
        made |= own
        shown[name] += 1
    return made, shown, size_px


def _in_turn(pictures: Mapping[str, tuple[Sequence[str], Rows]]) -> Iterator[tuple[str, Sequence[GridCell | None]]]:
    """The rows of all sets, one of each in turn, so that no set takes the page for itself."""
    longest = max((len(rows) for _, rows in pictures.values()), default=0)
    for number in range(longest):
        yield from ((name, rows[number]) for name, (_, rows) in pictures.items() if number < len(rows))


def _thumbnail(path: Path, size_px: int) -> dict[str, Any]:
    with Image.open(path) as image:
        small, largest_px = image.convert("RGB"), max(image.size)
    is_small = largest_px <= _PIXEL_ART_PX
    small.thumbnail((size_px, size_px), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    if is_small:
        small.save(data, "PNG")
    else:
        small.save(data, "JPEG", quality=80)
    url = data_url(data.getvalue(), "png" if is_small else "jpeg")
    return {
        "image": url,
        "width": small.width,
        "height": small.height,
        "pixelated": is_small,
        "smaller": largest_px > size_px,
    }
