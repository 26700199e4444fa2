"""What tars are: read once, remembered as long as it holds."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

from pea.config import Config
from pea.corpus.places import Tar, expand_tars
from pea.corpus.tars import TarContents, TarIdentity, tar_identity
from pea.errors import CorpusError
from stages.cluster import tar_facts as module
from stages.cluster.session import RaySession
from stages.cluster.tar_facts import FILE_NAME, STRAGGLER_PATIENCE_S, TarFacts
from stages.command.console import Console
from stages.command.progress import StageProgress
from tests.tiny_setup import write_tar

Read = Callable[[TarFacts, list[Tar]], str]


@pytest.fixture
def tars(tmp_path: Path) -> list[Tar]:
    """Three tars that have not changed for an hour."""
    for number, name in enumerate("abc"):
        write_tar(tmp_path / f"{name}.tar", range(number, number + 2), ("en", "zh"))
        age(tmp_path / f"{name}.tar")
    return expand_tars([str(tmp_path / "*.tar")])


def age(path: Path) -> None:
    """Let a file be an hour old."""
    hour_ago = time.time() - 3600
    os.utime(path, (hour_ago, hour_ago))


def facts_in(folder: Path) -> TarFacts:
    return TarFacts(folder, ("png",))


@pytest.fixture
def read(fresh_run: Config, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Read tars without a cluster; returns what was shown."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def go(facts: TarFacts, tars: list[Tar]) -> str:
        shown = io.StringIO()
        with StageProgress(Console(file=shown, width=200), "reading", "MB") as progress:
            facts.read(facts.missing(tars), RaySession(fresh_run.cache.run), progress)
        return shown.getvalue()

    return go


def test_what_was_read_is_remembered(
    tars: list[Tar], tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = facts_in(tmp_path / "state")
    assert facts.missing(tars) == tars
    read(facts, tars)
    expected = [tar_identity(tar) for tar in tars]
    monkeypatch.setattr(module, "scan", pytest.fail)
    again = facts_in(tmp_path / "state")
    assert again.missing(tars) == []
    assert [again.identity(tar) for tar in tars] == expected
    assert again.check_samples(tars) == []


@pytest.mark.parametrize("change", ["content", "replaced", "touched"])
def test_a_tar_that_may_have_changed_is_read_again(tars: list[Tar], tmp_path: Path, read: Read, change: str) -> None:
    read(facts_in(tmp_path / "state"), tars)
    path = tars[1].location.local_path
    status = path.stat()
    if change == "content":
        write_tar(path, range(50, 60), ("en", "zh"))
    else:
        if change == "replaced":  # the same size and time, another file
            write_tar(tmp_path / "new", range(7, 9), ("en", "zh"))
            assert (tmp_path / "new").stat().st_size == status.st_size
            (tmp_path / "new").replace(path)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + (change == "touched")))
    facts = facts_in(tmp_path / "state")
    assert facts.missing(tars) == [tars[1]]
    read(facts, tars)
    assert facts.identity(tars[1]) == tar_identity(tars[1])


def test_a_tar_that_was_just_written_is_used_and_not_remembered(tars: list[Tar], tmp_path: Path, read: Read) -> None:
    """It may change again within the resolution of its time."""
    write_tar(tars[0].location.local_path, range(50, 60), ("en", "zh"))
    facts = facts_in(tmp_path / "state")
    read(facts, tars)
    assert facts.identity(tars[0]) == tar_identity(tars[0])
    assert facts_in(tmp_path / "state").missing(tars) == [tars[0]]


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"/a.tar": 3}', '{"/a.tar": {"version": 1}}', "[" * 100_000])
def test_a_memory_that_is_damaged_is_no_memory(tars: list[Tar], tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_text(text)
    assert facts_in(tmp_path).missing(tars) == tars


def test_where_all_tars_are_retired_the_remedy_is_another(tmp_path: Path) -> None:
    with pytest.raises(
        CorpusError, match=r"no tar is left; got all that there are, retired.*delete the cache's folder"
    ):
        facts_in(tmp_path).check_samples([])


def test_every_damaged_tar_is_named_and_the_others_are_remembered(tars: list[Tar], tmp_path: Path, read: Read) -> None:
    for tar in tars[1:]:
        with tar.location.local_path.open("r+b") as file:
            file.truncate(2000)
        age(tar.location.local_path)
    with pytest.raises(CorpusError, match=r"2 tars cannot be used; got .*b\.tar: .* \| .*c\.tar: "):
        read(facts_in(tmp_path / "state"), tars)
    assert facts_in(tmp_path / "state").missing(tars) == tars[1:]


def test_what_was_read_before_an_interruption_is_remembered(
    tars: list[Tar], tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: TarFacts, tars: list[Tar], _: RaySession) -> Iterator[tuple[Tar, module.Answer]]:
        yield tars[0], module.scan(tars[0], ("png",))
        raise KeyboardInterrupt

    monkeypatch.setattr(TarFacts, "_in_threads", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read(facts_in(tmp_path / "state"), tars)
    assert facts_in(tmp_path / "state").missing(tars) == tars[1:]


class Workers:
    """Ray's side of the reading: each answer comes at once, or is an error, or never comes."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers, self.cancelled, self.now = answers, list[str](), 0.0

    def remote(self, tar: Tar, _: object) -> str:
        return tar.name

    def wait(self, asked: list[str], **_: float) -> tuple[list[str], list[str]]:
        ready = [tar for tar in asked if self.answers[tar] is not None]
        self.now += 0 if ready else 1
        return ready[:1], []

    def monotonic(self) -> float:
        return self.now

    def get(self, tar: str) -> TarContents:
        answer = self.answers[tar]
        if isinstance(answer, RayActorError):
            raise answer
        assert isinstance(answer, TarContents | CorpusError)
        return answer  # type: ignore[return-value]  # what a worker refuses, it returns

    def cancel(self, tar: str, *, force: bool) -> None:
        assert force
        self.cancelled.append(tar)


