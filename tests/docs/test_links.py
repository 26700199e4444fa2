"""Every link, image and file that a page names is there, and every page is found from the index."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pea.config import valid_names
from tests.docs.pages import FOLDERS, PAGES, ROOT, anchors, code_spans, links, name

SETTINGS = set(valid_names())
SECTIONS = ("teacher", "corpora", "cache", "student", "train", "evaluate")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for file, heading in links(page):
        target = page.parent / file if file else page
        assert target.exists(), f"{name(page)} links to {file}, which is not there"
        assert not heading or heading in anchors(target), f"{name(page)} links to {file}#{heading}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_in_code_spans_are_there(page: Path) -> None:
    for span in code_spans(page):
        if span.split("/")[0] in FOLDERS and "/" in span and not re.search(r"[\s<>*{]", span):
            assert (ROOT / span).exists(), f"{name(page)} names {span}, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_settings_in_code_spans_exist(page: Path) -> None:
    for span in code_spans(page):
        found = re.fullmatch(rf"((?:{'|'.join(SECTIONS)})(?:\.[a-z_0-9]+)+)(?:[=:].*)?", span)
        if found:
            assert found[1] in SETTINGS, f"{name(page)} names the setting {found[1]}, which does not exist"


def test_every_page_is_in_the_index() -> None:
    indices = [ROOT / "README.md", ROOT / "docs/README.md", ROOT / "docs/results/README.md"]
    listed = {(page.parent / file).resolve() for page in indices for file, _ in links(page)}
    pages = {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - set(indices)
    assert sorted(map(name, pages - listed)) == []


def test_every_page_is_in_the_site() -> None:
    site = (ROOT / "mkdocs.yml").read_text("utf-8")
    pages = [page.relative_to(ROOT / "docs") for page in PAGES if page.is_relative_to(ROOT / "docs")]
    assert [str(page) for page in pages if str(page) not in site and page.parts[0] != "translations"] == []


def test_pages_that_sources_name_are_there() -> None:
    sources = [path for folder in FOLDERS for suffix in ("py", "yaml") for path in (ROOT / folder).rglob(f"*.{suffix}")]
    sources += [ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "pipeline.yaml"]
    named = [
        (name(source), page)
        for source in sources
        for page in re.findall(r"docs/[\w/]+\.(?:md|png)", source.read_text("utf-8"))
    ]
    assert [(source, page) for source, page in named if not (ROOT / page).exists()] == []


def test_the_readme_is_one_screen_and_a_half() -> None:
    assert (ROOT / "README.md").read_text("utf-8").count("\n") <= 130


def test_the_messages_of_the_troubleshooting_page_are_said_somewhere() -> None:
    page = (ROOT / "docs/guides/troubleshooting.md").read_text("utf-8")
    sources = [
        path.read_text("utf-8") for folder in ("pea", "stages", "data_tools") for path in (ROOT / folder).rglob("*.py")
    ]
    firsts = [line.split("|")[1] for line in page.splitlines() if line.startswith("| ") and "---" not in line][1:]
    messages = [
        part.strip() for cell in firsts for text in re.findall(r"`([^`]+)`", cell) for part in text.split("...")
    ]
    assert len(messages) > 15
    assert [each for each in messages if each and not any(each in source for source in sources)] == []
