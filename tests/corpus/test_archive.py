"""The end of a tar is proven: whatever happens to the file, nothing is lost in silence."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import subprocess
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pea.corpus.archive import BLOCK_BYTES, RECORD_BYTES, TarReader
from pea.corpus.byte_streams import StoredBytes
from pea.corpus.tars import scan_tar, tar_identity, tar_keys
from pea.errors import CorpusError
from tests.corpus.tar_files import GOOD, dropped, good_files, good_tar, joined, kept, members_end, outcome, write_tar

NUM_SAMPLES = 9


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar of several records (of 10,240 bytes) with samples of some kilobytes."""
    return good_tar(tmp_path_factory.mktemp("whole") / "whole.tar", NUM_SAMPLES)


def attempt(path: Path, **options: Any) -> list[tuple[Any, ...]] | None:
    """What is read; None: an error, of which looking at the headers alone says the same."""
    try:
        found = outcome(path, **options)
    except CorpusError as error:
        message = str(error)
    else:
        assert scan_tar(path).keys == tuple(dict.fromkeys(each[0] for each in found))
        return found
    assert message.startswith(str(path.parent))
    if "expect" not in options:
        with pytest.raises(CorpusError):
            scan_tar(path)
    return None


def damaged(whole: Path, folder: Path, data: bytes) -> Path:
    path = folder / "damaged.tar"
    path.write_bytes(data)
    return path


def first_bytes(path: Path) -> dict[str, int]:
    """Key -> where its first member begins."""
    with tarfile.open(path) as archive:
        return {member.name.partition(".")[0]: member.offset for member in reversed(archive.getmembers())}


@pytest.fixture
def counted(whole: Path, tmp_path: Path) -> Path:
    """A folder in which a count lies beside `damaged.tar`."""
    folder = tmp_path / "counted"
    folder.mkdir()
    (folder / "damaged_stats.json").write_text(json.dumps({"count": 20, "successes": NUM_SAMPLES}))
    return folder


@pytest.mark.slow
def test_a_tail_of_zeros_from_every_block_is_an_error_or_was_padding(
    whole: Path, tmp_path: Path, counted: Path
) -> None:
    data, expected, identity = whole.read_bytes(), outcome(whole), tar_identity(whole)
    num_lost, begins = 0, first_bytes(whole)
    for start in range(0, len(data), BLOCK_BYTES):
        cut = data[:start] + bytes(len(data) - start)
        found = attempt(damaged(whole, tmp_path, cut))
        if found not in (None, expected):
            lost = begins.keys() - {each[0] for each in found or ()}
            assert all(begins[key] >= len(data) - RECORD_BYTES for key in lost), "the remainder that the module names"
            num_lost += bool(lost)
        by_count = attempt(damaged(whole, counted, cut))
        assert by_count is None or [each[0] for each in by_count] == [each[0] for each in expected]
        assert attempt(damaged(whole, tmp_path, cut), expect=identity) in (None, expected)
    assert num_lost, "what only a count can see is there, so that the page must name it"


def test_a_zeroed_page_anywhere_is_an_error_or_loses_no_key(whole: Path, tmp_path: Path, counted: Path) -> None:
    data, expected, identity = whole.read_bytes(), outcome(whole), tar_identity(whole)
    keys = [each[0] for each in expected]
    for start in range(0, len(data), 4096):
        holed = data[:start] + bytes(len(data[start : start + 4096])) + data[start + 4096 :]
        for folder in (tmp_path, counted):
            found = attempt(damaged(whole, folder, holed))
            if found is not None and (folder == counted or start + 4096 < len(data) - RECORD_BYTES):
                assert [each[0] for each in found] == keys
            assert all(each in expected for each in found or () if len(each) == 4), "what is kept is what was there"
        assert attempt(damaged(whole, tmp_path, holed), expect=identity) in (None, expected)


