"""Digests of tars: read once, remembered as long as they hold."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

from pea.config import Config
from pea.corpus.tars import TarIdentity, tar_identity
from pea.errors import CorpusError
from stages.cluster import tar_digests as module
from stages.cluster.session import RaySession
from stages.cluster.tar_digests import FILE_NAME, STRAGGLER_PATIENCE_S, TarDigests
from stages.command.console import Console
from stages.command.progress import StageProgress


@pytest.fixture
def tars(tmp_path: Path) -> list[Path]:
    """Three files that have not changed for an hour."""
    paths = [tmp_path / f"{name}.tar" for name in "abc"]
    for path in paths:
        path.write_bytes(path.name.encode() * 1000)
        _age(path)
    return paths


def _age(path: Path) -> None:
    hour_ago = time.time() - 3600
    os.utime(path, (hour_ago, hour_ago))


@pytest.fixture
def read(fresh_run: Config, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Read tars without a cluster; returns what was shown."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def go(digests: TarDigests, tars: list[Path]) -> str:
        shown = io.StringIO()
        with StageProgress(Console(file=shown, width=200), "reading", "MB") as progress:
            digests.read(tars, RaySession(fresh_run), progress)
        return shown.getvalue()

    return go


def test_what_was_read_is_remembered(
    tars: list[Path], tmp_path: Path, read: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = TarDigests(tmp_path / "state")
    assert digests.missing(tars) == tars
    read(digests, tars)
    expected = [tar_identity(tar) for tar in tars]
    monkeypatch.setattr(module, "tar_identity", pytest.fail)
    again = TarDigests(tmp_path / "state")
    assert again.missing(tars) == []
    assert [again.identity(tar) for tar in tars] == expected


@pytest.mark.parametrize("change", ["content", "replaced", "touched"])
def test_a_tar_that_may_have_changed_is_read_again(
    tars: list[Path], tmp_path: Path, read: Callable[..., str], change: str
) -> None:
    read(TarDigests(tmp_path / "state"), tars)
    status = tars[1].stat()
    if change == "content":
        tars[1].write_bytes(b"longer" * 5000)
    else:
        if change == "replaced":  # the same size and time, another file
            (tmp_path / "new").write_bytes(b"B" * status.st_size)
            (tmp_path / "new").replace(tars[1])
        os.utime(tars[1], ns=(status.st_atime_ns, status.st_mtime_ns + (change == "touched")))
    digests = TarDigests(tmp_path / "state")
    assert digests.missing(tars) == [tars[1]]
    read(digests, [tars[1]])
    assert digests.identity(tars[1]) == tar_identity(tars[1])


def test_a_tar_that_was_just_written_is_used_and_not_remembered(
    tars: list[Path], tmp_path: Path, read: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may change again within the resolution of its time."""
    tars[0].write_bytes(b"fresh")
    digests = TarDigests(tmp_path / "state")
    read(digests, tars)
    expected = tar_identity(tars[0])
    monkeypatch.setattr(module, "tar_identity", pytest.fail)
    assert digests.identity(tars[0]) == expected, "it is not read twice in one run"
    assert TarDigests(tmp_path / "state").missing(tars) == [tars[0]]


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"/a.tar": 3}', '{"/a.tar": [1, 2, "x", "y"]}', "[" * 100_000])
def test_a_memory_that_is_damaged_is_no_memory(tars: list[Path], tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    assert TarDigests(tmp_path).missing(tars) == tars


def test_what_was_read_before_a_failure_is_kept(tars: list[Path], tmp_path: Path, read: Callable[..., str]) -> None:
    (unreadable := tmp_path / "folder.tar").mkdir()
    with pytest.raises(CorpusError, match="folder"):
        read(TarDigests(tmp_path), [*tars, unreadable])
    assert TarDigests(tmp_path).missing([*tars, unreadable]) == [unreadable]


class Workers:
    """Ray's side of the reading: each answer comes at once, or is an error, or never comes."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers, self.cancelled, self.now = answers, list[str](), 0.0

    def remote(self, tar: str) -> str:
        return tar

    def wait(self, asked: list[str], **_: float) -> tuple[list[str], list[str]]:
        ready = [tar for tar in asked if self.answers[tar] is not None]
        self.now += 0 if ready else 1
        return ready[:1], []

    def monotonic(self) -> float:
        return self.now

    def get(self, tar: str) -> TarIdentity:
        answer = self.answers[tar]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def cancel(self, tar: str, *, force: bool) -> None:
        assert force
        self.cancelled.append(tar)


def test_what_a_worker_cannot_read_the_driver_reads(
    tars: list[Path], fresh_run: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = map(str, tars)
    by_worker = TarIdentity("b", 1, "by a worker")
    workers = Workers({a: RayActorError(), b: by_worker, c: None})
    for name in ("wait", "get", "cancel"):
        monkeypatch.setattr(ray, name, getattr(workers, name))
    monkeypatch.setattr(module, "_identify", workers)
    monkeypatch.setattr(module.time, "monotonic", workers.monotonic)
    monkeypatch.setattr(RaySession, "open", lambda _: None)
    monkeypatch.setattr(RaySession, "nodes", lambda _: [{}, {}])
    found = dict(module._on_workers(tars, RaySession(fresh_run)))
    assert found == {tars[0]: tar_identity(tars[0]), tars[1]: by_worker, tars[2]: tar_identity(tars[2])}
    assert workers.cancelled == [c] and workers.now > STRAGGLER_PATIENCE_S


def test_the_memory_can_be_read_by_people(tars: list[Path], tmp_path: Path, read: Callable[..., str]) -> None:
    read(TarDigests(tmp_path), tars[:1])
    status = tars[0].stat()
    entry = [status.st_size, status.st_mtime_ns, status.st_ino, tar_identity(tars[0]).sha256]
    assert json.loads((tmp_path / FILE_NAME).read_text()) == {str(tars[0]): entry}
