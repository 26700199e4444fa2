"""Where tars are: paths, URLs, patterns and prefixes; and a bucket gives what a disk gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pea.corpus.samples import Sample, Tar, read_tar, sample_id, tar_identity, tar_name
from pea.corpus.tars import counted_samples, expand_tars, expected_samples, scan_tar, tar_keys
from pea.errors import CorpusError, LocationError
from pea.storage import Location
from pea.storage.streams import PIECE_BYTES, PIECES_AHEAD
from tests.corpus.tar_files import ALL, good_files, good_tar, outcome, write_tar


def names(*patterns: object) -> list[str]:
    return [tar.name for tar in expand_tars([str(pattern) for pattern in patterns])]


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("a/b.tar", "b"),
        ("b.tar.gz", "b"),
        ("b.tgz", "b"),
        ("b.tar.zst", "b.tar.zst"),
        ("b.tar.tar", "b.tar"),
        ("s3://bucket/a/b.tar", "b"),
        (Path("a") / "b.v1.tar", "b.v1"),
        (Tar("other", Location.parse("b.tar")), "other"),
    ],
)
def test_names(place: str | Path | Tar, name: str) -> None:
    assert tar_name(place) == name


def test_what_exists_is_no_pattern(tmp_path: Path) -> None:
    for name in ("a[1].tar", "a1.tar", "b{2..3}.tar", "b2.tar", "b3.tar", "c*.tar", "c4.tar"):
        good_tar(tmp_path / name, 1)
    assert names(tmp_path / "a[1].tar") == ["a[1]"]
    assert names(tmp_path / "b{2..3}.tar") == ["b{2..3}"]
    assert names(tmp_path / "c*.tar") == ["c*"]
    (tmp_path / "a[1].tar").unlink()
    (tmp_path / "b{2..3}.tar").unlink()
    assert names(tmp_path / "a[1].tar", tmp_path / "b{2..3}.tar") == ["a1", "b2", "b3"]
    with pytest.raises(CorpusError, match=r"b\{2\.\.4\}\.tar: no such tar; got .*b4\.tar"):
        names(tmp_path / "b{2..4}.tar")


def test_a_prefix_tells_two_corpora_apart(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        for number in range(2):
            good_tar(tmp_path / folder / f"{number:05d}.tar", 2)
    with pytest.raises(CorpusError, match=r"two tars are named 00000; got .*one.* and .*two.* `NAME::PATTERN`"):
        names(tmp_path / "*" / "*.tar")
    found = expand_tars([f"laion::{tmp_path}/one/*.tar", f"{tmp_path}/two/{{00000..00001}}.tar"])
    assert [tar.name for tar in found] == ["00000", "00001", "laion-00000", "laion-00001"]
    sample = next(item for item in read_tar(found[2], ALL) if isinstance(item, Sample))
    assert (sample.tar, sample.id) == ("laion-00000", sample_id("laion-00000", "k0"))
    assert tar_identity(found[2]).name == "laion-00000"
    with pytest.raises(CorpusError, match="two tars are named laion-00000"):
        names(f"laion::{tmp_path}/one/*.tar", f"laion::{tmp_path}/two/*.tar")
    odd = tmp_path / "x::y"
    odd.mkdir()
    good_tar(odd / "z.tar", 1)
    assert names(odd / "z.tar") == ["z"], "a path is a path"


def test_a_folder_stands_for_the_tars_in_it(tmp_path: Path, bucket: Location) -> None:
    """A link to nothing is one of them, so that it is missed; hidden files and folders are none."""
    folder = tmp_path / "all [of] them"
    (folder / "folder.tar").mkdir(parents=True)
    for name in ("b.tar", "a.tar.gz", ".hidden.tar", "a.tar.json", "notes.txt"):
        (folder / name).write_bytes(b"x")
    (folder / "gone.tar").symlink_to("nowhere")
    assert names(folder) == ["a", "b", "gone"]
    assert names(f"laion::{folder}") == ["laion-a", "laion-b", "laion-gone"]
    for name in ("b.tar", "a.tgz", "below/c.tar", "a.json"):
        (bucket / "tars" / name).write_bytes(b"x")
    assert names(bucket / "tars") == ["a", "b"]
    (tmp_path / "empty").mkdir()
    for wrong in (tmp_path / "empty", bucket / "tars/nothing"):
        with pytest.raises(CorpusError, match=r"no (such tar|tar in this folder).*Correct the path or pattern"):
            names(wrong)


def test_places_that_cannot_be(tmp_path: Path) -> None:
    for pattern, message in (("ftp://x/a.tar", "unknown scheme"), ("pipe:cat a.tar", "runs a shell command")):
        with pytest.raises(LocationError, match=message):
            names(pattern)
    (tmp_path / "folder.tar").mkdir()
    with pytest.raises(CorpusError, match=r"folder\.tar"):
        scan_tar(tmp_path / "folder.tar")


def test_tars_in_a_bucket(bucket: Location, tmp_path: Path) -> None:
    expected = outcome(good_tar(tmp_path / "00000.tar", 40))
    data = (tmp_path / "00000.tar").read_bytes()
    for number in range(3):
        (bucket / f"laion/{number:05d}.tar").write_bytes(data)
    found = expand_tars([f"laion::{bucket}/laion/*.tar", f"{bucket}/laion/{{00001..00002}}.tar"])
    assert [tar.name for tar in found] == ["00001", "00002", "laion-00000", "laion-00001", "laion-00002"]
    identity = tar_identity(found[0])
    assert identity.sha256 == tar_identity(tmp_path / "00000.tar").sha256
    read = [
        (item.key, item.captions, item.image.tobytes(), item.original_size)
        for item in read_tar(found[0], ALL, expect=identity)
        if isinstance(item, Sample)
    ]
    assert read == expected
    assert scan_tar(found[0], digest=True).identity == identity
    assert len(tar_keys(found[0], None)) == 40 and expected_samples(found[0]) >= 1
    assert counted_samples(found[0]) is None, "to count means to read it"
    (bucket / "laion/00001_stats.json").write_text(json.dumps({"successes": 41}))
    with pytest.raises(CorpusError, match=r"00001_stats\.json: .*expected samples: 41; got 40"):
        scan_tar(found[0])
    with pytest.raises(CorpusError, match="no such tar"):
        expand_tars([f"{bucket}/none/*.tar"])
    with pytest.raises(CorpusError, match="no such tar"):
        list(read_tar(f"{bucket}/none.tar", ALL))


@pytest.mark.slow
def test_a_tar_in_a_bucket_that_changes_while_it_is_read(bucket: Location, tmp_path: Path) -> None:
    files = [*good_files(["a"]), ("b.mp4", bytes(PIECE_BYTES * (PIECES_AHEAD + 2))), *good_files(["b", "c"])]
    data = write_tar(tmp_path / "a.tar", files).read_bytes()
    (bucket / "a.tar").write_bytes(data)
    samples = read_tar(bucket / "a.tar", ALL)
    next(samples)
    (bucket / "a.tar").write_bytes(data[:-1] + b"\1")
    with pytest.raises(CorpusError, match="the tar changed while it was read"):
        list(samples)
