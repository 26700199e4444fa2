"""Which columns of a table hold captions and ids, where a corpus is of texts alone."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from pea.corpus.caption_fields import proposed_mapping, texts_within
from pea.corpus.languages import LANGUAGES
from pea.corpus.rules import TextSource
from pea.corpus.tables import Table, open_table
from pea.errors import CorpusError

ALL_CAPTIONS = "captions"
"""Column of objects, language -> caption."""
_IDS = ("id", "key")
_LOOKED_AT = 100  # rows


def text_fields(table: Table, source: TextSource) -> dict[str, str]:
    """Language -> column, as ``read_captions`` takes it.

    Raises:
        CorpusError: the table has no such column, or none that could be meant.
    """
    if source.captions:
        table.require([column for _, column in source.captions])
        return dict(source.captions)
    if ALL_CAPTIONS in table.columns:
        return {"*": ALL_CAPTIONS}
    found = {name: name for name in language_columns(table.columns)}
    if source.source_language not in found:
        raise CorpusError(
            f"no column for {source.source_language}",
            where=table,
            expected=f"{source.source_language}, or what corpora.parallel.captions names",
            got=", ".join(table.columns[:40]) or "not one column",
            remedy=_remedy(table, source.source_language),
        )
    return found


def language_columns(names: Iterable[str]) -> list[str]:
    """Those that are named by a language, as ``en`` and ``pt-BR``; Indonesian has to be named otherwise."""
    codes = LANGUAGES - {*_IDS}
    return [name for name in names if name.partition("-")[0].partition("_")[0].lower() in codes]


def open_texts(source: TextSource) -> tuple[Table, dict[str, str], str | None]:
    """The table, its caption columns, and the column of its ids.

    Raises:
        CorpusError: there is none, it cannot be read, or it lacks a column.
    """
    table = open_table(source.places)
    if source.id_column is not None:
        table.require([source.id_column])
    fields = text_fields(table, source)
    ids = (name for name in _IDS if name in table.columns and name not in fields.values())
    return table, fields, source.id_column or next(ids, None)


def _remedy(table: Table, source_language: str) -> str:
    """What the first rows show that could be meant."""
    texts: dict[str, list[str]] = {}
    for row in islice(table.rows(on_bad=lambda _: None), _LOOKED_AT):
        for name, text in texts_within(row.values):
            texts.setdefault(name, []).append(text)
    fitting = proposed_mapping(texts, (source_language,))
    if source_language in fitting:
        mapping = ", ".join(f"{language}: {name}" for language, name in fitting.items())
        return f"Set corpora.parallel.captions, as {{{mapping}}}, if that is what they hold."
    return (
        "Set corpora.parallel.captions, as {en: text, zh: translation}; a text file without a line of names needs one, "
        "as its first: en, zh."
    )
