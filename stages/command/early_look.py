"""Before Ray starts: the first samples of each corpus, as the caching stage will read them."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from pea.config import Config, CorpusConfig
from pea.corpus.caption_fields import proposed_mapping
from pea.corpus.captions import PLACEHOLDERS
from pea.corpus.corpus_names import CorpusName as Corpus
from pea.corpus.first_look import FirstLook, first_look, first_look_at_texts
from pea.corpus.reasons import REASONS
from pea.corpus.tars import expand_tars
from pea.corpus.text_columns import open_texts
from pea.errors import CorpusError
from pea.plurals import count_of

Result = TypeVar("Result")
_SHOWN_FIELDS = 12
_MOST_DROPPED = 0.5
"""Share of the first samples above which the whole pass is not begun."""
_MOST_REPEATED = 0.5
_FEWEST_TO_COMPARE = 20


def look_at_corpus(config: Config, corpus: Corpus, known: Collection[str] = ()) -> list[str]:
    """Look at the first samples of the tars that are not ``known`` by name; returns what there is to say.

    Raises:
        CorpusError: most of them would be left out.
    """
    source = config.corpora.source(corpus)
    if source.text_source is not None:
        found = FirstLook() if known else first_look_at_texts(source.text_source)
    else:
        tars = [tar for tar in expand_tars(source.tars) if tar.name not in known]
        look = (tars, source.caption_fields(), (source.source_language,), source.reading_rules(config.cache))
        looked = in_a_process(first_look, *look, config.corpora.tables_of_caching(corpus))
        if looked is None:
            return [f"corpora.{corpus}: the look at the first samples ended its process; a worker will name the sample"]
        found = looked
    if found.dropped_share > max(_MOST_DROPPED, config.cache.max_dropped_fraction):
        raise _most_dropped(config, corpus, found)
    lines = []
    if (missing := found.beside["missing"]) and found.beside["of_samples"]:
        total = missing + found.beside["of_samples"]
        lines.append(
            f"corpora.{corpus}.caption_tables: {missing} of the first {count_of(total, 'sample')} have no "
            f"{source.source_language} caption there; that of the tar counts, and a sample without one is left out"
        )
    for language, field in source.captions.items():
        if found.num_kept and not found.languages[language]:
            has = _has(found)
            lines.append(f"corpora.{corpus}.captions: no {field} ({language}) in the first {found.num_kept}; {has}")
    for tell in (_too_many_dropped, _no_caption_to_learn, _placeholders, _repeated):
        lines += tell(config, corpus, found)
    return lines


def look_at_corpora(config: Config, said: Sequence[str] = ()) -> list[str]:
    """What a look at the first samples of every corpus says, also where it is that most would be left out.

    ``said``: lines whose message is known, as that tars are not there.
    """
    lines = list[str]()
    for name in (name for name in config.corpora.names if name != "described"):
        try:
            lines += look_at_corpus(config, name)
        except CorpusError as error:
            lines.append(str(error))
    return [line for line in lines if not any(line in each for each in said)]


def _too_many_dropped(config: Config, corpus: Corpus, found: FirstLook) -> list[str]:
    """With this share of its samples left out, a whole run would fail in the end."""
    if found.dropped_share <= config.cache.max_dropped_fraction:
        return []
    reasons = ", ".join(f"{reason} {count}" for reason, count in found.reasons.most_common())
    source, hint = config.corpora.source(corpus), "Take them out, or raise"
    if found.reasons["caption_missing"] and source.text_source is None:
        command = f"pea data filter TARS --out FOLDER --need {source.source_language}"
        hint = f"`{command}` takes those without a caption out; or raise"
    elif found.reasons["image_undecodable"]:
        hint = "`pea data pack TARS --out FOLDER --verify` takes damaged images out; or raise"
    first = count_of(found.num_kept + found.num_dropped, "sample")
    said = f"{found.num_dropped} of the first {first} would be left out ({reasons})"
    limit = f"a run that leaves out more than {config.cache.max_dropped_fraction:.2%} fails in the end"
    return [f"corpora.{corpus}: {said}; {limit}. {hint} cache.max_dropped_fraction"]


def _placeholders(config: Config, corpus: Corpus, found: FirstLook) -> list[str]:
    """What a program has written where a cell was empty would be learnt as a caption."""
    count = sum(text.strip() in PLACEHOLDERS for some in _captions(config, corpus, found).values() for text in some)
    remedy = "Leave them empty"
    if config.corpora.source(corpus).text_source is None:
        remedy += ", or make the tars by `pea data pack`, which takes them for none"
    said = f"captions like nan, NULL or N/A among the first samples, as programs write for nothing: {count}"
    return [f"corpora.{corpus}: {said}. {remedy}"] if count else []


def _captions(config: Config, corpus: Corpus, found: FirstLook) -> dict[str, list[str]]:
    """Field -> texts, of the fields that captions are read from."""
    fields = tuple(text_fields_of(config.corpora.source(corpus)).values())
    return {
        name: some
        for name, some in found.texts.items()
        if any(name == field or name.startswith(f"{field}.") for field in fields)
    }


def _repeated(config: Config, corpus: Corpus, found: FirstLook) -> list[str]:
    """A text that most samples have says nothing of any image: a placeholder, or a translation that failed."""
    lines = []
    for name, some in _captions(config, corpus, found).items():
        text, count = Counter(each.strip() for each in some).most_common(1)[0]
        if len(some) >= _FEWEST_TO_COMPARE and count > _MOST_REPEATED * len(some):
            said = f"{count} of the first {len(some)} captions in {name} are the same, {text[:40]!r}"
            lines.append(f"corpora.{corpus}: {said}; if it is no caption, leave it out")
    return lines


def _no_caption_to_learn(config: Config, corpus: Corpus, found: FirstLook) -> list[str]:
    """Captions may come later, in tables beside the tars; a language that is misspelt never does."""
    source = config.corpora.source(corpus)
    if not found.num_kept or source.caption_tables or corpus != "parallel":
        return []
    missing = [each for each in config.student.caption_languages if not found.languages[each]]
    there, first = ", ".join(sorted(found.languages)) or "none", count_of(found.num_kept, "sample")
    return [
        f"corpora.{corpus}: no caption in {language} (student.language) in the first {first}, whose languages "
        f"are {there}; training needs them, here or in corpora.{corpus}.caption_tables"
        for language in missing
        if language not in source.captions
    ]


def in_a_process(act: Callable[..., Result], *arguments: Any) -> Result | None:
    """What a function gives in a process of its own; None: the process ended, as that of some image's decoder does."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(act, *arguments).result()
        except BrokenProcessPool:
            return None


