"""`pea data route`: reasons in the output, counts that add up, captions and translations from beside."""

from __future__ import annotations

import json
import re
import tarfile
from pathlib import Path

import pytest

from pea.corpus.samples import Sample, read_tar
from pea.corpus.tables import open_table
from stages.cli import main
from tests.corpus.tar_files import encoded, picture
from tests.data_tools.corpus.test_captioned import write_tar
from tests.data_tools.corpus.test_route import ENGLISH, NATIVE

PNG = encoded(picture())
Capture = pytest.CaptureFixture[str]


def write_rows(path: Path, rows: list[dict[str, object]]) -> None:
    """A JSONL table."""
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_routes_with_reasons(tmp_path: Path, capsys: Capture) -> None:
    captions = [{"en": ENGLISH}, {"en": ENGLISH}, {"zh": NATIVE}, {"en": NATIVE, "zh": NATIVE}, {}]
    files: dict[str, object] = {}
    for number, each in enumerate(captions):
        files |= {f"{number}.png": PNG, f"{number}.json": {"captions": each}}
    write_tar(tmp_path / "a.tar", {**files, "9.json": {"captions": {}}})  # type: ignore[dict-item]
    made = {"captions": {"zh": NATIVE}, "provenance": {"zh": "translation: m"}}
    write_rows(tmp_path / "beside" / "a.jsonl", [{"tar": "a", "key": key, **made} for key in ("0", "1", "7")])
    write_rows(
        tmp_path / "back.jsonl",
        [
            {"tar": "a", "key": "0", "captions": {"en": ENGLISH}},
            {"tar": "a", "key": "1", "captions": {"en": "a violin"}},
        ],
    )
    command = ["data", "route", str(tmp_path / "a.tar"), "--out", str(tmp_path / "out"), "--format", "parquet"]
    command += ["--beside", str(tmp_path / "beside"), "--back", str(tmp_path / "back.jsonl")]
    command += ["--tars", str(tmp_path / "tars")]
    assert main(command) == 0
    said = capsys.readouterr().out
    found = {row.get("key"): row for row in open_table(tmp_path / "out").rows()}
    routes = {key: row.get("route") for key, row in found.items()}
    assert routes == {"0": "parallel", "1": "english_only", "2": "culture", "3": "culture", "4": "none"}
    assert found["0"].get("provenance.zh") == "translation: m" and found["0"].get("agreement") == 1.0
    assert found["1"].get("reasons")[0].startswith("zh: the translation back agrees to 0.")
    assert found["3"].get("captions.en") is None and found["3"].get("captions.zh") == NATIVE
    counts = {
        name: int(number) for name, number in re.findall(r"^(parallel|culture|english_only|none) +(\d+)$", said, re.M)
    }
    assert counts == {"parallel": 1, "culture": 2, "english_only": 1, "none": 1}
    assert "5 samples routed; 1 unusable" in said and re.search(r"zh: no agreement +1\n", said)
    assert "written into tars: 1 parallel, 2 culture, 1 english_only" in said
    [tar] = (tmp_path / "tars" / "culture").glob("*.tar")
    kept = {each.key: each for each in read_tar(tar, {"*": "captions"}) if isinstance(each, Sample)}
    assert {key: each.captions for key, each in kept.items()} == {"2": {"zh": NATIVE}, "3": {"zh": NATIVE}}
    assert kept["3"].id == "a/3", "a sample keeps its name, and so its noise"
    with tarfile.open(tar) as archive:
        document = json.loads(archive.extractfile("3.json").read())  # type: ignore[union-attr]
    assert document["captions_before"] == {"en": NATIVE, "zh": NATIVE}
    assert main([*command, "--min-agreement", "0"]) == 2
    assert "other settings" in capsys.readouterr().err
    back = command.index("--back") + 1
    for none in ("none.jsonl", "none"):
        assert main([*command[:back], str(tmp_path / none), *command[back + 1 :]]) == 2
        assert f"{tmp_path / none}: no such table of captions." in capsys.readouterr().err
