"""From a tar to a tar of the same name with some of its samples, under their own keys, so that their draws stay too."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_tools.corpus.part_writer import new_tar, sidecar_of
from data_tools.corpus.tar_items import TarSample, tar_samples
from pea.corpus.places import Tar
from pea.corpus.rules import JSON
from pea.corpus.tars import size_of
from pea.errors import CorpusError
from pea.foreign_text import file_name
from pea.storage.durable import write_text

FORMAT, FORMAT_VERSION = "pea-part", 1
RECORD_ENDING = ".part.json"
UNUSABLE = "unusable"
"""Reason of samples that no rule looks at, as their files cannot be read."""


@dataclass
class PartRecord:
    """What became of the samples of a tar: ``seen == kept + sum(dropped)``."""

    seen: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    notes: dict[str, Any] = field(default_factory=dict)
    """What whoever decides wants to find again after a break."""

    def add(self, other: PartRecord) -> None:
        """Count another part as well; its notes stay with it."""
        self.seen, self.kept = self.seen + other.seen, self.kept + other.kept
        self.dropped += other.dropped
        self.changes += other.changes


Decide = Callable[[TarSample, PartRecord], str | None]
"""Whether a sample is kept (None) or why not; may change its captions, and note things in the record."""


def rewrite_tar(tar: Tar, out: Path, settings: Mapping[str, Any], decide: Decide) -> tuple[PartRecord, bool]:
    """Write the tar of what is kept, unless that was done; returns what became of it, and whether it was there.

    Raises:
        CorpusError: the tar is damaged, or what is there was made otherwise or from another tar.
        DiskFullError: there is no room.
    """
    name = file_name(tar.name)
    target, place = out / f"{name}.tar", out / f"{name}{RECORD_ENDING}"
    if tar.location.is_local and tar.location.local_path.resolve() == target.resolve():
        raise CorpusError("the tar would be written over itself", where=target, remedy="Choose another --out.")
    made_of = {"settings": dict(settings), "source_bytes": size_of(tar)}
    if (found := _read(place, target, made_of)) is not None:
        return found, True
    record = PartRecord()
    with new_tar(target) as writer:
        for sample in tar_samples(tar):
            record.seen += 1
            before = json.dumps(sample.document.get("captions"))
            reason = UNUSABLE if sample.problem else decide(sample, record)
            if reason is not None:
                record.dropped[reason] += 1
                continue
            files = dict(sample.stored)
            if json.dumps(sample.document.get("captions")) != before:
                files[JSON] = json.dumps(sample.document, ensure_ascii=False).encode("utf-8", "backslashreplace")
            writer.add(sample.key, files)
            record.kept += 1
    assert record.seen == record.kept + record.dropped.total()
    counts = {"seen": record.seen, "kept": record.kept, "dropped": record.dropped, "changes": record.changes}
    said = {"format": FORMAT, "format_version": FORMAT_VERSION, **made_of, **counts, "notes": record.notes}
    write_text(place, json.dumps(said, ensure_ascii=False) + "\n")
    return record, False


def _read(place: Path, target: Path, made_of: Mapping[str, Any]) -> PartRecord | None:
    try:
        said = json.loads(place.read_text("utf-8"))
        found = PartRecord(
            said["seen"], said["kept"], Counter(said["dropped"]), Counter(said["changes"]), said["notes"]
        )
        same = {name: said[name] for name in made_of} == json.loads(json.dumps(made_of))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError("not a record of this", where=place, got=error, remedy="Delete it with its tar.") from None
    if not same:
        remedy = "Choose another --out, or delete it with its tar."
        raise CorpusError("this part was made otherwise, or from another tar", where=place, remedy=remedy)
    if found.kept and not (target.is_file() and sidecar_of(target).is_file()):
        raise CorpusError("the tar of a finished part is not there", where=target, remedy=f"Delete {place} as well.")
    return found
