"""What a whole cache amounts to: the sum of its parts' summaries, remembered for as long as no part changes.

A look at a large cache costs the reading of every completion record. ``totals.json`` keeps the sum together with a
fingerprint of what it was made from: the manifest, and inode, size and times of change of every completion record,
which are published by renaming and never edited. If anything differs, all of them are read again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pea.cache.reader import Cache
from pea.errors import PeaError
from pea.storage.digests import canonical_json, sha256_text
from pea.storage.durable import atomic_write

FILE_NAME = "totals.json"
Totals = dict[str, Any]


def totals(cache: Cache) -> Totals:
    """The sums over all finished parts, ready for JSON.

    ``parts``, ``tars``, ``samples``, ``records``, ``caption_dropped``, ``bytes``; by name ``languages``, ``buckets``,
    ``dropped`` (reasons; of the parts that hold samples) and ``dropped_later`` (of the others), ``arrays`` (name ->
    [raw bytes, stored bytes]); ``timesteps``: records per bin.

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


def intact(directory: Path) -> bool:
    """Whether ``totals.json`` is as it was written, or not there: it can be made anew."""
    try:
        document = json.loads((directory / FILE_NAME).read_text(encoding="utf-8"))
        return _remembered(directory, document["fingerprint"]) is not None
    except FileNotFoundError:
        return True
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _fingerprint(cache: Cache) -> str:
    """Changes whenever the manifest or a completion record does."""
    digest = hashlib.sha256(cache.identity.digest.encode())
    shards = cache.directory / "shards"
    for plan in cache.manifest.parts:
        name = f"{plan.tar}/{plan.part}.json"
        try:
            status = os.stat(f"{shards}/{name}")
        except OSError:
            digest.update(f"{name}\n".encode())
        else:
            state = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            digest.update(f"{name} {plan.draw_start} {plan.draw_stop} {state}\n".encode())
    return digest.hexdigest()


def _remembered(directory: Path, fingerprint: str) -> Totals | None:
    try:
        text = (directory / FILE_NAME).read_text(encoding="utf-8")
        document = json.loads(text)
        found: Totals = document["totals"]
        return found if text == _to_text(fingerprint, found) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(directory: Path, fingerprint: str, found: Totals) -> None:
    """Write ``totals.json`` where that is possible; a cache on a read-only disk does without."""
    with suppress(OSError, PeaError):
        atomic_write(directory / FILE_NAME, _to_text(fingerprint, found).encode())


def _to_text(fingerprint: str, found: Totals) -> str:
    seal = sha256_text(fingerprint + canonical_json(found))
    return canonical_json({"fingerprint": fingerprint, "totals": found, "sha256": seal}) + "\n"


def _add_up(cache: Cache) -> Totals:
    """One part at a time: a large cache has more summaries than fit into memory at once."""
    sums: Counter[str] = Counter()
    names: dict[str, Counter[str]] = {name: Counter() for name in ("languages", "buckets", "dropped", "dropped_later")}
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
            _add(names["buckets"], {name: bucket["num_samples"] for name, bucket in part["buckets"].items()})
        _add(names["dropped" if part["kind"] == "whole" else "dropped_later"], part["dropped"])
        if part["kind"] != "blocks":
            sums["records"] += part["num_records"]
            sums["caption_dropped"] += part["num_caption_dropped"]
            _add(timesteps, dict(enumerate(part["timesteps"])))
    counted = ("parts", "tars", "samples", "records", "caption_dropped", "bytes")
    return {
        **{name: sums[name] for name in counted},
        **{name: dict(sorted(counts.items())) for name, counts in names.items()},
        "arrays": {name: [raw[name], stored[name]] for name in sorted(raw)},
        "timesteps": [timesteps[bin_] for bin_ in range(len(timesteps))],
    }


def _add(total: Counter[Any], counts: Mapping[Any, int]) -> None:
    for name, count in counts.items():
        total[name] += count
