"""What a whole cache amounts to: the sum of its parts' summaries, remembered for as long as no part changes.

A look at a large cache costs the reading of every completion record. ``totals.json`` keeps the sum together with a
fingerprint of what it was made from: the manifest, and size and version (inode and time of change, or ETag) of every
completion record, which are created once and never edited. If anything differs, all of them are read again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pea.cache import strict_json as must
from pea.cache.reader import Cache
from pea.cache.record_shape import CAPTION_TABLES, caption_tables
from pea.errors import PeaError, StorageError
from pea.storage.digests import canonical_json, sha256_text
from pea.storage.location import Location

FILE_NAME = "totals.json"
_VERSION = b"2"
"""Of how parts are added up: sums of another one are made anew."""
Totals = dict[str, Any]
_MOST_BYTES = 64 << 20
_count = must.count()
_counts = must.map_of(must.text(256), _count, 1 << 16)
_document = must.fields(
    {
        "fingerprint": must.text(64),
        "sha256": must.text(64),
        "totals": must.fields(
            {
                **dict.fromkeys(("parts", "tars", "samples", "records", "caption_dropped", "bytes"), _count),
                **dict.fromkeys(("languages", "buckets", "dropped", "dropped_later"), _counts),
                "arrays": must.map_of(must.text(1024), must.items(_count, _count), 1 << 16),
                "timesteps": must.list_of(_count, 1 << 16),
            },
            {"caption_tables": caption_tables},
        ),
    }
)


def totals(cache: Cache) -> Totals:
    """The sums over all finished parts, ready for JSON.

    ``parts``, ``tars``, ``samples``, ``records``, ``caption_dropped``, ``bytes``; by name ``languages``, ``buckets``,
    ``dropped`` (reasons; of the parts that hold samples) and ``dropped_later`` (what the others left out beyond that),
    ``arrays`` (name -> [raw bytes, stored bytes]); ``timesteps``: records per bin; ``caption_tables``, where some were
    read: what became of their captions.

    Raises:
        ShardDamagedError: a completion record is damaged.
        IdentityError: a shard was made from something else than the manifest says.
    """
    fingerprint = _fingerprint(cache)
    found = _remembered(cache.directory, fingerprint)
    if found is None:
        found = _add_up(cache)
        _remember(cache.directory, fingerprint, found)
    return found


def intact(directory: Location) -> bool:
    """Whether ``totals.json`` is as it was written, or not there: it can be made anew."""
    path = directory / FILE_NAME
    return not path.exists() or _read(path) is not None


def _fingerprint(cache: Cache) -> str:
    """Changes whenever the manifest or a completion record does."""
    digest = hashlib.sha256(_VERSION + cache.identity.digest.encode())
    for plan, record in cache.newest_records():
        state = "none"
        if record is not None:
            status = record.status()
            state = f"{record.name} {status.size_bytes} {status.version}"
        digest.update(f"{plan.tar} {plan.part} {plan.draw_start} {plan.draw_stop} {state}\n".encode())
    return digest.hexdigest()


def _remembered(directory: Location, fingerprint: str) -> Totals | None:
    document = _read(directory / FILE_NAME)
    return document["totals"] if document and document["fingerprint"] == fingerprint else None


def _read(path: Location) -> dict[str, Any] | None:
    try:
        text = must.read_at_most(path, _MOST_BYTES).decode("utf-8")
        document: dict[str, Any] = must.parse(text)
        _document(document, "totals")
    except (StorageError, ValueError):
        return None
    return document if text == _to_text(document["fingerprint"], document["totals"]) else None


def _remember(directory: Location, fingerprint: str, found: Totals) -> None:
    """Write ``totals.json`` where that is possible; a cache that cannot be written does without."""
    with suppress(PeaError):
        (directory / FILE_NAME).write_text(_to_text(fingerprint, found))


def _to_text(fingerprint: str, found: Totals) -> str:
    seal = sha256_text(fingerprint + canonical_json(found))
    return canonical_json({"fingerprint": fingerprint, "totals": found, "sha256": seal}) + "\n"


def _add_up(cache: Cache) -> Totals:
    """One part at a time: a large cache has more summaries than fit into memory at once."""
    sums: Counter[str] = Counter()
    names: dict[str, Counter[str]] = {name: Counter() for name in ("languages", "buckets", "dropped")}
    first, later = dict[str, Counter[str]](), dict[str, Counter[str]]()
    tables = Counter[str]()
    raw, stored, timesteps = Counter[str](), Counter[str](), Counter[int]()
    for part in cache.summaries():
        sums["parts"] += 1
        sums["bytes"] += part["num_bytes"]
        for name, (size, on_disk) in part["arrays"].items():
            raw[name] += size
            stored[name] += on_disk
        if part["kind"] == "whole":
            sums["tars"] += 1
            sums["samples"] += part["num_samples"]
            _add(names["languages"], part["languages"])
            tables.update(part.get("caption_tables", {}))
            _add(names["buckets"], {name: bucket["num_samples"] for name, bucket in part["buckets"].items()})
            _add(names["dropped"], part["dropped"])
        dropped: Counter[str] = Counter(part["dropped"])
        if part["kind"] == "whole":
            first[part["tar"]] = dropped
        elif dropped:
            later[part["tar"]] = later.get(part["tar"], Counter[str]()) | dropped
        if part["kind"] in ("whole", "draws"):
            sums["records"] += part["num_records"]
            sums["caption_dropped"] += part["num_caption_dropped"]
            _add(timesteps, dict(enumerate(part["timesteps"])))
    counted = ("parts", "tars", "samples", "records", "caption_dropped", "bytes")
    return {
        **{name: sums[name] for name in counted},
        **{name: dict(sorted(counts.items())) for name, counts in names.items()},
        "dropped_later": dict(sorted(_beyond(first, later).items())),
        "arrays": {name: [raw[name], stored[name]] for name in sorted(raw)},
        "timesteps": [timesteps[bin_] for bin_ in range(len(timesteps))],
        **({"caption_tables": {name: tables[name] for name in CAPTION_TABLES}} if tables else {}),
    }


def _beyond(first: Mapping[str, Counter[str]], later: Mapping[str, Counter[str]]) -> Counter[str]:
    """Tar -> reasons of its samples: what later parts left out, but for what the first one had left out already."""
    return sum((counts - first.get(tar, Counter()) for tar, counts in later.items()), Counter[str]())


def _add(total: Counter[Any], counts: Mapping[Any, int]) -> None:
    for name, count in counts.items():
        total[name] += count
