"""Tables of the pages: none was lost when a paragraph was wrapped, and no row has too many cells."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, name

_RULE = re.compile(r"\s*\|(\s*:?-+:?\s*\|)+\s*")


def broken_tables(text: str) -> list[str]:
    """What is wrong with a page's tables, a line each."""
    text = re.sub(r"^(\s*)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)
    wrong, width = [], 0
    for before, line in pairwise(["", *text.splitlines()]):
        if _RULE.fullmatch(line):
            width = _num_cells(line)
            wrong += [before] if _num_cells(before) != width else []
        elif "|---" in line:
            wrong.append(line)
        elif width and line.lstrip().startswith("|"):
            wrong += [line] if _num_cells(line) != width else []
        else:
            width = 0
    return wrong


def _num_cells(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line)) - 1


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_tables_are_whole(page: Path) -> None:
    assert broken_tables(page.read_text("utf-8")) == []


def test_broken_ones_are_noticed() -> None:
    assert broken_tables("text\n\n| a | b |\n|---|---|\n| 1 | `x\\|y` |\n\ntext | and\n") == []
    assert broken_tables("  | a | b | |---|---| | 1 |\n  2 |\n")
    assert broken_tables("| a | b |\n|---|---|\n| 1 | 2 | 3 |\n")
    assert broken_tables("| a | b | c |\n|---|---|\n")
