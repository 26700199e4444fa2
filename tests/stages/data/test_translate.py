"""`pea data translate`: counts that add up, provenance, and a run that goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data_tools.corpus.captioned import ALL_CAPTIONS, units_of
from pea.corpus.tables import open_table
from stages.cli import main
from stages.data.translate import translate_unit
from tests.data_tools.corpus.test_captioned import write_tar
from tests.tiny_translators import SENTENCES, make_marian

Capture = pytest.CaptureFixture[str]


class Backwards:
    """Says every text backwards, and nothing to one that asks for nothing."""

    provenance = "translation: backwards"

    def translate(self, texts: Sequence[str]) -> list[Any]:
        from data_tools.corpus.translation import Translated

        return [Translated("" if text == "nothing" else text[::-1], len(text) > 8) for text in texts]


def write_captions(path: Path, captions: Sequence[dict[str, str]]) -> Path:
    """A tar with these captions, and a sample without a json."""
    files: dict[str, Any] = {}
    for number, each in enumerate(captions):
        files |= {f"{number}.jpg": b"x", f"{number}.json": {"captions": each}}
    return write_tar(path, {**files, "x.jpg": b"x"})


def test_every_sample_is_counted_once(tmp_path: Path) -> None:
    captions = [{"en": "cat"}, {"en": "nothing"}, {"en": "dog", "zh": "狗"}, {"ja": "犬"}, {"en": "a long text"}]
    tar = write_captions(tmp_path / "a.tar", captions)
    for again, rows, present in ((False, 2, 1), (True, 3, 0)):
        [unit] = units_of([str(tar)], 10)
        made, counts = translate_unit(unit, ALL_CAPTIONS, Backwards(), "en", "zh", again=again)  # type: ignore[arg-type]
        assert len(made) == rows == counts["translated"]
        assert (counts["empty"], counts["no source"], counts["cut"], counts["unusable"]) == (1, 1, 1, 1)
        assert counts["samples"] == 5 == counts["translated"] + 2 + present and counts["present"] == present
    assert made[0] == {
        "tar": "a",
        "key": "0",
        "captions": {"zh": "tac"},
        "provenance": {"zh": "translation: backwards"},
    }


def test_texts_without_images_keep_what_they_have(tmp_path: Path) -> None:
    table = tmp_path / "texts.jsonl"
    table.write_text(json.dumps({"id": "t1", "captions": {"en": "cat", "fr": "chat"}}) + "\n")
    [unit] = units_of([str(table)], 10)
    made, _ = translate_unit(unit, ALL_CAPTIONS, Backwards(), "en", "zh", again=False)  # type: ignore[arg-type]
    assert made[0]["captions"] == {"en": "cat", "fr": "chat", "zh": "tac"} and made[0]["id"] == "t1"


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_result(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from data_tools.corpus.translation import Translator

    model = make_marian(tmp_path / "opus-mt-en-zh")
    for name in ("a", "b", "c"):
        write_captions(tmp_path / f"{name}.tar", [{"en": f"{name} {text}"} for text in SENTENCES])
    command = ["data", "translate", str(tmp_path / "*.tar"), "--model", str(model), "--from", "en", "--to", "zh"]
    command += ["--batch-size", "2", "--max-tokens", "6", "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    said = capsys.readouterr().out
    assert "15 samples: 15 translated (0 of them cut" in said and "3 unusable" in said
    translate, asked = Translator.translate, list[int]()

    def stop_at_the_second(self: Translator, texts: Sequence[str]) -> Any:
        asked.append(len(texts))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return translate(self, texts)

    monkeypatch.setattr(Translator, "translate", stop_at_the_second)
    again = [*command, "--out", str(tmp_path / "again")]
    assert main(again) == 130
    assert sorted(path.name for path in (tmp_path / "again").glob("*.jsonl")) == ["a.jsonl"]
    assert main(again) == 0
    assert len(asked) == 4, "what was finished is not translated again"
    for name in ("a", "b", "c"):
        assert (tmp_path / "again" / f"{name}.jsonl").read_bytes() == (
            tmp_path / "whole" / f"{name}.jsonl"
        ).read_bytes()
    rows = list(open_table(tmp_path / "whole").rows())
    assert len(rows) == 15 and len({row.get("captions.zh") for row in rows}) > 1
    settings = json.loads((tmp_path / "whole" / "settings.json").read_text())
    assert rows[0].get("provenance.zh") == f"translation: opus-mt-en-zh {settings['weights'][:12]}, en > zh"
    assert {"begun", "class", "tokenizer", "num_beams", "punctuation"} <= settings.keys()
    capsys.readouterr()
    for wrong, what in ((["--beams", "2"], "other settings"), (["--to", "en"], "nothing to translate")):
        assert main([*again, *wrong]) == 2
        assert what in capsys.readouterr().err
