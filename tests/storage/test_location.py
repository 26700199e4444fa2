"""One contract for every kind of storage: what a ``Location`` does on a disk, it does in a bucket."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import tensorstore
import zarr

from pea.errors import LocationError, LocationExistsError, LocationMissingError, StorageError
from pea.storage import Location

ODD_NAMES = ("a b.txt", "ü/日本.txt", "50%20#?.txt", "[1]{0..2}.txt", "*.txt")


class TestContract:
    def test_what_is_written_is_read(self, root: Location) -> None:
        place = root / "deep/er/file.bin"
        place.write_bytes(b"first content")
        place.write_bytes(b"0123456789")
        assert place.read_bytes() == b"0123456789"
        assert place.status().size_bytes == 10
        assert place.exists() and not place.is_folder()
        assert root.exists() and root.is_folder() and (root / "deep").is_folder()

    @pytest.mark.parametrize(
        ("start", "stop", "expected"),
        [(0, 3, b"012"), (3, 5, b"34"), (8, 50, b"89"), (7, None, b"789"), (4, 4, b""), (10, 20, b""), (50, 60, b"")],
    )
    def test_a_part_is_read(self, root: Location, start: int, stop: int | None, expected: bytes) -> None:
        (root / "file").write_bytes(b"0123456789")
        assert (root / "file").read_bytes(start, stop) == expected

    def test_an_empty_file_is_a_file(self, root: Location) -> None:
        (root / "empty").write_bytes(b"")
        assert (root / "empty").exists() and (root / "empty").read_bytes() == b""
        with (root / "empty").open_stream() as stream:
            assert stream.read() == b""

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_a_name_is_taken_as_it_is(self, root: Location, name: str) -> None:
        (root / name).write_text(name)
        assert (root / name).read_text() == name
        assert [entry.name for entry in root.entries(recursive=True)] == [name]
        assert Location.parse(str(root / name)) == root / name

    def test_what_is_missing_is_said_to_be_missing(self, root: Location) -> None:
        place = root / "nothing"
        assert not place.exists() and not place.is_folder()
        assert list(place.list()) == [] and list(place.list(recursive=True)) == []
        for ask in (place.read_bytes, place.status, place.open_stream, lambda: place.read_bytes(1, 2)):
            with pytest.raises(LocationMissingError, match="nothing: there is nothing") as caught:
                ask()
            assert isinstance(caught.value, FileNotFoundError)

    def test_a_new_file_is_created_once(self, root: Location) -> None:
        (root / "x/once").create_bytes(b"first")
        with pytest.raises(LocationExistsError, match="once: exists already") as caught:
            (root / "x/once").create_bytes(b"first")
        assert isinstance(caught.value, FileExistsError)
        assert (root / "x/once").read_bytes() == b"first"
        assert [entry.name for entry in root.entries(recursive=True)] == ["x/once"]

    def test_of_many_creators_one_succeeds(self, root: Location) -> None:
        at_once = Barrier(8)

        def create(number: int) -> bool:
            at_once.wait()
            try:
                (root / "contested").create_bytes(b"%d" % number)
            except FileExistsError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            for _ in range(5):
                created = list(pool.map(create, range(8)))
                assert sum(created) == 1
                assert (root / "contested").read_bytes() == b"%d" % created.index(True)
                (root / "contested").delete()

    def test_deleting_twice_is_harmless(self, root: Location) -> None:
        (root / "file").write_bytes(b"x")
        for _ in range(2):
            (root / "file").delete()
            assert not (root / "file").exists()

    def test_a_tree_is_deleted_and_its_neighbours_stay(self, root: Location) -> None:
        for name in ("a/1", "a/b/2", "ab/3", "a.txt"):
            (root / name).write_bytes(b"x")
        for _ in range(2):
            (root / "a").delete_tree()
        assert [entry.name for entry in root.entries(recursive=True)] == ["a.txt", "ab/3"]

    def test_listings_are_sorted_and_hide_what_is_not_published(self, root: Location) -> None:
        for name in ("b", "a/2", "a/1", "c/x/y"):
            (root / name).write_bytes(name.encode())
        (root / ".b.tmp-0123").write_bytes(b"not yet")
        entries = list(root.entries())
        assert [(each.name, each.status and each.status.size_bytes) for each in entries] == [
            ("a", None),
            ("b", 1),
            ("c", None),
        ]
        assert list(root.list(recursive=True)) == [root / "a/1", root / "a/2", root / "b", root / "c/x/y"]
        assert [str(each) for each in (root / "a").list()] == [f"{root}/a/1", f"{root}/a/2"]

    def test_a_version_changes_with_the_content(self, root: Location) -> None:
        (root / "file").write_bytes(b"one")
        before = (root / "file").status()
        assert (root / "file").status() == before
        (root / "file").write_bytes(b"two")
        assert (root / "file").status().version != before.version

    def test_a_content_in_pieces_is_stored_whole_or_not_at_all(self, root: Location) -> None:
        pieces = [bytes([number]) * (1 << 20) for number in range(12)]
        (root / "large").write_pieces(pieces)
        assert (root / "large").read_bytes() == b"".join(pieces)

        def broken() -> object:
            yield from pieces
            raise KeyError("the source broke")

        for name in ("large", "never"):
            with pytest.raises(KeyError):
                (root / name).write_pieces(broken())  # type: ignore[arg-type]
        assert (root / "large").status().size_bytes == 12 << 20
        assert [entry.name for entry in root.entries(recursive=True)] == ["large"]

    def test_it_survives_pickling_and_sorting(self, root: Location) -> None:
        places = [root / name for name in ("b", "a", "a/b")]
        assert pickle.loads(pickle.dumps(places)) == places
        assert sorted(places) == [root / "a", root / "a/b", root / "b"]
        assert len({*places, root / "a"}) == 3

    def test_names_and_parents(self, root: Location) -> None:
        place = root / "folder" / "part.0.json"
        assert (place.name, place.stem, place.suffix) == ("part.0.json", "part.0", ".json")
        assert place.parent == root / "folder"
        assert place.with_name("other") == root / "folder/other"
        assert place.relative_to(root) == "folder/part.0.json"
        assert str(place) == f"{root}/folder/part.0.json"
        assert place.resolve() == place

    @pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a//b", "./a", "", ".", "a\nb", "a/"])
    def test_a_stored_name_stays_below(self, root: Location, name: str) -> None:
        with pytest.raises(LocationError, match="not a plain relative name"):
            root.below(name)
        assert root.below("a/b") == root / "a/b"

    def test_zarr_writes_and_tensorstore_reads(self, root: Location) -> None:
        values = np.arange(40, dtype=np.float32).reshape(10, 4)
        array = zarr.create_array(
            (root / "made.zarr").zarr_store(), shape=(10, 4), chunks=(2, 4), shards=(4, 4), dtype="float32"
        )
        array[:] = values
        if root.scheme != "az":  # tensorstore has no driver for Azure
            spec = {"driver": "zarr3", "kvstore": (root / "made.zarr").tensorstore_spec()}
            assert np.array_equal(tensorstore.open(spec, read=True).result().read().result(), values)
        again = zarr.open_array((root / "made.zarr").zarr_store(read_only=True), mode="r")
        assert np.array_equal(again[:], values)
        with pytest.raises(ValueError, match=r"read.?only"):
            again[0] = 1

    def test_writing_without_the_right_to_is_no_damage(self, root: Location) -> None:
        """A folder where a file is wanted, and the other way round, are errors of the storage."""
        (root / "file").write_bytes(b"x")
        if root.is_local:
            with pytest.raises(StorageError):
                (root / "file/below").write_bytes(b"y")
            with pytest.raises(StorageError):
                root.read_bytes()
        assert (root / "file").read_bytes() == b"x"

    @pytest.mark.slow
    def test_of_many_creating_processes_one_succeeds(self, root: Location) -> None:
        script = (
            "import sys; from pea.storage import Location; root = Location.parse(sys.argv[1]); sys.stdin.readline()\n"
            "for number in range(20):\n"
            "    try: (root / f'record{number}').create_bytes(sys.argv[2].encode()); print(number)\n"
            "    except FileExistsError: pass\n"
        )
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", script, str(root), name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[2],
            )
            for name in ("one", "two", "three")
        ]
        created = [process.communicate("go\n")[0].split() for process in processes]
        assert sorted(int(number) for numbers in created for number in numbers) == list(range(20))
        for name, numbers in zip(("one", "two", "three"), created, strict=True):
            assert all((root / f"record{number}").read_bytes() == name.encode() for number in numbers)


class TestDisk:
    def test_a_location_works_where_a_path_is_wanted(self, tmp_path: Path) -> None:
        place = Location.parse(tmp_path / "file")
        place.write_text("x")
        assert Path(place).read_text() == "x"
        assert os.fspath(place) == str(tmp_path / "file")
        assert place.local_path == tmp_path / "file"

    def test_a_link_that_leads_outside_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "cache").mkdir()
        (tmp_path / "cache/link").symlink_to(tmp_path)
        root = Location.parse(tmp_path / "cache")
        with pytest.raises(LocationError, match="leads out of the folder"):
            root.below("link/other")

    def test_it_will_not_delete_near_the_root(self) -> None:
        with pytest.raises(LocationError, match="so near the root"):
            Location.parse("/tmp").delete_tree()

    def test_a_full_disk_is_told_apart(self) -> None:
        from pea.errors import DiskFullError

        if not Path("/dev/full").exists():
            pytest.skip("no /dev/full here")
        from pea.storage.failures import translated

        with (
            Path("/dev/full").open("wb", buffering=0) as full,
            pytest.raises(DiskFullError, match="the disk is full"),
            translated("cannot write", "x"),
        ):
            full.write(b"x")


class TestBucket:
    def test_a_bucket_is_never_deleted(self, bucket: Location) -> None:
        with pytest.raises(LocationError, match="whole bucket"):
            bucket.delete_tree()

    def test_a_bucket_that_does_not_exist(self, bucket: Location) -> None:
        other = Location.parse("s3://no-such-bucket-here/x")
        with pytest.raises(LocationMissingError, match="the bucket does not exist"):
            other.write_bytes(b"x")
        with pytest.raises(LocationMissingError, match="the bucket does not exist"):
            list(other.entries())

    def test_it_is_no_path(self, bucket: Location) -> None:
        with pytest.raises(LocationError, match="is not on a disk; expected a local path"):
            os.fspath(bucket)

    def test_a_marker_of_a_folder_is_no_file(self, bucket: Location) -> None:
        """Consoles make empty objects whose names end with a slash."""
        import urllib.request

        url = f"{os.environ['AWS_ENDPOINT_URL']}/{bucket.bucket}/data/sub/"
        urllib.request.urlopen(urllib.request.Request(url, data=b"", method="PUT"), timeout=10).close()
        (bucket / "data/file").write_bytes(b"x")
        assert [entry.name for entry in (bucket / "data").entries(recursive=True)] == ["file"]
        assert [(entry.name, entry.status is None) for entry in (bucket / "data").entries()] == [
            ("file", False),
            ("sub", True),
        ]
