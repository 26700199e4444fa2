"""Every look at a cache that has next to nothing: no shard yet, no sample kept, one sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pea.cache import ArraySpec, Cache, ShardSchema, ShardWriter
from stages.cli import main
from tests.cache_helpers import CacheMaker, identity


def _nothing_yet(folder: Path) -> None:
    Cache.create_or_resume(folder, identity())


def _one_tar_of_two(folder: Path) -> None:
    cache = Cache.create_or_resume(folder, identity())
    CacheMaker(folder).write(cache, cache.plan()[0])


def _all_dropped(folder: Path) -> None:
    """As the collector leaves tars of which no image could be decoded: no bucket was met."""
    cache = Cache.create_or_resume(folder, identity())
    for plan in cache.plan():
        with ShardWriter(cache, plan.tar, plan.part, ShardSchema(plan.num_draws, (), {}, plan.draw_start)) as writer:
            writer.reject("x", "undecodable", "made up")
            writer.finish()


def _all_dropped_later(folder: Path) -> None:
    """The bucket was met, and then the teacher's answers were not finite."""
    maker = CacheMaker(folder)
    maker.rejected = {(tar, "p000"): set(maker.keys(tar, "24x32")) for tar in "ab"}
    maker.fill()


def _one_dropped_tar(folder: Path) -> None:
    maker = CacheMaker(folder)
    maker.rejected = {("a", "p000"): set(maker.keys("a", "24x32"))}
    maker.fill()


def _one_sample(folder: Path) -> None:
    CacheMaker(folder, samples_per_tar=1).fill(identity(("a",)))


class WithoutRecords(CacheMaker):
    def all_arrays(self, blocks: Sequence[str]) -> tuple[ArraySpec, ...]:
        return tuple(spec for spec in super().all_arrays(blocks) if spec.level == "sample")


def _no_draws(folder: Path) -> None:
    """As the culture cache is."""
    WithoutRecords(folder).fill(identity(draws=0, blocks=()))


STATES = [_nothing_yet, _one_tar_of_two, _all_dropped, _all_dropped_later, _one_dropped_tar, _one_sample, _no_draws]
COMMANDS = {
    "info": ["info", "CACHE"],
    "info json": ["info", "CACHE", "--json"],
    "info get": ["info", "CACHE", "--get", "samples.kept"],
    "ls": ["ls", "CACHE"],
    "ls tar": ["ls", "CACHE", "a"],
    "show": ["show", "CACHE", "a/a-24x32-0"],
    "show by key": ["show", "CACHE", "a-24x32-0"],
    "show pictures": ["show", "CACHE", "a/a-24x32-0", "--pictures", "OUT"],
    "check": ["check", "CACHE"],
    "check json": ["check", "CACHE", "--json"],
    "check repair": ["check", "CACHE", "--repair"],
    "diff": ["diff", "CACHE", "CACHE"],
    "remove dry": ["remove", "CACHE", "a/a-24x32-0"],
    "remove": ["remove", "CACHE", "a/a-24x32-0", "--yes"],
    "export": ["export", "CACHE", "--html", "OUT.html"],
    "export none": ["export", "CACHE", "--html", "OUT.html", "--samples", "0"],
}


@pytest.mark.slow
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", COMMANDS)
def test_there_is_an_answer_or_one_line(
    tmp_path: Path, state: Callable[[Path], None], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    state(tmp_path / "cache")
    places = {"CACHE": str(tmp_path / "cache"), "OUT": str(tmp_path / "out"), "OUT.html": str(tmp_path / "out.html")}
    code = main(["inspect", *(places.get(word, word) for word in COMMANDS[name])])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert code == 0 or (code == 1 and name.startswith("check")) or (code == 2 and len(said.err.splitlines()) == 1)
