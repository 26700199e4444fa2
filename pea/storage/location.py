"""Where things are: a path on a disk or a URL of an object store, with one set of operations for both."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

from pea.errors import LocationError
from pea.storage.disk import DiskFile
from pea.storage.durable import fsync_tree
from pea.storage.options import StorageOptions, options_for
from pea.storage.status import Entry, Status
from pea.storage.urls import TENSORSTORE_SCHEMES, normal_key, parse_url

if TYPE_CHECKING:  # slow to import, and looking into a cache does without; what reaches buckets may be absent
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import core_schema

    from pea.storage.objects import StoredObject


@dataclass(frozen=True, order=True)
class Location:
    """A path on a disk or the URL of an object or a "folder" of objects; made by ``Location.parse``.

    Immutable and hashable. It never holds a secret; how its store is reached (``StorageOptions``) is looked up when
    it is used, and travels with it to other processes.
    """

    scheme: str
    """``file``, ``s3``, ``gs`` or ``az``."""
    bucket: str
    """Name of the bucket or container; empty on a disk."""
    key: str
    """Path on the disk, or key in the bucket without a slash at either end."""
    options: StorageOptions | None = field(default=None, compare=False, repr=False)
    """How the store is reached; None: as ``pea.storage.configure`` was told."""

    @classmethod
    def parse(cls, text: str | Path | Location) -> Location:
        """The location that a path or a URL names.

        Raises:
            LocationError: an unknown scheme, a malformed URL, or one that holds credentials.
        """
        return text if isinstance(text, Location) else cls(*parse_url(str(text)))

    def __str__(self) -> str:
        if self.is_local:
            return self.key
        return f"{self.scheme}://{self.bucket}" + (f"/{self.key}" if self.key else "")

    def __repr__(self) -> str:
        return f"Location({str(self)!r})"

    def __fspath__(self) -> str:
        return str(self.local_path)

    def __reduce__(self) -> tuple[Any, ...]:
        options = None if self.is_local else self._options
        return Location, (self.scheme, self.bucket, self.key, options)

    @property
    def is_local(self) -> bool:
        """Whether it is a path on a disk."""
        return self.scheme == "file"

    @property
    def local_path(self) -> Path:
        """The path on the disk.

        Raises:
            LocationError: it is not on a disk.
        """
        if not self.is_local:
            raise LocationError("is not on a disk", where=self, expected="a local path")
        return Path(self.key)

    def __truediv__(self, name: str | Path) -> Location:
        if self.is_local:
            return self._at(str(Path(self.key) / name))
        if str(name).startswith("/"):
            raise LocationError("cannot go from a URL to an absolute path", where=self, got=name)
        return self._at(normal_key(f"{self.key}/{name}", str(self)))

    def below(self, name: str) -> Location:
        """What a *stored* name means: a place below this folder, links resolved, and nowhere else.

        Raises:
            LocationError: the name is absolute, climbs, is not in its plain form, or leads outside through a link.
        """
        plain = PurePosixPath(name)
        if str(plain) != name or plain.is_absolute() or ".." in plain.parts or not name.isprintable() or name == ".":
            raise LocationError("not a plain relative name", where=self, got=repr(name)[:200])
        place = self / name
        if self.is_local and not _leads_below(self.key, plain.parts):
            raise LocationError("the name leads out of the folder", where=self, got=repr(name)[:200])
        return place

    @property
    def name(self) -> str:
        """The last segment."""
        return self._pure.name

    @property
    def stem(self) -> str:
        """The last segment without its last suffix."""
        return self._pure.stem

    @property
    def suffix(self) -> str:
        """The last suffix of the last segment, with its dot."""
        return self._pure.suffix

    @property
    def parent(self) -> Location:
        """The folder that it is in; a bucket is its own parent."""
        return self._at(str(Path(self.key).parent) if self.is_local else self.key.rpartition("/")[0])

    def with_name(self, name: str) -> Location:
        """Another name in the same folder."""
        return self.parent / name

    def relative_to(self, folder: Location) -> str:
        """The path from a folder above to here.

        Raises:
            ValueError: it is not below that folder.
        """
        if (self.scheme, self.bucket) != (folder.scheme, folder.bucket):
            raise LocationError("is not below the folder", where=self, got=folder)
        return str(self._pure.relative_to(folder._pure))

    def resolve(self) -> Location:
        """The same place as an absolute path with links resolved; a URL is that already."""
        return self._at(str(Path(self.key).resolve())) if self.is_local else self

    @property
    def _pure(self) -> PurePosixPath:
        return PurePosixPath(self.key)

    def _at(self, key: str) -> Location:
        return Location(self.scheme, self.bucket, key, self.options)

    @property
    def _options(self) -> StorageOptions:
        return self.options or options_for(str(self))

    @property
    def _stored(self) -> DiskFile | StoredObject:
        if self.is_local:
            return DiskFile(Path(self.key))
        from pea.storage.clients import Bucket
        from pea.storage.objects import StoredObject

        return StoredObject(Bucket(self.scheme, self.bucket, self._options), self.key)

    # Reading. Every method raises StorageError, or a class below it: LocationMissingError (a FileNotFoundError),
    # AccessDeniedError (a PermissionError), ContentChangedError; DiskFullError when it writes.

    def exists(self) -> bool:
        """Whether there is a file, an object or a folder."""
        return self._stored.exists()

    def is_folder(self) -> bool:
        """Whether it is a folder, or something is stored below this URL."""
        return self._stored.is_folder()

    def status(self) -> Status:
        """Size, version and time of a file or object."""
        return self._stored.status()

    def read_bytes(self, start: int = 0, stop: int | None = None) -> bytes:
        """The content, or the part of it from ``start`` to before ``stop``."""
        return self._stored.read(start, stop)

    def read_text(self) -> str:
        """The content as UTF-8."""
        return self.read_bytes().decode()

    def open_stream(self) -> BinaryIO:
        """A seekable stream over the content, in bounded memory, which goes on after dropped connections.

        Reading raises ContentChangedError when the file or object is altered or replaced meanwhile.
        """
        return self._stored.open_stream()

    def entries(self, *, recursive: bool = False) -> Iterator[Entry]:
        """What is in the folder, by name, with sizes; recursive: only files, at any depth. Empty where nothing is."""
        return self._stored.entries(recursive)

    def list(self, *, recursive: bool = False) -> Iterator[Location]:
        """What is in the folder, as locations; see ``entries``."""
        return (self / entry.name for entry in self.entries(recursive=recursive))

    # Writing. When a method returns, what it wrote survives a power cut.

    def write_bytes(self, data: bytes) -> None:
        """Put a new content in place of the old one as a whole; folders are made as needed."""
        self._stored.write(data)

    def write_text(self, text: str) -> None:
        """``write_bytes`` of the text in UTF-8."""
        self.write_bytes(text.encode())

    def create_bytes(self, data: bytes) -> None:
        """Write a file or object that is not there yet; of several at the same time, one succeeds.

        Raises:
            LocationExistsError: (a FileExistsError) there is one.
        """
        self._stored.create(data)

    def write_pieces(self, pieces: Iterable[bytes]) -> None:
        """``write_bytes`` of a content that comes in pieces and may be larger than the memory."""
        self._stored.write_pieces(pieces)

    def delete(self) -> None:
        """Delete a file or object; harmless where none is."""
        self._stored.delete()

    def delete_tree(self) -> None:
        """Delete everything at and below; on a disk under a hidden name first. Harmless where nothing is.

        When it returns, a power cut brings nothing of it back.
        """
        self._stored.delete_tree()

    def make_durable(self) -> None:
        """Bring what other libraries wrote below this folder safely to the disk; objects are that already."""
        if self.is_local:
            fsync_tree(self.local_path)

    # For libraries.

    def zarr_store(self, *, read_only: bool = False) -> Any:
        """The folder as a zarr store."""
        from zarr.storage import LocalStore, ObjectStore

        if self.is_local:
            return LocalStore(self.local_path, read_only=read_only)
        from pea.storage.clients import Bucket, client

        return ObjectStore(client(Bucket(self.scheme, self.bucket, self._options), self.key), read_only=read_only)

    @property
    def is_read_by_tensorstore(self) -> bool:
        """Whether ``tensorstore_spec`` gives one."""
        return self.is_local or self.scheme in TENSORSTORE_SCHEMES

    def tensorstore_spec(self) -> dict[str, Any]:
        """The folder as a tensorstore kvstore specification.

        Raises:
            LocationError: tensorstore cannot read this store (Azure).
        """
        if self.is_local:
            return {"driver": "file", "path": os.path.abspath(self.key) + "/"}
        from pea.storage.clients import Bucket, tensorstore_bucket

        path = f"{self.key}/" if self.key else ""
        return {**tensorstore_bucket(Bucket(self.scheme, self.bucket, self._options)), "path": path}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        from pydantic_core import core_schema

        of_text = core_schema.no_info_after_validator_function(_validated, core_schema.str_schema(strict=True))
        of_object = core_schema.no_info_plain_validator_function(_validated)
        return core_schema.json_or_python_schema(
            json_schema=of_text,
            python_schema=of_object,
            serialization=core_schema.plain_serializer_function_ser_schema(str, return_schema=core_schema.str_schema()),
        )


def _leads_below(folder: str, names: tuple[str, ...]) -> bool:
    """Whether a path is below a folder when all links are resolved; one that leads in circles is nowhere.

    Where no name on the way is a link, nothing has to be resolved: opening a cache asks this for every file.
    """
    path = folder
    try:
        for name in names:
            path = f"{path}/{name}"
            if stat.S_ISLNK(os.lstat(path).st_mode):
                return Path(folder, *names).resolve().is_relative_to(Path(folder).resolve())
    except (FileNotFoundError, NotADirectoryError):
        return True  # there is nothing, and no link on the way to it
    except (OSError, RuntimeError):
        return False
    return True


def _validated(value: Any) -> Location:
    from pydantic_core import PydanticCustomError

    if not isinstance(value, str | Path | Location):
        raise PydanticCustomError("location", "not a path or URL")
    try:
        return Location.parse(value)
    except LocationError as error:
        raise PydanticCustomError("location", "{message}", {"message": str(error)}) from None
