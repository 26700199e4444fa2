"""What is said beside a tar is compared, by reading, by looking at headers, and by the digest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from pea.corpus.sidecars import MAX_BYTES, sidecar_text
from pea.corpus.tars import counted_samples, expected_samples, scan_tar, tar_identity
from pea.errors import CorpusError
from tests.corpus.tar_files import good_tar, kept, write_tar


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    return good_tar(tmp_path / "00000.tar", 3)


@pytest.mark.parametrize("said", [2, 4])
def test_img2dataset_says_how_many(tar: Path, said: int) -> None:
    stats = tar.with_name("00000_stats.json")
    stats.write_text(json.dumps({"count": 9, "successes": 3, "failed_to_download": 6}))
    assert len(kept(tar)) == scan_tar(tar).num_samples == expected_samples(tar) == counted_samples(tar) == 3
    stats.write_text(json.dumps({"count": 9, "successes": said}))
    for attempt in (kept, scan_tar):
        with pytest.raises(CorpusError, match=rf"00000_stats\.json: .*expected samples: {said}; got 3.*delete"):
            attempt(tar)
    stats.write_text(json.dumps({"something": "else"}))
    assert len(kept(tar)) == 3


def test_our_own_says_all(tar: Path) -> None:
    data = tar.read_bytes()
    beside = tar.with_name("00000.tar.json")
    digest = hashlib.sha256(data).hexdigest()
    beside.write_text(sidecar_text(3, len(data), digest))
    assert tar_identity(tar).sha256 == digest
    assert len(kept(tar)) == 3
    for text, what in (
        (sidecar_text(2, len(data), digest), "samples"),
        (sidecar_text(3, len(data) + 1, digest), "bytes"),
        (sidecar_text(3, len(data), "0" * 64), "sha256"),
    ):
        beside.write_text(text)
        with pytest.raises(CorpusError, match=rf"00000\.tar\.json: the tar is not what .* expected {what}"):
            scan_tar(tar, digest=True)
    beside.write_text(json.dumps({"format": "pea-tar", "format_version": 1}))
    assert scan_tar(tar, digest=True).identity == tar_identity(tar)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 5000,
        "{}",
        '{"format": "pea-tar", "format_version": 2}',
        '{"format": "pea-tar", "format_version": 1, "num_samples": -1}',
        '{"format": "pea-tar", "format_version": 1, "num_samples": true}',
        '{"format": "pea-tar", "format_version": 1, "size_bytes": "3"}',
        '{"format": "pea-tar", "format_version": 1, "sha256": "ABC"}',
        " " * (MAX_BYTES + 1),
    ],
)
def test_what_cannot_be_understood_is_an_error(tar: Path, text: str) -> None:
    tar.with_name("00000.tar.json").write_text(text)
    with pytest.raises(CorpusError, match=r"00000\.tar\.json: (what is said beside the tar cannot be read|too long)"):
        scan_tar(tar)


def test_an_empty_tar_has_no_samples(tar: Path, tmp_path: Path) -> None:
    empty, other = write_tar(tmp_path / "b.tar", []), write_tar(tmp_path / "c.tar", [("README", b""), ("x.txt", b"")])
    assert [scan_tar(each).num_samples for each in (empty, other)] == [0, 0] and scan_tar(tar).num_samples == 3
    assert kept(empty) == []
