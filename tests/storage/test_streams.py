"""Streams: flat in memory, not broken by a broken connection, and never silent about a changed content."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pea.errors import AccessDeniedError, ContentChangedError, StorageError
from pea.storage import Location
from pea.storage.streams import PieceStream
from tests.object_server import ObjectServer
from tests.storage.proxy import FaultProxy

DATA = os.urandom(9 << 20)


def test_a_stream_gives_the_content_in_any_portions(root: Location) -> None:
    (root / "file").write_bytes(DATA)
    with (root / "file").open_stream() as stream:
        assert stream.read(10) == DATA[:10]
        assert stream.seek(5 << 20) == 5 << 20
        assert stream.read(3) == DATA[5 << 20 : (5 << 20) + 3]
        assert stream.seek(-4, os.SEEK_END) == len(DATA) - 4
        assert stream.read() == DATA[-4:]
        assert stream.seek(0) == 0 and stream.tell() == 0
        assert hashlib.sha256(stream.read()).digest() == hashlib.sha256(DATA).digest()
        assert stream.read(1) == b""
        assert stream.seek(20 << 20) == 20 << 20 and stream.read() == b""


@pytest.mark.slow
def test_tarfile_reads_from_a_stream(root: Location) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in ("a", "b"):
            member = tarfile.TarInfo(name)
            member.size = len(DATA)
            archive.addfile(member, io.BytesIO(DATA))
    (root / "x.tar").write_bytes(packed.getvalue())
    with (root / "x.tar").open_stream() as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            content = archive.extractfile(member)
            assert content is not None and content.read() == DATA


@pytest.mark.slow
@pytest.mark.parametrize("same_size", [True, False])
def test_a_content_that_changes_while_it_is_read_is_an_error(root: Location, same_size: bool) -> None:
    (root / "file").write_bytes(DATA * 4)
    with (root / "file").open_stream() as stream:
        assert stream.read(10) == DATA[:10]
        (root / "file").write_bytes(os.urandom(len(DATA) * 4 if same_size else 1 << 20))
        with pytest.raises(ContentChangedError, match="file: it changed while it was read"):
            while stream.read(1 << 20):
                pass


def test_a_file_that_grows_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    with Location.parse(tmp_path / "file").open_stream() as stream:
        stream.read(10)
        with (tmp_path / "file").open("ab") as file:
            file.write(b"more")
        with pytest.raises(ContentChangedError):
            stream.read()


@pytest.fixture
def proxied(bucket: Location, object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> Any:
    """(A place in a bucket that is reached through a proxy, the proxy)."""
    with FaultProxy(object_server.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield bucket / "x", proxy


def test_a_dropped_connection_is_taken_up_again(proxied: tuple[Location, FaultProxy]) -> None:
    place, proxy = proxied
    place.write_bytes(DATA)
    proxy.cut(3, after_bytes=100_000, method="GET")
    proxy.fail(2, status=503, method="GET")
    with place.open_stream() as stream:
        assert stream.read() == DATA
    assert sum(request.status == 503 for request in proxy.requests) == 2


def test_a_connection_that_never_holds_ends_after_a_bounded_number_of_tries(
    proxied: tuple[Location, FaultProxy],
) -> None:
    place, proxy = proxied
    place.write_bytes(DATA[: 1 << 20])
    before = len(proxy.requests)
    proxy.cut(1000, after_bytes=10, method="GET")
    with place.open_stream() as stream, pytest.raises(StorageError, match="cannot read; got the connection broke off"):
        stream.read()
    assert len(proxy.requests) - before < 15


def test_a_change_is_noticed_when_a_dropped_connection_is_taken_up_again(
    proxied: tuple[Location, FaultProxy],
) -> None:
    """The second half of an object must not be glued to the first half of another."""
    place, proxy = proxied
    place.write_bytes(DATA[: 3 << 20])
    stream = place.open_stream()
    changed = []

    def change(_number: int, request: Any) -> None:
        if request.method == "GET" and "bytes=0-" not in request.headers.get("Range", "").lower() and not changed:
            changed.append(True)
            Location.parse(str(place)).write_bytes(os.urandom(3 << 20))

    proxy.cut(1, after_bytes=1 << 20, method="GET")
    proxy.on_request = change
    with stream, pytest.raises(StorageError):
        stream.read()
    assert changed


def test_refusals_are_not_taken_for_missing(proxied: tuple[Location, FaultProxy]) -> None:
    place, proxy = proxied
    place.write_bytes(b"x")
    for ask in (place.read_bytes, place.status, place.exists, lambda: list(place.parent.entries())):
        proxy.fail(1, status=403)
        with pytest.raises(AccessDeniedError, match="403 Forbidden") as caught:
            ask()
        assert isinstance(caught.value, PermissionError) and not isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_busy_server_is_asked_again(proxied: tuple[Location, FaultProxy], status: int) -> None:
    place, proxy = proxied
    proxy.fail(2, status=status)
    place.write_bytes(b"content")
    proxy.fail(2, status=status)
    assert place.read_bytes() == b"content"


def test_a_dead_server_is_given_up(proxied: tuple[Location, FaultProxy]) -> None:
    place, proxy = proxied
    proxy.fail(1000)
    for name, ask in {"read": place.read_bytes, "write": lambda: place.write_bytes(b"x")}.items():
        with pytest.raises(StorageError, match=f"cannot {name}; got 503 Service Unavailable") as caught:
            ask()
        assert not isinstance(caught.value, FileNotFoundError | PermissionError)
    assert len(proxy.requests) < 20


def test_a_creator_whose_answer_was_lost_knows_its_own_object(proxied: tuple[Location, FaultProxy]) -> None:
    place, proxy = proxied
    proxy.lose_answer(1, method="PUT")
    place.create_bytes(b"mine")
    assert [request.status for request in proxy.requests if request.method == "PUT"] == [0, 412]
    with pytest.raises(FileExistsError):
        place.create_bytes(b"mine")


def test_pieces_are_fetched_ahead_and_forgotten() -> None:
    fetched = []

    def fetch(start: int, stop: int) -> bytes:
        fetched.append((start, stop))
        return bytes(stop - start)

    stream = PieceStream(fetch, 95, piece_bytes=10, ahead=2)
    with stream:
        assert stream.read(5) == bytes(5)
        assert len(stream._pieces) <= 3
        stream.seek(70)
        assert len(stream.read(25)) == 10
        assert set(stream._pieces) <= {7, 8, 9}
    assert all(stop - start <= 10 for start, stop in fetched)
    assert len(set(fetched)) == len(fetched)


_PEAK = """
import resource, sys
from pea.storage import Location
with Location.parse(sys.argv[1]).open_stream() as stream:
    stream.read(1 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    while stream.read(1 << 20): pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_the_memory_of_a_stream_does_not_grow_with_its_length(root: Location) -> None:
    (root / "large").write_pieces(DATA for _ in range(12))
    grown_mib = subprocess.run(
        [sys.executable, "-c", _PEAK, str(root / "large")],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
    ).stdout
    assert int(grown_mib) < 48, "a stream of 108 MB holds more than some pieces"