def test_a_cut_at_every_block_is_an_error_or_cut_padding(whole: Path, tmp_path: Path) -> None:
    data, expected = whole.read_bytes(), outcome(whole)
    for end in range(0, len(data), BLOCK_BYTES):
        found = attempt(damaged(whole, tmp_path, data[:end]))
        assert found == (expected if end >= members_end(whole) + 2 * BLOCK_BYTES else None)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_random_damage_of_the_structure(whole: Path, tmp_path_factory: pytest.TempPathFactory, draw: Any) -> None:
    """Cuts and holes of any length at any byte: an error, or every key is there."""
    data, keys = whole.read_bytes(), list(scan_tar(whole).keys)
    draw = draw.draw
    start = draw(st.integers(0, len(data) - RECORD_BYTES))
    length = draw(st.integers(1, len(data)))
    kind = draw(st.sampled_from(["cut", "zeros", "removed", "doubled"]))
    changed = {
        "cut": data[:start],
        "zeros": data[:start] + bytes(len(data[start : start + length])) + data[start + length :],
        "removed": data[:start] + data[start + length :],
        "doubled": data[: start + length] + data[start:],
    }[kind]
    found = attempt(damaged(whole, tmp_path_factory.mktemp("damaged"), changed))
    if found is not None and kind == "cut":
        assert [each[0] for each in found] == keys
    if found is not None and kind == "zeros":
        lost = set(keys) - {each[0] for each in found}
        assert all(first_bytes(whole)[key] >= len(data) - RECORD_BYTES for key in lost)


@pytest.mark.parametrize(
    ("behind", "message"),
    [
        (b"x", "bytes behind"),
        (bytes(2000) + b"x", "more zeros"),
        (bytes(RECORD_BYTES), "more zeros"),
        (bytes(1), "more zeros"),
    ],
)
def test_what_lies_behind_the_end(whole: Path, tmp_path: Path, behind: bytes, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        outcome(damaged(whole, tmp_path, whole.read_bytes() + behind))


def test_tars_that_were_joined(whole: Path, tmp_path: Path) -> None:
    joined = damaged(whole, tmp_path, whole.read_bytes() * 2)
    with pytest.raises(CorpusError, match=r"two tars joined.*Give joined tars one by one"):
        outcome(joined)
    with pytest.raises(CorpusError, match="two tars joined"):
        tar_keys(joined, None)


def test_one_block_of_zeros_is_no_end_mark(whole: Path, tmp_path: Path) -> None:
    end = members_end(whole)
    with pytest.raises(CorpusError, match="no end mark"):
        outcome(damaged(whole, tmp_path, whole.read_bytes()[: end + BLOCK_BYTES]))
    assert len(outcome(damaged(whole, tmp_path, whole.read_bytes()[: end + 2 * BLOCK_BYTES]))) == NUM_SAMPLES


def test_a_header_that_promises_more_than_there_is(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", good_files(["k"]))
    data = bytearray(path.read_bytes())
    info = tarfile.TarInfo("k.png")
    for size in (100 << 20, 6 << 30, 1 << 70):
        info.size = size
        data[:BLOCK_BYTES] = info.tobuf(tarfile.GNU_FORMAT)
        path.write_bytes(data)
        tracemalloc.start()
        with pytest.raises(CorpusError, match=r"truncated|no file has"):
            outcome(path)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
        tracemalloc.stop()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar(tmp_path: Path, form: int) -> None:
    long = "/".join(["folder"] * (40 if form != tarfile.USTAR_FORMAT else 25)) + "/键"
    path = write_tar(tmp_path / "a.tar", good_files(["k", long]), format=form)
    assert kept(path) == ["k", long]
    assert tar_keys(path, None) == list(scan_tar(path).keys) == ["k", long]


def test_headers_that_hold_for_all_members(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", good_files(["k"]), pax_headers={"comment": "0" * 900})
    assert kept(path) == ["k"]


@pytest.mark.parametrize(
    "record", [b"", b"x", b"9999999 path=a\n", b"-5 path=a\n", b"11 path=abcd", b"9 path a\n", b"12 size=1_0\n"]
)
def test_an_extended_header_that_is_none(tmp_path: Path, record: bytes) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = b"x", len(record)
    block = info.tobuf(tarfile.USTAR_FORMAT) + record.ljust(BLOCK_BYTES if record else 0, b"\0")
    path = tmp_path / "a.tar"
    path.write_bytes(joined(block, write_tar(tmp_path / "b.tar", good_files(["k"]))))
    if record:
        with pytest.raises(CorpusError, match="damaged"):
            outcome(path)
    else:
        assert kept(path) == ["k"]
    path.write_bytes(block + bytes(RECORD_BYTES - len(block)))
    with pytest.raises(CorpusError):
        outcome(path)


def test_an_extended_header_of_a_gigabyte(tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = b"L", 1 << 30
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + bytes(4096))
    with pytest.raises(CorpusError, match="an extended header of 1073741824 bytes"):
        outcome(path)


def add(archive: tarfile.TarFile, name: str, kind: bytes, target: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, 77  # some programs say how large the target is; no bytes follow
    archive.addfile(info)


def test_members_that_are_no_files(tmp_path: Path) -> None:
    """Links and devices are no bytes: their keys are counted and named. Directories are nothing."""
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "folder.png", tarfile.DIRTYPE)
        for name, data in good_files(["a"]):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for key, kind in (
            ("b", tarfile.LNKTYPE),
            ("c", tarfile.SYMTYPE),
            ("d", tarfile.CHRTYPE),
            ("e", tarfile.FIFOTYPE),
        ):
            add(archive, f"{key}.json", kind, "a.json")
            add(archive, f"{key}.png", kind, "a.png")
    assert kept(path) == ["a"]
    assert dropped(path) == [(key, "file_not_stored") for key in "bcde"]


def old_sparse(name: str, stored: bytes, real: int, num_more: int = 0) -> bytes:
    """A sparse member as old GNU tars write it, with blocks that continue its map."""
    info = tarfile.TarInfo(name)
    info.type, info.size = tarfile.GNUTYPE_SPARSE, len(stored)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:410] = b"%011o\0%011o\0" % (0, len(stored))
    block[482] = bool(num_more)
    block[483:495] = b"%011o\0" % real
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    more = b"".join(bytes(504) + bytes([index < num_more - 1]) + bytes(7) for index in range(num_more))
    return bytes(block) + more + stored + bytes(-len(stored) % BLOCK_BYTES)


def pax_sparse(name: str, stored: bytes, real: int) -> bytes:
    buffer = io.BytesIO()
    info = tarfile.TarInfo("GNUSparseFile.0/x")
    info.size = BLOCK_BYTES + len(stored)
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(real),
    }
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(f"1\n0\n{len(stored)}\n".encode().ljust(BLOCK_BYTES, b"\0") + stored))
        return buffer.getvalue()[: archive.offset]


