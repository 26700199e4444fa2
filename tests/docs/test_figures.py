"""A figure that one page takes from another is the figure that stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, links, name

RESULTS = ROOT / "docs/results"
TRANSLATIONS = sorted((ROOT / "docs/translations").glob("README.*.md"))
_NUMBER = re.compile(r"(?<![\w.,-])\d[\d,]*(?:\.\d+)?(?!\w|,\d)")
_NAMES = re.compile(r"SDXL at 1024 px|SD1\.5|two CPU|`[^`]*`|\]\([^)]*\)")
"""Digits that are no figures."""
_TEN_THOUSANDS = ("600", "800", "2240")
"""6, 8 and 22.4 million where one counts in tens of thousands."""


def numbers(text: str) -> list[str]:
    """The figures of a text as they are written, without the commas of thousands."""
    return [found.replace(",", "") for found in _NUMBER.findall(_NAMES.sub(" ", text))]


def stands_in(figure: str, page: str) -> bool:
    """Whether a page has a figure, or one of more digits that rounds to it."""
    digits = len(figure.partition(".")[2])
    return any(f"{float(each):.{digits}f}" == figure for each in numbers(page))


def rows(text: str) -> list[list[str]]:
    """The rows of a text's tables; cells without emphasis."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip().replace("*", "") for cell in line.strip("|").split("|")] for line in lines]


def reasons_of(page: Path) -> list[list[str]]:
    """Rows of a README that give figures with the page where they were measured."""
    return [row for row in rows(page.read_text("utf-8")) if "docs/results/" in " ".join(row)]


def test_numbers_are_compared_as_written_and_rounded() -> None:
    assert numbers("1,967 of `x=3` and 0.95, not v2 or 10k; 25 to 32 %") == ["1967", "0.95", "25", "32"]
    assert stands_in("29", "28.9 MB") and not stands_in("29", "28.4 MB, 2.9") and not stands_in("0.95", "0.945 or 95")


@pytest.mark.parametrize("row", reasons_of(ROOT / "README.md"), ids=lambda row: row[0])
def test_the_readmes_figures_stand_on_the_pages_that_it_names(row: list[str]) -> None:
    text = " ".join(row)
    [target] = re.findall(r"\(docs/results/(\w+\.md)\)", text)
    page = (RESULTS / target).read_text("utf-8").replace(" million", "M")
    assert numbers(text), "a row without a figure says nothing"
    assert [figure for figure in numbers(text) if not stands_in(figure, page)] == [], target


def test_the_readme_has_five_such_rows() -> None:
    assert len(reasons_of(ROOT / "README.md")) == 5


@pytest.mark.parametrize("page", TRANSLATIONS, ids=name)
def test_a_translation_says_what_the_readme_says(page: Path) -> None:
    english, text = (ROOT / "README.md").read_text("utf-8"), page.read_text("utf-8")
    known = {*numbers(english), *_TEN_THOUSANDS}
    assert {figure.replace(",", ".") for figure in numbers(text.replace("22,4", "22.4"))} <= known
    assert len([file for file, _ in links(page) if "results/" in file]) >= 3


def test_pages_that_show_one_measurement_agree() -> None:
    """`phases.md` begins with rows of the first table of `methods.md`."""
    figure = r"\d\.\d{3} ± \d\.\d{3}"
    small_world = (RESULTS / "methods.md").read_text("utf-8").partition("\n## On the world of things\n")[0]
    methods = {row[0].strip("`"): re.findall(figure, " ".join(row)) for row in rows(small_world)}
    page = (RESULTS / "phases.md").read_text("utf-8")
    compared = rows(page[page.index("## What the phases are worth") : page.index("## How far they go")])
    phases = {row[0].strip("`"): re.findall(figure, " ".join(row)) for row in compared if row[0].startswith("`")}
    assert set(phases) == {"attention_ukd", "text_ukd", "ukd"}
    assert {key: methods.get(key) for key in phases} == phases
