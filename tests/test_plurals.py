"""Numbers stand beside nouns that agree with them, here and in every message of the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pea.plurals import count_of, plural

ROOT = Path(__file__).parents[1]
NOUNS = (
    *("tar", "text", "sample", "record", "shard", "caption", "image", "row", "table", "file", "step", "node", "part"),
    *("key", "pattern", "draw", "problem", "warning", "win", "tie", "loss", "method", "candidate", "card", "sketch"),
    *("cache", "pair", "entry", "run", "rater", "picture", "actor", "job", "block", "query", "layer", "tensor"),
    *("group", "worker", "adapter", "encoder", "folder", "column", "line", "field", "variant", "batch", "CPU", "GPU"),
    *("thread", "character", "culture image", "cached record", "optimizer step", "negative prompt"),
)
NO_NUMBERS = ("entry['part']", "even")
"""Expressions that stand before such a noun and are text."""
SEVERAL = ("len(holders)", "len(SETTINGS)")
"""Expressions that are never 1 where they are said."""
_NOUN = re.compile(r" (?:(?!of )[a-z]+ )?(" + "|".join(plural(noun) for noun in NOUNS) + r")\b(?![/-])(?! of )")


@pytest.mark.parametrize(
    ("number", "noun", "said"),
    [
        (0, "tar", "no tars"),
        (1, "tar", "1 tar"),
        (2, "entry", "2 entries"),
        (3, "key", "3 keys"),
        (4, "loss", "4 losses"),
        (5, "sketch", "5 sketches"),
        (12_000, "cached record", "12,000 cached records"),
        (1.0, "GPU", "1 GPU"),
        (0.5, "GPU", "0.5 GPUs"),
        (64_000_000.0, "CPU", "64,000,000 CPUs"),
    ],
)
def test_a_number_and_its_noun_agree(number: float, noun: str, said: str) -> None:
    assert count_of(number, noun) == said


def _numbers_before_plurals(source: str) -> Iterator[str]:
    """Expressions that an f-string puts before the plural of a noun; after "of" it may be one: "1 of 1 samples"."""
    if not re.search(r"\}[\"'f\s]*" + _NOUN.pattern, source):
        return  # most files: they need no parsing
    for node in ast.walk(ast.parse(source)):
        parts = node.values if isinstance(node, ast.JoinedStr) else []
        for before, part, after in zip([None, *parts], parts, parts[1:], strict=False):
            if not isinstance(part, ast.FormattedValue) or not isinstance(after, ast.Constant):
                continue
            is_share = isinstance(before, ast.Constant) and str(before.value).endswith(("of ", "of the first "))
            said = ast.unparse(part.value)
            is_limit = isinstance(part.value, ast.Name) and said.isupper()
            if _NOUN.match(str(after.value)) and not is_share and not is_limit and said not in NO_NUMBERS + SEVERAL:
                yield f"{{{said}}}{after.value}"


def test_the_search_finds_what_it_is_for() -> None:
    assert list(_numbers_before_plurals('f"{num} tars and {len(x):,} cached records, {a} of {b} samples"')) == [
        "{num} tars and ",
        "{len(x)} cached records, ",
    ]
    assert not list(_numbers_before_plurals("f\"{count_of(num, 'tar')}, {LIMIT} samples, {num} samples/s\""))


@pytest.mark.parametrize("room", ["pea", "stages", "data_tools"])
def test_no_message_says_1_tars(room: str) -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in sorted((ROOT / room).rglob("*.py"))}
    assert [f"{path.name}: {each}" for path, text in sources.items() for each in _numbers_before_plurals(text)] == []
