"""Captions that lie beside a corpus: a folder with one table for each tar, which the tars and their cache stay out of.

    captions-de/
      00000.jsonl      {"tar": "00000", "key": "000001", "captions": {"de": "..."}}
      00001.parquet    key, captions (by language)

A table is called as its tar is (``file_name`` of it, where that holds unusual letters). Of a sample with a caption in
the tar and one here, this one counts; so captions can be translated, cleaned or added without rewriting images, and a
cache gains a language without its teacher.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

from pea.corpus.captions import read_captions
from pea.corpus.reasons import BadSampleError
from pea.corpus.tables import open_table, table_stem
from pea.errors import CorpusError, LocationMissingError, StorageError
from pea.foreign_text import file_name
from pea.storage.location import Location

_MOST_OPEN = 8
_PIECE_BYTES = 1 << 20
BY_TAR = "by tar"
"""In the identity of a cache: each tar has a digest of its own of what was read beside it."""
ByKey = Mapping[str, Mapping[str, str]]
"""Key -> language -> caption."""


class CaptionTables:
    """The captions in some folders; where two have one of the same sample and language, the last folder's counts."""

    def __init__(self, folders: Sequence[str | Location], *, without: Collection[str] = ()) -> None:
        """``without``: languages that are passed over.

        Raises:
            CorpusError: there is no such folder, or no table in it.
        """
        self._without = frozenset(without)
        self._tables: dict[str, list[Location]] = {}
        for folder in folders:
            for stem, table in _tables_in(Location.parse(folder)).items():
                self._tables.setdefault(stem, []).append(table)
        self.folders = tuple(str(folder) for folder in folders)

    def has(self, tar: str) -> bool:
        """Whether there is a table for a tar."""
        return file_name(tar) in self._tables

    def places(self, tar: str) -> Sequence[Location]:
        """The tables of a tar."""
        return tuple(self._tables.get(file_name(tar), ()))

    def of_tar(self, tar: str) -> ByKey:
        """The captions of a tar by key; those of a few tars stay in memory.

        Raises:
            CorpusError: a table cannot be read.
        """
        return _read(self, tar)

    def texts(self, tar: str, language: str, keys: Sequence[str], stored: Sequence[str]) -> list[str]:
        """The captions of some samples of a tar: those that are here, else the stored ones; empty where there is none.

        Raises:
            CorpusError: the table of the tar cannot be read.
        """
        if language in self._without or not self.has(tar):
            return list(stored)
        found = self.of_tar(tar)
        none: Mapping[str, str] = {}
        return [found.get(key, none).get(language) or text for key, text in zip(keys, stored, strict=True)]

    def beside(self, tar: str, language: str) -> CaptionsBeside:
        """The captions of a tar in one language, for one pass over it.

        Raises:
            CorpusError: the table of the tar cannot be read.
        """
        found = self.of_tar(tar) if self.has(tar) else {}
        return CaptionsBeside(language, {key: texts[language] for key, texts in found.items() if language in texts})

    def digest_of(self, tar: str, language: str) -> str | None:
        """What identifies the captions of a tar in one language, sha256; None where there are none.

        Raises:
            CorpusError: the table of the tar cannot be read.
        """
        return self.beside(tar, language).digest

    def languages(self, tar: str) -> list[str]:
        """Languages of the captions of a tar.

        Raises:
            CorpusError: the table of the tar cannot be read.
        """
        found = self.of_tar(tar) if self.has(tar) else {}
        return sorted({language for texts in found.values() for language in texts} - self._without)

    def digest(self, tars: Collection[str] | None = None) -> str:
        """What identifies all that is in the tables, or those of some tars: sha256, and the languages passed over."""
        sha256 = hashlib.sha256(",".join(sorted(self._without)).encode())
        stems = self._tables.keys() if tars is None else {file_name(tar) for tar in tars} & self._tables.keys()
        for stem, tables in ((stem, self._tables[stem]) for stem in sorted(stems)):
            for table in tables:
                sha256.update(f"\0{stem}\0{table.status().size_bytes}\0".encode())
                with table.open_stream() as stream:
                    while piece := stream.read(_PIECE_BYTES):
                        sha256.update(piece)
        return sha256.hexdigest()

    def read(self, tar: str) -> ByKey:
        """As ``of_tar``, from the tables.

        Raises:
            CorpusError: a table cannot be read.
        """
        found: dict[str, dict[str, str]] = {}
        for table in self.places(tar):
            for row in open_table(table).rows():
                key, said = row.text("key"), row.text("tar")
                if key is None or said not in (None, tar):
                    raise CorpusError("a row of another tar, or of no sample", where=row, expected=f"a key of {tar}")
                try:
                    texts = read_captions(row.values, {"*": "captions"}, (), set())
                except BadSampleError as bad:
                    raise CorpusError("a caption that is none", where=row, got=bad.detail) from None
                found.setdefault(key, {}).update(texts)
        return found


class CaptionsBeside:
    """Captions of one tar and language that count before those of its jsons, and what became of them."""

    def __init__(self, language: str, texts: Mapping[str, str]) -> None:
        """``texts``: by key."""
        self.language, self._texts = language, texts
        self._seen: set[str] = set()
        self._without = 0

    @property
    def digest(self) -> str | None:
        """What identifies them, sha256; None where there are none."""
        if not self._texts:
            return None
        sha256 = hashlib.sha256(self.language.encode())
        for key, text in sorted(self._texts.items()):
            for word in (key, text):
                data = word.encode()
                sha256.update(len(data).to_bytes(8, "big") + data)
        return sha256.hexdigest()

    def see(self, key: str) -> None:
        """The tar has a sample of that key."""
        if key in self._texts:
            self._seen.add(key)
        else:
            self._without += 1

    def captions(self, key: str) -> Mapping[str, str]:
        """Language -> caption of a sample; empty where there is none."""
        return {self.language: self._texts[key]} if key in self._texts else {}

    @property
    def counts(self) -> dict[str, int]:
        """Of the keys that were seen, how many are here and how many are not; and captions of keys that were not."""
        unused = len(self._texts) - len(self._seen)
        found = {"of_samples": len(self._seen), "missing": self._without, "of_no_sample": unused}
        return found if self._texts else {}


@lru_cache(maxsize=_MOST_OPEN)
def _read(tables: CaptionTables, tar: str) -> ByKey:
    return tables.read(tar)


def _tables_in(folder: Location) -> dict[str, Location]:
    """Stem -> table."""
    remedy = "Make it of any table: `pea data captions TABLE --corpus TARS --out FOLDER`."
    try:
        if not folder.is_folder():
            raise CorpusError("not a folder of caption tables", where=folder, remedy=remedy)
        found = {stem: each for each in folder.list() if (stem := table_stem(each.name)) is not None}
    except (LocationMissingError, StorageError) as error:
        raise CorpusError("cannot read the caption tables", where=folder, got=error) from error
    if not found:
        raise CorpusError("no caption table in the folder", where=folder, remedy=remedy)
    return found
