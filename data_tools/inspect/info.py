"""``pea inspect info``: the facts about a cache, from its manifest and the summaries of its shards alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_tools.tables import human_bytes, table
from pea.cache import Cache
from pea.cache.certificate import read_certificate
from pea.cache.manifest import read_manifest
from pea.cache.schema import TIMESTEPS_PER_BIN, block_of
from pea.cache.totals import totals
from pea.errors import CacheError
from pea.foreign_text import visible
from pea.plurals import count_of
from pea.storage.location import Location

Facts = dict[str, Any]
_CARD_LANGUAGES = 12
_BAR = " ▁▂▃▄▅▆▇█"


def collect(directory: str | Path | Location) -> Facts:
    """Everything that ``info`` can tell, ready for JSON.

    Raises:
        CacheError: the manifest or a summary is damaged.
    """
    cache = Cache(directory, read_manifest(directory))
    found = totals(cache)
    kept, records, num_dropped = found["samples"], found["records"], sum(found["dropped"].values())
    return {
        "directory": str(cache.directory),
        "complete": found["parts"] == len(cache.manifest.parts),
        "shards": {"finished": found["parts"], "all": len(cache.manifest.parts)},
        "samples": {
            "kept": kept,
            "dropped": num_dropped,
            "dropped_share": _share(num_dropped, kept + num_dropped),
            "reasons": found["dropped"],
            "removed": len(cache.removed()),
        },
        "records": {
            "all": records,
            "per_sample": cache.draws_per_sample,
            "caption_dropped": found["caption_dropped"],
            "caption_dropped_share": _share(found["caption_dropped"], records),
        },
        "languages": found["languages"],
        **({"caption_tables": found["caption_tables"]} if "caption_tables" in found else {}),
        "buckets": found["buckets"],
        "bytes": _bytes(found["arrays"], found["bytes"], records, kept),
        "timesteps": {"bin_width": TIMESTEPS_PER_BIN, "counts": found["timesteps"]},
        "certificate": _certificate(cache),
        **({"cards": [dict(card) for card in cache.manifest.cards]} if cache.manifest.cards else {}),
        "identity": dict(cache.identity.fields),
        "digest": cache.identity.digest,
    }


def _certificate(cache: Cache) -> Facts | None:
    found = read_certificate(cache.directory)
    if found is None:
        return None
    return {
        "passed": found.passed,
        "samples": len(found.samples),
        "largest_error": max((each["largest"] for each in found.errors.values()), default=0.0),
        "current": found.digest == cache.identity.digest,
        **found.environment,
    }


def card_line(card: Mapping[str, Any]) -> str:
    """A data card in one line, which a stranger may have written."""
    said = [f"{name}: {card[name]}" for name in ("licence", "source") if card[name]]
    counts = f"{card['num_usable']:,} of {card['num_samples']:,} samples usable, in {count_of(card['num_tars'], 'tar')}"
    languages = ", ".join(f"{name} {count:,}" for name, count in list(card["languages"].items())[:_CARD_LANGUAGES])
    return visible("; ".join([card["title"], *said, counts, languages]))


def _tables_line(counts: Mapping[str, int]) -> str:
    return (
        f"{count_of(counts['of_samples'], 'caption')} of samples; "
        f"{count_of(counts['missing'], 'sample')} that the tables lack, "
        f"{count_of(counts['of_no_sample'], 'caption')} of no sample"
    )


def lookup(facts: Facts, name: str) -> Any:
    """One value by dotted name; names inside may contain dots themselves.

    Raises:
        CacheError: there is no such value.
    """
    value: Any = facts
    rest = name
    while rest:
        if not isinstance(value, dict):
            break
        key = next(
            (key for key in sorted(value, key=len, reverse=True) if rest == key or rest.startswith(f"{key}.")), None
        )
        if key is None:
            break
        value, rest = value[key], rest[len(key) + 1 :]
    if rest:
        raise CacheError("no such value", got=name, expected="a dotted name of `info --json`")
    return value


def render(facts: Facts) -> str:
    """The facts as text."""
    samples, records, sizes = facts["samples"], facts["records"], facts["bytes"]
    shards = f"{facts['shards']['finished']} of {facts['shards']['all']} shards"
    reasons = "  ".join(f"{name} {count}" for name, count in samples["reasons"].items())
    lines = [
        ("cache", facts["directory"]),
        ("complete", f"{'yes' if facts['complete'] else 'NO'}, {shards}"),
        (
            "samples",
            f"{samples['kept']} kept, {samples['dropped']} dropped ({samples['dropped_share']:.2%})  {reasons}",
        ),
        ("removed", f"{samples['removed']} taken down") if samples["removed"] else None,
        *(("corpus", card_line(card)) for card in facts.get("cards", ())),
        ("buckets", _pairs(facts["buckets"])),
        ("captions", _pairs(facts["languages"])),
        ("from table", _tables_line(facts["caption_tables"])) if "caption_tables" in facts else None,
        ("records", _records_line(records)),
        ("size", _size_line(sizes)),
        ("timesteps", _timesteps_line(facts["timesteps"])) if records["all"] else None,
        ("verified", _certificate_line(facts["certificate"])) if facts["certificate"] else None,
    ]
    text = "\n".join(f"{line[0]:<10} {line[1]}".rstrip() for line in lines if line is not None)
    arrays = [
        [name, human_bytes(each["raw"]), human_bytes(each["stored"]), f"{each['raw'] / max(1, each['stored']):.2f}x",
         f"{each['stored'] / max(1, records['all'] or samples['kept']):.0f}"]
        for name, each in sizes["groups"].items()
    ]  # fmt: skip
    per = "B/record" if records["all"] else "B/sample"
    identity = "\n".join(f"  {name:<28} {_brief(value)}" for name, value in sorted(facts["identity"].items()))
    parts = [
        text,
        table(["stored", "raw", "on disk", "ratio", per], arrays),
        f"identity {facts['digest'][:16]}\n{identity}",
    ]
    return "\n\n".join(parts)


def _certificate_line(certificate: Facts) -> str:
    verdict = "agrees" if certificate["passed"] else "DIFFERS"
    stale = "" if certificate["current"] else "; the cache has grown since"
    error = f"{certificate['largest_error']:.2g}"
    samples, date = certificate["samples"], certificate["date"][:10]
    return f"{verdict} with the live teacher on {count_of(samples, 'sample')}, error {error}, {date}{stale}"


def _bytes(sizes: Mapping[str, Sequence[int]], stored: int, records: int, kept: int) -> Facts:
    arrays = {name: {"raw": raw, "stored": on_disk} for name, (raw, on_disk) in sizes.items()}
    groups: dict[str, Counter[str]] = {}
    for name, each in arrays.items():
        block = block_of(name)
        groups.setdefault(f"features/{block}" if block else name.partition("/")[0], Counter()).update(each)
    all_raw = sum(each["raw"] for each in groups.values())
    return {
        "stored": stored,
        "raw": all_raw,
        "per_record": _share(stored, records),
        "per_sample": _share(stored, kept),
        "compression": _share(all_raw, stored),
        "groups": {name: dict(each) for name, each in sorted(groups.items())},
        "arrays": arrays,
    }


def _timesteps_line(timesteps: Facts) -> str:
    counts = timesteps["counts"]
    bars = "".join(_BAR[round(count / max(counts) * (len(_BAR) - 1))] for count in counts)
    return f"{bars}  {min(counts)} to {count_of(max(counts), 'record')} per {count_of(timesteps['bin_width'], 'step')}"


def _records_line(records: Facts) -> str:
    if not records["all"]:
        return "none (a cache without a teacher)"
    share = records["caption_dropped_share"]
    return f"{records['all']} ({count_of(records['per_sample'], 'draw')} per sample), {share:.1%} without caption"


def _size_line(sizes: Facts) -> str:
    per = f"{human_bytes(sizes['per_record'])} per record" if sizes["per_record"] else ""
    each = per or f"{human_bytes(sizes['per_sample'])} per sample"
    return f"{human_bytes(sizes['stored'])}, {each}, compressed {sizes['compression']:.2f}x"


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _pairs(counts: Mapping[str, int]) -> str:
    return "  ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def _brief(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict) and "sha256" in value[0]:
        return f"{count_of(len(value), 'tar')}, {human_bytes(sum(each['size_bytes'] for each in value))}"
    if isinstance(value, str) and len(value) == 64:
        return value[:16]
    text = str(value)
    return text if len(text) <= 90 else text[:87] + "..."