@pytest.mark.parametrize("extension", ["png", "json", "mp4"])
@pytest.mark.parametrize("make", [old_sparse, pax_sparse, lambda *a: old_sparse(*a, num_more=3)])
def test_a_sparse_file_of_six_gigabytes_costs_nothing(tmp_path: Path, make: Any, extension: str) -> None:
    rest = write_tar(tmp_path / "b.tar", [("a.txt", b"x"), *good_files(["b"])])
    path = tmp_path / "a.tar"
    path.write_bytes(joined(make(f"a.{extension}", bytes(30_000), 6 << 30), rest))
    tracemalloc.start()
    found = outcome(path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    assert found[-1][0] == "b"
    assert found[0][:2] == ("a", "json_missing" if extension == "mp4" else "file_not_stored")


@pytest.mark.skipif(not shutil.which("tar"), reason="there is no tar program")
def test_tars_of_the_tar_program(tmp_path: Path) -> None:
    for name, data in good_files(["a", "b"]):
        (tmp_path / name).write_bytes(data)
    with (tmp_path / "b.mp4").open("wb") as file:
        file.truncate(1 << 30)
    (tmp_path / "c.png").symlink_to("a.png")
    names = sorted(path.name for path in tmp_path.iterdir())
    for number, options in enumerate([["-S"], ["-S", "-Hposix"], ["-S", "-Hpax", "--sparse-version=0.1"], ["-b1"]]):
        path = tmp_path / f"{number}.tar"
        without = names if "-S" in options else [name for name in names if not name.endswith("mp4")]
        subprocess.run(["tar", *options, "-cf", path, *without], cwd=tmp_path, check=True)
        assert path.stat().st_size < 1 << 20
        assert (kept(path), dropped(path)) == (["a", "b"], [("c", "file_not_stored")])


def test_a_member_that_is_cut_is_never_handed_out(tmp_path: Path) -> None:
    data = good_tar(tmp_path / "a.tar", 1).read_bytes()
    (member,) = itertools.islice(TarReader(StoredBytes(io.BytesIO(data[:900]), "a"), "a"), 1)
    with pytest.raises(CorpusError, match="truncated"):
        member.read()


def test_a_member_is_read_by_pieces_of_a_stream_that_can_do_nothing_else() -> None:
    class Dribble(io.RawIOBase):
        """Some bytes at a time, as a socket does; no seek."""

        def __init__(self, data: bytes) -> None:
            self._data = io.BytesIO(data)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            piece = self._data.read(min(len(buffer), 100))
            buffer[: len(piece)] = piece
            return len(piece)

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in good_files(["a", "b"]):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    reader = TarReader(StoredBytes(Dribble(buffer.getvalue()), "somewhere", digest=True), "somewhere")
    found = [(member.name, member.read() if member.name != "a.json" else b"") for member in reader]
    assert found == [(name, data if name != "a.json" else b"") for name, data in good_files(["a", "b"])]
    assert GOOD["png"] == found[0][1]
