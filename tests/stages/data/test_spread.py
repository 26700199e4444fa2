"""`pea data ... --ray`: the files of the one-machine run, and a run that goes on where it was killed."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from data_tools.corpus.captioned import units_of
from pea.config.cache import CacheRunConfig
from pea.errors import CorpusError
from pea.storage.durable import is_temporary
from stages.cli import main
from stages.cluster import spreading
from stages.cluster.node_trust import Node
from stages.cluster.spreading import WorkActors
from stages.data.spread import TablePart, _TableUnits
from tests.corpus.tar_files import captions, encoded, picture
from tests.data_tools.corpus.test_captioned import write_tar
from tests.ray_processes import end_with_descendants
from tests.tiny_translators import SENTENCES, make_marian

Capture = pytest.CaptureFixture[str]


def write_tars(folder: Path, count: int, num_samples: int = 5) -> str:
    """Tars whose captions need cleaning, and two of whose samples break rules; their pattern."""
    folder.mkdir()
    for tar in range(count):
        files: dict[str, Any] = {}
        for number in range(num_samples):
            text = f"  {SENTENCES[number % len(SENTENCES)]} &amp; {tar} "
            files |= {f"{number}.png": encoded(picture()), f"{number}.json": captions(en=text, n=None)}
        write_tar(folder / f"t{tar}.tar", files)
    return str(folder / "*.tar")


def content(folder: Path) -> dict[str, Any]:
    """Name -> bytes of every file that is published; of settings, all but the day."""
    paths = sorted(path for path in folder.iterdir() if not is_temporary(path.name))
    found: dict[str, Any] = {path.name: path.read_bytes() for path in paths}
    if "settings.json" in found:
        found["settings.json"] = {k: v for k, v in json.loads(found["settings.json"]).items() if k != "begun"}
    return found


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """A Ray of this machine's own, which stays for all tests that need one in this process."""
    from stages.cluster import session_folder
    from stages.cluster.session import start_local

    folder = start_local(2)
    yield
    ray.shutdown()
    session_folder.clear(folder)


def test_what_cannot_be_spread_is_refused_before_ray(tmp_path: Path, capsys: Capture) -> None:
    tars = write_tars(tmp_path / "tars", 1)
    filtering = ["data", "filter", tars, "--out", str(tmp_path / "out"), "--min-side", "4"]
    for words, what in (
        ([*filtering, "--actors", "2"], "--actors: nothing is spread"),
        ([*filtering, "--ray", "local", "--duplicates", "exact"], "--duplicates: duplicates are looked for in one tar"),
        ([*filtering[:-2], "--ray", "local"], "no rule is given"),
        (["data", "clean", tars, "--out", str(tmp_path / "out"), "--actors", "2"], "nothing is spread"),
    ):
        assert main(words) == 2
        assert what in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_worker_reads_forward_in_a_table(tmp_path: Path) -> None:
    table = tmp_path / "texts.jsonl"
    table.write_text("".join(json.dumps({"id": f"{n}", "captions": {"en": f"cat {n}"}}) + "\n" for n in range(10)))
    begun = list[int]()

    def begin() -> Any:
        begun.append(1)
        return units_of([str(table)], 3)

    parts = [TablePart(number, unit.name, unit.source) for number, unit in enumerate(begin())]
    units = _TableUnits(begin)
    for order, times in (((0, 2, 3), 2), ((1, 3), 3), ((0,), 4)):
        for number in order:
            unit = units.unit(parts[number])
            assert unit.name == f"texts-{number:05d}" and len(unit.where) == (1 if number == 3 else 3)  # type: ignore[arg-type]
        assert len(begun) == times
    for wrong in (TablePart(1, "texts-00001", "another"), TablePart(9, "texts-00009", parts[0].source)):
        with pytest.raises(CorpusError, match="the table has changed under way"):
            units.unit(wrong)


class PlayedActors(WorkActors):
    """One node with an actor in this process, which takes what is sent to it through pickle."""

    def __init__(self, run: CacheRunConfig, make: Callable[[], Any]) -> None:
        super().__init__(run, make)
        self._new, self._work = {0: Node("a", "host a")}, pickle.loads(pickle.dumps(make))()

    def arrived(self) -> dict[int, Node]:
        new, self._new = self._new, {}
        return new

    def ask_for(self, *_: Any) -> frozenset[str]:
        return frozenset({"a"})

    def handle(self, number: int) -> Any:
        def remote(about: Any) -> Iterator[Any]:
            yield self._work(pickle.loads(pickle.dumps(about)))

        return SimpleNamespace(do=SimpleNamespace(options=lambda **_: SimpleNamespace(remote=remote)))


