"""Wrong caption fields and missing culture tars stop the caching stage before Ray starts."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pea.config import Config
from pea.corpus.first_look import FirstLook, first_look_at_texts
from pea.errors import ConfigError, CorpusError
from stages.cluster.actors import Actors
from stages.cluster.filling import fill_caches
from stages.command.console import Console
from stages.command.early_look import _no_caption_to_learn, in_a_process, look_at_corpus
from stages.command.preflight import find_corpus, preflight
from tests.collect.test_drawn_texts import of_texts
from tests.corpus.tar_files import GOOD, write_tar

pytestmark = pytest.mark.slow

QUIET = Console(quiet=True)


def corpora(config: Config, folder: Path, record: dict[str, Any], **parallel: Any) -> Config:
    """The configuration with one tar of ten equal samples for both corpora."""
    files = [(f"k{i}.{name}", data) for i in range(10) for name, data in _files(record)]
    tars = (str(write_tar(folder / "a.tar", files)),)
    assert config.corpora.culture is not None
    changed = config.corpora.model_copy(
        update={
            "parallel": config.corpora.parallel.model_copy(update={"tars": tars, **parallel}),
            "culture": config.corpora.culture.model_copy(update={"tars": tars}),
        }
    )
    return config.model_copy(update={"corpora": changed})


def _files(record: dict[str, Any]) -> list[tuple[str, bytes]]:
    return [("png", GOOD["png"]), ("json", json.dumps(record).encode())]


def test_wrong_fields_end_the_run_before_ray(
    fresh_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("Ray is asked for")

    monkeypatch.setattr(Actors, "__init__", never)
    config = corpora(fresh_run, tmp_path, {"caption": "a cat", "text_zh": "一只猫", "url": "http://x", "width": 8})
    with pytest.raises(CorpusError) as info:
        fill_caches(config, QUIET)
    assert str(info.value) == (
        "corpora.parallel.tars: most of the first samples would be left out; got 10 of 10 (caption_missing 10); "
        "looked up: captions.en; there are texts in caption, text_zh, url. "
        "Set corpora.parallel.captions to {en: caption, zh: text_zh}."
    )
    assert not config.run_dir.exists()
    fitting = {"captions": {"en": "caption", "zh": "text_zh"}}
    assert look_at_corpus(corpora(fresh_run, tmp_path, {"caption": "a", "text_zh": "猫"}, **fitting), "parallel") == []
    with pytest.raises(CorpusError, match=r"corpora\.culture\.captions to \{zh: text_zh, en: caption\}"):
        look_at_corpus(config, "culture")


def test_captions_in_another_language_than_the_source_are_told_apart(fresh_run: Config, tmp_path: Path) -> None:
    def english(record: dict[str, Any]) -> Config:
        config = corpora(fresh_run, tmp_path, record)
        assert config.corpora.culture is not None
        culture = config.corpora.culture.model_copy(update={"source_language": "en"})
        return config.model_copy(update={"corpora": config.corpora.model_copy(update={"culture": culture})})

    native = english({"captions": {"zh": "一只猫"}, "file": "a.png"})
    with pytest.raises(
        CorpusError, match=r"Set corpora\.culture\.source_language to zh, the language of its captions\.$"
    ):
        look_at_corpus(native, "culture")
    with pytest.raises(
        CorpusError, match=r"reads captions in en: write them with `pea data translate`.*corpora\.culture"
    ):
        look_at_corpus(native, "parallel")
    elsewhere = english({"text_zh": "一只猫"})
    with pytest.raises(
        CorpusError, match=r"source_language to zh, .*, and corpora\.culture\.captions to \{zh: text_zh\}"
    ):
        look_at_corpus(elsewhere, "culture")


def test_a_language_that_nobody_has_is_said(fresh_run: Config, tmp_path: Path) -> None:
    fields = {"captions": {"en": "caption", "zh": "text_cn"}}
    config = corpora(fresh_run, tmp_path, {"caption": "a cat", "text_zh": "一只猫"}, **fields)
    assert look_at_corpus(config, "parallel") == [
        "corpora.parallel.captions: no text_cn (zh) in the first 10; there are texts in caption, text_zh"
    ]
    assert look_at_corpus(config, "parallel", {"a"}) == []


def test_what_would_fail_the_run_in_the_end_is_said_before_it(fresh_run: Config, tmp_path: Path) -> None:
    """Three of ten samples have no English, and nobody has a caption in the language that is to be learnt."""
    config = corpora(fresh_run, tmp_path, {"captions": {"en": "a cat", "zh": "一只猫"}})
    files = [(f"k{i}.{name}", data) for i in range(7) for name, data in _files({"captions": {"en": "a", "it": "un"}})]
    files += [(f"m{i}.{name}", data) for i in range(3) for name, data in _files({"captions": {"it": "un gatto"}})]
    write_tar(tmp_path / "a.tar", files)
    strict = config.model_copy(update={"cache": config.cache.model_copy(update={"max_dropped_fraction": 0.01})})
    too_many, nobody = look_at_corpus(strict, "parallel")
    assert "3 of the first 10 samples would be left out (caption_missing 3); a run that leaves out more than 1.00%" in (
        too_many
    )
    assert "--need en" in too_many and too_many.endswith("or raise cache.max_dropped_fraction")
    assert "no caption in zh (student.language) in the first 7 samples, whose languages are en, it" in nobody
    tables = strict.corpora.parallel.model_copy(update={"caption_tables": ("zh",)})
    later = strict.model_copy(update={"corpora": strict.corpora.model_copy(update={"parallel": tables})})
    lenient = later.model_copy(update={"cache": config.cache.model_copy(update={"max_dropped_fraction": 0.5})})
    assert "no caption" not in "".join(_no_caption_to_learn(lenient, "parallel", FirstLook(num_kept=7)))


def test_placeholders_are_no_captions_to_learn(fresh_run: Config, tmp_path: Path) -> None:
    config = corpora(fresh_run, tmp_path, {"captions": {"en": "NULL", "zh": "一只猫"}, "licence": "N/A"})
    [line] = look_at_corpus(config, "parallel")
    assert "captions like nan, NULL or N/A among the first samples, as programs write for nothing: 10. " in line


def test_other_reasons_say_what_they_are(fresh_run: Config, tmp_path: Path) -> None:
    broken = [(f"k{i}.{name}", b"" if name == "png" else data) for i in range(4) for name, data in _files({})]
    config = corpora(fresh_run, tmp_path, {})
    write_tar(tmp_path / "a.tar", [*broken, *[(f"m{i}.png", b"x") for i in range(9)]])
    with pytest.raises(
        CorpusError, match=r"got 13 of 13 \(json_missing 9, caption_missing 4\)\. json_missing: no json"
    ):
        look_at_corpus(config, "parallel")
    allowed = config.model_copy(update={"cache": config.cache.model_copy(update={"max_dropped_fraction": 1.0})})
    assert look_at_corpus(allowed, "parallel") == []


def test_missing_culture_tars_are_named_before_ray(fresh_run: Config, tmp_path: Path) -> None:
    config = corpora(fresh_run, tmp_path, {"captions": {"en": "a", "zh": "猫"}})
    (tmp_path / "a.tar").rename(tmp_path / "b.tar")
    with pytest.raises(CorpusError, match=r"a\.tar: no such tar.* \| .*a\.tar: no such tar"):
        fill_caches(config, QUIET)


def test_a_table_of_texts(fresh_run: Config, tmp_path: Path) -> None:
    config = of_texts(fresh_run, tmp_path)
    assert look_at_corpus(config, "parallel") == []
    table = tmp_path / "texts.csv"
    table.write_text("".join(["id,en,zh\n", *[f"{i},,一只猫\n" for i in range(5)], "6,a cat,\n"]), "utf-8")
    with pytest.raises(CorpusError) as info:
        look_at_corpus(config, "parallel")
    assert str(info.value).startswith(
        "corpora.parallel.texts: most of the first samples would be left out; got 5 of 6 (caption_missing 5); "
        "looked up: en; there are texts in"
    )
    table.write_text("id,caption,zh\n1,a cat,一只猫\n", "utf-8")
    with pytest.raises(CorpusError, match="no column for en"):
        fill_caches(config, QUIET)
    assert not config.run_dir.exists()


def test_captions_that_say_nothing_are_said_before_they_are_drawn(fresh_run: Config, tmp_path: Path) -> None:
    config = of_texts(fresh_run, tmp_path)
    table = tmp_path / "texts.csv"
    table.write_text("".join(["id,en,zh\n", *[f"{i},a cat {i},{'-' if i % 5 else i}\n" for i in range(20)]]), "utf-8")
    [line] = look_at_corpus(config, "parallel")
    assert line.startswith("corpora.parallel: 16 of the first 20 captions in zh are the same, '-'; ")
    table.write_text("".join(["id,en,zh\n", *[f"{i},NULL,{i}\n" for i in range(5)]]), "utf-8")
    [line] = look_at_corpus(config, "parallel")
    assert line.endswith("5. Leave them empty"), "no images, no `pea data pack`"
    table.write_text("".join(["captions\n", *["\"{'en': 'a cat', 'zh': '猫'}\"\n" for _ in range(5)]]), "utf-8")
    with pytest.raises(CorpusError, match=r"such as captions: .*no object of languages\); looked up: captions\."):
        look_at_corpus(config, "parallel")


def test_more_steps_than_timesteps_are_refused_before_ray(fresh_run: Config, tmp_path: Path) -> None:
    config = of_texts(fresh_run, tmp_path)
    drawing = config.corpora.parallel.drawing.model_copy(update={"steps": 1001})
    parallel = config.corpora.parallel.model_copy(update={"drawing": drawing})
    config = config.model_copy(update={"corpora": config.corpora.model_copy(update={"parallel": parallel})})
    with pytest.raises(ConfigError, match="more steps than the teacher has timesteps; expected at most 1000; got 1001"):
        preflight(config)


def test_the_first_rows_of_every_file_are_looked_at(fresh_run: Config, tmp_path: Path) -> None:
    config = of_texts(fresh_run, tmp_path)
    (tmp_path / "texts.csv").rename(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("en,zh\n" + ",猫\n" * 30, "utf-8")
    found = first_look_at_texts(replace(config.corpora.parallel.text_source, places=(str(tmp_path / "*.csv"),)))
    assert (found.num_kept, found.reasons) == (20, {"caption_missing": 30})


def test_rows_that_would_fail_the_run_in_the_end_fail_it_before_ray(
    fresh_run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a row is drawn")

    monkeypatch.setattr("stages.cluster.filling._run_jobs", never)
    config = of_texts(fresh_run, tmp_path, max_dropped_fraction=0.1)
    lines = [f"{i},{'' if i > 150 else f'a cat {i}'},猫{i}\n" for i in range(200)]
    (tmp_path / "texts.csv").write_text("id,en,zh\n" + "".join(lines), "utf-8")
    with pytest.raises(CorpusError, match=r"at most 10\.00% .*; got 49 of 200 \(caption_missing 49\)\. "):
        fill_caches(config, QUIET)
    (tmp_path / "texts.csv").write_text("id,en,zh\n", "utf-8")
    with pytest.raises(CorpusError, match="the corpus has no texts; got tables without a row"):
        fill_caches(config, QUIET)
    assert not (config.run_dir / "cache").exists()


def test_a_process_that_ends_is_no_end_of_the_run() -> None:
    assert in_a_process(abs, -3) == 3
    assert in_a_process(os._exit, 9) is None
    with pytest.raises(ValueError, match="invalid literal"):
        in_a_process(int, "x")


def test_captions_of_tables_are_seen_before_ray(fresh_run: Config, tmp_path: Path) -> None:
    tables = tmp_path / "texts"
    tables.mkdir()

    def put(*keys: str, tar: str = "a") -> None:
        rows = [json.dumps({"key": key, "captions": {"en": "a cat"}}) + "\n" for key in keys]
        (tables / f"{tar}.jsonl").write_text("".join(rows))

    config = corpora(fresh_run, tmp_path, {"url": "http://x"}, caption_tables=(str(tables),))
    put(*(f"k{number}" for number in range(10)), "other")
    assert look_at_corpus(config, "parallel") == []
    put(*(f"k{number}" for number in range(7)))
    line, too_many = look_at_corpus(config, "parallel")
    assert "3 of the first 10 samples would be left out (caption_missing 3)" in too_many
    assert line.startswith("corpora.parallel.caption_tables: 3 of the first 10 samples have no en caption there; ")
    put("k1")
    with pytest.raises(CorpusError, match=rf"caption_missing 9.*looked up: captions\.en and {tables}; there are"):
        look_at_corpus(config, "parallel")
    (tables / "a.jsonl").rename(tables / "b.jsonl")
    with pytest.raises(CorpusError, match=r"no caption table is called as a tar of the corpus is; expected a\."):
        find_corpus(config.corpora.parallel)
    with pytest.raises(CorpusError, match="not a folder of caption tables"):
        find_corpus(config.corpora.parallel.model_copy(update={"caption_tables": (str(tmp_path / "nowhere"),)}))
