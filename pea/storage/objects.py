"""Objects in buckets. obstore repeats requests, and goes on where an answer broke off, as ``RetryPolicy`` says."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import obstore
from obstore.exceptions import AlreadyExistsError, GenericError

from pea.errors import ContentChangedError, LocationError, LocationMissingError, StorageError
from pea.storage.clients import Bucket, ObjectStoreClient, client
from pea.storage.durable import is_temporary
from pea.storage.failures import translated
from pea.storage.status import Entry, Status
from pea.storage.streams import PieceStream

_DELETED_AT_ONCE = 1000
_PAST_THE_END = ("status code: 416", "Wanted range starting at")
_NO_TAG = "no ETag: "
_WRITER = "peawriter"  # Azure takes letters only
"""Metadata of a created object: who made it, so that a creator whose answer was lost knows its own object."""


@dataclass(frozen=True)
class StoredObject:
    """One key of a bucket; the empty key is the bucket itself."""

    bucket: Bucket
    key: str

    def __str__(self) -> str:
        return f"{self.bucket.scheme}://{self.bucket.name}/{self.key}"

    def exists(self) -> bool:
        """Whether there is a file or a folder."""
        if self.key:
            try:
                self.status()
            except LocationMissingError:
                pass
            else:
                return True
        return self.is_folder()

    def is_folder(self) -> bool:
        """Whether there is a folder."""
        with translated("cannot list", self):
            found = obstore.list(self._client, self.key or None, chunk_size=1)
            return any(True for page in found for _ in page)

    def status(self) -> Status:
        """Size, version and time."""
        self._needs_key()
        with translated("cannot read", self):
            return _status(obstore.head(self._client, self.key))

    def read(self, start: int, stop: int | None) -> bytes:
        """The bytes from ``start`` to before ``stop``, in one request."""
        self._needs_key()
        if stop is not None and stop <= start:
            self.status()
            return b""
        part = {"offset": start} if stop is None else (start, stop)
        options = {"range": part} if start or stop else None
        with translated("cannot read", self):
            try:
                return bytes(obstore.get(self._client, self.key, options=cast("Any", options)).bytes())
            except GenericError as error:
                if not any(sign in str(error) for sign in _PAST_THE_END):
                    raise
        return b""

    def open_stream(self) -> BinaryIO:
        """A seekable stream that notices a change of the content."""
        status = self.status()
        return io.BufferedReader(PieceStream(lambda start, stop: self._piece(status, start, stop), status.size_bytes))

    def _piece(self, status: Status, start: int, stop: int) -> Any:
        """Bytes ``start`` to ``stop`` of that version of the object, in a buffer."""
        options: dict[str, Any] = {"range": (start, stop)}
        if not status.version.startswith(_NO_TAG):
            options["if_match"] = f'"{status.version}"'
        with translated("cannot read", self):
            found = obstore.get(self._client, self.key, options=cast("Any", options))
            if _status(found.meta) != status:
                raise ContentChangedError("it changed while it was read", where=self, remedy="Run again.")
            piece = found.bytes()
        if len(piece) != stop - start:
            raise StorageError("cannot read", where=self, expected=f"{stop - start} bytes", got=len(piece))
        return piece

    def entries(self, recursive: bool) -> Iterator[Entry]:
        """What is in the folder, by name."""
        for entry in self._entries(recursive):
            if entry.name and not is_temporary(entry.name.rpartition("/")[2]) and not self._is_marker(entry):
                yield entry

    def _is_marker(self, entry: Entry) -> bool:
        """Whether it is one of the empty objects with a slash at the end that consoles show as folders."""
        if entry.status is None or entry.status.size_bytes > 0:
            return False
        try:
            StoredObject(self.bucket, f"{self.key}/{entry.name}".lstrip("/")).status()
        except LocationMissingError:
            return True
        return False

    def _entries(self, recursive: bool) -> Iterator[Entry]:
        prefix = f"{self.key}/" if self.key else ""
        with translated("cannot list", self):
            if recursive:
                for page in obstore.list(self._client, prefix or None, chunk_size=_DELETED_AT_ONCE):
                    yield from (Entry(meta["path"].removeprefix(prefix), _status(meta)) for meta in page)
                return
            found = obstore.list_with_delimiter(self._client, prefix or None)
        entries = [Entry(meta["path"].removeprefix(prefix), _status(meta)) for meta in found["objects"]]
        entries += [Entry(name.removeprefix(prefix).rstrip("/"), None) for name in found["common_prefixes"]]
        yield from sorted(entries, key=lambda entry: entry.name)

    def write(self, data: bytes) -> None:
        """Replace the content as a whole."""
        self._needs_key()
        with translated("cannot write", self):
            obstore.put(self._client, self.key, data)

    def create(self, data: bytes) -> None:
        """Write a new object. Tries after an answer was lost may meet the object that the first one made."""
        self._needs_key()
        writer = uuid.uuid4().hex
        with translated("cannot write", self):
            try:
                obstore.put(self._client, self.key, data, mode="create", attributes={_WRITER: writer})
            except AlreadyExistsError:
                if not self._was_made_by(writer):
                    raise

    def _was_made_by(self, writer: str) -> bool:
        try:
            found = obstore.get(self._client, self.key, options={"head": True})
        except FileNotFoundError:
            return False
        return found.attributes.get(_WRITER) == writer

    def write_pieces(self, pieces: Iterable[bytes]) -> None:
        """Replace the content as a whole by one that comes in pieces."""
        self._needs_key()
        with translated("cannot write", self):
            obstore.put(self._client, self.key, iter(pieces))

    def delete(self) -> None:
        """Delete the file; harmless where none is."""
        self._needs_key()
        with translated("cannot delete", self):
            try:
                obstore.delete(self._client, self.key)
            except FileNotFoundError:
                return

    def delete_tree(self) -> None:
        """Delete everything at and below."""
        if not self.key:
            raise LocationError("refuses to delete a whole bucket", where=self)
        with translated("cannot delete", self):
            for page in obstore.list(self._client, f"{self.key}/", chunk_size=_DELETED_AT_ONCE):
                obstore.delete(self._client, [meta["path"] for meta in page])
        self.delete()

    def _needs_key(self) -> None:
        if not self.key:
            raise LocationError("names a bucket and nothing in it", where=self)

    @property
    def _client(self) -> ObjectStoreClient:
        return client(self.bucket)


def _status(meta: obstore.ObjectMeta) -> Status:
    """Listings of Azure leave out the quotes of an ETag, so they are left out everywhere."""
    tag = meta["e_tag"]
    version = tag.strip('"') if tag else f"{_NO_TAG}{meta['size']}, {meta['last_modified'].isoformat()}"
    return Status(meta["size"], version, meta["last_modified"].timestamp())