def test_what_is_spread_is_what_one_machine_makes(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spreading, "WorkActors", PlayedActors)
    monkeypatch.setattr(ray, "wait", lambda streams, **_: (streams[:1], []))
    monkeypatch.setattr(ray, "get", lambda event: event)
    tars, table = write_tars(tmp_path / "tars", 3), tmp_path / "texts.jsonl"
    table.write_text("".join(json.dumps({"id": f"{n}", "captions": {"en": f"cat {n}"}}) + "\n" for n in range(10)))
    commands = {
        "clean": ["clean", tars],
        "texts": ["route", str(table), "--rows-per-part", "3"],
        "filtered": ["filter", tars, "--max-caption", "21", "--min-side", "4"],
    }
    for name, words in commands.items():
        said = []
        for how, options in (("alone", []), ("spread", ["--ray", "local"]), ("spread", ["--ray", "local"])):
            assert main(["data", *words, "--out", str(tmp_path / f"{name}-{how}"), *options]) == 0
            said.append(capsys.readouterr().out.replace("-alone", "").replace("-spread", ""))
        assert said[0] == said[1] and len(said[2]) != len(said[1]), "the second time, all is there already"
        alone, spread = (content(tmp_path / f"{name}-{how}") for how in ("alone", "spread"))
        assert alone == spread and len(alone) > 4


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_spread_and_alone_give_the_same_files(tmp_path: Path, capsys: Capture) -> None:
    tars = write_tars(tmp_path / "tars", 4)
    table = tmp_path / "texts.jsonl"
    rows = ({"id": f"{n}", "captions": {"en": f"{SENTENCES[n % 5]} {n}"}} for n in range(20))
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = make_marian(tmp_path / "opus-mt-en-zh")
    translating = ["--model", str(model), "--from", "en", "--to", "zh", "--beams", "1", "--max-tokens", "6"]
    commands = {
        "translated": ["translate", tars, *translating, "--device", "cpu"],
        "texts": ["clean", str(table), "--rows-per-part", "6"],
        "filtered": ["filter", tars, "--max-caption", "21", "--min-side", "4"],
    }
    for name, words in commands.items():
        said = []
        for how, options in (("alone", []), ("spread", ["--ray", "local", "--actors", "2"])):
            assert main(["data", *words, "--out", str(tmp_path / f"{name}-{how}"), *options]) == 0
            said.append(capsys.readouterr().out.splitlines()[-1].replace(how, ""))
        assert said[0] == said[1]
        alone, spread = (content(tmp_path / f"{name}-{how}") for how in ("alone", "spread"))
        assert alone.keys() == spread.keys() and len(alone) > 4
        assert alone == spread


def bad_work(folder: str) -> Callable[[str], str]:
    """Work that notes each try, and fails or ends its process for some pieces."""

    def work(piece: str) -> str:
        with (Path(folder) / piece).open("a") as file:
            file.write("x")
        if piece == "kills":
            os._exit(1)
        if piece == "fails":
            raise CorpusError("damaged", where=piece)
        return piece.upper()

    return work


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_piece_that_fails_is_named_and_the_others_are_done(tmp_path: Path) -> None:
    from stages.cluster.spreading import spread

    pieces, told = [(name, name) for name in ("one", "kills", "fails", "two")], list[str]()
    run = CacheRunConfig(ray_address="local", num_actors=2, device="cpu", max_tries=2)
    with pytest.raises(
        CorpusError, match=r"2 of 4 parts failed.*kills: the worker process died \| fails: fails: damaged"
    ):
        spread(pieces, partial(bad_work, str(tmp_path)), run, place="out", tell=told.append)
    assert sorted(told) == ["ONE", "TWO"]
    tries = {path.name: len(path.read_text()) for path in tmp_path.iterdir()}
    assert tries == {"one": 1, "kills": 2, "fails": 1, "two": 1}


@pytest.mark.slow
def test_killed_and_run_again_it_goes_on(tmp_path: Path, capsys: Capture) -> None:
    tars = write_tars(tmp_path / "tars", 24, 60)
    out, words = tmp_path / "out", ["data", "clean", tars]
    command = [*words, "--out", str(out), "--ray", "local", "--actors", "1"]
    process = subprocess.Popen([sys.executable, "-m", "stages.cli", *command])
    deadline = time.monotonic() + 300
    while not (first := sorted(out.glob("*.jsonl"))):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    end_with_descendants(process)
    made = {path: path.stat().st_mtime_ns for path in first}
    assert len(sorted(out.glob("*.jsonl"))) < 24, "it was killed too late"
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in first} == made, "what is finished is not made again"
    assert main([*words, "--out", str(tmp_path / "alone")]) == 0
    assert content(out) == content(tmp_path / "alone")
