"""The images below a folder: what is there, what is none, and which file a table means by what it says."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

from pea.corpus.tables import is_table
from pea.errors import CorpusError

_EXTENSIONS_LISTED = (
    "jpg jpeg jpe jfif png webp gif bmp dib tif tiff jp2 j2k jpf jpx avif avifs heic heif heics hif jxl "
    "ppm pgm pbm pnm tga ico icns psd pcx sgi mpo apng qoi dng cr2 nef arw"
)
EXTENSIONS = frozenset(_EXTENSIONS_LISTED.split())
"""How files are named that are taken for images; whether they can be read is found out when they are."""
_CODE = re.compile(r"[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8})*")
CAPTION_EXTENSIONS = frozenset({"txt", "caption", "json"})


@dataclass
class ImageFiles:
    """Every file below a folder, by relative path; what is no image is counted by kind."""

    folder: Path
    paths: list[str] = field(default_factory=list)
    """Images, sorted as their names compare in NFC; as the file system spells them."""
    texts: set[str] = field(default_factory=set)
    """Files that may hold captions."""
    others: Counter[str] = field(default_factory=Counter)
    """Kind -> files that are no images."""
    used_texts: set[str] = field(default_factory=set)
    """Those of ``texts`` that were given as the captions of an image."""
    _by_name: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def find(cls, folder: Path) -> ImageFiles:
        """Look through a folder; links to files are followed, links to folders are not.

        Raises:
            CorpusError: there is no such folder, or one below it cannot be read.
        """
        if not folder.is_dir():
            raise CorpusError("no such folder", where=folder)
        found = cls(folder)
        for path in _walk(folder, found.others):
            found._add(path)
        found.paths.sort(key=lambda path: (_plain(path), path))
        for path in found.paths:
            for name in {*_spellings(path)}:
                found._by_name.setdefault(name, []).append(path)
        return found

    @cached_property
    def caption_codes(self) -> list[str]:
        """Languages of which some text file says that it is in them: ``zh`` of ``photo.zh.txt``."""
        names = (path.rpartition("/")[2].split(".") for path in self.texts)
        return sorted(
            {parts[-2] for parts in names if len(parts) > 2 and parts[-1] == "txt" and _CODE.fullmatch(parts[-2])}
        )

    @cached_property
    def _texts_by_name(self) -> dict[str, list[str]]:
        found = dict[str, list[str]]()
        for path in sorted(self.texts):
            found.setdefault(_plain(path).casefold(), []).append(path)
        return found

    @cached_property
    def _roots(self) -> tuple[str, ...]:
        return f"{self.folder.as_posix()}/", f"{self.folder.resolve().as_posix()}/", "./"

    @property
    def num_files(self) -> int:
        """Everything that was seen."""
        return len(self.paths) + len(self.texts) + self.others.total()

    def match(self, said: str) -> list[str]:
        """The images that a table can mean by a path, a name, a URL or a name without extension.

        A path that is exactly there is that one. Else the spellings are compared, the most exact first: Unicode form,
        capitals, folders, extension.
        """
        plain = _plain(_relative(said, self._roots))
        if plain.strip("/") == "":
            return []
        names = (f"path {_plain(said)}", f"path {plain}", f"path {plain.casefold()}", *_loose(plain))
        for name in dict.fromkeys(names):
            if found := self._by_name.get(name):
                exact = [path for path in found if path == said]
                of_this_name = [path for path in found if _name(plain) in (_name(path), _name(path).rpartition(".")[0])]
                return exact or of_this_name or found
        return []

    def texts_beside(self, stem: str, language: str | None) -> Iterator[tuple[str, str | None]]:
        """(File, its language) of the texts of an image without its extension; those of a json are named in it.

        One of another Unicode form or capitals is that of the image where neither has a nearer one.
        """
        endings = [("txt", language), ("caption", language), ("json", None)]
        for ending, code in (*endings, *((f"{code}.txt", code) for code in self.caption_codes)):
            found = f"{stem}.{ending}"
            if found not in self.texts:
                found = self._text_spelled_otherwise(stem, ending)
            if found:
                self.used_texts.add(found)
                yield found, code

    def _text_spelled_otherwise(self, stem: str, ending: str) -> str:
        folded = _plain(stem).casefold()
        texts = self._texts_by_name.get(f"{folded}.{ending.casefold()}", [])
        stems = {path.rpartition(".")[0] for path in self._by_name.get(f"stem {folded}", [])}
        alike = [each for each in stems if _plain(each).casefold() == folded]
        return texts[0] if len(texts) == len(alike) == 1 else ""

    def _add(self, path: str) -> None:
        name = path.rpartition("/")[2]
        extension = name.rpartition(".")[2].lower().strip() if "." in name else ""
        if name.startswith("._") or "__MACOSX" in path.split("/"):
            self.others["second halves of a Mac's files"] += 1
        elif name.startswith("."):
            self.others["hidden files"] += 1
        elif extension in EXTENSIONS:
            self.paths.append(path)
        elif extension in CAPTION_EXTENSIONS:
            self.texts.add(path)
        elif is_table(name):
            self.others["tables"] += 1
        else:
            self.others[f"files named .{extension}" if extension else "files without extension"] += 1


def _walk(folder: Path, others: Counter[str]) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise CorpusError("cannot read a folder", where=error.filename, got=error.strerror) from error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        for name in sorted(folders):
            if Path(parent, name).is_symlink():
                others["links to folders (not followed)"] += 1
        below = Path(parent).relative_to(folder).as_posix()
        yield from (names if below == "." else [f"{below}/{name}" for name in names])


def _plain(path: str) -> str:
    return unicodedata.normalize("NFC", path)


def _name(path: str) -> str:
    return _plain(path).rpartition("/")[2]


def _spellings(path: str) -> Iterator[str]:
    """Every name by which a file can be found, each kind by itself."""
    plain = _plain(path)
    yield f"path {plain}"
    yield f"path {plain.casefold()}"
    folded = plain.casefold()
    yield f"name {folded.rpartition('/')[2]}"
    stem = folded.rpartition(".")[0] or folded
    yield f"stem {stem}"
    yield f"stem {stem.rpartition('/')[2]}"


def _loose(plain: str) -> Iterator[str]:
    folded = plain.casefold()
    yield f"name {folded.rpartition('/')[2]}"
    yield f"stem {folded}"
    yield f"stem {folded.rpartition('/')[2]}"


def _relative(said: str, roots: Sequence[str]) -> str:
    """What a table says, as a path within the folder: without URL, backslashes and whatever leads to the folder."""
    said = said.strip()
    if "://" in said:
        return unquote(said.partition("://")[2].partition("?")[0].rpartition("/")[2])
    said = said.replace("\\", "/") if "/" not in said else said
    for root in roots:
        said = said.removeprefix(root)
    return said
