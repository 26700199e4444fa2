"""The remembered sums of a cache: quick to look at, and never those of yesterday."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pea.cache import Cache
from pea.cache.audit import audit
from pea.cache.takedown import remove_samples
from pea.cache.totals import FILE_NAME, totals
from pea.errors import ShardDamagedError
from tests.cache_helpers import CacheMaker, identity


@pytest.fixture
def filled(make_cache: CacheMaker) -> Cache:
    make_cache.rejected = {("b", "p000"): {"b-24x32-2"}}
    return make_cache.fill(identity(["a", "b"]))


def fresh(cache: Cache) -> dict[str, object]:
    """The sums, from the completion records."""
    (cache.directory / FILE_NAME).delete()
    return totals(Cache.open(cache.directory, partial=True))


def again(cache: Cache) -> dict[str, object]:
    """The sums, as a later process gets them."""
    return totals(Cache.open(cache.directory, partial=True))


def test_the_sums(filled: Cache) -> None:
    found = fresh(filled)
    assert (found["parts"], found["tars"], found["samples"], found["records"]) == (2, 2, 7, 21)
    assert found["dropped"] == {"nonfinite_teacher": 1} and found["buckets"] == {"24x32": 7}
    assert found["bytes"] == sum(part["num_bytes"] for part in filled.summaries())
    assert found["arrays"]["timestep"][0] == 21 * 8  # type: ignore[index]


def test_remembered_sums_are_read_without_the_records(filled: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fresh(filled)
    cache = Cache.open(filled.directory)
    monkeypatch.setattr(Cache, "summaries", lambda _: pytest.fail("the completion records were read"))
    assert totals(cache) == expected


def test_what_is_left_out_of_every_part_is_counted_once(make_cache: CacheMaker, filled: Cache) -> None:
    make_cache.rejected[("b", "p001")] = {"b-24x32-2"}
    make_cache.fill(identity(["a", "b"], draws=4), extend=True)
    found = again(filled)
    assert (found["parts"], found["samples"]) == (4, 7)
    assert found["dropped"] == {"nonfinite_teacher": 1} and found["dropped_later"] == {}
    make_cache.rejected[("b", "p002")] = {"b-24x32-1", "b-24x32-2"}
    make_cache.fill(identity(["a", "b"], draws=5), extend=True)
    assert again(filled)["dropped_later"] == {"nonfinite_teacher": 1}, "one that only the last part lacks"


def _extend(maker: CacheMaker, cache: Cache) -> None:
    maker.fill(identity(["a", "b", "c"], draws=4), extend=True)


def _lose_a_record(maker: CacheMaker, cache: Cache) -> None:
    (cache.shard_dir("a") / "p000.json").delete()


def _take_down(maker: CacheMaker, cache: Cache) -> None:
    remove_samples(cache, "a", ["a-24x32-1"])


def _write_anew(maker: CacheMaker, cache: Cache) -> None:
    _lose_a_record(maker, cache)
    maker.rejected = {("a", "p000"): {"a-24x32-0"}}
    maker.fill(identity(["a", "b"]))


@pytest.mark.parametrize("change", [_extend, _lose_a_record, _take_down, _write_anew])
def test_any_change_is_seen(make_cache: CacheMaker, filled: Cache, change: Callable[[CacheMaker, Cache], None]) -> None:
    before = fresh(filled)
    change(make_cache, filled)
    after = again(filled)
    assert after != before
    assert after == fresh(filled)


def test_a_record_edited_in_place_with_its_old_times_is_seen(filled: Cache) -> None:
    fresh(filled)
    path = Path(filled.shard_dir("a") / "p000.json")
    status, data = path.stat(), path.read_bytes()
    path.write_bytes(data.replace(b'"num_samples":4', b'"num_samples":5', 1))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ShardDamagedError):
        again(filled)


def test_damaged_sums_are_made_anew_and_told_by_the_audit(filled: Cache) -> None:
    expected = fresh(filled)
    path = Path(filled.directory / FILE_NAME)
    text = path.read_text()
    for damaged in (text.replace('"samples":7', '"samples":8'), text[:-9], "", "[]"):
        path.write_text(damaged)
        (problem,) = audit(filled.directory).problems
        assert (problem.kind, problem.where) == ("damaged", str(path))
        assert again(filled) == expected
        assert audit(filled.directory).problems == []


def test_a_cache_that_cannot_be_written_is_only_read(filled: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = fresh(filled)
    (filled.directory / FILE_NAME).delete()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr("pea.storage.disk.atomic_write", refuse)
    assert again(filled) == expected
    assert not (filled.directory / FILE_NAME).exists()


def test_a_look_at_the_summary_starts_lean(filled: Cache) -> None:
    code = (
        "import sys; from stages.cli import main;"
        f"main(['inspect', 'info', {str(filled.directory)!r}]);"
        "print({'numpy', 'pydantic', 'rich', 'PIL', 'zarr', 'torch', 'ray'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "set()"
    assert Path(filled.directory, FILE_NAME).exists()
