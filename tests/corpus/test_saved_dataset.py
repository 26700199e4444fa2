"""The folder that Hugging Face ``datasets`` saves to, with what else the library leaves in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pea.corpus.tables import open_table
from pea.errors import CorpusError

FILES = ("data-00000-of-00002.arrow", "data-00001-of-00002.arrow")


def write_arrow(path: Path, content: dict[str, list[Any]]) -> None:
    table = pa.table(content)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)


def saved(folder: Path, **state: Any) -> Path:
    folder.mkdir(parents=True)
    for number, name in enumerate(FILES):
        write_arrow(folder / name, {"en": [f"text {number}"]})
    write_arrow(folder / "cache-0a1b2c.arrow", {"en": ["text 0"]})
    write_arrow(folder / "cache-3d4e5f.arrow", {"indices": [1, 0]})
    (folder / "dataset_info.json").write_text("{}")
    document = {"_data_files": [{"filename": name} for name in FILES], "_split": None, **state}
    (folder / "state.json").write_text(json.dumps(document))
    return folder


def test_copies_that_the_library_keeps_are_no_rows(tmp_path: Path) -> None:
    assert [row.get("en") for row in open_table(saved(tmp_path / "set")).rows()] == ["text 0", "text 1"]


def test_what_is_missing_or_not_plain_is_said(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"chosen by indices\. Save it anew: dataset\.flatten_indices"):
        open_table(saved(tmp_path / "indices", _indices_data_files=[{"filename": "indices.arrow"}]))
    with pytest.raises(CorpusError, match="not the state of a saved data set"):
        open_table(saved(tmp_path / "odd", _data_files=[7]))
    (saved(tmp_path / "half") / FILES[1]).unlink()
    with pytest.raises(CorpusError, match=f"files of the data set are missing; got {FILES[1]}"):
        open_table(tmp_path / "half")


def test_another_state_is_none(tmp_path: Path) -> None:
    for number, text in enumerate(('{"step": 1}', "no json", "[" * 5000)):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_arrow(folder / "rows.arrow", {"en": ["a"]})
        (folder / "state.json").write_text(text)
        assert len(list(open_table(folder).rows())) == 1


def test_a_set_of_splits_names_its_folders(tmp_path: Path) -> None:
    saved(tmp_path / "sets/train")
    (tmp_path / "sets/dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(CorpusError, match="but folders: train; name the one that is meant"):
        open_table(tmp_path / "sets")
