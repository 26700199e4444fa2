"""Copies of caches: verified, resumable, and nothing in them that was taken down."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pea.cache import Cache, part_copies
from pea.cache.audit import audit
from pea.cache.completion import FileEntry, read_record
from pea.cache.copying import CopiedCache, copy_cache
from pea.cache.takedown import remove_samples
from pea.errors import CacheError, IdentityError, LeaseHeldError, ShardDamagedError, ShardUnfinishedError, StorageError
from pea.storage import Location
from pea.storage.durable import temporary_sibling
from pea.storage.leases import take
from stages.cli import main
from tests.cache_helpers import CacheMaker, content, identity, store_of

BLOCKS = ("down_block", "mid_block")
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def source(tmp_path: Path) -> Cache:
    return CacheMaker(tmp_path / "source").fill(identity(["a", "b"], blocks=BLOCKS))


def copied(cache: Cache, to: Location | Path, **chosen: tuple[str, ...]) -> CopiedCache:
    return copy_cache(cache.directory, Location.parse(to), **chosen)


@pytest.mark.slow
def test_there_and_back_again(source: Cache, bucket: Location, tmp_path: Path) -> None:
    grown = CacheMaker(Path(source.directory)).fill(identity(["a", "b"], draws=4, blocks=BLOCKS), extend=True)
    places: list[Location] = [bucket / "one", bucket / "two", Location.parse(tmp_path / "back")]
    for before, place in zip([grown.directory, *places], places, strict=False):
        done = copy_cache(before, place)
        assert (done.num_parts, done.num_kept, done.num_unfinished) == (4, 0, 0)
        assert audit(place).problems == []
        assert content(Cache.open(place)) == content(grown)
        assert copy_cache(before, place) == CopiedCache(0, 4, 0, 0)


@pytest.mark.slow
def test_a_copy_that_broke_off_is_unfinished_and_goes_on(
    source: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    really = part_copies._copy_file

    def breaks_off(one: Location, other: Location, entry: FileEntry) -> None:
        if len(sent) == most:
            raise OSError("broken off")
        sent.append(other.name)
        really(one, other, entry)

    monkeypatch.setattr(part_copies, "_copy_file", breaks_off)
    files = sum(len(read_record(place).files) for _, place in source.newest_records() if place)
    monkeypatch.setattr(part_copies, "_AT_ONCE", 1)
    for most in (0, 5, files - 1):
        with pytest.raises(OSError, match="broken off"):
            copied(source, tmp_path / "copy")
        assert len(sent) == most
        with pytest.raises(ShardUnfinishedError):
            Cache.open(tmp_path / "copy")
    most = files
    copied(source, tmp_path / "copy")
    assert len(sent) == files, "what was there already was not sent again"
    assert content(Cache.open(tmp_path / "copy")) == content(source)


def test_a_damaged_file_is_not_copied(source: Cache, tmp_path: Path) -> None:
    chunk = next(path for path in sorted(store_of(source).rglob("c/*")) if path.is_file())
    chunk.write_bytes(bytes(chunk.stat().st_size))
    with pytest.raises(ShardDamagedError, match="not what was written"):
        copied(source, tmp_path / "copy")
    assert not (tmp_path / "copy" / chunk.relative_to(Path(source.directory))).exists()
    with pytest.raises(ShardUnfinishedError):
        Cache.open(tmp_path / "copy")
    chunk.unlink()
    with pytest.raises(ShardDamagedError, match="missing"):
        copied(source, tmp_path / "copy")


@pytest.mark.slow
def test_a_half_written_file_in_the_copy_is_replaced(source: Cache, tmp_path: Path) -> None:
    copied(source, tmp_path / "whole")
    record = source.record_path(source.part_plan("a", "p000"))
    store = read_record(record).store
    name = next(name for name in read_record(record).files if "/c/" in name)
    place = tmp_path / "copy/shards/a" / store / name
    place.parent.mkdir(parents=True)
    place.write_bytes(bytes((store_of(source) / name).stat().st_size))
    temporary_sibling(place).write_bytes(b"half")
    copied(source, tmp_path / "copy")
    assert {path.name for path in place.parent.iterdir()} == {place.name}
    assert audit(tmp_path / "copy").problems == []


@pytest.mark.slow
def test_what_was_taken_down_goes_from_the_copy_too(source: Cache, tmp_path: Path) -> None:
    copied(source, tmp_path / "copy")
    copied(source, tmp_path / "part", blocks=("mid_block",))
    remove_samples(source, "a", ["a-24x32-0"])
    assert copied(source, tmp_path / "copy").num_parts == 1
    assert copied(source, tmp_path / "part", blocks=("mid_block",)).num_parts == 1
    for name in ("copy", "part"):
        assert audit(tmp_path / name).problems == []
        assert "a-24x32-0" not in Cache.open(tmp_path / name).shard("a").buckets["24x32"].keys
        assert not [
            path for path in (tmp_path / name).rglob("*") if path.is_file() and b"a-24x32-0" in path.read_bytes()
        ]


@pytest.mark.slow
def test_what_could_not_be_deleted_goes_when_it_is_copied_again(
    source: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of the first copy holds the key of a sample that was taken down since."""
    copied(source, tmp_path / "copy")
    remove_samples(source, "a", ["a-24x32-1"])
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", _refused)
        with pytest.raises(StorageError, match="cannot delete"):
            copied(source, tmp_path / "copy")
    assert any(b"a-24x32-1" in path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file())
    assert copied(source, tmp_path / "copy").num_kept == 2
    assert not any(b"a-24x32-1" in path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file())


