"""Folders that are read and written, and what a trial of them means."""

from __future__ import annotations

from pathlib import Path

import pytest

from pea.config import Config
from pea.storage.location import Location
from pea.storage.probe import Probe
from stages.diagnosis.places import (
    describe,
    look_at_hub,
    look_at_read_places,
    look_at_written_places,
    written_places,
)

GOOD = {"file_system": "ext4", "free_bytes": 100 << 30, "free_files": 10**6, "clock_ahead_s": 0.0}
CASES = {
    "good": ({}, ["ok"]),
    "refused": ({"refused": {"write": "not allowed"}}, ["problem"]),
    "overwrites": ({"refused": {"create if absent": "not honoured"}}, ["problem"]),
    "full": ({"free_bytes": 1 << 20}, ["problem"]),
    "little room": ({"free_bytes": 1 << 30}, ["warning"]),
    "few files": ({"free_files": 10}, ["warning"]),
    "memory": ({"file_system": "tmpfs"}, ["warning"]),
    "network": ({"file_system": "nfs4"}, ["warning"]),
    "clock": ({"clock_ahead_s": -60.0}, ["ok", "warning"]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_trial_means(tmp_path: Path, case: str) -> None:
    place, (facts, levels) = Location.parse(tmp_path), CASES[case]
    found = list(describe("run_dir", place, Probe(place, **{**GOOD, **facts})))
    assert [each.level for each in found] == levels
    assert all(each.remedy for each in found if each.level != "ok")


def test_places_that_are_written_are_tried_and_left_as_they_were(tiny_config: Config, tmp_path: Path) -> None:
    config = tiny_config.model_copy(update={"cache_root": tmp_path / "caches"})
    assert list(written_places(config)) == ["run_dir", "cache_root"]
    topics = [each.topic for each in look_at_written_places(config) if each.level != "problem"]
    assert topics[0] == "run_dir" and "cache_root" in topics and topics[-1] == "temporary files"
    assert list(tmp_path.iterdir()) == []


def test_of_a_run_in_a_bucket_the_folder_of_copies_is_tried(
    tiny_config: Config, tmp_path: Path, bucket: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    config = tiny_config.model_copy(update={"run_dir": bucket / "run"})
    for folder, level in ((tmp_path / "work", "ok"), (tmp_path / "file/work", "problem")):
        monkeypatch.setenv("PEA_WORK_DIR", str(folder))
        *_, copies = look_at_written_places(config)
        assert (copies.topic, copies.level) == ("copies of buckets (PEA_WORK_DIR)", level)


def test_places_that_are_read_must_be_there(tiny_config: Config, tmp_path: Path) -> None:
    def levels() -> dict[str, str]:
        return {each.topic: each.level for each in look_at_read_places(tiny_config)}

    needed = ("teacher.checkpoint", "student.encoder", "corpora.parallel")
    assert levels() == dict.fromkeys(needed, "problem") | {"evaluate.prompts.general": "warning"}
    for name in ("teacher", "zh"):
        (tmp_path / name).mkdir()
    for name in ("a.tar", "general.jsonl"):
        (tmp_path / name).write_bytes(b"")
    assert set(levels().values()) == {"ok"}


def test_of_the_hub_no_value_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    what = look_at_hub().what
    assert "HF_HUB_OFFLINE" in what and "HF_TOKEN is set" in what and "hf_secret" not in what