def _most_dropped(config: Config, corpus: Corpus, found: FirstLook) -> CorpusError:
    source, total = config.corpora.source(corpus), found.num_kept + found.num_dropped
    counts = ", ".join(f"{reason} {count}" for reason, count in found.reasons.most_common())
    reason = found.reasons.most_common(1)[0][0]
    if reason in ("caption_not_text", "key_not_text"):
        counts += f", such as {found.examples[reason]}"
    got, remedy = f"{found.num_dropped} of {total} ({counts})", f"{reason}: {REASONS[reason]}."
    if reason in ("caption_missing", "caption_not_text"):
        fields = text_fields_of(source)
        field = fields.get(source.source_language) or f"{fields.get('*')}.{source.source_language}"
        beside = f" and {', '.join(source.caption_tables)}" if source.caption_tables else ""
        got += f"; looked up: {field}{beside}; {_has(found)}"
        fitting = proposed_mapping(found.texts, (source.source_language, *config.student.caption_languages))
        if fitting.get(source.source_language) == field:
            remedy = "Fill them in, or take the rows without one out."
        elif source.source_language in fitting:
            mapping = ", ".join(f"{language}: {name}" for language, name in fitting.items())
            remedy = f"Set corpora.{corpus}.captions to {{{mapping}}}."
        else:
            remedy = _without_its_language(config, corpus, fitting)
    where = f"corpora.{corpus}.{'tars' if source.text_source is None else 'texts'}"
    return CorpusError("most of the first samples would be left out", where=where, got=got, remedy=remedy)


def _without_its_language(config: Config, corpus: Corpus, fitting: Mapping[str, str]) -> str:
    """What to do where no caption is in the source language; ``fitting``: language -> field that there is."""
    there = [each for each in config.student.caption_languages if each in fitting] or list(fitting)
    if not there:
        return f"Set corpora.{corpus}.captions and source_language to what is there."
    if corpus == "culture":
        mapping = {each: fitting[each] for each in there if fitting[each] != f"captions.{each}"}
        shown = ", ".join(f"{language}: {field}" for language, field in mapping.items())
        also = f", and corpora.culture.captions to {{{shown}}}" if mapping else ""
        return f"Set corpora.culture.source_language to {there[0]}, the language of its captions{also}."
    source = config.corpora.source(corpus).source_language
    return (
        f"The teacher reads captions in {source}: write them with `pea data translate` or `pea data describe`, or name "
        "the field; images with native captions alone are a culture corpus (corpora.culture)."
    )


def text_fields_of(source: CorpusConfig) -> dict[str, str]:
    """Language -> field of the json, or column of the table, in which captions are looked up."""
    return source.caption_fields() if source.text_source is None else open_texts(source.text_source)[1]


def _has(found: FirstLook) -> str:
    names = sorted(found.texts, key=lambda name: -len(found.texts[name]))
    more = f" and {len(names) - _SHOWN_FIELDS} more" if len(names) > _SHOWN_FIELDS else ""
    return f"there are texts in {', '.join(names[:_SHOWN_FIELDS])}{more}" if names else "there is no text"
