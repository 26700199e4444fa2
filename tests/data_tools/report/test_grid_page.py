"""The page of a grid: every kind of caption, and a size that a mail takes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_tools.report import grid_page as module
from data_tools.report.grid_page import GridCell, grid_page

HEBREW = 'חתול בשלג <b>"&'


def _picture(path: Path, size_px: int, seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 255, (size_px, size_px, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_captions_of_every_script_and_gaps(tmp_path: Path) -> None:
    path = _picture(tmp_path / "a.png", 128)
    rows = [[GridCell("he-dpm-4", path, HEBREW, "he"), None], [None, GridCell("teacher-dpm-4", path, "a cat", "en")]]
    html = grid_page(
        "two",
        {"general": [["variant", "clip"], ["<x>", "0.1"]]},
        {"general": (["he-dpm-4", "teacher-dpm-4"], rows)},
        [["first"]],
        [],
    )
    assert 'lang="he" dir="auto">חתול בשלג &lt;b&gt;&#34;&amp;</p>' in html and "<b>" not in html
    assert 'alt="he-dpm-4: חתול בשלג &lt;b&gt;&#34;&amp;"' in html and 'alt="teacher-dpm-4: a cat"' in html
    assert '<th scope="row">&lt;x&gt;</th>' in html and html.count("<td></td>") == 2
    assert "Prompt by prompt" not in html
    assert "prefers-color-scheme: dark" in html and '<meta name="color-scheme" content="light dark">' in html
    assert "2 prompts." in html and html.count("data:image/jpeg") == 2


def test_small_images_are_no_thumbnails_and_nothing_measured_has_no_list(tmp_path: Path) -> None:
    row = [GridCell("a", _picture(tmp_path / "a.png", 32), "un chat", "fr")]
    html = grid_page("one", {}, {"general": (["a"], [row])}, [["first"]], [])
    assert "1 prompt." in html and "thumbnails" not in html and "Made with" not in html
    large = [GridCell("a", _picture(tmp_path / "b.png", 512), "un chat", "fr")]
    assert "1 prompt, 256 px thumbnails; the files keep" in grid_page("one", {}, {"g": (["a"], [large])}, [[""]], [])


def test_the_page_stays_below_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise is what a picture format makes least of; sets take turns, and what is left out is said."""
    monkeypatch.setattr(module, "_MOST_BYTES", 300_000)
    noise, variants = _picture(tmp_path / "noise.png", 128), ["v0", "v1", "v2"]
    pictures: dict[str, tuple[list[str], list[list[GridCell | None]]]] = {}
    for name, count in (("general", 40), ("culture", 4)):
        rows: list[list[GridCell | None]] = []
        for number in range(count):
            links = [tmp_path / f"{name}-{number}-{variant}.png" for variant in variants]
            for link in links:
                link.symlink_to(noise)
            cells = zip(variants, links, strict=True)
            rows.append([GridCell(variant, link, f"prompt {number}", "en") for variant, link in cells])
        pictures[name] = (variants, rows)
    html = grid_page("many", {}, pictures, [["first"], ["a<b"]], ["seed 0"])
    assert 200_000 < len(html.encode()) < 300_000 + 30_000
    assert "Prompt by prompt" in html and '<th scope="row">a&lt;b</th>' in html
    assert html.count("more prompts are in the files") == 1 and "96 px thumbnails" in html
    assert html.count('alt="v0: prompt 3"') == 2, "the small set is whole"
    assert html.count('alt="v0: prompt 39"') == 0
    assert module._SIZES_PX[0] == 256