def _refused(path: Path, **_: object) -> None:
    raise OSError(5, "Input/output error", str(path))


def test_what_was_taken_down_in_the_copy_alone_does_not_come_back(source: Cache, tmp_path: Path) -> None:
    copied(source, tmp_path / "copy")
    remove_samples(Cache.open(tmp_path / "copy"), "a", ["a-24x32-0"])
    with pytest.raises(CacheError, match=r"taken down.*pea inspect remove"):
        copied(source, tmp_path / "copy")
    assert "a-24x32-0" not in Cache.open(tmp_path / "copy").shard("a").buckets["24x32"].keys


@pytest.mark.slow
def test_chosen_languages_and_blocks(source: Cache, tmp_path: Path) -> None:
    done = copied(source, tmp_path / "copy", languages=("zh",), blocks=("mid_block",))
    assert (
        done.num_parts == 2
        and copied(source, tmp_path / "copy", languages=("zh",), blocks=("mid_block",)).num_kept == 2
    )
    copy, whole = Cache.open(tmp_path / "copy"), content(source)
    assert audit(tmp_path / "copy").problems == [] and copy.identity.blocks == ("mid_block",)
    assert copy.identity.fields["corpus.captions"] == {"en": "captions.en", "zh": "captions.zh"}
    found = content(copy)
    assert set(whole) - set(found) == {
        f"{tar}/24x32/features/down_block/{name}" for tar in "ab" for name in ("values", "squared_norm")
    }
    assert all(found[name] == whole[name] for name in found)
    copied(source, tmp_path / "english", languages=("en",))
    english = Cache.open(tmp_path / "english").shard("a").buckets["24x32"]
    assert english.languages == ["en"] and english.captions("en") == source.shard("a").buckets["24x32"].captions("en")
    with pytest.raises(CacheError, match=r"no such block.*up_block"):
        copied(source, tmp_path / "none", blocks=("up_block",))
    with pytest.raises(IdentityError):
        copied(source, tmp_path / "copy", blocks=("down_block",))
    with pytest.raises(IdentityError, match="another cache"):
        copied(source, tmp_path / "copy")


@pytest.mark.slow
def test_two_copies_at_once_and_copies_onto_others(source: Cache, tmp_path: Path) -> None:
    store = tmp_path / "copy/shards/a" / store_of(source).name
    with take(Location.parse(store), "copying"), pytest.raises(LeaseHeldError):
        copied(source, tmp_path / "copy")
    copied(source, tmp_path / "copy")
    with pytest.raises(CacheError, match="itself"):
        copied(source, source.directory)
    other = CacheMaker(tmp_path / "other").fill(identity(["a", "c"], blocks=BLOCKS))
    with pytest.raises(IdentityError, match="another cache"):
        copied(other, tmp_path / "copy")
    assert content(Cache.open(tmp_path / "copy")) == content(source)


@pytest.mark.slow
def test_an_unfinished_cache(tmp_path: Path, bucket: Location, capsys: Capture) -> None:
    maker = CacheMaker(tmp_path / "source")
    cache = Cache.create_or_resume(tmp_path / "source", identity(["a", "b"]))
    maker.write(cache, cache.plan()[0])
    assert main(["inspect", "copy", str(tmp_path / "source"), f"{bucket}/copy"]) == 0
    said = capsys.readouterr().out
    assert "copied 1 shard," in said and "1 are not finished" in said
    assert Cache.open(bucket / "copy", partial=True).plan() == cache.plan()
    assert main(["inspect", "copy", f"{bucket}/nothing", str(tmp_path / "x")]) == 2
    assert main(["inspect", "copy", str(tmp_path / "source"), "pipe:x"]) == 2
    assert not (tmp_path / "x").exists() and len(capsys.readouterr().err.splitlines()) == 2