def test_what_a_worker_cannot_read_the_driver_reads(
    tars: list[Tar], tmp_path: Path, fresh_run: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_worker = TarContents(("k",), 1, TarIdentity("b", 1, "by a worker"))
    workers = Workers({"a": RayActorError(), "b": by_worker, "c": None})
    for name in ("wait", "get", "cancel"):
        monkeypatch.setattr(ray, name, getattr(workers, name))
    monkeypatch.setattr(module, "_scan", workers)
    monkeypatch.setattr(module.time, "monotonic", workers.monotonic)
    monkeypatch.setattr(RaySession, "open", lambda _: None)
    monkeypatch.setattr(RaySession, "nodes", lambda _: [{}, {}])

    def found() -> dict[str, module.Answer]:
        answers = facts_in(tmp_path)._on_workers(tars, RaySession(fresh_run.cache.run))
        return {tar.name: answer for tar, answer in answers}

    here = {tar.name: module.scan(tar, ("png",)) for tar in tars}
    assert found() == {**here, "b": by_worker}
    assert workers.cancelled == ["c"] and workers.now > STRAGGLER_PATIENCE_S
    workers.answers = {"a": CorpusError("no such tar"), "b": by_worker, "c": by_worker}
    assert found() == {"a": here["a"], "b": by_worker, "c": by_worker}


def test_the_memory_can_be_read_by_people(tars: list[Tar], tmp_path: Path, read: Read) -> None:
    read(facts_in(tmp_path), tars[:1])
    identity = tar_identity(tars[0])
    [(name, entry)] = json.loads((tmp_path / FILE_NAME).read_text()).items()
    assert name == str(tars[0].location)
    assert entry["version"] == tars[0].location.status().version
    assert (entry["size_bytes"], entry["sha256"], entry["num_samples"]) == (identity.size_bytes, identity.sha256, 2)
